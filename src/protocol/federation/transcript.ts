import { equalBytes } from "../../crypto/bytes.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId } from "../../ids.ts";
import { isAddressed, judgeConfirm, payloadOf } from "./blame.ts";
import { type Certificate, type CertificateSignature, certificateHash, keyIdOf } from "./certificate.ts";
import { rosterMin } from "./manifest.ts";
import { type Culprit, messageHash, messageSignatureHolds, type SignedMessage } from "./message.ts";
import { type CeremonyPlan, type CeremonyTerms, planCeremony } from "./plan.ts";
import { coordinatorOf, type GenerateBody, type ImportBody, valueHash } from "./request.ts";

const BROADCASTS = ["commit", "echo", "complaint", "reveal"] as const;

/**
 * Hash over every broadcast message that made the key, by round and sender: 32 bytes.
 *
 * @param messages At most one of each sender and round.
 */
export function transcriptHash(plan: CeremonyPlan, messages: readonly SignedMessage[]): Uint8Array {
  const hashes = BROADCASTS.flatMap((round) =>
    messages
      .filter(({ message }) => message.payload.round === round)
      .toSorted((a, b) => a.message.from - b.message.from)
      .map(({ message }) => messageHash(message)),
  );
  return hashCanon("keyhold/v1/federation-transcript", plan.orderHash, hashes);
}

/** What the shares of a ceremony came to. */
export interface DealtKey {
  /** Commitments of the servers' polynomial, encoded. */
  readonly commitments: readonly Uint8Array[];
  /** Of a generated `schnorr` key: the first commitment before the tweak. */
  readonly untweaked: Uint8Array | null;
}

/** What a certificate says besides its ceremony; of a new key the id hangs on the transcript. */
type KeyFacts = Omit<
  Certificate,
  "keyId" | "federationId" | "epoch" | "requestId" | "attempt" | "commitments" | "threshold" | "holders" | "transcript"
> & { readonly keyId: FederatedKeyId | null };

/** @throws Fault bad_input */
function newKey(plan: CeremonyPlan, body: GenerateBody | ImportBody, dealt: DealtKey, first: Uint8Array): KeyFacts {
  const { group } = plan;
  const { type, length, custody, control, policy } = body;
  const ownerPoint = body.owner?.point ?? null;
  const sealed = body.kind === "import" ? body.sealedValue : null;
  return {
    keyId: null,
    owner: coordinatorOf(plan.request),
    type,
    length,
    custody,
    control,
    policy,
    origin: body.kind === "generate" ? "generated" : body.origin,
    publicKey: ownerPoint ? group.encodePoint(group.parsePoint(first).add(group.parsePoint(ownerPoint))) : first,
    untweaked: dealt.untweaked,
    ownerPoint,
    value: sealed && { requestId: plan.requestId, hash: valueHash(sealed) },
    generation: 0,
    predecessor: null,
  };
}

/** @throws Fault integrity where the key would change */
function nextGeneration(before: Certificate | null, first: Uint8Array): KeyFacts {
  const kept = before?.commitments[0];
  if (!before || !kept || !equalBytes(first, kept)) throw new Fault("integrity", "this resharing changes the key");
  return { ...before, generation: before.generation + 1, predecessor: certificateHash(before) };
}

/** The certificate that every honest server of the ceremony computes alike. @throws Fault bad_input, integrity */
export function certificateOf(plan: CeremonyPlan, dealt: DealtKey, transcript: Uint8Array): Certificate {
  const { body, before, request, requestId, attempt, threshold, receivers } = plan;
  const { federationId, epoch } = request;
  const { commitments } = dealt;
  const [first] = commitments;
  if (!first) throw new RangeError("a polynomial has coefficients");
  const facts = body.kind === "reshare" ? nextGeneration(before, first) : newKey(plan, body, dealt, first);
  const keyId = facts.keyId ?? keyIdOf(federationId, requestId, attempt, transcript, facts.publicKey);
  return {
    ...facts,
    keyId,
    federationId,
    epoch,
    requestId,
    attempt,
    commitments,
    threshold,
    holders: receivers,
    transcript,
  };
}

/** True when a certificate is one that this ceremony can have come to; who signed it is another question. */
export function belongsTo(plan: CeremonyPlan, certificate: Certificate): boolean {
  const { commitments, untweaked, transcript } = certificate;
  const { body, group } = plan;
  try {
    if (commitments.length !== plan.threshold) return false;
    for (const commitment of commitments) group.parsePoint(commitment);
    if (untweaked) group.parsePoint(untweaked);
    const generated = body.kind === "generate";
    if (generated && (untweaked !== null) !== (body.type === "schnorr")) return false;
    if (body.kind === "import" && !body.commitments.every((c, i) => equalBytes(c, commitments[i] ?? c.subarray(1))))
      return false;
    const expected = certificateOf(plan, { commitments, untweaked: generated ? untweaked : null }, transcript);
    return equalBytes(certificateHash(expected), certificateHash(certificate));
  } catch {
    return false;
  }
}

const holds = (plan: CeremonyPlan, m: SignedMessage) =>
  isAddressed(plan, m.message) && messageSignatureHolds(plan.manifest, m);

/** Signatures of the holders that confirmed this certificate and proved their shares of it, ascending by index. */
function confirmed(plan: CeremonyPlan, certificate: Certificate, messages: readonly SignedMessage[]) {
  const hash = certificateHash(certificate);
  const signatures = new Map<number, CertificateSignature>();
  for (const m of messages) {
    const confirm = payloadOf(m, "confirm");
    const { from } = m.message;
    if (!confirm || !equalBytes(confirm.certificateHash, hash) || !certificate.holders.includes(from)) continue;
    if (holds(plan, m) && judgeConfirm(plan.manifest, certificate, plan.group, m.message) === null)
      signatures.set(from, { index: from, signature: confirm.signature });
  }
  return [...signatures.values()].toSorted((a, b) => a.index - b.index);
}

/**
 * The one certificate that at least min(n, t + 1) of its holders have signed, and whose new shares they have proved;
 * null while there is none. The client accepts nothing else, and only once (docs/protocol.md §8.3).
 *
 * @param views Outcomes of the servers: what each says that it computed.
 * @param messages Of the attempt; only confirmations count.
 * @throws Fault bad_input where the terms are no ceremony's
 */
export function assembleCertificate(
  terms: CeremonyTerms,
  views: readonly { readonly certificate: Certificate }[],
  messages: readonly SignedMessage[],
): { readonly certificate: Certificate; readonly signatures: readonly CertificateSignature[] } | null {
  const plan = planCeremony(terms);
  const different = new Map(views.map(({ certificate }) => [certificateHash(certificate).toHex(), certificate]));
  for (const certificate of different.values()) {
    if (!belongsTo(plan, certificate)) continue;
    const signatures = confirmed(plan, certificate, messages);
    if (signatures.length >= rosterMin(certificate.holders.length, certificate.threshold))
      return { certificate, signatures };
  }
  return null;
}

/** Servers whose confirmation of this certificate carries a wrong signature or a wrong proof of their share. */
export function confirmCulprits(
  terms: CeremonyTerms,
  certificate: Certificate,
  messages: readonly SignedMessage[],
): readonly Culprit[] {
  const plan = planCeremony(terms);
  return messages.flatMap((m): Culprit[] => {
    const reason = holds(plan, m) ? judgeConfirm(plan.manifest, certificate, plan.group, m.message) : null;
    return reason ? [{ index: m.message.from, reason, evidence: [m] }] : [];
  });
}
