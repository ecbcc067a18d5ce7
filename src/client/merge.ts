import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { EntryId, KeyId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { CommitName } from "../wire/operations.ts";
import { metaChange, plainChange, reservedTwice } from "./changes.ts";
import { type Change, changeBytes, commitChanges } from "./commit.ts";
import { withHigherCounter } from "./mergecounter.ts";
import { Aside, type Plan, planOf } from "./mergeplan.ts";
import { type Model, recordKeys, type Surroundings } from "./model.ts";
import { openEntry, type QueueEntry } from "./queue.ts";
import { isSealed, type Session } from "./session.ts";
import { settle } from "./settling.ts";
import { synchronise } from "./sync.ts";
import { type HeldVault, type VaultBox, withVault } from "./vaultbox.ts";

/** What went to the server of that which waited. */
export interface Merged {
  /** Changes that the account has now. */
  readonly sent: number;
  /** Conflicts that came to light. */
  readonly conflicts: number;
}

/** Nothing waited. */
export const NOTHING_MERGED: Merged = { sent: 0, conflicts: 0 };

const BATCH = 20;
/** Leaves room for the signed state beside the changes. */
const BATCH_BYTES = DEFAULTS.bodyBytes - 4_096;

/** That the account has moved on so far that another operation is the right one. */
const REPLAN = Symbol("replan");

/**
 * Sends what waited in the vault, in order, each change signed and committed like any other (docs/protocol.md §7.4).
 * A change leaves the queue in the write of the vault that takes it in, or by its pending request; killed at any
 * point, the next call goes on.
 */
export async function mergeQueue(box: VaultBox, session: Session, around: Surroundings): Promise<Merged> {
  if (box.model.queue.length === 0) return NOTHING_MERGED;
  await withVault(box, around, () => synchronise(box.model, session, around));
  const aside = new Set<EntryId>();
  const reserved: KeyId[] = [];
  let sent = 0;
  let conflicts = 0;
  for (;;) {
    const done = await withVault(box, around, (held) => mergeNext(box.model, held, session, around, aside, reserved));
    if (done === null) break;
    sent += done.sent;
    conflicts += done.conflicts;
  }
  if (sent > 0) around.notice(`${sent} queued ${sent === 1 ? "change" : "changes"} went to the server`);
  if (conflicts > 0) around.notice(`${conflicts} of them met changes of another device: keyhold status`);
  return { sent, conflicts };
}

/** Changes that can be made now: not those that must wait, nor what follows them. */
function* ready(model: Model, aside: ReadonlySet<EntryId>): Generator<QueueEntry> {
  const waiting = new Set<KeyId>();
  for (const entry of model.queue) {
    if (aside.has(entry.id) || waiting.has(entry.keyId)) waiting.add(entry.keyId);
    else yield entry;
  }
}

/** The first change that is left with what goes into the same request; null where nothing is left. */
async function mergeNext(
  model: Model,
  held: HeldVault,
  session: Session,
  around: Surroundings,
  aside: Set<EntryId>,
  reserved: KeyId[],
): Promise<Merged | null> {
  const entries = [...ready(model, aside).take(BATCH)];
  const [first] = entries;
  if (!first) return null;
  let plan: Plan;
  try {
    plan = planOf(model, first, around.now());
  } catch (error) {
    return setAside(first, error, aside, around);
  }
  if (plan.at === "drop") {
    settle(model, { entry: first.id, conflict: plan.conflict }, null);
    await held.save();
    if (plan.notice !== null) around.notice(plan.notice);
    return { sent: 0, conflicts: plan.conflict ? 1 : 0 };
  }
  const { operation } = plan;
  let made: readonly Change[] = [];
  const commit = (some: readonly QueueEntry[]) =>
    commitChanges(model, held, session, around, operation, async () => {
      made = await changesOf(model, some, operation, session, around, reserved);
      return made;
    });
  try {
    // one that is refused must not keep its neighbours back
    await commit(entries).catch((error: unknown) =>
      isRefused(error) && made.length > 1 ? commit([first]) : raise(error),
    );
  } catch (error) {
    if (error === REPLAN) return NOTHING_MERGED;
    return setAside(first, error, aside, around);
  }
  return { sent: made.length, conflicts: made.filter(({ settles }) => settles?.conflict).length };
}

function raise(error: unknown): never {
  throw error;
}

/** A refusal of the change itself, under the session's seal. */
const isRefused = (error: unknown): error is Fault =>
  error instanceof Fault && isSealed(error) && error.code !== "stale" && error.code !== "session_invalid";

/** A change that the server refuses for itself goes on waiting, and does not stand in the way of the others. */
function setAside(entry: QueueEntry, error: unknown, aside: Set<EntryId>, around: Surroundings): Merged {
  if (!isRefused(error) && !(error instanceof Aside)) throw error;
  aside.add(entry.id);
  const why = error instanceof Aside ? "a newer version of keyhold wrote that secret" : error.message;
  around.notice(`a queued change of ${JSON.stringify(entry.meta.name)} goes on waiting: ${why}`);
  return NOTHING_MERGED;
}

/** As many of the changes as one request holds, each secret and each name once. */
async function changesOf(
  model: Model,
  entries: readonly QueueEntry[],
  operation: CommitName,
  session: Session,
  around: Surroundings,
  reserved: KeyId[],
): Promise<readonly Change[]> {
  const changes: Change[] = [];
  const taken = new Set<string>();
  let bytes = 0;
  for (const entry of entries) {
    const plan = planNext(model, entry, around, changes.length === 0);
    if (plan === null || plan.at === "drop" || plan.operation !== operation) break;
    const keyId = plan.target?.leaf.keyId ?? (await newKeyId(model, entry, operation, session, reserved));
    if (taken.has(keyId) || taken.has(entry.keyId) || taken.has(plan.meta.name)) break;
    const change = await changeOf(model, keyId, entry, plan, session, around);
    bytes += changeBytes(change);
    if (changes.length > 0 && bytes > BATCH_BYTES) break;
    for (const one of [keyId, entry.keyId, plan.meta.name]) taken.add(one);
    reserved.splice(0, reserved.length, ...reserved.filter((one) => one !== keyId));
    changes.push({ ...change, settles: { entry: entry.id, conflict: plan.conflict } });
  }
  if (changes.length === 0) throw REPLAN;
  return changes;
}

/** What must wait ends a request, and where it is the first of one, that is said. */
function planNext(model: Model, entry: QueueEntry, around: Surroundings, first: boolean): Plan | null {
  try {
    return planOf(model, entry, around.now());
  } catch (error) {
    if (first || !(error instanceof Aside)) throw error;
    return null;
  }
}

async function changeOf(
  model: Model,
  keyId: KeyId,
  entry: QueueEntry,
  { target, meta, status, conflict }: Extract<Plan, { at: "commit" }>,
  session: Session,
  around: Surroundings,
): Promise<Change> {
  if (entry.sealed === null) {
    if (target === null) throw new Fault("internal", "a change without its secret");
    return metaChange(model, target, meta, status, around.random);
  }
  const plain = openEntry(recordKeys(model), model.owner, entry);
  let made = plain;
  try {
    if (target && conflict) made = await withHigherCounter(model, target, meta, plain, session);
    return plainChange(model, keyId, target ?? undefined, meta, made, entry.keep, around.random);
  } finally {
    wipe(plain, made);
  }
}

/** The id of a new secret: the server's, but for an import, which brings its own. @throws Fault integrity */
async function newKeyId(
  model: Model,
  { keyId }: QueueEntry,
  operation: CommitName,
  session: Session,
  reserved: KeyId[],
): Promise<KeyId> {
  if (operation === "secret.import" && !model.secrets.has(keyId)) return keyId;
  const left = reserved.find((one) => !model.secrets.has(one));
  if (left !== undefined) return left;
  const { output } = await session.call("secret.reserve", { count: 1 });
  const [item] = output.items;
  const known = item && (model.secrets.has(item.keyId) || model.queue.some((one) => one.keyId === item.keyId));
  if (!item || output.items.length !== 1) throw new Fault("integrity", "the server reserved another number of ids");
  if (known) throw reservedTwice();
  reserved.push(item.keyId);
  return item.keyId;
}
