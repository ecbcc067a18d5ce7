import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import type { RandomSource } from "../crypto/bytes.ts";
import { createServerSetup, opaqueReady, serverPublicKey } from "../crypto/opaque.ts";
import { Fault } from "../errors.ts";
import { asId, type IncarnationId, newId } from "../ids.ts";
import { DEFAULTS, KDF } from "../protocol/defaults.ts";
import { logOrigin } from "../protocol/log.ts";
import { type DirectoryLock, lockDirectory } from "../storage/lock.ts";
import { databaseFile, openStore } from "../storage/open.ts";
import type { Store, StoreCounts } from "../storage/store.ts";
import { replacePrivateFile } from "../wire/keyfiles.ts";
import { pinOf } from "../wire/pin.ts";
import { type Statement, signStatement } from "../wire/statement.ts";
import { administration } from "./administration.ts";
import { giveUpCeremonies } from "./ceremony/givingup.ts";
import { noKeyStore } from "./ceremony/service.ts";
import type { ServerContext } from "./context.ts";
import type { ControlHandlers } from "./control.ts";
import {
  demandRestored,
  directoryPaths,
  handlerKeys,
  openRegistrySeed,
  openServerDirectory,
  type ServerKeys,
} from "./directory.ts";
import { createDispatcher, type Dispatcher } from "./dispatch.ts";
import { type EnclaveFigures, startEnclave } from "./enclave.ts";
import { createEnclaveSite, enclaveToAsk, giveUpEnclave } from "./enclavesite.ts";
import { faultReply } from "./faultreply.ts";
import { createFederation, hookOf } from "./federation/index.ts";
import { sweepFloods } from "./floodnotes.ts";
import { sweepLogins } from "./handlers/login.ts";
import { claimKeys, claimRegistryKey, hasKeys, hasRegistryKey, keysFit } from "./keycheck.ts";
import { createRegistry } from "./keyring/index.ts";
import { createKeyStore } from "./keystore.ts";
import { faultFields, type ServerLog } from "./log.ts";
import { type Logbook, openLogbook } from "./logbook.ts";
import type { Meter } from "./meter.ts";
import { type OpaquePool, startOpaquePool } from "./opaque.ts";
import { PROBE_MS, readiness } from "./readiness.ts";
import { completeRotations, type RotationSite, rotateKey } from "./rotation.ts";
import { claimStatementNumber, statementNumber } from "./statements.ts";

/** How a key server is to run; the listener is added by src/server.ts. */
export interface KeyServerOptions {
  readonly dir: string;
  /** `sqlite:PATH` or `postgres://…`, or null for `DIR/keyhold.db`. */
  readonly database: string | null;
  readonly registration: "open" | "invite" | "closed";
  /** Whether every account needs a second factor; default optional. */
  readonly secondFactor?: "optional" | "required";
  readonly version: string;
  readonly log: ServerLog;
  readonly opaqueWorkers: number;
  /** The command line that runs the enclave; without one the server is no member of federations. */
  readonly enclaveCommand?: readonly [string, ...string[]];
  /** For one piece of administration: the enclave does what that asks for, and nothing that time alone brings. */
  readonly alone?: boolean;
  /** Registry of workspaces and keyrings, too; default not. */
  readonly registry?: boolean;
  /** Learns of the work of store and Workers, for figures. */
  readonly meter?: Meter;
}

/** A key server without its listener: holds the directory's lock until closed. */
export interface KeyServer {
  /** False where another process on the same database has the directory's lock, and with it the control socket. */
  readonly holdsDirectory: boolean;
  readonly ctx: ServerContext;
  readonly keys: ServerKeys;
  readonly pin: string;
  readonly dispatcher: Dispatcher;
  /** The server-wide log. */
  readonly logbook: Logbook;
  /** True while the store answers. */
  ready(): boolean;
  /** The enclave process, for figures; undefined where there can be none. */
  enclave(): EnclaveFigures | undefined;
  /** Accounts and live sessions, for figures. */
  counts(): Promise<StoreCounts>;
  /** The administrator's operations; `listening` tells what only the listener knows. */
  administration(listening: { readonly url: () => string; readonly requests: () => number }): ControlHandlers;
  /**
   * Makes the key pair for ceremonies at the first start, and anew where it was lost before anything was sealed to it
   * (docs/protocol.md §10.1). Never throws: what fails is logged, and is done at the first need.
   */
  prepare(): Promise<void>;
  /** Ends what only waits, once no more requests are taken. */
  drain(): void;
  close(): Promise<void>;
}

