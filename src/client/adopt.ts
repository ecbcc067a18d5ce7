import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { KeyId, RequestId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { leafHash } from "../protocol/leaf.ts";
import type { Settings } from "../protocol/state.ts";
import { metaChange, openChecked, valueChange } from "./changes.ts";
import { takePromise } from "./checkpoint.ts";
import { type Change, commitChanges, commitSettings } from "./commit.ts";
import { closeQuietly, type FreshLogin, type Home, logInFreshly, vaultCost } from "./home.ts";
import { type Lineage, lineageOf, stray } from "./lineage.ts";
import {
  type Bound,
  bind,
  boundOf,
  type Model,
  newModel,
  putServerLeaf,
  type ServerSecret,
  type Surroundings,
} from "./model.ts";
import { takePending } from "./pending.ts";
import type { Profile } from "./profile.ts";
import type { QueueEntry } from "./queue.ts";
import type { Session } from "./session.ts";
import { checkHead, synchroniseAll } from "./sync.ts";
import { NO_VAULT, withVault } from "./vaultbox.ts";

/** What became of an account that its server had restored from a backup. */
export interface Adopted {
  /** Revision that the server had, and that this device knew. */
  readonly serverRevision: number;
  readonly knownRevision: number;
  /** Names of secrets whose newest value was in this vault, and is on the server again. */
  readonly uploaded: readonly string[];
  /** Names that were removed or purged again. */
  readonly removed: readonly string[];
  /** Names of which the newest value is lost: the vault kept no copy. */
  readonly lost: readonly string[];
  readonly requestId: RequestId;
}

/** What must hold of an account after a restore that the owner believes in. @throws Fault integrity, bad_input */
function checkRestored(model: Model, { done, link }: FreshLogin): void {
  const bound = boundOf(model);
  const { head, settings } = done.reply;
  if (link.statement.incarnation === bound.incarnation) {
    throw new Fault("bad_input", "the server was not restored since this device last saw it", { hint: "keyhold sync" });
  }
  if (!equalBytes(settings.identity, bound.settings.identity) || !equalBytes(done.accountKey, model.accountKey)) {
    throw stray("the account's keys were renewed after the backup, or it is another one");
  }
  const { state } = head;
  if (state.incarnation !== bound.incarnation && state.incarnation !== link.statement.incarnation) {
    throw stray("its newest state is of a third incarnation");
  }
}

/** Tells whether the vault's change of a secret is later than the server's of now. */
type Judge = (mine: ServerSecret) => boolean;

/**
 * In one history the serial decides; where another device has gone on in the new incarnation, serials of two histories
 * meet, and the time of the change does, which what is given back keeps. A purge is for good.
 */
function judgeOf(after: Model, changed: ReadonlySet<KeyId>): Judge {
  const start = new Map([...after.secrets].map(([keyId, { leaf }]) => [keyId, leaf]));
  return (mine) => {
    const { leaf } = mine;
    const theirs = after.secrets.get(leaf.keyId);
    if (!theirs) return true;
    if (equalBytes(leafHash(leaf), leafHash(theirs.leaf)) || theirs.leaf.status === "purged") return false;
    if (leaf.status === "purged") return true;
    const apart = changed.has(leaf.keyId) || start.get(leaf.keyId) !== theirs.leaf;
    return apart ? (mine.meta?.updatedAtMs ?? 0) > (theirs.meta?.updatedAtMs ?? 0) : leaf.serial > theirs.leaf.serial;
  };
}

/** What this vault knows and the server has lost. */
interface Losses {
  readonly upload: readonly ServerSecret[];
  readonly remove: readonly ServerSecret[];
  readonly lost: readonly string[];
}

function lossesOf(before: Model, after: Model, isNewer: Judge): Losses {
  const upload: ServerSecret[] = [];
  const remove: ServerSecret[] = [];
  const lost: string[] = [];
  for (const mine of before.secrets.values()) {
    if (mine.place !== "server") continue;
    if (!isNewer(mine)) continue;
    const theirs = after.secrets.get(mine.leaf.keyId);
    const sameValue = theirs !== undefined && equalBytes(mine.leaf.sealedHash, theirs.leaf.sealedHash);
    if (mine.leaf.status !== "live") {
      if (theirs && theirs.leaf.status !== mine.leaf.status) remove.push(mine);
    } else if (mine.sealed !== null || sameValue) upload.push(mine);
    else if (mine.meta?.type !== "part") lost.push(mine.meta?.name ?? mine.leaf.keyId);
  }
  return { upload, remove, lost };
}

/** One change that gives the server back what it lost of a secret. */
function uploadChange(before: Model, after: Model, mine: ServerSecret, around: Surroundings): Change {
  const { leaf, meta, sealed } = mine;
  if (!meta) throw new Fault("internal", "a live secret has no metadata");
  const theirs = after.secrets.get(leaf.keyId);
  if (theirs && equalBytes(theirs.leaf.sealedHash, leaf.sealedHash)) {
    return metaChange(after, theirs, meta, "live", around.random);
  }
  if (!sealed) throw new Fault("internal", "there is no copy to upload");
  const content = openChecked(before, leaf, meta, sealed);
  try {
    return valueChange(after, leaf.keyId, theirs, meta, content, true, around.random);
  } finally {
    wipe(content.value);
  }
}

/** A change with its value must leave room for its neighbours in one request. */
const BATCH_BYTES = DEFAULTS.bodyBytes / 2;

/** Groups that fit a request: at most 50 changes, or one that is large. */
function* batches(all: readonly ServerSecret[]): Generator<readonly ServerSecret[]> {
  let batch: ServerSecret[] = [];
  let size = 0;
  for (const one of all) {
    const bytes = 4_096 + 2 * ((one.sealed?.length ?? 0) + (one.leaf.meta?.length ?? 0));
    if (batch.length > 0 && (size + bytes > BATCH_BYTES || batch.length === DEFAULTS.changesPerRequest)) {
      yield batch;
      [batch, size] = [[], 0];
    }
    batch.push(one);
    size += bytes;
  }
  if (batch.length > 0) yield batch;
}

/** One removal that the server lost. */
function removalChange(after: Model, { leaf, meta }: ServerSecret, around: Surroundings): Change {
  const theirs = after.secrets.get(leaf.keyId);
  if (!theirs?.meta) throw new Fault("internal", "there is nothing to remove");
  const { updatedAtMs } = meta ?? theirs.meta;
  return metaChange(after, theirs, { ...theirs.meta, updatedAtMs }, leaf.status, around.random);
}

/** Uploads and removes again what the server lost, but for what another device was faster with. */
async function giveBack(
  before: Model,
  after: Model,
  losses: Losses,
  isNewer: Judge,
  { session }: FreshLogin["open"],
  around: Surroundings,
): Promise<{ uploaded: readonly ServerSecret[]; removed: readonly ServerSecret[] }> {
  const overtaken = new Fault("conflict", "another device was faster");
  const commit = async (
    operation: "secret.import" | "secret.update" | "secret.remove" | "secret.purge",
    all: readonly ServerSecret[],
    change: (mine: ServerSecret) => Change,
  ): Promise<readonly ServerSecret[]> => {
    const made: ServerSecret[] = [];
    for (const batch of batches(all)) {
      let left: readonly ServerSecret[] = [];
      try {
        await commitChanges(after, NO_VAULT, session, around, operation, () => {
          // once more after each turn that was lost
          left = batch.filter(isNewer);
          if (left.length === 0) throw overtaken;
          return left.map(change);
        });
        made.push(...left);
      } catch (error) {
        if (error !== overtaken) throw error;
      }
    }
    return made;
  };
  const upload = (mine: ServerSecret): Change => uploadChange(before, after, mine, around);
  const remove = (mine: ServerSecret): Change => removalChange(after, mine, around);
  const fresh = losses.upload.filter(({ leaf }) => !sameValueIn(after, leaf.keyId, leaf.sealedHash));
  const renamed = losses.upload.filter((one) => !fresh.includes(one));
  const gone = (status: "removed" | "purged") => losses.remove.filter(({ leaf }) => leaf.status === status);
  const uploaded = [
    ...(await commit("secret.import", fresh, upload)),
    ...(await commit("secret.update", renamed, upload)),
  ];
  const removed = [
    ...(await commit("secret.remove", gone("removed"), remove)),
    ...(await commit("secret.purge", gone("purged"), remove)),
  ];
  return { uploaded, removed };
}

const sameKit = (a: Settings, b: Settings): boolean =>
  a.kit === null || b.kit === null ? a.kit === b.kit : equalBytes(a.kit, b.kit);

/**
 * Puts the recovery kit back that this device knows, where the backup is older: the kit before it was replaced, and may
 * be in other hands. Whose kit is the newer one is not known once another device has gone on: then the owner hears of it.
 */
async function keepKit(
  after: Model,
  pin: Bound,
  { shared }: Lineage,
  shown: number,
  session: Session,
  around: Surroundings,
): Promise<void> {
  if (shared >= pin.head.state.revision || sameKit(boundOf(after).settings, pin.settings)) return;
  const { kit, kitWrapped } = pin.settings;
  if (shared === shown) {
    await commitSettings(after, NO_VAULT, session, around, "account.kit", (now) => ({
      settings: { ...now, kit, kitWrapped },
    }));
    return;
  }
  around.notice(
    "the account has another recovery kit than this device knew: make a new one: keyhold account recovery-kit",
  );
}

function sameValueIn(model: Model, keyId: ServerSecret["leaf"]["keyId"], hash: Uint8Array): boolean {
  const theirs = model.secrets.get(keyId);
  return theirs !== undefined && equalBytes(theirs.leaf.sealedHash, hash);
}

/**
 * Goes on with a server that was restored from a backup, because its owner says so (docs/protocol.md §6.5): signs a
 * state of the new incarnation that names this device's pin, then gives back what the server lost and the vault has.
 * Killed in between, the same call again completes it.
 *
 * @throws Fault bad_input where nothing was restored, login_failed, integrity, unreachable
 */
export async function acceptRestore(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
): Promise<Adopted> {
  const fresh = await logInFreshly(home, profile, password, around, { restored: true }).catch((error: unknown) => {
    // the server knew the password: it is the vault that does not open, by that or by the account's key of then
    if (!(error instanceof Fault) || error.code !== "wrong_password") throw error;
    throw stray("keys and password of the account were renewed after the backup; this vault takes the newer ones");
  });
  const { open, done, link } = fresh;
  const { box, session } = open;
  try {
    return await withVault(box, around, async (held) => {
      const before = box.model;
      checkRestored(before, fresh);
      const pending = held.pending();
      if (pending) takePending(before, pending);
      wipe(pending ?? undefined);
      const old = boundOf(before);
      const { reply } = done;
      const after = newModel(
        before.owner,
        before.accountKey,
        bind(
          {
            account: old.account,
            userId: old.userId,
            deviceId: old.deviceId,
            deviceSeed: old.deviceSeed,
            serverIdentity: link.identity,
            statementNumber: link.statementNumber,
            head: reply.head,
            settings: reply.settings,
            audit: { seq: reply.auditSeq, link: reply.auditLink },
          },
          around.now(),
        ),
      );
      await synchroniseAll(after, session, around, null, link.statement.incarnation);
      const lineage = await lineageOf(session, old.head, boundOf(after).head, link.statement.incarnation);
      const shown = boundOf(after).head.state.revision;
      boundOf(after).incarnation = link.statement.incarnation;
      session.onHead = async (head, beside) => {
        checkHead(after, head);
        await takePromise(after, session, head, beside, around.now());
      };
      const known = boundOf(after).settings.devices.some(({ id }) => id === old.deviceId);
      if (!known) {
        const mine = old.settings.devices.filter(({ id }) => id === old.deviceId);
        await commitSettings(after, NO_VAULT, session, around, "account.device.add", (now) => ({
          settings: { ...now, devices: [...now.devices, ...mine] },
        }));
      }
      const requestId = await commitSettings(after, NO_VAULT, session, around, "account.adopt", () => ({
        pin: old.head,
      }));
      await keepKit(after, old, lineage, shown, session, around);
      const isNewer = judgeOf(after, lineage.changed);
      const losses = lossesOf(before, after, isNewer);
      const { uploaded, removed } = await giveBack(before, after, losses, isNewer, open, around);
      keepMine(before, after, new Set([...uploaded, ...removed].map(({ leaf }) => leaf.keyId)));
      const rekeyed = old.keyedRevision !== boundOf(after).settings.credentialRevision;
      // the generation before stays beside it: it holds what was pinned until now
      box.model = after;
      await held.dropPending();
      // the password of the account is another one now: the vault takes it
      if (rekeyed) await held.rekey(password, vaultCost(profile.kdf));
      else await held.save();
      const names = (all: readonly ServerSecret[]) =>
        all.filter(({ meta }) => meta?.type !== "part").map(({ meta, leaf }) => meta?.name ?? leaf.keyId);
      return {
        serverRevision: reply.head.state.revision,
        knownRevision: old.head.state.revision,
        uploaded: names(uploaded),
        removed: names(removed),
        lost: losses.lost,
        requestId,
      };
    });
  } finally {
    await closeQuietly(done);
  }
}

/** Where a change that waits was built on what this vault gave back, it goes on from that. */
function onGivenBack(entry: QueueEntry, before: Model, after: Model, given: ReadonlySet<KeyId>): QueueEntry {
  const { base, keyId } = entry;
  const [known, now] = [before.secrets.get(keyId), after.secrets.get(keyId)];
  if (base === null || !known || !now || !given.has(keyId) || !equalBytes(base.leaf, leafHash(known.leaf)))
    return entry;
  return { ...entry, base: { ...base, leaf: leafHash(now.leaf), version: now.leaf.version } };
}

/** Takes over what lies in the vault alone, what waits, and copies of values that are the newest still. */
function keepMine(before: Model, after: Model, given: ReadonlySet<KeyId>): void {
  after.queue = before.queue.map((entry) => onGivenBack(entry, before, after, given));
  after.conflicts = before.conflicts;
  after.held = before.held;
  for (const [keyId, secret] of before.secrets) {
    if (secret.place === "local") after.secrets.set(keyId, secret);
    const now = after.secrets.get(keyId);
    if (secret.place !== "server" || now?.place !== "server" || secret.sealed === null || now.sealed !== null) continue;
    if (equalBytes(now.leaf.sealedHash, secret.leaf.sealedHash)) putServerLeaf(after, now.leaf, secret.sealed);
  }
}
