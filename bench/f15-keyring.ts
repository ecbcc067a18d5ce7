import { loadavg } from "node:os";
import type { KeyringRequestId } from "../src/ids.ts";
import { FEDERATION_NAME } from "./federation.ts";
import { type Measured, median, percentile, report, timed } from "./harness.ts";
import { type Asked, type Connector, type Keyring, startKeyring } from "./keyring.ts";
import { familySeconds, inWorld, processorSeconds } from "./processes.ts";

/**
 * F15: requests for keys through a keyring. All of them are created and approved while no connector runs; then five
 * connectors are let loose. Throughput, time in each stage, processor time of each process, and what one request costs
 * with 10, 100 and 1,000 of them waiting. The peer is part 4's client, which drives the same servers itself, one key after
 * another. `--requests N` makes it N instead of 1,000; `--short` is a run of a minute with three servers,
 * and `--sample N` ends each batch after N keys.
 */

const SHORT = process.argv.includes("--short");
const numberAfter = (flag: string, otherwise: number): number => {
  const at = process.argv.indexOf(flag);
  return at > 0 ? Number(process.argv[at + 1]) : otherwise;
};
const MOST = numberAfter("--requests", 1_000);
const SAMPLE = numberAfter("--sample", Number.POSITIVE_INFINITY);
const [SERVERS, THRESHOLD] = SHORT ? [3, 2] : [5, 3];
/** How many wait at once, one batch after another. */
const BACKLOGS = SHORT ? [2, 8] : [...[10, 100].filter((count) => count < MOST), MOST];
const PEER_KEYS = SHORT ? 2 : 10;
/** Requests that the owner has under way while it creates and approves them. */
const LANES = 8;
const LOOK_MS = 250;
/** Time without any progress after which a run is given up. */
const STUCK_MS = 120_000;

/** Milliseconds since 1970 at which each stage of one request was over. */
interface Times {
  created: number;
  approved: number;
  taken: number;
  ordered: number;
  decided: number;
  fulfilled: number;
}
const STAGES = ["created", "approved", "taken", "ordered", "decided", "fulfilled"] as const;

/** What all processes have used, by what they are. */
function used({ registry, servers }: Keyring, connectors: readonly Connector[]) {
  const families = servers.map(({ pid }) => familySeconds(pid));
  return {
    registry: processorSeconds(registry.pid),
    servers: families.reduce((sum, { own }) => sum + own, 0),
    enclaves: families.reduce((sum, { children }) => sum + children, 0),
    connectors: connectors.reduce((sum, { pid }) => sum + processorSeconds(pid), 0),
  };
}
type Used = ReturnType<typeof used>;

const less = (after: Used, before: Used, by: number): Used => ({
  registry: ((after.registry - before.registry) * 1_000) / by,
  servers: ((after.servers - before.servers) * 1_000) / by,
  enclaves: ((after.enclaves - before.enclaves) * 1_000) / by,
  connectors: ((after.connectors - before.connectors) * 1_000) / by,
});

/** Creates and approves so many, a few at once. */
async function askAll(keyring: Keyring, count: number): Promise<readonly Asked[]> {
  const asked: Asked[] = [];
  let begun = 0;
  const lane = async () => {
    while (begun++ < count) asked.push(await keyring.owner.ask());
  };
  await Promise.all(Array.from({ length: Math.min(LANES, count) }, lane));
  return asked;
}

/** Reads events of the workspace until all are fulfilled, or as many as are wanted. */
async function untilFulfilled(
  keyring: Keyring,
  times: ReadonlyMap<KeyringRequestId, Times>,
  from: number,
): Promise<number> {
  let seq = from;
  let left = Math.min(times.size, SAMPLE);
  let progressAt = performance.now();
  while (left > 0) {
    const page = await keyring.owner.events(seq);
    for (const { seq: number, event, requestId, atMs } of page) {
      seq = number;
      const of = requestId === null ? undefined : times.get(requestId);
      if (!of) continue;
      if (event === "request.created") of.created = atMs;
      if (event === "request.approved") of.approved = atMs;
      if (event === "request.fulfilled") {
        of.fulfilled = atMs;
        left -= 1;
        progressAt = performance.now();
      }
      if (/rejected|expired|cancelled/.test(event)) throw new Error(`a request came to its end by ${event}`);
    }
    if (performance.now() - progressAt > STUCK_MS) throw new Error(`no progress: ${left} are missing`);
    if (page.length === 0) await Bun.sleep(LOOK_MS);
  }
  return seq;
}

