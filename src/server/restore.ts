import { existsSync } from "node:fs";
import { copyFile, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { RandomSource } from "../crypto/bytes.ts";
import { RESTORED_FILE } from "../enclave/restoring.ts";
import { enclavePaths } from "../enclave/sealingkey.ts";
import { Fault } from "../errors.ts";
import { asId, type IncarnationId, isId, newId } from "../ids.ts";
import { DEFAULTS, KDF } from "../protocol/defaults.ts";
import { logOrigin } from "../protocol/log.ts";
import { openStore } from "../storage/open.ts";
import { openSqlite } from "../storage/sqlite.ts";
import type { Store, Tx } from "../storage/store.ts";
import { copyIn, demandEmptyPostgres, isEmptyPostgres } from "../storage/transfer.ts";
import {
  createPrivateDirectory,
  createPrivateFile,
  fileFault,
  replacePrivateFile,
  shown,
  syncDirectory,
} from "../wire/keyfiles.ts";
import { giveUpCeremonies } from "./ceremony/givingup.ts";
import type { SealedCounts } from "./ceremony/sealed.ts";
import { checkServer } from "./check.ts";
import type { ServerContext } from "./context.ts";
import { directoryPaths, handlerKeys, makeDirectory, RESTORE_MARK, readKeys, type ServerKeys } from "./directory.ts";
import { demandOwnEnclave, type EnclaveCopy, openEnclaveCopy, restoredFiles } from "./enclavebackup.ts";
import { createEnclaveSite } from "./enclavesite.ts";
import { EARLIER, earlierIncarnations } from "./incarnations.ts";
import { claimKeys } from "./keycheck.ts";
import { startLog } from "./logbook.ts";
import { jumpStatementNumber } from "./statements.ts";

/** What a restore takes. */
export interface RestoreInput {
  /** Target directory: absent or empty. */
  readonly dir: string;
  /** `postgres://…` of an empty database; null for a file in the directory. */
  readonly database: string | null;
  /** The data file of the backup. */
  readonly data: string;
  /** Key files of the backup, opened. */
  readonly keys: ReadonlyMap<string, Uint8Array>;
  /** Files of its enclave, opened; null where they are put back by hand, or there are none. */
  readonly enclave?: ReadonlyMap<string, Uint8Array> | null;
  readonly random: RandomSource;
  readonly now: () => number;
}

/** What a restore made. */
export interface Restored {
  readonly accounts: number;
  readonly incarnation: IncarnationId;
  readonly previousIncarnation: IncarnationId;
  /** What opens nowhere without the enclave's directory, which is missing; null otherwise. */
  readonly lost: SealedCounts | null;
}

const RESTORING = "keyhold.db.restoring";

/** What a restore makes: while its mark lies there, all of it is a rest of one that was cut short. */
const isRest = (dir: string, name: string): boolean =>
  name === "keys" ||
  name.startsWith("keyhold.db") ||
  /^\.(keys|enclave)-[0-9a-f]{16}$/.test(name) ||
  // one that was put there by hand is nobody's to remove
  (name === "enclave" && existsSync(join(dir, name, RESTORED_FILE))) ||
  name.startsWith(RESTORE_MARK);

/** Removes what a restore made so far; its mark goes last. */
async function clear(dir: string): Promise<void> {
  const rests = (await readdir(dir)).filter((name) => isRest(dir, name) && name !== RESTORE_MARK);
  for (const name of [...rests, RESTORE_MARK]) await rm(join(dir, name), { recursive: true, force: true });
}

/** Refuses a target that holds anything but the rests of a restore that was cut short. @throws Fault exists */
async function demandEmpty(dir: string): Promise<void> {
  if (!existsSync(dir)) return;
  const names = await readdir(dir).catch((error: unknown) => {
    throw fileFault(error, "read", dir);
  });
  if (names.length === 0) return;
  if (!names.includes(RESTORE_MARK) || !names.every((name) => isRest(dir, name))) {
    throw new Fault("exists", `cannot restore into ${shown(dir)}: it is not empty`, {
      hint: "name a new directory by --dir, or move the old one away",
    });
  }
  await clear(dir);
}

async function copyDurably(from: string, to: string): Promise<void> {
  try {
    if (!(await stat(from)).isFile()) throw new Fault("bad_input", `${shown(from)} is not a file`);
    await copyFile(from, to);
    const handle = await open(to, "r+");
    try {
      await handle.chmod(0o600);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fileFault(error, "copy", from);
  }
}

async function settingOf(store: Store, name: string): Promise<string | undefined> {
  return store.transaction((tx) => tx.setting(name));
}

/** Enough of a context to verify a database with; it serves nobody. */
function contextOf(store: Store, keys: ServerKeys, incarnation: IncarnationId, input: RestoreInput): ServerContext {
  const never = (): never => {
    throw new Fault("internal", "a restore serves no requests");
  };
  return {
    store,
    now: input.now,
    random: input.random,
    keys: handlerKeys(keys),
    pool: { run: never, close: never },
    limits: DEFAULTS,
    ksf: KDF.opaque,
    registration: "closed",
    incarnation,
    log: {
      origin: logOrigin(keys.identity.publicKey, incarnation),
      signers: keys.previousLog ? [keys.log, keys.previousLog] : [keys.log],
    },
    statement: never,
  };
}

async function endSessions(tx: Tx): Promise<void> {
  await tx.dropLoginStates();
  await tx.sweepSessions(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
}

/**
 * Ends what must not outlive a restore, and begins an incarnation (docs/protocol.md §6.5).
 *
 * @param identity Ed25519 public key of the server, 32 bytes.
 */
export async function beginIncarnation(
  tx: Tx,
  identity: Uint8Array,
  incarnation: IncarnationId,
  previous: IncarnationId,
  nowMs: number,
): Promise<void> {
  const earlier = await earlierIncarnations(tx);
  await tx.putSetting("incarnation", incarnation);
  await tx.putSetting(EARLIER, [...earlier, previous].join(" "));
  await endSessions(tx);
  for (const { codeHash } of await tx.invites()) await tx.removeInvite(codeHash);
  await jumpStatementNumber(tx, nowMs);
  const head = await tx.logHead();
  const restart = head ? { origin: head.origin, size: head.size, root: head.root } : null;
  await startLog(tx, logOrigin(identity, incarnation), restart);
}

async function restoreStore(
  store: Store,
  keys: ServerKeys,
  input: RestoreInput,
  enclave: EnclaveCopy | null,
): Promise<Omit<Restored, "lost">> {
  const known = await settingOf(store, "incarnation");
  if (known === undefined) throw new Fault("corrupt", "this database was never a server's");
  await claimKeys(store, keys, input.dir);
  const previousIncarnation = asId<IncarnationId>(known);
  // they end in any case, and one that a rotation overtook is no reason to refuse the rest
  await store.transaction((tx) => endSessions(tx));
  if (enclave) await demandOwnEnclave(store, enclave.ask);
  const ctx = contextOf(store, keys, previousIncarnation, input);
  const { items } = await checkServer(ctx, enclave ? async () => enclave.ask : undefined);
  const bad = items.find(({ ok }) => !ok);
  if (bad) {
    throw new Fault("corrupt", "cannot restore: the backup does not pass the server check", {
      why: `${bad.name}: ${bad.detail ?? "wrong"}`,
      hint: "use an older backup",
    });
  }
  const incarnation = newId<IncarnationId>(input.random);
  const accounts = await store.transaction(async (tx) => {
    await beginIncarnation(tx, keys.identity.publicKey, incarnation, previousIncarnation, input.now());
    // its journal has forgotten how far they came: it goes on with none of them
    if (input.enclave) await giveUpCeremonies(ctx, tx, null);
    return (await tx.counts(input.now(), 0)).accounts;
  });
  return { accounts, incarnation, previousIncarnation };
}

/** A restore that was cut short after it had filled the database: its mark is all that is left to remove. */
async function completed(dir: string, database: string): Promise<Restored | undefined> {
  const mark = join(dir, RESTORE_MARK);
  if (!existsSync(mark) || !existsSync(directoryPaths(dir).keys)) return undefined;
  const incarnation = await readFile(mark, "utf8");
  if (!isId(incarnation) || (await isEmptyPostgres(database))) return undefined;
  const store = await openStore(database);
  try {
    const found = await store.transaction(async (tx) => ({
      incarnation: await tx.setting("incarnation"),
      previous: (await earlierIncarnations(tx)).at(-1),
      accounts: (await tx.counts(0, 0)).accounts,
    }));
    if (found.incarnation !== incarnation || found.previous === undefined) return undefined;
    await rm(join(dir, RESTORING), { force: true });
    await rm(mark);
    await syncDirectory(dir);
    const [now, previous] = [asId<IncarnationId>(incarnation), asId<IncarnationId>(found.previous)];
    const lost = await createEnclaveSite(store, dir).lost();
    return { accounts: found.accounts, incarnation: now, previousIncarnation: previous, lost };
  } finally {
    await store.close();
  }
}

/**
 * Makes a server of a backup: verifies it whole, then begins a new incarnation, which clients accept only when their
 * owners say so. Killed at any point it leaves no server that would start; the same call again completes it.
 *
 * @throws Fault exists for a target that is not empty; corrupt for a backup that does not verify or whose halves do not
 *   belong together; denied, storage
 */
export async function restoreServer(input: RestoreInput): Promise<Restored> {
  const { dir, random, database } = input;
  process.umask(0o077);
  if (database !== null) {
    const before = await completed(dir, database);
    if (before) return before;
    await demandEmptyPostgres(database);
  }
  await demandEmpty(dir);
  await makeDirectory(dir);
  const paths = directoryPaths(dir);
  const data = join(dir, RESTORING);
  let filled = false;
  const suffix = random(8).toHex();
  const [staged, stagedEnclave] = [`.keys-${suffix}`, `.enclave-${suffix}`];
  await createPrivateFile(join(dir, RESTORE_MARK), new TextEncoder().encode("restoring\n"));
  try {
    await syncDirectory(dir);
    await createPrivateDirectory(join(dir, staged), input.keys, `keys-${random(8).toHex()}`);
    if (input.enclave)
      await createPrivateDirectory(
        join(dir, stagedEnclave),
        restoredFiles(input.enclave),
        `enclave-${random(8).toHex()}`,
      );
    await copyDurably(input.data, data);
    const keys = await readKeys(join(dir, staged));
    const enclave = input.enclave ? await openEnclaveCopy(join(dir, stagedEnclave), input.enclave, input) : null;
    const store = await openSqlite(data);
    let restored: Restored;
    try {
      const made = await restoreStore(store, keys, input, enclave);
      restored = { ...made, lost: input.enclave ? null : await createEnclaveSite(store, dir).lost() };
    } finally {
      enclave?.close();
      await store.close();
    }
    await rename(join(dir, staged), paths.keys);
    if (input.enclave) await rename(join(dir, stagedEnclave), enclavePaths(dir).directory);
    if (database === null) await rename(data, paths.database);
    else {
      // cut short after it, the mark tells that the database is this restore's
      const mark = new TextEncoder().encode(restored.incarnation);
      await replacePrivateFile(join(dir, RESTORE_MARK), mark, "next");
      await copyIn(database, data);
      filled = true;
      await rm(data);
    }
    await syncDirectory(dir);
    // from here on it is a server
    await rm(join(dir, RESTORE_MARK));
    await syncDirectory(dir);
    return restored;
  } catch (error) {
    if (!filled) await clear(dir);
    throw fileFault(error, "restore into", dir);
  }
}
