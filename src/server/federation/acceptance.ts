import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId } from "../../ids.ts";
import {
  type Certificate,
  certificateHash,
  type ImportedValue,
  keyIdOf,
  type SignedCertificate,
  verifyCertificate,
} from "../../protocol/federation/certificate.ts";
import { type Manifest, rosterMin } from "../../protocol/federation/manifest.ts";
import {
  coordinatorOf,
  decisionBytes,
  type FederatedRequest,
  type ImportBody,
  type SignedDecision,
  valueHash,
} from "../../protocol/federation/request.ts";

const foreign = (what: string) => new Fault("integrity", `this certificate is not this request's: ${what}`);
const sameOrNull = (a: Uint8Array | null, b: Uint8Array | null) => (a && b ? equalBytes(a, b) : a === b);
const sameValue = (a: ImportedValue | null, b: ImportedValue | null) =>
  a && b ? a.requestId === b.requestId && equalBytes(a.hash, b.hash) : a === b;
const sameIndices = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((index, i) => index === b[i]);

/** Holders of an import: of those whom the owner dealt to the ones that were there (docs/protocol.md §8.5). */
const areEnough = (holders: readonly number[], { holders: dealt, threshold }: ImportBody) =>
  holders.every((index) => dealt.includes(index)) && holders.length >= rosterMin(dealt.length, threshold);

/** What a key keeps for good, whatever happens to its shares. @throws Fault integrity */
export function demandSameKey(before: Certificate, c: Certificate): void {
  const same =
    c.keyId === before.keyId &&
    c.federationId === before.federationId &&
    equalBytes(c.owner, before.owner) &&
    c.type === before.type &&
    c.length === before.length &&
    c.custody === before.custody &&
    c.control === before.control &&
    c.origin === before.origin &&
    c.policy === before.policy &&
    equalBytes(c.publicKey, before.publicKey) &&
    sameValue(c.value, before.value) &&
    sameOrNull(c.untweaked, before.untweaked) &&
    sameOrNull(c.ownerPoint, before.ownerPoint);
  if (!same) throw foreign("it is another key's");
}

/** A key's first certificate: its id is derived, and nothing came before it. @throws Fault integrity */
export function demandFirst(c: Certificate): void {
  const { federationId, requestId, attempt, transcript, publicKey, generation, predecessor } = c;
  if (generation !== 0 || predecessor !== null) throw foreign("a new key has no generation before it");
  if (c.keyId !== keyIdOf(federationId, requestId, attempt, transcript, publicKey))
    throw foreign("its id is not its own");
}

/**
 * Compares a verified certificate with what was asked for.
 *
 * @param before The key's newest certificate here, of a reshare; null where this server knows none.
 * @throws Fault integrity
 */
export function demandAsked(
  request: FederatedRequest,
  manifest: Manifest,
  c: Certificate,
  before: Certificate | null,
): void {
  const { body } = request;
  if (
    !equalBytes(c.owner, coordinatorOf(request)) ||
    c.federationId !== request.federationId ||
    c.epoch !== request.epoch
  )
    throw foreign("owner, federation or epoch differ");
  if (c.commitments.length !== c.threshold) throw foreign("it has not one commitment for each share of the threshold");
  switch (body.kind) {
    case "sign":
    case "release":
      throw new Fault("bad_input", "the use of a key makes no certificate");
    case "reshare": {
      if (c.keyId !== body.keyId || c.generation !== body.generation + 1) throw foreign("it is of another generation");
      if (c.threshold !== body.threshold || !sameIndices(c.holders, body.holders)) throw foreign("its holders differ");
      if (!before) return;
      demandSameKey(before, c);
      const follows =
        before.generation !== body.generation ||
        (c.predecessor !== null && equalBytes(c.predecessor, certificateHash(before)));
      if (!follows) throw foreign("it does not follow the key's newest certificate");
      return;
    }
    case "generate":
    case "import": {
      demandFirst(c);
      const { type, length, custody, control, policy, owner } = body;
      const same = c.type === type && c.length === length && c.custody === custody && c.control === control;
      if (!same || c.policy !== policy || !sameOrNull(c.ownerPoint, owner?.point ?? null))
        throw foreign("type, custody, control or policy differ");
      const sealed = body.kind === "import" ? body.sealedValue : null;
      if (!sameValue(c.value, sealed && { requestId: c.requestId, hash: valueHash(sealed) }))
        throw foreign("its value differs");
      if (body.kind === "generate") {
        const enough = c.holders.length >= rosterMin(manifest.servers.length, manifest.threshold);
        if (c.origin !== "generated" || c.threshold !== manifest.threshold || !enough)
          throw foreign("its holders differ");
      } else if (c.origin !== body.origin || c.threshold !== body.threshold || !areEnough(c.holders, body))
        throw foreign("its holders differ");
    }
  }
}

/**
 * Verifies what an acceptance brings: the certificate, its signatures, and that it carries this very acceptance.
 *
 * @throws Fault bad_input, integrity
 */
export function demandAccepted(
  id: FederatedRequestId,
  decision: SignedDecision,
  signed: SignedCertificate | null,
  manifest: Manifest,
): Certificate {
  if (!signed) throw new Fault("bad_input", "an acceptance brings its certificate");
  const certificate = verifyCertificate(signed, manifest);
  const own = decisionBytes(signed.acceptance.decision);
  if (certificate.requestId !== id || !equalBytes(own, decisionBytes(decision.decision)))
    throw foreign("it carries another acceptance");
  return certificate;
}
