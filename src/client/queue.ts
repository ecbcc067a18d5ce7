import { type RandomSource, wipe } from "../crypto/bytes.ts";
import type { EntryId, KeyId, UserId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { LeafRecord } from "../protocol/leaf.ts";
import { openQueued, sealQueued } from "../protocol/secret.ts";
import { bool, bytes, id, nullable, type Of, oneOf, struct, text, u53, uint } from "../wire/codec.ts";
import { hash32, SEALED_MAX } from "../wire/records.ts";
import { type Meta, metaCodec } from "./meta.ts";

/** Operations that wait for a server that is away. */
export const QUEUED_OPERATIONS = [
  "secret.generate",
  "secret.store",
  "secret.import",
  "secret.update",
  "secret.restore",
  "secret.remove",
] as const;
export type QueuedOperation = (typeof QUEUED_OPERATIONS)[number];

const version = uint(0xffff_ffff);

/** One change that waits in the vault (docs/protocol.md §7.4). */
export const entryCodec = struct({
  id: id<EntryId>(),
  atMs: u53,
  operation: oneOf(QUEUED_OPERATIONS),
  /** Of the secret, or drawn here for a new one. */
  keyId: id<KeyId>(),
  /** What it was built on: the leaf's hash, its version and metadata; null for a new secret. */
  base: nullable(struct({ leaf: hash32, version, meta: metaCodec })),
  meta: metaCodec,
  status: oneOf(["live", "removed"]),
  /** The value, or the record of value and fields, under a context of its own; null where it stays. */
  sealed: nullable(bytes({ min: 1, max: SEALED_MAX })),
  /** Whether the vault keeps a copy afterwards. */
  keep: bool,
});

/** A change that waits for the server. */
export type QueueEntry = Of<typeof entryCodec>;

/** How two changes met: a value changed on both sides, a name taken, or a removal on one side. */
const CONFLICT_KINDS = ["changed", "name", "removed-there", "removed-here"] as const;

/** What is kept of a conflict until it is solved. */
export const conflictCodec = struct({
  keyId: id<KeyId>(),
  name: text({ min: 1, max: DEFAULTS.nameBytes }),
  kind: oneOf(CONFLICT_KINDS),
  /** Version of the other device, or null. */
  theirs: nullable(version),
  /** Version of this device, or null. */
  ours: nullable(version),
  /** The newest version when the conflict was found: another newer one solves it. */
  newest: version,
  atMs: u53,
});

/** Two devices changed one secret: both versions are there, and the owner has to choose. */
export type Conflict = Of<typeof conflictCodec>;

/** Most changes that wait in one vault. */
export const QUEUE_MAX = 100_000;

/** Seals what a change wants to store. */
export function sealEntry(
  recordKey: Uint8Array,
  userId: UserId,
  entryId: EntryId,
  { type }: Pick<Meta, "type">,
  plain: Uint8Array,
  random: RandomSource,
): Uint8Array {
  return sealQueued(recordKey, { userId, entryId, type }, plain, random);
}

/** What a change wants to store; the caller wipes it. @throws Fault integrity */
export function openEntry(recordKeys: readonly Uint8Array[], userId: UserId, entry: QueueEntry): Uint8Array {
  const { id: entryId, meta, sealed } = entry;
  return openQueued(recordKeys, { userId, entryId, type: meta.type }, sealed ?? new Uint8Array(0));
}

/** Entries sealed anew under the first of `recordKeys`. */
export function resealQueue(
  queue: readonly QueueEntry[],
  recordKeys: readonly Uint8Array[],
  userId: UserId,
  random: RandomSource,
): readonly QueueEntry[] {
  const [current] = recordKeys;
  return queue.map((entry) => {
    if (entry.sealed === null || !current) return entry;
    const plain = openEntry(recordKeys, userId, entry);
    try {
      return { ...entry, sealed: sealEntry(current, userId, entry.id, entry.meta, plain, random) };
    } finally {
      wipe(plain);
    }
  });
}

const ours = <T>(base: T | undefined, mine: T, theirs: T): T => (mine === base ? theirs : mine);

/**
 * Metadata of a change on top of what another device has made of its base: what was changed here stays, everything
 * else is theirs, and tags that either side added or removed are.
 *
 * @param value Whether the change brings a value, whose type and fields are then its own.
 */
export function mergeMeta(base: Meta | undefined, mine: Meta, theirs: Meta, value: boolean): Meta {
  const before = new Set(base?.tags);
  const [kept, there] = [new Set(mine.tags), new Set(theirs.tags)];
  const tags = [
    ...mine.tags.filter((tag) => there.has(tag) || !before.has(tag)),
    ...theirs.tags.filter((tag) => !kept.has(tag) && !before.has(tag)),
  ].slice(0, DEFAULTS.tags);
  return {
    ...(value ? mine : theirs),
    name: ours(base?.name, mine.name, theirs.name),
    expiresAtMs: ours(base?.expiresAtMs, mine.expiresAtMs, theirs.expiresAtMs),
    tags,
    createdAtMs: theirs.createdAtMs,
    updatedAtMs: Math.max(mine.updatedAtMs, theirs.updatedAtMs),
  };
}

/**
 * Puts the changes of a secret that wait on a new base: the one that follows continues this leaf, those after it their
 * predecessors.
 *
 * @param at What the first of them now builds on.
 */
export function continueOn(
  queue: readonly QueueEntry[],
  keyId: KeyId,
  at: { readonly keyId: KeyId; readonly leaf: Uint8Array; readonly version: number; readonly meta: Meta },
): readonly QueueEntry[] {
  let { leaf, version: newest, meta: before } = at;
  return queue.map((entry) => {
    if (entry.keyId !== keyId) return entry;
    const meta = mergeMeta(entry.base?.meta, entry.meta, before, entry.sealed !== null);
    const next = { ...entry, keyId: at.keyId, base: { leaf, version: newest, meta: before }, meta };
    // of a leaf that is not there yet nothing is known; it is put right when its predecessor is made
    leaf = new Uint8Array(32);
    newest += entry.sealed === null ? 0 : 1;
    before = meta;
    return next;
  });
}

/** Conflicts that nobody has solved: the newest version is still the one that was the newest then. */
export function openConflicts({
  conflicts,
  secrets,
}: {
  readonly conflicts: readonly Conflict[];
  readonly secrets: ReadonlyMap<KeyId, { readonly leaf: LeafRecord; readonly meta: Meta | null }>;
}): readonly Conflict[] {
  return conflicts.filter(({ keyId, newest, kind, name }) => {
    const now = secrets.get(keyId);
    if (now?.leaf.status !== "live" || now.leaf.version !== newest) return false;
    return kind !== "name" || now.meta?.name === name;
  });
}
