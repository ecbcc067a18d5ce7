import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { RandomSource } from "../crypto/bytes.ts";
import { createServerSetup, opaqueReady, serverPublicKey } from "../crypto/opaque.ts";
import { Fault } from "../errors.ts";
import { asId, type IncarnationId, newId } from "../ids.ts";
import { DEFAULTS, KDF } from "../protocol/defaults.ts";
import { lockDirectory } from "../storage/lock.ts";
import { openSqlite } from "../storage/sqlite.ts";
import type { Store } from "../storage/store.ts";
import { pinOf } from "../wire/pin.ts";
import { type Statement, signStatement } from "../wire/statement.ts";
import { administration } from "./administration.ts";
import type { ServerContext } from "./context.ts";
import type { ControlHandlers } from "./control.ts";
import { directoryPaths, openServerDirectory, type ServerKeys } from "./directory.ts";
import { createDispatcher, type Dispatcher } from "./dispatch.ts";
import { sweepLogins, sweepRefused } from "./handlers/login.ts";
import { faultFields, type ServerLog } from "./log.ts";
import { type OpaquePool, startOpaquePool } from "./opaque.ts";
import { PROBE_MS, readiness } from "./readiness.ts";

/** How a key server is to run; the listener is added by src/server.ts. */
export interface KeyServerOptions {
  readonly dir: string;
  /** `sqlite:PATH`, or null for `DIR/keyhold.db`. */
  readonly database: string | null;
  readonly registration: "open" | "invite" | "closed";
  readonly version: string;
  readonly log: ServerLog;
  readonly opaqueWorkers: number;
}

/** A key server without its listener: holds the directory's lock until closed. */
export interface KeyServer {
  readonly ctx: ServerContext;
  readonly keys: ServerKeys;
  readonly pin: string;
  readonly dispatcher: Dispatcher;
  /** True while the store answers. */
  ready(): boolean;
  /** The administrator's operations; `listening` tells what only the listener knows. */
  administration(listening: { readonly url: () => string; readonly requests: () => number }): ControlHandlers;
  close(): Promise<void>;
}

const SWEEP_MS = 10_000;
const RENEW_MS = 3_600_000;

function databasePath(dir: string, database: string | null): string {
  if (database === null) return directoryPaths(dir).database;
  if (database.startsWith("sqlite:")) return resolve(database.slice("sqlite:".length));
  throw new Fault("bad_input", "this database is not supported", { hint: "use sqlite:PATH" });
}

async function incarnationOf(store: Store, random: RandomSource): Promise<IncarnationId> {
  return store.transaction(async (tx) => {
    const known = await tx.setting("incarnation");
    if (known !== undefined) return asId<IncarnationId>(known);
    const made = newId<IncarnationId>(random);
    await tx.putSetting("incarnation", made);
    return made;
  });
}

/** The next statement's number: counts up with every signature, so that a client knows the newer one. */
async function nextStatementNumber(store: Store): Promise<number> {
  return store.transaction(async (tx) => {
    const number = Number((await tx.setting("statement")) ?? "0") + 1;
    await tx.putSetting("statement", String(number));
    return number;
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
  const database = databasePath(dir, options.database);
  const keys = await openServerDirectory(dir, {
    random,
    createOpaqueSetup: async () => createServerSetup(),
    databaseExists: existsSync(database),
  });
  const lock = await lockDirectory(dir);
  let store: Store | undefined;
  let pool: OpaquePool | undefined;
  try {
    store = await openSqlite(database);
    pool = startOpaquePool(options.opaqueWorkers);
    return await assemble(options, keys, store, pool, random, async () => lock.release());
  } catch (error) {
    pool?.close();
    await store?.close();
    await lock.release();
    throw error;
  }
}

async function assemble(
  options: KeyServerOptions,
  keys: ServerKeys,
  store: Store,
  pool: OpaquePool,
  random: RandomSource,
  release: () => Promise<void>,
): Promise<KeyServer> {
  const now = Date.now;
  const { log, registration } = options;
  const incarnation = await incarnationOf(store, random);
  const dropped = await store.transaction((tx) => tx.dropLoginStates());
  if (dropped > 0) log.write("info", { event: "login-states-dropped", count: dropped });
  let statement: Statement;
  const renew = async () => {
    const number = await nextStatementNumber(store);
    statement = signStatement(keys.identity, {
      number,
      expiresAtMs: now() + DEFAULTS.statementMs,
      opaqueKeys: [serverPublicKey(keys.opaque.current.setup)],
      logKey: keys.log.publicKey,
      nextIdentity: null,
      incarnation,
      registration,
    });
  };
  await renew();
  const ctx: ServerContext = {
    store,
    now,
    random,
    keys: {
      identity: keys.identity.publicKey,
      accountName: keys.accountNameKey,
      sealing: keys.sealingKey,
      shadow: keys.shadowKey,
      opaque: keys.opaque.current,
    },
    pool,
    limits: DEFAULTS,
    ksf: KDF.opaque,
    registration,
    incarnation,
    statement: () => statement,
  };
  const onFault = (error: unknown) => log.write("error", faultFields(error));
  const { probe, ready } = readiness(store, () => performance.now());
  await probe();
  const timers = [
    setInterval(() => void probe().catch(onFault), PROBE_MS),
    setInterval(() => void sweep(ctx).catch(onFault), SWEEP_MS),
    setInterval(() => {
      if (statement.expiresAtMs - now() < DEFAULTS.statementMs / 2) void renew().catch(onFault);
    }, RENEW_MS),
  ];
  for (const timer of timers) timer.unref();
  const pin = pinOf(keys.identity.publicKey);
  let closing: Promise<void> | undefined;
  return {
    ctx,
    keys,
    pin,
    dispatcher: createDispatcher(ctx, onFault),
    ready: () => closing === undefined && ready(),
    administration: (listening) =>
      administration(ctx, { version: options.version, pin, startedAtMs: now(), ...listening }),
    close() {
      closing ??= (async () => {
        for (const timer of timers) clearInterval(timer);
        pool.close();
        await store.close();
        await release();
      })();
      return closing;
    },
  };
}

/** What time alone ends: sessions, half logins, windows of refused logins, forgotten limits, unused reservations, shadow logs. */
export async function sweep(ctx: ServerContext): Promise<void> {
  const nowMs = ctx.now();
  await sweepLogins(ctx);
  await sweepRefused(ctx);
  await ctx.store.transaction(async (tx) => {
    await tx.sweepSessions(nowMs, nowMs - ctx.limits.sessionIdleMs);
    await tx.sweepLimits(nowMs - ctx.limits.loginForgetMs);
    await tx.sweepReservations(nowMs - ctx.limits.reservationMs);
    await tx.sweepShadowAudit(nowMs);
  });
}
