import { equalBytes } from "../crypto/bytes.ts";
import type { KeyId, RequestId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type LeafRecord, leafHash } from "../protocol/leaf.ts";
import { type SignedState, stateHash } from "../protocol/state.ts";
import { type Codec, decodeJson, id, list, nullable, type Of, oneOf, struct, text } from "../wire/codec.ts";
import { COMMITS, type CommitName, type OperationName, operations } from "../wire/operations.ts";
import { hash32 } from "../wire/records.ts";
import { boundOf, type Model, putServerLeaf } from "./model.ts";
import { continueSent, type Settled, settle, settledCodec } from "./settling.ts";

/** A change as a request holds it. */
interface Sent {
  readonly leaf: LeafRecord;
  readonly sealed: Uint8Array | null;
}

/** Mutations of the settings. */
const SETTINGS = [
  "account.device.add",
  "account.password",
  "account.reregister",
  "account.kit",
  "account.adopt",
] as const satisfies readonly OperationName[];

/** The name of one. */
export type SettingsName = (typeof SETTINGS)[number];

/** Whatever changes an account and is sent again until it is answered. */
export type Mutation = CommitName | SettingsName | "account.rotate";

const MUTATIONS = [...COMMITS, ...SETTINGS, "account.rotate"] as const satisfies readonly Mutation[];

const alwaysPending = {
  operation: oneOf(MUTATIONS),
  requestId: id<RequestId>(),
  body: text({ min: 2, max: DEFAULTS.bodyBytes }),
  /** Secrets whose new value the vault keeps a copy of. */
  keep: list(id<KeyId>(), { max: DEFAULTS.changesPerRequest }),
  /** Account key that a rotation brings. */
  accountKey: nullable(hash32),
};
const shortPending = struct(alwaysPending);
const longPending = struct({
  ...alwaysPending,
  /** For changes that waited: what each settles, in the order of the request's changes. */
  settles: list(settledCodec, { min: 1, max: DEFAULTS.changesPerRequest }),
});
type Pending = Of<typeof longPending>;

/** A request as it was, or may have been, sent: sent again exactly until it is answered. */
export const pendingCodec: Codec<Pending> = {
  decode(value, path) {
    const long = typeof value === "object" && value !== null && Object.hasOwn(value, "settles");
    return long ? longPending.decode(value, path) : { ...shortPending.decode(value, path), settles: [] };
  },
  encode: (pending) => (pending.settles.length > 0 ? longPending : shortPending).encode(pending),
};

/** Takes the changes of a request that will not be settled any more into a model, where they continue it. */
export function takePending(model: Model, plain: Uint8Array): void {
  const { operation, body, settles } = decodeJson(pendingCodec, plain);
  const input = operations[operation].input.decode(JSON.parse(body), "");
  if (!("changes" in input)) return;
  for (const [i, { leaf, sealed }] of input.changes.entries()) {
    const known = model.secrets.get(leaf.keyId);
    const continues = known ? equalBytes(leaf.previous, leafHash(known.leaf)) : leaf.serial === 1;
    if (!continues || known?.place === "local") continue;
    putServerLeaf(model, leaf, sealed);
    const settled = settles[i];
    if (settled) settle(model, settled, leaf);
  }
}

/** Keeps the copies that a settled change asked for, of values that are still the newest ones. */
export function keepCopies(model: Model, changes: readonly Sent[], keep: readonly KeyId[]): void {
  for (const { leaf, sealed } of changes) {
    const now = model.secrets.get(leaf.keyId);
    if (now?.place !== "server" || now.leaf.status === "purged" || !keep.includes(leaf.keyId)) continue;
    if (equalBytes(now.leaf.sealedHash, leaf.sealedHash)) putServerLeaf(model, now.leaf, sealed);
  }
}

/** What waited leaves the queue with the changes that it became; what was built before their outcome goes on from them. */
export function settleChanges(model: Model, changes: readonly Sent[], settles: readonly Settled[]): void {
  for (const [i, { leaf }] of changes.entries()) {
    const settled = settles[i];
    if (settled) settle(model, settled, leaf);
    else continueSent(model, leaf);
  }
}

/** True where a change that was called refused stands in the account all the same. */
export function wasMade(
  model: Model,
  states: readonly SignedState[],
  { state }: SignedState,
  changes: readonly Sent[],
): boolean {
  const hash = stateHash(state);
  if (states.some((one) => equalBytes(stateHash(one.state), hash))) return true;
  return changes.every(({ leaf }) => {
    const now = model.secrets.get(leaf.keyId);
    return now !== undefined && equalBytes(leafHash(now.leaf), leafHash(leaf));
  });
}

/** True when a state stands in the account's chain, as far as it was just seen. */
export function holdsState(model: Model, states: readonly SignedState[], wanted: SignedState): boolean {
  const { revision } = wanted.state;
  const { head } = boundOf(model);
  const there = [...states, head].find(({ state }) => state.revision === revision);
  return there ? equalBytes(stateHash(there.state), stateHash(wanted.state)) : revision < head.state.revision;
}
