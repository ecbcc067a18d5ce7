import { availableParallelism } from "node:os";
import { join } from "node:path";
import { clientLoginStart, opaqueReady } from "../src/crypto/opaque.ts";
import { encodeJson } from "../src/wire/codec.ts";
import { OPERATION_PATH } from "../src/wire/http.ts";
import { operations } from "../src/wire/operations.ts";
import { type Batch, findServer } from "./account.ts";
import {
  CORES,
  inTurn,
  leaveServerCore,
  type Measured,
  median,
  onServerCore,
  percentile,
  report,
  spread,
} from "./harness.ts";
import { closedLoop, http1, openWire, post } from "./load.ts";
import { inWorld, processorSeconds, run, startServe } from "./processes.ts";

/**
 * F3: OPAQUE login starts on one core against the bare library on the same core; then what other requests feel while
 * such a flood lasts, the server on all cores as it runs for real.
 */

const CONNECTIONS = 16;
const STARTS = 40;
const ROUNDS = 5;
const LIMIT_SECONDS = 60;
const GETS = 300;
const PAUSE_MS = 5;

await opaqueReady();

/** One account's login start; every name its own, as a flood would have it. */
function startOf(name: string): Uint8Array {
  const { request } = clientLoginStart("correct horse battery staple");
  const input = { account: name, request, deviceToken: null };
  const body = new TextEncoder().encode(encodeJson(operations["session.login.start"].input, input));
  return post(`${OPERATION_PATH}session.login.start`, "application/json", body);
}

const flood = Array.from({ length: CONNECTIONS }, (_, wire) =>
  Array.from({ length: STARTS }, (_, at) => startOf(`flood-${wire}-${at}`)),
);

const bun = process.execPath;
const script = (name: string) => join(import.meta.dir, name);

/** Login starts a second and a processor second. */
interface Rate {
  readonly perSecond: number;
  readonly perProcessorSecond: number;
}

async function startsPerSecond(): Promise<{ ours: Rate[]; bare: Rate[] }> {
  return inWorld(async (world) => {
    const command = [bun, script("f03-server.ts"), join(world.dir, "server"), "1"];
    const served = await startServe(world, { hold: onServerCore, command });
    const { target } = await findServer(served.url, served.pin);
    const wires = await Promise.all(flood.map(() => openWire(target, http1)));
    const ours = async (): Promise<Rate> => {
      const before = processorSeconds(served.pid);
      const { count, seconds } = await closedLoop(wires, flood, LIMIT_SECONDS, (_wire, _at, { status }) => {
        if (status !== 200) throw new Error(`a login start was answered with ${status}`);
      });
      const used = processorSeconds(served.pid) - before;
      return { perSecond: count / seconds, perProcessorSecond: count / used };
    };
    const bare = async () => {
      const said = await run(onServerCore([bun, script("f03-bare.ts"), "1.5"]));
      return JSON.parse(said.stdout) as Rate;
    };
    await ours();
    const done = await inTurn(ROUNDS, ours, bare);
    for (const wire of wires) wire.close();
    return { ours: done.ours, bare: done.peer };
  });
}

async function duringFlood(): Promise<{ quiet: number; flooded: number; starts: number }> {
  return inWorld(async (world) => {
    const workers = Math.min(4, Math.max(1, availableParallelism() - 1));
    const command = [bun, script("f03-server.ts"), join(world.dir, "server"), String(workers)];
    const served = await startServe(world, { command });
    const { target, newAccount } = await findServer(served.url, served.pin);
    const account = await newAccount("bystander");
    const wire = await openWire(target, http1);
    const one = async (batch: Batch, pauseMs: number): Promise<number[]> => {
      const latencies: number[] = [];
      for (const [at, request] of batch.requests.entries()) {
        const sentAt = performance.now();
        batch.answer(at, await wire.ask(request));
        latencies.push(performance.now() - sentAt);
        await Bun.sleep(pauseMs);
      }
      await batch.verified();
      return latencies;
    };
    await one(await account.stores(20), 0);
    const quiet = percentile(await one(await account.gets(GETS), PAUSE_MS), 99);
    const wires = await Promise.all(flood.map(() => openWire(target, http1)));
    let flooding = true;
    let starts = 0;
    const gets = await account.gets(GETS);
    const floods = wires.map(async (other, index) => {
      for (let at = 0; flooding && at < 10 * STARTS; at++) {
        const request = flood[index]?.[at % STARTS];
        if (request && (await other.ask(request)).status === 200) starts += 1;
      }
    });
    await Bun.sleep(200);
    const startedAt = performance.now();
    const before = starts;
    const flooded = percentile(await one(gets, PAUSE_MS), 99);
    const rate = ((starts - before) * 1_000) / (performance.now() - startedAt);
    flooding = false;
    await Promise.all(floods);
    for (const open of [wire, ...wires]) open.close();
    return { quiet, flooded, starts: rate };
  });
}

leaveServerCore();
const { ours, bare } = await startsPerSecond();
if (CORES) Bun.spawnSync(["taskset", "-a", "-c", "-p", `0-${availableParallelism() - 1}`, String(process.pid)]);
const floods = [await duringFlood(), await duringFlood(), await duringFlood()];
const of = (rates: readonly Rate[], value: (rate: Rate) => number) => median(rates.map(value));
const against = (value: (rate: Rate) => number) => ({ peer: { name: "bare library", value: of(bare, value) } });
const perSecond = (rate: Rate) => rate.perSecond;
const perProcessor = (rate: Rate) => rate.perProcessorSecond;
const starts = { what: "login starts", unit: "/s", goal: { atLeast: 400 } } as const;
const measured: Measured[] = [
  { ...starts, value: of(ours, perSecond), ...against(perSecond) },
  { what: "per processor second", unit: "/s", value: of(ours, perProcessor), ...against(perProcessor) },
  {
    what: "p99 of gets during a flood",
    unit: "ms",
    value: median(floods.map((one) => one.flooded)),
    goal: { atMost: 10 },
  },
  { what: "p99 of gets without", unit: "ms", value: median(floods.map((one) => one.quiet)) },
];
report("F3", "login", measured, [
  `${ROUNDS} × ${CONNECTIONS * STARTS} starts over TLS, unknown names, limits lifted`,
  `spread ±${spread(ours.map(perSecond)).toFixed(0)}%`,
  `the flood: ${median(floods.map((one) => one.starts)).toFixed(0)} starts/s on ${availableParallelism()} cores with the load beside it`,
]);
