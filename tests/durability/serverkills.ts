import { rmSync } from "node:fs";
import { keyhold, openWorld, serve, type World } from "../binary/world.ts";
import type { Figure } from "../support/figure.ts";
import { startPostgres } from "../support/postgres.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { seeded } from "../support/seeded.ts";
import { type KillLoopResult, killLoop, type Victim } from "./killloop.ts";

export interface ServerKillOptions {
  readonly kills: number;
  readonly accounts: number;
  readonly seed: number;
  readonly writeMs: readonly [number, number];
  /** Acknowledged writes below which the run proves too little. */
  readonly least: number;
  /** Environment of `serve` and `server check`, such as the database. */
  readonly env?: Record<string, string>;
  /** Runs while the server is down, with its directory: what a control breaks there must be found. */
  readonly whileDown?: (directory: string, kill: number) => void;
  readonly progress?: (done: number, acknowledged: number) => void;
}

interface Lap {
  readonly name: string;
  readonly ran: string;
  readonly what: string;
}

/** One world, one loop of crashes, and the server's own check of everything at the end. */
async function lap(
  { name, ran, what }: Lap,
  options: ServerKillOptions,
  victimOf: (world: World, restart: () => Promise<void>) => Victim,
): Promise<Figure> {
  const { kills, accounts, seed, writeMs, least, env = {} } = options;
  const world = await openWorld({ server: false });
  const dir = world.home("server").dir;
  // the clients' own syncs are not what is tested, and would leave them little time to write
  const writers = scratchDirectory("keyhold-writers-");
  try {
    world.server = await serve(dir, ["--listen", "127.0.0.1:0"], { env });
    const { port } = world.server;
    const restart = async () => {
      world.server = await serve(dir, ["--listen", `127.0.0.1:${port}`], { env });
    };
    const done: KillLoopResult = await killLoop({
      victim: victimOf(world, restart),
      dir: writers,
      kills,
      least,
      accounts,
      random: seeded(seed),
      writeMs,
      ...(options.progress ? { progress: options.progress } : {}),
    });
    const checked = await keyhold(world.dir, ["server", "check", "--dir", dir, "--json"], { env });
    const wrong = [...done.lost];
    if (done.stopped !== null) wrong.push(done.stopped);
    if (checked.code !== 0) wrong.push(`server check: ${checked.err || checked.out}`);
    if (done.acknowledged < least) wrong.push(`only ${done.acknowledged} acknowledged writes, ${least} are due`);
    return {
      name,
      ran,
      counts: [`${done.kills} ${what}`, `${done.acknowledged} acknowledged writes`, `${done.unknown} unknown`],
      lost: done.lost.length,
      corrupt: checked.code === 0 ? 0 : 1,
      wrong,
    };
  } finally {
    await world.server?.stop("SIGKILL");
    await world.close();
    rmSync(writers, { recursive: true, force: true });
  }
}

/** Kills a real `serve` process with SIGKILL among concurrent writes: every acknowledged write must be there. */
export function serverKills(name: string, options: ServerKillOptions): Promise<Figure> {
  const ran = `kill -9 of serve while ${options.accounts} accounts write`;
  let kill = 0;
  return lap({ name, ran, what: "kills" }, options, (world, restart) => ({
    url: world.server.url,
    pin: world.server.pin,
    async crash() {
      if ((await world.server.stop("SIGKILL")) !== 137) throw new Error("the server ended before it was killed");
    },
    restart() {
      options.whileDown?.(world.file("server"), kill++);
      return restart();
    },
  }));
}

/** Crashes the PostgreSQL below a `serve` process that goes on, now and then both: the same must hold. */
export async function postgresCrashes(name: string, options: ServerKillOptions): Promise<Figure> {
  const postgres = await startPostgres();
  try {
    const env = { KEYHOLD_DATABASE: await postgres.create() };
    const ran = `crashes of PostgreSQL below serve while ${options.accounts} accounts write`;
    let crash = 0;
    return await lap({ name, ran, what: "crashes" }, { ...options, env }, (world, restart) => ({
      url: world.server.url,
      pin: world.server.pin,
      async crash() {
        crash += 1;
        await postgres.stop("immediate");
        if (crash % BOTH_EVERY === 0) await world.server.stop("SIGKILL");
      },
      async restart() {
        await postgres.start();
        if (crash % BOTH_EVERY === 0) await restart();
      },
    }));
  } finally {
    await postgres.close();
  }
}

/** Every so many crashes of PostgreSQL take the server along. */
const BOTH_EVERY = 5;
