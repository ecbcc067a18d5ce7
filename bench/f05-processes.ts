import { availableParallelism } from "node:os";
import { join } from "node:path";
import { clientLoginStart, opaqueReady } from "../src/crypto/opaque.ts";
import { encodeJson } from "../src/wire/codec.ts";
import { OPERATION_PATH } from "../src/wire/http.ts";
import { operations } from "../src/wire/operations.ts";
import { hasPostgres, startPostgres } from "../tests/support/postgres.ts";
import { findServer } from "./account.ts";
import { inTurn, type Measured, median, report, spread } from "./harness.ts";
import { closedLoop, http1, openWire, post, type Target } from "./load.ts";
import { inWorld, startServe } from "./processes.ts";

/** F5: OPAQUE login starts of two processes on one PostgreSQL against those of one, each with one Worker. */

const CONNECTIONS = 16;
const STARTS = 30;
const ROUNDS = 5;
const LIMIT_SECONDS = 120;

/** Starts of names of their own, as a flood has them. */
function startOf(name: string): Uint8Array {
  const { request } = clientLoginStart("correct horse battery staple");
  const input = { account: name, request, deviceToken: null };
  const body = new TextEncoder().encode(encodeJson(operations["session.login.start"].input, input));
  return post(`${OPERATION_PATH}session.login.start`, "application/json", body);
}

await opaqueReady();
const requests = Array.from({ length: CONNECTIONS }, (_, wire) =>
  Array.from({ length: STARTS }, (_, at) => startOf(`flood-${wire}-${at}`)),
);

/** Connections of its own each round: one that is idle for ten seconds is closed. */
async function startsPerSecond(targets: readonly Target[]): Promise<number> {
  const opening = requests.map((_, at) => openWire(targets[at % targets.length] ?? { port: 0, caPem: "" }, http1));
  const wires = await Promise.all(opening);
  const { count, seconds } = await closedLoop(wires, requests, LIMIT_SECONDS, (_wire, _at, { status }) => {
    if (status !== 200) throw new Error(`a login start was answered with ${status}`);
  });
  for (const wire of wires) wire.close();
  return count / seconds;
}

if (!hasPostgres) {
  report("F5", "two processes", [], ["left out: PostgreSQL is not installed (Debian: postgresql)"]);
} else {
  const postgres = await startPostgres();
  try {
    const database = await postgres.create();
    await inWorld(async (world) => {
      const command = [
        process.execPath,
        join(import.meta.dir, "f03-server.ts"),
        join(world.dir, "server"),
        "1",
        database,
      ];
      const targets: Target[] = [];
      // both work in one directory, so with the same keys
      for (let at = 0; at < 2; at++) {
        const { url, pin } = await startServe(world, { command });
        targets.push((await findServer(url, pin)).target);
      }
      const one = () => startsPerSecond(targets.slice(0, 1));
      const both = () => startsPerSecond(targets);
      await one();
      await both();
      const done = await inTurn(ROUNDS, both, one);
      const value = median(done.ours);
      const alone = median(done.peer);
      const measured: Measured[] = [
        { what: "login starts of two", unit: "/s", value, peer: { name: "one", value: alone } },
        { what: "two by one", unit: "×", value: value / alone, goal: { atLeast: 1.6 } },
      ];
      report("F5", "two processes", measured, [
        `${availableParallelism()} cores for both, PostgreSQL and the load; below 4 cores nothing can show the goal`,
        `spread ±${spread(done.ours).toFixed(0)}%`,
      ]);
    });
  } finally {
    await postgres.close();
  }
}