const SWEEP_MS = 10_000;
const RENEW_MS = 3_600_000;
const FOLLOW_MS = 5_000;
/** Looks at the keys that must fail one after another. */
const MISFITS = 2;

async function incarnationOf(store: Store, random: RandomSource): Promise<IncarnationId> {
  return store.transaction(async (tx) => {
    const known = await tx.setting("incarnation");
    if (known !== undefined) return asId<IncarnationId>(known);
    const made = newId<IncarnationId>(random);
    await tx.putSetting("incarnation", made);
    return made;
  });
}

const keysReplaced = () =>
  new Fault("unavailable", "this process has keys that another one replaced", { retryAfterMs: FOLLOW_MS });

/** The lock of a directory; undefined where another process that shares its database holds it. */
async function lockOf(dir: string, shared: boolean): Promise<DirectoryLock | undefined> {
  try {
    return await lockDirectory(dir);
  } catch (error) {
    if (shared && error instanceof Fault && error.code === "conflict") return undefined;
    throw error;
  }
}

/** Says in a directory that its server's data lie in a database beyond it. */
const ELSEWHERE = "data-elsewhere";

async function markElsewhere(dir: string, random: RandomSource): Promise<void> {
  const path = join(dir, ELSEWHERE);
  if (existsSync(path)) return;
  const text = "The data of this server lie in a PostgreSQL database: name it by --database or KEYHOLD_DATABASE.\n";
  await replacePrivateFile(path, new TextEncoder().encode(text), random(8).toHex());
}

/** Refuses to begin an empty database beside the keys of a server whose data lie elsewhere. @throws Fault not_found */
function demandHere(dir: string): void {
  if (!existsSync(join(dir, ELSEWHERE)) || existsSync(directoryPaths(dir).database)) return;
  throw new Fault("not_found", "the data of this server do not lie in its directory", {
    why: "it was served from a PostgreSQL database",
    hint: "--database postgres://…, or KEYHOLD_DATABASE",
  });
}

/**
 * Opens a server directory and everything behind the listener; the first time makes it all.
 *
 * @throws Fault conflict when another process runs on it; denied, corrupt, unsupported, storage
 */
export async function openKeyServer(options: KeyServerOptions): Promise<KeyServer> {
  const random: RandomSource = (length) => new Uint8Array(randomBytes(length));
  await opaqueReady();
  const dir = resolve(options.dir);
  demandRestored(dir);
  const database = options.database ?? `sqlite:${directoryPaths(dir).database}`;
  const file = databaseFile(database);
  if (options.database === null) demandHere(dir);
  const { meter } = options;
  let lock: DirectoryLock | undefined;
  let store: Store | undefined;
  let pool: OpaquePool | undefined;
  const open = async () => {
    const opened = await openStore(database, meter ? { committed: meter.committed } : {});
    store = meter?.store(opened) ?? opened;
    return store;
  };
  try {
    // a database beyond this directory says itself whether it has been used
    const shared = file === undefined ? await open() : undefined;
    const keys = await openServerDirectory(dir, {
      random,
      createOpaqueSetup: async () => createServerSetup(),
      databaseExists: shared ? await hasKeys(shared) : existsSync(file ?? ""),
    });
    lock = await lockOf(dir, shared !== undefined);
    const used = shared ?? (await open());
    await claimKeys(used, keys, dir);
    if (shared) await markElsewhere(dir, random);
    const started = startOpaquePool(options.opaqueWorkers);
    pool = meter?.pool(started) ?? started;
    return await assemble({ ...options, dir }, keys, used, pool, random, lock);
  } catch (error) {
    pool?.close();
    await store?.close();
    await lock?.release();
    throw error;
  }
}