async function batch(keyring: Keyring, backlog: number, seq: number) {
  const unasked = used(keyring, []);
  let asked: readonly Asked[] = [];
  const askingMs = await timed(async () => {
    asked = await askAll(keyring, backlog);
  });
  const asking = less(used(keyring, []), unasked, backlog);
  const times = new Map(asked.map(({ requestId }) => [requestId, noTimes()]));
  const itemOf = new Map(asked.map(({ itemId, requestId }) => [itemId, requestId]));
  const connectors = await keyring.letLoose();
  const before = used(keyring, connectors);
  const beganAtMs = Date.now();
  const next = await untilFulfilled(keyring, times, seq);
  const working = used(keyring, connectors);
  const done = [...times.values()].filter(({ fulfilled }) => Number.isFinite(fulfilled));
  const tookMs = Math.max(...done.map(({ fulfilled }) => fulfilled)) - beganAtMs;
  let parts = 0;
  for (const connector of connectors) {
    const begun = new Set<string>();
    for (const { itemId, task, fromMs } of await connector.tasks()) {
      const requestId = itemOf.get(itemId);
      const of = requestId && times.get(requestId);
      if (!of) continue;
      if (task === "prepare") of.taken = Math.min(of.taken, fromMs);
      if (task === "begin") of.ordered = Math.min(of.ordered, fromMs);
      if (task === "begin" && Number.isFinite(of.fulfilled)) begun.add(itemId);
      if (task === "decide") of.decided = Math.min(of.decided, fromMs);
    }
    parts += begun.size;
    await connector.stop();
  }
  return {
    askingMs: askingMs / backlog,
    asking: asking.registry,
    rate: (done.length * 1_000) / tookMs,
    cost: less(working, before, done.length),
    parts: parts / done.length,
    times: done,
    seq: next,
  };
}

const noTimes = (): Times => {
  const never = Number.POSITIVE_INFINITY;
  return { created: never, approved: never, taken: never, ordered: never, decided: never, fulfilled: never };
};

/** Median and 99th percentile of the time between two stages. */
const between = (times: readonly Times[], from: keyof Times, to: keyof Times): readonly [number, number] => {
  const all = times.map((of) => of[to] - of[from]).filter(Number.isFinite);
  return [median(all), percentile(all, 99)];
};

await inWorld(async (world) => {
  const keyring = await startKeyring(world, SERVERS, THRESHOLD);
  let at = 0;
  const generate = () =>
    keyring.client.generateFederated({
      ...{ name: `key-${at++}`, federation: FEDERATION_NAME, type: "ed25519", bytes: 32 },
      ...{ custody: "delegated", control: "unilateral", policy: null },
    });
  // the first one opens the sessions
  await generate();
  const peerMs = await timed(async () => {
    for (let count = 0; count < PEER_KEYS; count++) await generate();
  });
  const peer = { name: "the client, one key after another", value: (PEER_KEYS * 1_000) / peerMs };
  let seq = (await batch(keyring, 1, 0)).seq;
  const measured: Measured[] = [];
  const registryCost: number[] = [];
  for (const backlog of BACKLOGS) {
    const one = await batch(keyring, backlog, seq);
    seq = one.seq;
    const label = `${backlog} waiting`;
    measured.push({ what: `${label}: keys`, unit: "/s", value: one.rate, peer });
    measured.push({ what: `${label}: created and approved, each`, unit: "ms", value: one.askingMs });
    measured.push({ what: `${label}: registry's processor for that`, unit: "ms", value: one.asking });
    for (const [name, value] of Object.entries(one.cost)) {
      measured.push({ what: `${label}: processor a key, ${name}`, unit: "ms", value });
    }
    measured.push({ what: `${label}: servers that took part, mean`, unit: "", value: one.parts });
    registryCost.push(one.cost.registry);
    for (const [i, to] of STAGES.entries()) {
      const from = STAGES[i - 1];
      if (!from) continue;
      const [p50, p99] = between(one.times, from, to);
      measured.push({ what: `${label}: ${from} to ${to}, p50`, unit: "ms", value: p50 });
      measured.push({ what: `${label}: ${from} to ${to}, p99`, unit: "ms", value: p99 });
    }
  }
  const [least = Number.NaN, ...others] = registryCost;
  measured.push({
    what: `registry's cost a key with ${BACKLOGS.at(-1)} waiting against ${BACKLOGS[0]}`,
    unit: "×",
    value: (others.at(-1) ?? least) / least,
    goal: { atMost: 1.5 },
  });
  await keyring.client.close();
  const notes = [`ed25519, ${THRESHOLD} of ${SERVERS}`, "all processes on this machine"];
  report("F15", "keyring", measured, [...notes, `load ${loadavg()[0]?.toFixed(1)}`]);
});
