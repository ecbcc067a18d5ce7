import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { FederationId } from "../ids.ts";
import { judgeConfirm } from "../protocol/federation/blame.ts";
import {
  type Certificate,
  certificateHash,
  type SignedCertificate,
  verifyCertificate,
} from "../protocol/federation/certificate.ts";
import { groupOf } from "../protocol/federation/groups.ts";
import type { Manifest } from "../protocol/federation/manifest.ts";
import { messageSignatureHolds, type SignedMessage } from "../protocol/federation/message.ts";
import { planCeremony } from "../protocol/federation/plan.ts";
import {
  decisionBytes,
  type FederatedRequest,
  type KeyringMark,
  orderHash,
  requestIdOf,
  type SignedDecision,
  type SignedOrder,
  verifyDecision,
  verifyOrder,
  verifyRequest,
} from "../protocol/federation/request.ts";
import { belongsTo } from "../protocol/federation/transcript.ts";
import { verifyVote } from "../protocol/federation/votes.ts";
import type { Task } from "../wire/keyring/views.ts";

/** What a connector holds tasks against: all of it is pinned in its own directory. */
export interface Grounds {
  /** Ed25519 identity of the registry, 32 bytes. */
  readonly registry: Uint8Array;
  readonly federationId: FederationId;
  /** Of the own server in the federation. */
  readonly index: number;
  /** The verified manifest of an epoch. @throws Fault unavailable where it is not known yet */
  manifestAt(epoch: number): Manifest;
}

const malformed = (what: string) => new Fault("integrity", `the registry's task cannot be: ${what}`);

/** The mark of the request, which names this registry. @throws Fault integrity */
export function markOf({ keyring }: FederatedRequest): KeyringMark {
  if (keyring === null) throw malformed("its request goes through no keyring");
  return keyring;
}

function checkBody({ body }: FederatedRequest, { workspaceId }: KeyringMark): void {
  switch (body.kind) {
    case "generate": {
      const plain = body.custody === "delegated" && body.control === "shared" && body.owner === null;
      // a workspace's id is the id of its policy
      if (!plain || String(body.policy) !== String(workspaceId)) throw malformed("its key is not the workspace's");
      return;
    }
    case "sign":
      return;
    case "release":
      if (body.purpose !== "sign") throw malformed("shares leave the servers through a keyring to sign alone");
      return;
    case "import":
    case "reshare":
      throw malformed("no keyring serves such a request");
  }
}

/** The owner's request: signed, of this registry, keyring and federation. @throws Fault integrity */
export function examineRequest({ registry, federationId }: Grounds, { itemId, keyringId, request }: Task): void {
  if (verifyRequest(request) !== itemId) throw malformed("its request is another one");
  const mark = markOf(request.request);
  if (!equalBytes(mark.registry, registry)) throw malformed("its request was made for another registry");
  if (mark.keyringId !== keyringId) throw malformed("its request was made for another keyring");
  if (request.request.federationId !== federationId) throw malformed("its request is for another federation");
  checkBody(request.request, mark);
}

/** An order that the registry has signed, for a roster with the own server. @throws Fault integrity */
export function examineOrder({ registry, index }: Grounds, { itemId }: Task, signed: SignedOrder): void {
  verifyOrder(registry, signed);
  if (signed.order.requestId !== itemId) throw malformed("its order is for another request");
  if (!signed.order.roster.includes(index)) throw malformed("its order leaves the own server out");
}

/** Messages that the own server is to get: of this attempt, for it, signed by whom they name. @throws Fault integrity */
export function examineMessages(
  { index, manifestAt }: Grounds,
  { itemId, request }: Task,
  attempt: number,
  messages: readonly SignedMessage[],
): void {
  const manifest = manifestAt(request.request.epoch);
  for (const one of messages) {
    const { message } = one;
    const here = message.requestId === itemId && message.attempt === attempt;
    const forUs = (message.to === 0 || message.to === index) && message.from !== index;
    if (!here || !forUs) throw malformed("a message in it is not for the own server in this attempt");
    const known = manifest.servers.some((server) => server.index === message.from);
    if (!known || !messageSignatureHolds(manifest, one)) throw malformed("a message in it is forged");
  }
}

