import { type Account, type Batch, findServer } from "./account.ts";
import { type Measured, report } from "./harness.ts";
import { closedLoop, http1, openWire, type Wire } from "./load.ts";
import { inWorld, memory, run, startServe } from "./processes.ts";

/** F8: memory of `serve`: idle, with 4,000 TLS connections, and how it drifts over many operations. */

const CONNECTIONS = 4_000;
const OPENED_AT_ONCE = 50;
const SESSIONS = 16;
const PER_PASS = 125;
const LIMIT_SECONDS = 120;
/** Operations after the warm-up; `--operations 500000` for the long form. */
const asked = process.argv.indexOf("--operations");
const OPERATIONS = Math.min(1_000_000, asked < 0 ? 20_000 : Number(process.argv[asked + 1]));

/** Descriptors that the load and the server need each. */
function enoughDescriptors(limit: string): boolean {
  return limit === "unlimited" || Number(limit) >= CONNECTIONS + 200;
}

await inWorld(async (world) => {
  const notes: string[] = [];
  const measured: Measured[] = [];
  const served = await startServe(world);
  await Bun.sleep(1_000);
  measured.push({ what: "idle", unit: "MB", value: memory(served.pid).now, goal: { atMost: 70 } });
  const { target, newAccount } = await findServer(served.url, served.pin);

  const limit = (await run(["sh", "-c", "ulimit -n"])).stdout.trim();
  if (enoughDescriptors(limit)) {
    const wires: Wire[] = [];
    // a connection that says nothing for 10 s is closed: each asks once, and the count is of those that answered last
    const ask = Buffer.from("GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    const healthy = async (some: readonly Wire[]) => {
      await closedLoop(
        some,
        some.map(() => [ask]),
        LIMIT_SECONDS,
        (_wire, _at, { status }) => {
          if (status !== 200) throw new Error("the server is not healthy");
        },
      );
    };
    while (wires.length < CONNECTIONS) {
      const more = await Promise.all(Array.from({ length: OPENED_AT_ONCE }, () => openWire(target, http1)));
      wires.push(...more);
      if (wires.length % 1_000 === 0) await healthy(wires);
    }
    await healthy(wires);
    measured.push({
      what: `at ${CONNECTIONS} TLS connections`,
      unit: "MB",
      value: memory(served.pid).now,
      goal: { atMost: 100 },
    });
    for (const wire of wires) wire.close();
  } else notes.push(`connections left out: the limit of open files is ${limit}`);

  const accounts: Account[] = [];
  for (let at = 0; at < SESSIONS; at++) accounts.push(await newAccount(`bench-${at}`));
  const wires = await Promise.all(accounts.map(() => openWire(target, http1)));
  async function pass(kind: "stores" | "gets", each: number): Promise<number> {
    const batches: Batch[] = [];
    for (const account of accounts) batches.push(await account[kind](each));
    const requests = batches.map((batch) => batch.requests);
    const round = await closedLoop(wires, requests, LIMIT_SECONDS, (wire, at, answer) =>
      batches[wire]?.answer(at, answer),
    );
    for (const batch of batches) await batch.verified();
    return round.count;
  }
  // one store to four gets; the first part fills caches and the heap
  const mixed = async () => (await pass("stores", PER_PASS / 5)) + (await pass("gets", (PER_PASS * 4) / 5));
  for (let warm = 0; warm < OPERATIONS / 4; ) warm += await mixed();
  const settled = async () => {
    await Bun.sleep(3_000);
    return memory(served.pid).now;
  };
  const before = await settled();
  let count = 0;
  while (count < OPERATIONS) count += await mixed();
  const after = await settled();
  measured.push({ what: "after operations", unit: "MB", value: after });
  measured.push({ what: "drift", unit: "%", value: (100 * (after - before)) / before, goal: { atMost: 5 } });
  report("F8", "memory of serve", measured, [
    `${count} operations, a fifth of them stores, after ${OPERATIONS / 4} of warm-up`,
    ...notes,
  ]);
  for (const wire of wires) wire.close();
});
