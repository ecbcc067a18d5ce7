import { equalBytes } from "../crypto/bytes.ts";
import { leafHash } from "../protocol/leaf.ts";
import type { CommitName } from "../wire/operations.ts";
import { type Meta, UNREADABLE } from "./meta.ts";
import type { Model, Secret, ServerSecret } from "./model.ts";
import { type Conflict, mergeMeta, type QueueEntry } from "./queue.ts";

/** What is to be done with a change that waited, on the account as it is now (docs/protocol.md §7.4). */
export type Plan =
  | {
      readonly at: "commit";
      readonly operation: CommitName;
      /** The secret that it changes; null makes one. */
      readonly target: ServerSecret | null;
      readonly meta: Meta;
      readonly status: "live" | "removed";
      readonly conflict: Conflict | null;
    }
  | {
      readonly at: "drop";
      readonly conflict: Conflict | null;
      /** What the owner should read; null where nothing is missed. */
      readonly notice: string | null;
    };

const isServer = (secret: Secret | undefined): secret is ServerSecret => secret?.place === "server";

/** Another live secret of a name: what two devices made alike, or what was called so meanwhile. */
function holderOf(model: Model, name: string, except: string): Secret | undefined {
  return [...model.secrets.values()].find(
    ({ leaf, meta }) => leaf.status === "live" && meta?.name === name && leaf.keyId !== except,
  );
}

/** True where nobody changed the secret since the change was built on it. */
const untouched = (entry: QueueEntry, { leaf }: ServerSecret): boolean =>
  entry.base !== null && equalBytes(entry.base.leaf, leafHash(leaf));

function conflictOf(
  kind: Conflict["kind"],
  { leaf }: ServerSecret,
  name: string,
  versions: { readonly theirs: number | null; readonly ours: number | null },
  nowMs: number,
): Conflict {
  return { keyId: leaf.keyId, name, kind, ...versions, newest: versions.ours ?? leaf.version, atMs: nowMs };
}

/** A new value on top of a secret that is there. */
function onTop(
  entry: QueueEntry,
  target: ServerSecret,
  meta: Meta,
  kind: Conflict["kind"] | null,
  nowMs: number,
): Plan {
  const { version } = target.leaf;
  const versions = { theirs: version, ours: version + 1 };
  const conflict = kind === null ? null : conflictOf(kind, target, meta.name, versions, nowMs);
  const operation = entry.operation === "secret.update" ? "secret.store" : entry.operation;
  return { at: "commit", operation, target, meta, status: "live", conflict };
}

/** Where a value that waited goes: nothing of either device is lost, and no name is given twice. */
function planValue(model: Model, entry: QueueEntry, nowMs: number): Plan {
  const known = model.secrets.get(entry.keyId);
  const mine = entry.base !== null && isServer(known) && known.meta !== null ? known : null;
  if (mine?.meta?.origin === UNREADABLE) return keptAside(entry);
  if (mine?.meta && mine.leaf.status === "live") {
    const meta = mergeMeta(entry.base?.meta, entry.meta, mine.meta, true);
    const held = meta.name !== mine.meta.name && holderOf(model, meta.name, entry.keyId) !== undefined;
    const changed = !untouched(entry, mine) && mine.leaf.version > (entry.base?.version ?? 0);
    if (!held) return onTop(entry, mine, meta, changed ? "changed" : null, nowMs);
    return onTop(entry, mine, { ...meta, name: mine.meta.name }, changed ? "changed" : "name", nowMs);
  }
  const { name } = entry.meta;
  const holder = holderOf(model, name, entry.keyId);
  // the parts of a file are that file's: on top of another one, or of none, they could not be read
  if (entry.meta.form === "parts" && (holder !== undefined || !mine?.meta)) {
    const notice = `${JSON.stringify(name)} was removed on another device: its fields were not changed`;
    return { at: "drop", conflict: null, notice };
  }
  if (isServer(holder) && holder.meta) {
    if (holder.meta.origin === UNREADABLE) return keptAside(entry);
    return onTop(entry, holder, mergeMeta(undefined, entry.meta, holder.meta, true), "changed", nowMs);
  }
  if (mine?.meta) {
    const meta = mergeMeta(entry.base?.meta, entry.meta, mine.meta, true);
    // who restores a removed secret means to, unless it was removed only since
    return onTop(entry, mine, { ...meta, name }, untouched(entry, mine) ? null : "removed-there", nowMs);
  }
  const operation =
    entry.operation === "secret.import" || entry.operation === "secret.generate" ? entry.operation : "secret.store";
  return { at: "commit", operation, target: null, meta: entry.meta, status: "live", conflict: null };
}

/** A newer version of the program wrote what this change would touch: it waits until this one can read it. */
function keptAside({ meta }: QueueEntry): never {
  throw new Aside(meta.name);
}

/** That a change cannot be made by this version of the program, and goes on waiting. */
export class Aside {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

/** A new name, other tags, or a removal. */
function planMeta(model: Model, entry: QueueEntry, nowMs: number): Plan {
  const known = model.secrets.get(entry.keyId);
  const nothing: Plan = { at: "drop", conflict: null, notice: null };
  const removing = entry.status === "removed";
  const { name } = entry.meta;
  if (!isServer(known) || known.meta === null || known.leaf.status !== "live") {
    if (removing) return nothing;
    const notice = `${JSON.stringify(name)} was removed on another device: its new name and tags were not set`;
    return { at: "drop", conflict: null, notice };
  }
  if (known.meta.origin === UNREADABLE) return keptAside(entry);
  const clean = untouched(entry, known);
  if (removing && !clean) {
    const versions = { theirs: known.leaf.version, ours: null };
    return { at: "drop", conflict: conflictOf("removed-here", known, known.meta.name, versions, nowMs), notice: null };
  }
  const meta = mergeMeta(entry.base?.meta, entry.meta, known.meta, false);
  if (removing)
    return { at: "commit", operation: "secret.remove", target: known, meta, status: "removed", conflict: null };
  const held = meta.name !== known.meta.name && holderOf(model, meta.name, entry.keyId) !== undefined;
  const made = held ? { ...meta, name: known.meta.name } : meta;
  const { version } = known.leaf;
  const conflict = held ? conflictOf("name", known, made.name, { theirs: null, ours: version }, nowMs) : null;
  return { at: "commit", operation: "secret.update", target: known, meta: made, status: "live", conflict };
}

/** What becomes of a change that waited. @throws Aside */
export function planOf(model: Model, entry: QueueEntry, nowMs: number): Plan {
  return entry.sealed === null ? planMeta(model, entry, nowMs) : planValue(model, entry, nowMs);
}
