import { existsSync } from "node:fs";
import { copyFile, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { RandomSource } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { asId, type IncarnationId, newId } from "../ids.ts";
import { DEFAULTS, KDF } from "../protocol/defaults.ts";
import { logOrigin } from "../protocol/log.ts";
import { openSqlite } from "../storage/sqlite.ts";
import type { Store, Tx } from "../storage/store.ts";
import { checkServer } from "./check.ts";
import type { ServerContext } from "./context.ts";
import { directoryPaths, makeDirectory, readKeys, type ServerKeys } from "./directory.ts";
import { claimKeys } from "./keycheck.ts";
import { createPrivateDirectory, fileFault, shown, syncDirectory } from "./keyfiles.ts";
import { startLog } from "./logbook.ts";
import { jumpStatementNumber } from "./statements.ts";

/** What a restore takes. */
export interface RestoreInput {
  /** Target directory: absent or empty. */
  readonly dir: string;
  /** The data file of the backup. */
  readonly data: string;
  /** Key files of the backup, opened. */
  readonly keys: ReadonlyMap<string, Uint8Array>;
  readonly random: RandomSource;
  readonly now: () => number;
}

/** What a restore made. */
export interface Restored {
  readonly accounts: number;
  readonly incarnation: IncarnationId;
  readonly previousIncarnation: IncarnationId;
}

const RESTORING = "keyhold.db.restoring";

/** Refuses a target that holds anything but the rests of a restore that was killed. @throws Fault exists */
async function demandEmpty(dir: string): Promise<void> {
  if (!existsSync(dir)) return;
  const names = await readdir(dir).catch((error: unknown) => {
    throw fileFault(error, "read", dir);
  });
  const rests = names.filter((name) => name.startsWith(RESTORING) || /^\.keys-[0-9a-f]{16}$/.test(name));
  if (rests.length < names.length) {
    throw new Fault("exists", `cannot restore into ${shown(dir)}: it is not empty`, {
      hint: "name a new directory by --dir, or move the old one away",
    });
  }
  for (const name of rests) await rm(join(dir, name), { recursive: true, force: true });
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
    keys: {
      identity: keys.identity.publicKey,
      accountName: keys.accountNameKey,
      sealing: keys.sealingKey,
      shadow: keys.shadowKey,
      opaque: keys.opaque.current,
    },
    pool: { run: never, close: never },
    limits: DEFAULTS,
    ksf: KDF.opaque,
    registration: "closed",
    incarnation,
    log: { origin: logOrigin(keys.identity.publicKey, incarnation), signers: [keys.log] },
    statement: never,
  };
}

/** Ends what must not outlive a restore, and begins an incarnation (docs/protocol.md §6.5). */
async function beginIncarnation(
  tx: Tx,
  keys: ServerKeys,
  incarnation: IncarnationId,
  { now }: RestoreInput,
): Promise<void> {
  await tx.putSetting("incarnation", incarnation);
  await tx.dropLoginStates();
  await tx.sweepSessions(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  for (const { codeHash } of await tx.invites()) await tx.removeInvite(codeHash);
  await jumpStatementNumber(tx, now());
  const head = await tx.logHead();
  const restart = head ? { origin: head.origin, size: head.size, root: head.root } : null;
  await startLog(tx, logOrigin(keys.identity.publicKey, incarnation), restart);
}

async function restoreStore(store: Store, keys: ServerKeys, input: RestoreInput): Promise<Restored> {
  const known = await settingOf(store, "incarnation");
  if (known === undefined) throw new Fault("corrupt", "this database was never a server's");
  await claimKeys(store, keys, input.dir);
  const previousIncarnation = asId<IncarnationId>(known);
  const { items } = await checkServer(contextOf(store, keys, previousIncarnation, input));
  const bad = items.find(({ ok }) => !ok);
  if (bad) {
    throw new Fault("corrupt", "cannot restore: the backup does not pass the server check", {
      why: `${bad.name}: ${bad.detail ?? "wrong"}`,
      hint: "use an older backup",
    });
  }
  const incarnation = newId<IncarnationId>(input.random);
  const accounts = await store.transaction(async (tx) => {
    await beginIncarnation(tx, keys, incarnation, input);
    return (await tx.counts(input.now(), 0)).accounts;
  });
  return { accounts, incarnation, previousIncarnation };
}

/**
 * Makes a server of a backup: verifies it whole, then begins a new incarnation, which clients accept only when their
 * owners say so. Killed at any point it leaves no server that would start; the same call again completes it.
 *
 * @throws Fault exists for a target that is not empty; corrupt for a backup that does not verify or whose halves do not
 *   belong together; denied, storage
 */
export async function restoreServer(input: RestoreInput): Promise<Restored> {
  const { dir, random } = input;
  process.umask(0o077);
  await demandEmpty(dir);
  await makeDirectory(dir);
  const paths = directoryPaths(dir);
  const data = join(dir, RESTORING);
  const staged = `.keys-${random(8).toHex()}`;
  try {
    await createPrivateDirectory(join(dir, staged), input.keys, `keys-${random(8).toHex()}`);
    await copyDurably(input.data, data);
    const keys = await readKeys(join(dir, staged));
    const store = await openSqlite(data);
    let restored: Restored;
    try {
      restored = await restoreStore(store, keys, input);
    } finally {
      await store.close();
    }
    // the database first: without its keys it starts nothing, and keys alone would start a new one
    await rename(data, paths.database);
    await rename(join(dir, staged), paths.keys);
    await syncDirectory(dir);
    return restored;
  } catch (error) {
    for (const name of await readdir(dir)) {
      if (name.startsWith(RESTORING) || name === staged) await rm(join(dir, name), { recursive: true, force: true });
    }
    throw fileFault(error, "restore into", dir);
  }
}
