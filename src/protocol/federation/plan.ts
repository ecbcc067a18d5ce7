import { SEAL_OVERHEAD } from "../../crypto/aead.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId } from "../../ids.ts";
import type { Certificate } from "./certificate.ts";
import { evaluatePoints, type Group, type GroupPoint, groupOf, lagrangeAtZero } from "./groups.ts";
import { type Manifest, memberOf, rosterMin } from "./manifest.ts";
import {
  type AttemptOrder,
  type FederatedRequest,
  type GenerateBody,
  type ImportBody,
  orderHash,
  type ReshareBody,
  requestIdOf,
} from "./request.ts";

/** What a ceremony is about: all of it is public, and whoever holds it can judge its messages. */
export interface CeremonyTerms {
  /** Verified manifest of the request's epoch. */
  readonly manifest: Manifest;
  readonly request: FederatedRequest;
  readonly order: AttemptOrder;
  /** Verified certificate of the generation that a resharing leaves; otherwise null. */
  readonly before: Certificate | null;
}

/** What the terms come to: who deals, who receives, under which threshold (docs/protocol.md §8.5). */
export interface CeremonyPlan {
  readonly manifest: Manifest;
  readonly request: FederatedRequest;
  readonly requestId: FederatedRequestId;
  readonly attempt: number;
  readonly orderHash: Uint8Array;
  readonly body: GenerateBody | ImportBody | ReshareBody;
  readonly before: Certificate | null;
  readonly group: Group;
  /** Of the new shares. */
  readonly threshold: number;
  readonly roster: readonly number[];
  /** Who deals shares; nobody in an import, whose requester dealt. */
  readonly dealers: readonly number[];
  /** Who holds a share afterwards. */
  readonly receivers: readonly number[];
  /** Of a resharing: what the first commitment of each dealer must be. */
  readonly constants: ReadonlyMap<number, GroupPoint>;
}

const bad = (why: string) => new Fault("bad_input", `this ceremony cannot be: ${why}`);

function checkIndices(manifest: Manifest, indices: readonly number[], what: string): void {
  if (!indices.every((index, i) => index > (indices[i - 1] ?? 0))) throw bad(`${what} ascend`);
  for (const index of indices) memberOf(manifest, index);
}

function checkThreshold(threshold: number, holders: readonly number[]): void {
  if (threshold < 2 || threshold > holders.length || threshold * 2 <= holders.length)
    throw bad("the threshold is more than half of the holders, at least 2, and at most all of them");
}

type Parts = Pick<CeremonyPlan, "group" | "threshold" | "dealers" | "receivers" | "constants">;

function generating(manifest: Manifest, body: GenerateBody, roster: readonly number[]): Parts {
  const { threshold } = manifest;
  if (roster.length < rosterMin(manifest.servers.length, threshold)) throw bad("too few servers take part");
  return { group: groupOf(body.type), threshold, dealers: roster, receivers: roster, constants: new Map() };
}

function importing(manifest: Manifest, body: ImportBody, roster: readonly number[]): Parts {
  const { threshold, holders, commitments } = body;
  checkIndices(manifest, holders, "indices of holders");
  checkThreshold(threshold, holders);
  if (roster.some((index) => !holders.includes(index))) throw bad("a server takes part that is no holder");
  if (roster.length < rosterMin(holders.length, threshold)) throw bad("too few servers take part");
  const group = groupOf(body.type);
  const sealed = body.type === "bytes" ? body.length + SEAL_OVERHEAD : undefined;
  if (body.sealedValue?.length !== sealed) throw bad("imported bytes, and no other, are sealed, at their length");
  if (commitments.length !== threshold) throw bad("commitments are as many as the threshold");
  for (const commitment of commitments) group.parsePoint(commitment);
  return { group, threshold, dealers: [], receivers: roster, constants: new Map() };
}

function resharing(manifest: Manifest, body: ReshareBody, order: AttemptOrder, before: Certificate): Parts {
  const { threshold, holders } = body;
  const { roster, contributions } = order;
  if (before.federationId !== manifest.federationId || before.epoch > manifest.epoch)
    throw bad("the key belongs to another federation or a later epoch");
  if (before.keyId !== body.keyId || before.generation !== body.generation)
    throw bad("the key has another generation now");
  checkIndices(manifest, holders, "indices of holders");
  checkThreshold(threshold, holders);
  if (body.mode !== "reshare" && threshold !== before.threshold) throw bad("only a resharing changes the threshold");
  if (holders.some((index) => !roster.includes(index))) throw bad("a next holder does not take part");
  if (roster.some((index) => !holders.includes(index) && !before.holders.includes(index)))
    throw bad("a server takes part that neither held nor will hold a share");
  // an old holder that lost its share only receives: the requester gives its contribution to those who deal
  const deals = (index: number) => contributions.length === 0 || contributions.some((c) => c.index === index);
  const helpers = roster.filter((index) => before.holders.includes(index) && deals(index));
  if (helpers.length < before.threshold) throw bad("too few holders help");
  const dealers = helpers.slice(0, before.threshold);
  const group = groupOf(before.type);
  const commitments = before.commitments.map((c) => group.parsePoint(c));
  const constants = new Map(
    dealers.map((index) => {
      const lambda = lagrangeAtZero(group, dealers, index);
      return [index, evaluatePoints(commitments, index).multiplyUnsafe(lambda)];
    }),
  );
  return { group, threshold, dealers, receivers: holders, constants };
}

function partsOf(terms: CeremonyTerms): Parts & { readonly body: CeremonyPlan["body"] } {
  const { manifest, request, order, before } = terms;
  const { body } = request;
  switch (body.kind) {
    case "generate":
    case "import": {
      if (before) throw bad("a new key follows no other");
      if ((body.custody === "self") !== (body.owner !== null)) throw bad("the owner's part and custody do not agree");
      if (body.owner) groupOf(body.type).parsePoint(body.owner.point);
      const parts =
        body.kind === "generate" ? generating(manifest, body, order.roster) : importing(manifest, body, order.roster);
      return { ...parts, body };
    }
    case "reshare":
      if (!before) throw bad("a resharing follows a certificate");
      return { ...resharing(manifest, body, order, before), body };
    case "sign":
    case "release":
      throw bad("a use makes no key");
  }
}

/**
 * Checks the terms of a ceremony and works out who does what. Signatures of request and order are the caller's to check.
 *
 * @throws Fault bad_input
 */
export function planCeremony(terms: CeremonyTerms): CeremonyPlan {
  const { manifest, request, order, before } = terms;
  if (request.federationId !== manifest.federationId || request.epoch !== manifest.epoch)
    throw bad("the request belongs to another federation or epoch");
  const requestId = requestIdOf(request);
  if (order.requestId !== requestId) throw bad("the order is for another request");
  if (!Number.isSafeInteger(order.attempt) || order.attempt < 1) throw bad("attempts count from 1");
  checkIndices(manifest, order.roster, "indices of the roster");
  const { attempt, roster } = order;
  return { ...partsOf(terms), manifest, request, requestId, attempt, orderHash: orderHash(order), before, roster };
}
