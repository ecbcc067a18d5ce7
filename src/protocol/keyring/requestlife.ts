import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, KeyringId } from "../../ids.ts";
import type { Ruling } from "../federation/requestlife.ts";
import { responseBytes, responseValue, type SignedResponse } from "./response.ts";

/** Where a request through a keyring stands (docs/protocol.md §9.3). */
export const KEYRING_STATUSES = ["pending", "partial", "fulfilled", "rejected", "expired", "cancelled"] as const;
export type KeyringStatus = (typeof KEYRING_STATUSES)[number];

/** Items of one signature request at most. */
export const BATCH_MAX = 16;

/** A party as it was when the request was made. */
export interface LifeParty {
  /** Ed25519 key of its responses, 32 bytes. */
  readonly key: Uint8Array;
  /** It has said two things about one item: nothing that it says counts, and it is not paid. */
  readonly excluded: boolean;
}

/** One item: the key that is made, or one signature. */
export interface LifeItem {
  readonly itemId: FederatedRequestId;
  /** The first word of each party, in the order of their coming; of an excluded one too. */
  readonly responses: readonly SignedResponse[];
  /** `responseValue` that a response must have to agree, 32 bytes: from the item's result on; before it null. */
  readonly value: Uint8Array | null;
}

/** Everything that decides what may happen to a request next. */
export interface KeyringLife {
  readonly kind: "key" | "signature";
  readonly keyringId: KeyringId;
  readonly status: KeyringStatus;
  /** The workspace's policy allows it: connectors see it. */
  readonly approved: boolean;
  /** Something that cannot be taken back has left the registry: its owners cancel no more. */
  readonly accepted: boolean;
  readonly expiresAtMs: number;
  /** Agreeing responses that fulfil, for each item. */
  readonly threshold: number;
  readonly parties: readonly LifeParty[];
  readonly items: readonly LifeItem[];
}

export type KeyringLifeEvent =
  /** Votes or the workspace's policy changed. */
  | { readonly type: "ruled"; readonly ruling: Ruling }
  /** Of any sender: its signature was verified (`verifyResponse`), nothing else. */
  | { readonly type: "response"; readonly response: SignedResponse }
  /** Shares of an ECDSA key leave for the owner's client. */
  | { readonly type: "accepted" }
  /** The registry accepts the certificate of the new key, or has verified the item's signature. */
  | { readonly type: "result"; readonly itemId: FederatedRequestId; readonly value: Uint8Array }
  /** By an owner of the workspace. */
  | { readonly type: "cancel" }
  /** Coordination cannot come to a result any more. */
  | { readonly type: "failed" }
  | { readonly type: "tick" };

/**
 * What the registry does beside keeping the new life, in the same transaction where it is stored.
 *
 * - `call`: show the request to the connectors; `recall`: do not show it any more, its approval is gone;
 * - `record`: store this response, with the parties' last word;
 * - `quarantine`: keep both responses as evidence, and leave the party out of new requests of the keyring;
 * - `pay`: the fee goes from escrow to these parties, in the order of the snapshot; `refund`: back to the workspace;
 * - `forget`: coordination ends without a result: connectors drop what their servers keep.
 */
export type KeyringEffect =
  | { readonly do: "call" }
  | { readonly do: "recall" }
  | { readonly do: "record"; readonly response: SignedResponse }
  | {
      readonly do: "quarantine";
      readonly party: Uint8Array;
      readonly first: SignedResponse;
      readonly second: SignedResponse;
    }
  | { readonly do: "pay"; readonly parties: readonly Uint8Array[] }
  | { readonly do: "refund" }
  | { readonly do: "forget" };

export interface KeyringStep {
  readonly life: KeyringLife;
  readonly effects: readonly KeyringEffect[];
}

/** What {@link openLife} makes a life of. */
export type LifeInput = Pick<KeyringLife, "kind" | "keyringId" | "expiresAtMs" | "threshold"> & {
  /** Keys of the snapshot's parties, 32 bytes each. */
  readonly parties: readonly Uint8Array[];
  readonly items: readonly FederatedRequestId[];
};

const distinct = (texts: readonly string[]) => new Set(texts).size === texts.length;

/**
 * A request as it is stored first: pending, not approved, its fee in escrow.
 *
 * @throws Fault bad_input for no or too many items, two alike, or a threshold that the parties cannot reach
 */
export function openLife({ kind, keyringId, expiresAtMs, threshold, parties, items }: LifeInput): KeyringLife {
  const most = kind === "key" ? 1 : BATCH_MAX;
  if (items.length < 1 || items.length > most || !distinct(items))
    throw new Fault("bad_input", `a ${kind} request has ${most === 1 ? "one item" : `1 to ${most} different items`}`);
  if (!distinct(parties.map((key) => key.toHex()))) throw new Fault("bad_input", "two of its parties are one");
  if (!Number.isSafeInteger(threshold) || threshold < 1 || threshold > parties.length)
    throw new Fault("bad_input", "the parties of this request could never reach its threshold");
  return {
    kind,
    keyringId,
    status: "pending",
    approved: false,
    accepted: false,
    expiresAtMs,
    threshold,
    parties: parties.map((key) => ({ key, excluded: false })),
    items: items.map((itemId) => ({ itemId, responses: [], value: null })),
  };
}

/** True while the fee is in escrow and the request can still be fulfilled. */
export function isOpenLife({ status }: Pick<KeyringLife, "status">): boolean {
  return status === "pending" || status === "partial";
}

const same = (life: KeyringLife): KeyringStep => ({ life, effects: [] });

function ended(life: KeyringLife, status: "rejected" | "expired" | "cancelled"): KeyringStep {
  return { life: { ...life, status }, effects: [{ do: "refund" }, { do: "forget" }] };
}

