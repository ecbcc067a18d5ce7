import { equalBytes, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import type { EntryId, KeyId } from "../ids.ts";
import { type LeafRecord, leafHash } from "../protocol/leaf.ts";
import { id, nullable, type Of, struct } from "../wire/codec.ts";
import { decryptMeta } from "./meta.ts";
import { indexKeys, type Model } from "./model.ts";
import { type Conflict, conflictCodec, continueOn } from "./queue.ts";

/** That a change is one that waited, and what conflict was found when it was made. */
export const settledCodec = struct({ entry: id<EntryId>(), conflict: nullable(conflictCodec) });
export type Settled = Of<typeof settledCodec>;

/** Keeps a conflict, in the place of an earlier one of the same secret. */
function noteConflict(model: Model, conflict: Conflict): void {
  model.conflicts = [...model.conflicts.filter(({ keyId }) => keyId !== conflict.keyId), conflict];
}

/** Changes of one secret that wait go on from a leaf that is there now. */
function rebaseQueue(model: Model, keyId: KeyId, leaf: LeafRecord): void {
  const meta = decryptMeta(indexKeys(model), model.owner, leaf);
  if (meta === null) return;
  const at = { keyId: leaf.keyId, leaf: leafHash(leaf), version: leaf.version, meta };
  model.queue = continueOn(model.queue, keyId, at);
}

/**
 * Takes a change that waited off the queue, to be written with whatever it became.
 *
 * @param leaf What it was made as, already in the model; null where there was nothing to be done.
 */
export function settle(model: Model, { entry: entryId, conflict }: Settled, leaf: LeafRecord | null): void {
  const entry = model.queue.find((one) => one.id === entryId);
  if (!entry) return;
  model.queue = model.queue.filter((one) => one !== entry);
  if (leaf) rebaseQueue(model, entry.keyId, leaf);
  if (conflict) noteConflict(model, conflict);
  else if (leaf) carryConflict(model, leaf);
}

/** A further change of the time before a conflict was known does not solve it. */
function carryConflict(model: Model, leaf: LeafRecord): void {
  model.conflicts = model.conflicts.map((one) => {
    const follows = one.keyId === leaf.keyId && one.newest === leaf.version - 1 && one.ours === one.newest;
    return follows ? { ...one, ours: leaf.version, newest: leaf.version } : one;
  });
}

/** What waits and was built before a sent change's outcome was known goes on from it: both are of this device. */
export function continueSent(model: Model, leaf: LeafRecord): void {
  const first = model.queue.find((entry) => {
    if (entry.base) return entry.keyId === leaf.keyId && equalBytes(entry.base.leaf, leaf.previous);
    const isNew = leaf.serial === 1 && equalBytes(leaf.previous, ZERO_HASH_BYTES);
    return isNew && decryptMeta(indexKeys(model), model.owner, leaf)?.name === entry.meta.name;
  });
  if (first) rebaseQueue(model, first.keyId, leaf);
}
