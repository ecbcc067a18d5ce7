import { Fault } from "../../errors.ts";
import {
  type Certificate,
  type CertificateSignature,
  certificateHash,
  type SignedCertificate,
  verifyCertificate,
} from "../../protocol/federation/certificate.ts";
import { requestSigner } from "../../protocol/federation/credentials.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import { type SignedDecision, signDecision } from "../../protocol/federation/request.ts";
import { ask, everyone, isAbsent, urlOf } from "./answers.ts";
import { settledElsewhere } from "./drive.ts";
import type { Ground } from "./ground.ts";
import type { HeldRequest } from "./held.ts";

/** A certificate that enough servers have signed and the owner has not accepted yet. */
export interface Agreed {
  readonly certificate: Certificate;
  readonly signatures: readonly CertificateSignature[];
}

/** The manifest of an epoch. @throws Fault integrity for one that this device has not pinned */
export function manifestAt({ manifests }: Pick<Ground, "manifests">, epoch: number): Manifest {
  const found = manifests.find((m) => m.epoch === epoch);
  if (found) return found;
  throw new Fault("integrity", "this certificate belongs to an epoch that is not pinned here");
}

/**
 * Accepts a certificate for good: the decision is on disk before anybody hears of it, and whatever was decided before
 * stands (docs/protocol.md §8.3). Puts the key in the vault, tells every server, and owes it to those who are absent.
 *
 * @returns the decided request, and how many holders have heard it.
 * @throws Fault conflict where it was cancelled
 */
export async function accept(
  ground: Ground,
  held: HeldRequest,
  agreed: Agreed,
): Promise<{ readonly signed: SignedCertificate; readonly told: readonly number[] }> {
  const { fleet, secret } = ground;
  const { certificate, signatures } = agreed;
  const signer = requestSigner(secret, fleet.manifest.federationId);
  const decided = await ground.keeping.changeRequest(held.requestId, (now) => {
    if (now === null) throw settledElsewhere(held.requestId);
    if (now.decision !== null) return now;
    const acceptance = signDecision(signer, {
      requestId: held.requestId,
      verdict: "accept",
      attempt: certificate.attempt,
      certificateHash: certificateHash(certificate),
    });
    const signed = { certificate, signatures, acceptance };
    verifyCertificate(signed, manifestAt(ground, certificate.epoch));
    return { ...now, decision: acceptance, certificate: signed, owed: everyone(fleet) };
  });
  if (!decided?.decision) throw settledElsewhere(held.requestId);
  return settle(ground, decided);
}

/**
 * Finishes what was decided: the key's entry first, then word to every server that has not heard.
 *
 * @throws Fault conflict for a cancelled request
 */
export async function settle(
  ground: Ground,
  held: HeldRequest,
): Promise<{ readonly signed: SignedCertificate; readonly told: readonly number[] }> {
  const signed = held.certificate;
  if (held.decision?.decision.verdict !== "accept" || signed === null) {
    throw new Fault("conflict", "this request was cancelled", { requestId: held.requestId });
  }
  await keepKey(ground, held, signed);
  const owed = await deliver(ground, held);
  return { signed, told: everyone(ground.fleet).filter((index) => !owed.includes(index)) };
}

/** Bytes of one share in the material of an import. */
export const SHARE_BYTES = 32;

/** Puts what an accepted request has made into the vault; again is the same. */
async function keepKey(ground: Ground, held: HeldRequest, signed: SignedCertificate): Promise<void> {
  const { keyId, federationId, generation } = signed.certificate;
  const { nonce } = held.request.request;
  await ground.keeping.changeKey(keyId, (before) => {
    if (before !== null && before.certificate.certificate.generation >= generation) return before;
    if (before !== null) return { ...before, certificate: signed };
    const self = signed.certificate.custody === "self";
    return {
      name: held.name,
      federationId,
      keyId,
      certificate: signed,
      nonce: self ? nonce : null,
      released: false,
      sealed: null,
    };
  });
}

/**
 * Cancels a request for good, unless it is accepted already.
 *
 * @throws Fault conflict
 */
export async function cancel(ground: Ground, held: HeldRequest): Promise<readonly number[]> {
  const signer = requestSigner(ground.secret, ground.fleet.manifest.federationId);
  const decided = await ground.keeping.changeRequest(held.requestId, (now) => {
    if (now === null) throw settledElsewhere(held.requestId);
    if (now.decision?.decision.verdict === "accept") {
      throw new Fault("conflict", "this request is accepted already", { requestId: held.requestId });
    }
    if (now.decision !== null) return now;
    const decision = signDecision(signer, {
      requestId: held.requestId,
      verdict: "cancel",
      attempt: 0,
      certificateHash: null,
    });
    return { ...now, decision, material: null, owed: everyone(ground.fleet) };
  });
  if (decided === null) throw settledElsewhere(held.requestId);
  return deliver(ground, decided);
}

/** Tells a decision to the servers that have not heard it; gives those who still have not. The last one ends it. */
export async function deliver(ground: Ground, held: HeldRequest): Promise<readonly number[]> {
  const { decision } = held;
  if (decision === null) return held.owed;
  const told = await Promise.all(
    held.owed.map(async (index) => ((await tell(ground, held, decision, index)) ? [index] : [])),
  );
  const heard = new Set(told.flat());
  const left = await ground.keeping.changeRequest(held.requestId, (now) => {
    if (now === null) return null;
    const owed = now.owed.filter((index) => !heard.has(index));
    return owed.length === 0 ? null : { ...now, owed };
  });
  return left?.owed ?? [];
}

/** True once a server has the decision, or has refused it for good. */
async function tell(ground: Ground, held: HeldRequest, decision: SignedDecision, index: number): Promise<boolean> {
  const { fleet } = ground;
  const { certificate } = held;
  const first = await ask(fleet, index, "federation.decide", { decision, certificate });
  if (first.fault === null) return true;
  if (isAbsent(first.fault)) return false;
  if (certificate === null) return true;
  // it never saw the request: the certificate alone is what it needs
  const second = await ask(fleet, index, "federation.inform", { certificate, erasures: [] });
  if (second.fault === null) return true;
  if (isAbsent(second.fault)) return false;
  ground.notice(`${urlOf(fleet.manifest, index)} does not take the certificate: ${second.fault.message}`);
  return true;
}

/** Brings decisions to servers that were absent when they were made: on each next contact. */
export async function deliverOwed(ground: Ground): Promise<void> {
  for (const held of ground.keeping.requests()) {
    if (held.federationId !== ground.fleet.manifest.federationId || held.decision === null) continue;
    // the vault may have been killed between the decision and the key
    if (held.certificate !== null) await settle(ground, held);
    else await deliver(ground, held);
  }
}
