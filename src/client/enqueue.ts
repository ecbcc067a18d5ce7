import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type EntryId, newId } from "../ids.ts";
import { leafHash } from "../protocol/leaf.ts";
import { openValue } from "../protocol/secret.ts";
import type { CommitName } from "../wire/operations.ts";
import type { Change } from "./commit.ts";
import { decryptMeta } from "./meta.ts";
import { indexKeys, type Model, recordKeys, type Surroundings } from "./model.ts";
import { viewOf } from "./overlay.ts";
import { QUEUE_MAX, QUEUED_OPERATIONS, type QueuedOperation, type QueueEntry, sealEntry } from "./queue.ts";
import { type VaultBox, withVault } from "./vaultbox.ts";

/** True for an operation that may wait for a server that is away: what cannot be undone may not. */
export function isQueued(operation: CommitName): operation is QueuedOperation {
  return (QUEUED_OPERATIONS as readonly string[]).includes(operation);
}

/** A change as it waits: its metadata, and its value under a context of its own. */
function entryOf(view: Model, change: Change, operation: QueuedOperation, around: Surroundings): QueueEntry {
  const { leaf, sealed, keep } = change;
  const meta = decryptMeta(indexKeys(view), view.owner, leaf);
  if (meta === null || leaf.status === "purged") throw new Fault("internal", "a purge does not wait");
  if (meta.type === "part") {
    throw new Fault("unreachable", "the server is away, and a file of this size does not wait for it", {
      hint: "use --store local, or try again later",
    });
  }
  const before = view.secrets.get(leaf.keyId);
  const base = before?.meta ? { leaf: leafHash(before.leaf), version: before.leaf.version, meta: before.meta } : null;
  const id = newId<EntryId>(around.random);
  const entry = {
    id,
    atMs: around.now(),
    operation,
    keyId: leaf.keyId,
    base,
    meta,
    status: leaf.status,
    keep,
  } as const;
  if (sealed === null) return { ...entry, sealed };
  const context = { userId: view.owner, keyId: leaf.keyId, version: leaf.version, type: meta.type };
  const plain = openValue(recordKeys(view), context, sealed);
  try {
    return { ...entry, sealed: sealEntry(view.keys.record, view.owner, id, meta, plain, around.random) };
  } finally {
    wipe(plain);
  }
}

/**
 * Keeps changes in the vault for a server that is away (docs/protocol.md §7.4): durable on return.
 *
 * @param build Makes the changes on the model as it will be once everything before them has gone there.
 */
export async function enqueue(
  box: VaultBox,
  around: Surroundings,
  operation: QueuedOperation,
  build: (view: Model) => Promise<readonly Change[]> | readonly Change[],
): Promise<void> {
  await withVault(box, around, async (held) => {
    const { model } = box;
    const { queue } = model;
    const view = viewOf(model);
    const entries = (await build(view)).map((change) => entryOf(view, change, operation, around));
    if (queue.length + entries.length > QUEUE_MAX) {
      throw new Fault("too_large", `at most ${QUEUE_MAX} changes wait for a server that is away`);
    }
    model.queue = [...queue, ...entries];
    try {
      await held.save();
    } catch (error) {
      model.queue = queue;
      throw error;
    }
  });
}