/** The role of a registry; its first start makes the key that results are sealed to. */
async function registryOf({ dir, version, log }: KeyServerOptions, ctx: ServerContext, keys: ServerKeys) {
  const sealingSeed = await openRegistrySeed(dir, ctx.random, await hasRegistryKey(ctx.store));
  await claimRegistryKey(ctx.store, sealingSeed, dir);
  return createRegistry({ ctx, keys, dir, version, log, sealingSeed });
}

async function assemble(
  options: KeyServerOptions,
  keys: ServerKeys,
  store: Store,
  pool: OpaquePool,
  random: RandomSource,
  lock: DirectoryLock | undefined,
): Promise<KeyServer> {
  const now = Date.now;
  const { log, registration } = options;
  const incarnation = await incarnationOf(store, random);
  // of a shared database they may be those of another process; what nobody finishes is swept
  const dropped = store.engine === "sqlite" ? await store.transaction((tx) => tx.dropLoginStates()) : 0;
  if (dropped > 0) log.write("info", { event: "login-states-dropped", count: dropped });
  let statement: Statement;
  // replaced by a rotation
  let serving = keys;
  let handling = handlerKeys(keys);
  const facts = () => ({
    opaqueKeys: [serving.opaque.current, ...(serving.opaque.previous ? [serving.opaque.previous] : [])].map(
      ({ setup }) => serverPublicKey(setup),
    ),
    logKey: serving.log.publicKey,
    nextIdentity: null,
    incarnation,
    registration,
  });
  const sign = (number: number) => {
    statement = signStatement(keys.identity, { ...facts(), number, expiresAtMs: now() + DEFAULTS.statementMs });
  };
  const renew = async () => sign(await claimStatementNumber(store, facts()));
  await renew();
  const ctx: ServerContext = {
    store,
    now,
    random,
    get keys() {
      return handling;
    },
    pool,
    limits: DEFAULTS,
    ksf: KDF.opaque,
    registration,
    secondFactor: options.secondFactor ?? "optional",
    incarnation,
    log: {
      origin: logOrigin(keys.identity.publicKey, incarnation),
      get signers() {
        return serving.previousLog ? ([serving.log, serving.previousLog] as const) : ([serving.log] as const);
      },
    },
    statement: () => statement,
  };
  const onFault = (error: unknown) => log.write("error", faultFields(error));
  const { probe, ready } = readiness(store, () => performance.now());
  await probe();
  const logbook = await openLogbook(ctx, onFault);
  // a log that was damaged must not keep `server check` from naming it
  await logbook.flush().catch(onFault);
  const site: RotationSite = {
    dir: options.dir,
    ctx,
    logbook,
    random,
    keys: () => serving,
    async apply(next) {
      serving = next;
      handling = handlerKeys(next);
      await renew();
    },
    async rotateCeremonyKey(force) {
      if (!keyStore) throw noKeyStore();
      await giveUpEnclave(enclaveSite, force);
      const { newest, kept } = await keyStore.rotate();
      await store.transaction((tx) => giveUpCeremonies(ctx, tx, newest.key.enclave));
      return kept;
    },
  };
  await completeRotations(site);
  logbook.start();
  let misfits = 0;
  /**
   * What other processes did: signs under the number of one that started later with other facts, for clients take no
   * lower one after it, and stops serving when one has replaced the keys (not at the first look: it may be this one).
   */
  const follow = async () => {
    const newest = await statementNumber(store);
    if (newest > statement.number) sign(newest);
    misfits = (await keysFit(store, serving)) ? 0 : misfits + 1;
    if (misfits === MISFITS) log.write("error", { event: "keys-replaced" });
  };
  const outdated = () => misfits >= MISFITS;
  const pin = pinOf(keys.identity.publicKey);
  const { enclaveCommand } = options;
  // shares are used by one process alone
  const { dir, version } = options;
  const enclaveSite = createEnclaveSite(store, dir);
  // starts with the first question to it
  const enclave =
    lock && enclaveCommand ? startEnclave({ dir, command: enclaveCommand, log, demand: enclaveSite.demand }) : null;
  if (enclave && (await enclaveSite.lost())) log.write("error", { event: "enclave-missing" });
  const hook = hookOf(dir, log);
  const federation = enclave && createFederation({ ctx, keys, version, pin, enclave, hook });
  const keyStore = enclave && createKeyStore({ ctx, identity: keys.identity, enclave, notify: hook.notify });
  const registry = options.registry ? await registryOf(options, ctx, keys) : null;
  const timers = [
    setInterval(() => void probe().catch(onFault), PROBE_MS),
    setInterval(() => void sweep(ctx).catch(onFault), SWEEP_MS),
    ...(options.alone
      ? []
      : [
          setInterval(() => void federation?.sweep().catch(onFault), SWEEP_MS),
          setInterval(() => void keyStore?.sweep().catch(onFault), SWEEP_MS),
        ]),
    setInterval(() => void registry?.service.sweep().catch(onFault), SWEEP_MS),
    setInterval(() => void follow().catch(onFault), FOLLOW_MS),
    setInterval(() => {
      if (statement.expiresAtMs - now() < DEFAULTS.statementMs / 2) void renew().catch(onFault);
    }, RENEW_MS),
  ];
  for (const timer of timers) timer.unref();
  let closing: Promise<void> | undefined;
  let preparing: Promise<void> = Promise.resolve();
  const prepare = async () => {
    if (!keyStore) return;
    // what was sealed may still come back: the operator decides
    if (await enclaveSite.lost()) return;
    if (await enclaveSite.missing()) await site.rotateCeremonyKey(true);
    else await keyStore.prepare();
  };
  const dispatcher = createDispatcher(ctx, onFault, federation, registry?.service ?? null, keyStore);
  let rotating: Promise<unknown> = Promise.resolve();
  return {
    holdsDirectory: lock !== undefined,
    ctx,
    keys,
    pin,
    dispatcher: {
      handle: async (...request) => (outdated() ? faultReply(keysReplaced()) : dispatcher.handle(...request)),
    },
    logbook,
    ready: () => closing === undefined && !outdated() && ready(),
    enclave: () => enclave?.figures(),
    counts: () => store.transaction((tx) => tx.counts(now(), now() - DEFAULTS.sessionIdleMs)),
    administration: (listening) =>
      administration(
        ctx,
        {
          version: options.version,
          pin,
          startedAtMs: now(),
          enclave: () => enclaveToAsk(enclaveSite, enclave),
          rotate: (input) => {
            // one at a time: each begins with the keys that the one before left
            const next = rotating.then(() => rotateKey(site, input));
            rotating = next.catch(() => undefined);
            return next;
          },
          ...listening,
        },
        federation,
        registry?.control,
      ),
    prepare() {
      preparing = prepare().catch((error: unknown) => {
        if (!closing) onFault(error);
      });
      return preparing;
    },
    drain: () => registry?.drain(),
    close() {
      closing ??= (async () => {
        for (const timer of timers) clearInterval(timer);
        await rotating;
        await registry?.service.close();
        await keyStore?.close();
        await federation?.close();
        await enclave?.close();
        await preparing;
        await hook.close();
        await logbook.stop();
        pool.close();
        await store.close();
        await lock?.release();
      })();
      return closing;
    },
  };
}

/** What time alone ends: sessions, half logins, windows of floods, forgotten limits, unused reservations, shadow logs. */
export async function sweep(ctx: ServerContext): Promise<void> {
  const nowMs = ctx.now();
  await sweepLogins(ctx);
  await sweepFloods(ctx);
  await ctx.store.transaction(async (tx) => {
    await tx.sweepSessions(nowMs, nowMs - ctx.limits.sessionIdleMs);
    await tx.sweepLimits(nowMs - ctx.limits.loginForgetMs);
    await tx.sweepReservations(nowMs - ctx.limits.reservationMs);
    await tx.sweepShadowAudit(nowMs);
  });
}