function requireOpen(life: KeyringLife): void {
  if (!isOpenLife(life)) throw new Fault("conflict", `this request is over: it is ${life.status}`);
}

const isExcluded = ({ parties }: KeyringLife, key: Uint8Array) =>
  parties.some((p) => p.excluded && equalBytes(p.key, key));

/** Of one item: responses that agree with its result, or as long as there is none the most that agree with each other. */
function agreeing(life: KeyringLife, { responses, value }: LifeItem): number {
  const counts = new Map<string, number>();
  for (const { response } of responses) {
    if (response.verdict !== "fulfilled" || isExcluded(life, response.key)) continue;
    const said = responseValue(response).toHex();
    counts.set(said, (counts.get(said) ?? 0) + 1);
  }
  return value ? (counts.get(value.toHex()) ?? 0) : Math.max(0, ...counts.values());
}

/** Parties whose word on an item is still to come. */
function silent(life: KeyringLife, { responses }: LifeItem): number {
  const answered = (key: Uint8Array) => responses.some(({ response }) => equalBytes(response.key, key));
  return life.parties.filter(({ key, excluded }) => !excluded && !answered(key)).length;
}

/** Ends an open request whose responses and results say so. */
function settled(life: KeyringLife, effects: readonly KeyringEffect[]): KeyringStep {
  if (!isOpenLife(life)) return { life, effects };
  const { items, threshold } = life;
  if (items.every((item) => item.value !== null && agreeing(life, item) >= threshold)) {
    const parties = life.parties.filter((p) => !p.excluded).map((p) => p.key);
    return { life: { ...life, status: "fulfilled" }, effects: [...effects, { do: "pay", parties }] };
  }
  if (items.some((item) => agreeing(life, item) + silent(life, item) < threshold)) {
    const end = ended(life, "rejected");
    return { life: end.life, effects: [...effects, ...end.effects] };
  }
  return { life: items.some((i) => i.responses.length > 0) ? { ...life, status: "partial" } : life, effects };
}

function ruled(life: KeyringLife, ruling: Ruling): KeyringStep {
  if (!isOpenLife(life) || life.accepted) return same(life);
  switch (ruling) {
    case "allow":
      return life.approved ? same(life) : { life: { ...life, approved: true }, effects: [{ do: "call" }] };
    case "wait":
      return life.approved ? { life: { ...life, approved: false }, effects: [{ do: "recall" }] } : same(life);
    case "deny":
      return ended(life, "rejected");
  }
}

function answered(life: KeyringLife, said: SignedResponse): KeyringStep {
  const { response } = said;
  const party = life.parties.find((p) => equalBytes(p.key, response.key));
  const item = life.items.find((i) => i.itemId === response.requestId);
  if (!party || party.excluded || !item || response.keyringId !== life.keyringId) return same(life);
  const first = item.responses.find((one) => equalBytes(one.response.key, party.key));
  if (!first) {
    const items = life.items.map((i) => (i === item ? { ...i, responses: [...i.responses, said] } : i));
    return settled({ ...life, items }, [{ do: "record", response: said }]);
  }
  if (equalBytes(responseBytes(first.response), responseBytes(response))) return same(life);
  const parties = life.parties.map((p) => (p === party ? { ...p, excluded: true } : p));
  return settled({ ...life, parties }, [{ do: "quarantine", party: party.key, first, second: said }]);
}

function result(life: KeyringLife, itemId: FederatedRequestId, value: Uint8Array): KeyringStep {
  const item = life.items.find((i) => i.itemId === itemId);
  if (!item) throw new Fault("not_found", "this request has no such item");
  if (item.value) {
    if (equalBytes(item.value, value)) return same(life);
    throw new Fault("integrity", "this item has another result already");
  }
  requireApproved(life);
  const items = life.items.map((i) => (i === item ? { ...i, value } : i));
  return settled({ ...life, items, accepted: true }, []);
}

function requireApproved(life: KeyringLife): void {
  requireOpen(life);
  if (!life.approved) throw new Fault("pending", "this request waits for approval");
}

function accepted(life: KeyringLife): KeyringStep {
  if (life.accepted) return same(life);
  requireApproved(life);
  return same({ ...life, accepted: true });
}

function cancelled(life: KeyringLife): KeyringStep {
  if (life.status === "cancelled") return same(life);
  requireOpen(life);
  if (life.accepted) throw new Fault("conflict", "this request cannot be cancelled any more: its result is on the way");
  return ended(life, "cancelled");
}

function happened(life: KeyringLife, event: KeyringLifeEvent): KeyringStep {
  switch (event.type) {
    case "ruled":
      return ruled(life, event.ruling);
    case "response":
      return answered(life, event.response);
    case "accepted":
      return accepted(life);
    case "result":
      return result(life, event.itemId, event.value);
    case "cancel":
      return cancelled(life);
    case "failed":
      return isOpenLife(life) ? ended(life, "rejected") : same(life);
    case "tick":
      return same(life);
  }
}

/**
 * Every transition of a request through a keyring (docs/protocol.md §9.3). Time comes first: whatever is said at
 * `expiresAtMs` or later finds the request expired. What has no meaning in a state leaves it as it is.
 *
 * @throws Fault not_found, conflict, pending, integrity for `accepted`, `result` and `cancel` alone: nothing changes
 */
export function advance(life: KeyringLife, event: KeyringLifeEvent, nowMs: number): KeyringStep {
  if (!isOpenLife(life) || nowMs < life.expiresAtMs) return happened(life, event);
  const over = ended(life, "expired");
  const step = happened(over.life, event);
  return { life: step.life, effects: [...over.effects, ...step.effects] };
}