/** Votes that are about this request and hold; others are left out. */
export function soundVotes({ itemId, work }: Task) {
  if (work.do !== "prepare" && work.do !== "begin") return [];
  return work.votes.filter((one) => one.vote.requestId === itemId && verifyVote(one));
}

/** The registry's word on a request. @throws Fault integrity */
export function examineDecision({ registry }: Grounds, { itemId }: Task, signed: SignedDecision): void {
  verifyDecision(registry, signed);
  if (signed.decision.requestId !== itemId) throw malformed("its decision is about another request");
}

function demandOwned({ registry }: Grounds, certificate: Certificate, { workspaceId }: KeyringMark): void {
  const { owner, control, custody, policy } = certificate;
  const its = equalBytes(owner, registry) && control === "shared" && custody === "delegated";
  if (!its || String(policy) !== String(workspaceId)) throw malformed("its key is not the workspace's");
}

/** The certificate that an acceptance brings: signed, accepted, and what was asked for. @throws Fault integrity */
export function examineAccepted(
  grounds: Grounds,
  { request: { request } }: Task,
  { decision }: SignedDecision,
  signed: SignedCertificate,
): Certificate {
  const manifest = grounds.manifestAt(request.epoch);
  const certificate = verifyCertificate(signed, manifest);
  demandOwned(grounds, certificate, markOf(request));
  if (!equalBytes(decisionBytes(signed.acceptance.decision), decisionBytes(decision)))
    throw malformed("its certificate carries another acceptance");
  const { attempt, holders } = certificate;
  // who took part: of a new key everyone who holds a share
  const order = { requestId: requestIdOf(request), attempt, roster: holders, contributions: [], ownerNonces: null };
  if (!belongsTo(planCeremony({ manifest, request, order, before: null }), certificate))
    throw malformed("its certificate is not what was asked for");
  return certificate;
}

/** The certificate of the key that a request uses. @throws Fault integrity */
export function examineUsed(grounds: Grounds, { request: { request } }: Task, signed: SignedCertificate): Certificate {
  const { body } = request;
  if (body.kind !== "sign" && body.kind !== "release") throw malformed("its request uses no key");
  const certificate = verifyCertificate(signed, grounds.manifestAt(signed.certificate.epoch));
  demandOwned(grounds, certificate, markOf(request));
  if (certificate.keyId !== body.keyId || certificate.generation !== body.generation)
    throw malformed("its certificate is another key's");
  return certificate;
}

/**
 * Demands that at least `threshold` holders have proved, each by a Schnorr proof, that they have their share of this very
 * key (docs/protocol.md §8.5): whoever has fewer than that has no key.
 *
 * @param order Of the attempt, where the own server took part in it.
 * @returns Indices of the holders whose proofs hold, ascending.
 * @throws Fault integrity
 */
export function demandPossession(
  manifest: Manifest,
  certificate: Certificate,
  confirmations: readonly SignedMessage[],
  order: SignedOrder | null,
): readonly number[] {
  const hash = certificateHash(certificate);
  const group = groupOf(certificate.type);
  const ofOrder = order && orderHash(order.order);
  const proved = new Set<number>();
  for (const one of confirmations) {
    const { message } = one;
    const { payload, from } = message;
    if (payload.round !== "confirm" || !certificate.holders.includes(from) || message.to !== 0) continue;
    if (message.requestId !== certificate.requestId || message.attempt !== certificate.attempt) continue;
    if (ofOrder && !equalBytes(message.orderHash, ofOrder)) continue;
    // of another certificate nothing is judged, and so nothing is proved
    if (!equalBytes(payload.certificateHash, hash) || !messageSignatureHolds(manifest, one)) continue;
    if (judgeConfirm(manifest, certificate, group, message) === null) proved.add(from);
  }
  if (proved.size >= certificate.threshold) return [...proved].sort((a, b) => a - b);
  throw new Fault("integrity", "too few servers have proved that they hold a share of the new key", {
    why: `${proved.size} of the ${certificate.threshold} that it takes`,
  });
}
