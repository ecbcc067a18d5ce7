import { Fault } from "../../src/errors.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import type { ServerContext } from "../../src/server/context.ts";
import { createDispatcher, type Dispatcher, type Reply } from "../../src/server/dispatch.ts";
import { openLogbook } from "../../src/server/logbook.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Store } from "../../src/storage/store.ts";
import type { Seeded } from "../support/seeded.ts";
import type { Bug } from "./bugs.ts";
import type { VirtualClock } from "./clock.ts";
import type { Template } from "./template.ts";

/** How often things go wrong, each from 0 to 1. */
export interface Weather {
  /** A process crash at each edge of a transaction. */
  readonly crash: number;
  /** A commit that fails, before or after it persisted. */
  readonly storage: number;
  readonly loseRequest: number;
  readonly loseReply: number;
  readonly duplicate: number;
  /** A device killed at each edge of a request. */
  readonly kill: number;
  /** Milliseconds on the way at most. */
  readonly delayMs: number;
}

export const CALM: Weather = {
  crash: 0,
  storage: 0,
  loseRequest: 0,
  loseReply: 0,
  duplicate: 0,
  kill: 0,
  delayMs: 5,
};

/** Thrown in a process that has crashed: nothing of it reaches anyone. */
class Crashed extends Error {}

/** The key server of one run: real handlers over a real store, in processes that crash and come back. */
export interface SimulatedServer {
  /** Hands a request to the running process. @throws Fault unreachable, outcome_unknown */
  handle(operation: string, contentType: string, body: Uint8Array): Promise<Reply>;
  weather: Weather;
  readonly crashes: () => number;
  /** Failures that the dispatcher did not expect. */
  readonly faults: readonly unknown[];
  /** The handlers' surroundings over the store itself, for checks from outside. */
  readonly ctx: ServerContext;
  close(): Promise<void>;
}

interface Process {
  alive: boolean;
  readonly dispatcher: Dispatcher;
}

const DOWN_MS = 2_000;
/** Milliseconds that a transaction waits for its turn at most: others come between. */
const TURN_MS = 4;

export async function simulatedServer(
  template: Template,
  path: string,
  clock: VirtualClock,
  random: Seeded,
  bug: Bug,
): Promise<SimulatedServer> {
  template.database(path);
  let raw = await openSqlite(path);
  let store = bug.store(raw, { path, clock });
  let process: Process | null = null;
  let crashes = 0;
  const faults: unknown[] = [];
  const base = { ...template.ctx, now: clock.now, random: (length: number) => random.bytes(length) };

  function crash(): void {
    if (!process) return;
    process.alive = false;
    process = null;
    crashes += 1;
    const reopened = bug.crashed ? reopen() : Promise.resolve();
    clock.start(async () => {
      await reopened;
      await clock.sleep(random.int(DOWN_MS));
      start();
    });
  }

  async function reopen(): Promise<void> {
    await raw.close();
    bug.crashed?.();
    raw = await openSqlite(path);
    store = bug.store(raw, { path, clock });
  }

  function start(): void {
    const mine: { alive: boolean } = { alive: true };
    const demandAlive = () => {
      if (!mine.alive) throw new Crashed("this process is no more");
    };
    const mayCrash = () => {
      if (random.chance(server.weather.crash)) crash();
      demandAlive();
    };
    const watched: Store = {
      ...raw,
      async transaction(work) {
        await clock.sleep(random.next() * TURN_MS);
        demandAlive();
        mayCrash();
        const fails = random.chance(server.weather.storage) ? random.pick(["before", "after"] as const) : null;
        if (fails === "before") throw new Fault("storage", "the disk is full");
        const done = await store.transaction(work);
        if (random.chance(server.weather.crash)) crash();
        await bug.afterCommit?.(demandAlive);
        demandAlive();
        // a commit whose outcome the process does not learn
        if (fails === "after") throw new Fault("storage", "the disk is full");
        return done;
      },
    };
    const dispatcher = createDispatcher({ ...base, store: watched }, (error) => {
      if (!(error instanceof Crashed)) faults.push(error);
    });
    process = Object.assign(mine, { dispatcher });
    clock.start(() => keepLog({ ...base, store: watched }, mine), "daemon");
  }

  /** Carries positions into the server-wide log, as a process does beside its requests. */
  async function keepLog(ctx: ServerContext, mine: { readonly alive: boolean }): Promise<void> {
    while (mine.alive) {
      try {
        const logbook = await openLogbook(ctx, (error) => faults.push(error));
        for (;;) {
          await logbook.flush();
          await clock.sleep(DEFAULTS.logBatchMs);
        }
      } catch (error) {
        // a crash ends it, a full disk is tried again
        if (!(error instanceof Crashed || (error instanceof Fault && error.code === "storage"))) throw error;
        await clock.sleep(DEFAULTS.logBatchMs);
      }
    }
  }

  const server: SimulatedServer = {
    weather: CALM,
    crashes: () => crashes,
    faults,
    get ctx() {
      return { ...base, store: raw };
    },
    async handle(operation, contentType, body) {
      const at = process;
      if (!at) throw new Fault("unreachable", "nothing listens there");
      const reply = await at.dispatcher.handle(operation, contentType, body, { address: "127.0.0.1" });
      if (!at.alive) throw new Fault("outcome_unknown", "the connection broke");
      return reply;
    },
    close: () => raw.close(),
  };
  start();
  return server;
}
