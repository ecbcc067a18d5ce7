import { randomBytes } from "node:crypto";
import { type Account, type Batch, findServer } from "./account.ts";
import { openEtcdWire, put, startEtcd } from "./etcd.ts";
import { inTurn, leaveServerCore, type Measured, median, onServerCore, percentile, report, spread } from "./harness.ts";
import { closedLoop, http1, openWire } from "./load.ts";
import { inWorld, processorSeconds, startServe } from "./processes.ts";

/**
 * F1: durable `secret.store` over TLS on one core: session, replay window, two signatures, audit entry, FULL sync;
 * each account's stores one after another, the accounts at once. The peer is a put in etcd of as many bytes.
 */

const SESSIONS = 32;
const STORES = 100;
const ROUNDS = 5;
const LIMIT_SECONDS = 60;

interface Load {
  readonly perSecond: number;
  readonly perProcessorSecond: number;
  readonly latencies: readonly number[];
  readonly bytes: number;
}

await inWorld(async (world) => {
  leaveServerCore();
  const served = await startServe(world, { hold: onServerCore });
  const { target, newAccount } = await findServer(served.url, served.pin);
  const accounts: Account[] = [];
  for (let at = 0; at < SESSIONS; at++) accounts.push(await newAccount(`bench-${at}`));
  const wires = await Promise.all(accounts.map(() => openWire(target, http1)));
  let bytes = 0;

  async function ours(): Promise<Load> {
    const batches: Batch[] = [];
    for (const account of accounts) batches.push(await account.stores(STORES));
    const requests = batches.map((batch) => batch.requests);
    bytes = median(requests.flat().map(({ length }) => length));
    const before = processorSeconds(served.pid);
    const round = await closedLoop(wires, requests, LIMIT_SECONDS, (wire, at, answer) =>
      batches[wire]?.answer(at, answer),
    );
    const used = processorSeconds(served.pid) - before;
    for (const batch of batches) await batch.verified();
    return { perSecond: round.count / round.seconds, perProcessorSecond: round.count / used, bytes, ...round };
  }

  const etcd = Bun.which("etcd") && Bun.which("etcdctl") ? await startEtcd(world) : null;
  const peers = etcd ? await Promise.all(accounts.map(() => openEtcdWire(etcd.target))) : [];
  let puts = 0;

  async function peer(): Promise<Load> {
    if (!etcd) throw new Error("no etcd");
    const value = new Uint8Array(randomBytes(bytes));
    const from = puts;
    const requests = peers.map(() => Array.from({ length: STORES }, (_, at) => put(from + at, randomBytes(16), value)));
    puts += STORES;
    const before = processorSeconds(etcd.pid);
    const round = await closedLoop(peers, requests, LIMIT_SECONDS, (_wire, _at, { status }) => {
      if (status !== 200) throw new Error("etcd refused a put");
    });
    const used = processorSeconds(etcd.pid) - before;
    return { perSecond: round.count / round.seconds, perProcessorSecond: round.count / used, bytes, ...round };
  }

  await ours();
  if (etcd) await peer();
  const done = await inTurn(ROUNDS, ours, etcd ? peer : null);
  if (etcd && (await etcd.count()) !== puts * SESSIONS) throw new Error("etcd does not hold every put");

  const of = (loads: readonly Load[], value: (load: Load) => number) => median(loads.map(value));
  const against = (value: (load: Load) => number) =>
    etcd ? { peer: { name: "etcd put", value: of(done.peer, value) } } : {};
  const rate = (load: Load) => load.perSecond;
  const perProcessor = (load: Load) => load.perProcessorSecond;
  const p99 = (load: Load) => percentile(load.latencies, 99);
  const measured: Measured[] = [
    { what: "durable stores", unit: "/s", value: of(done.ours, rate), goal: { atLeast: 5_000 }, ...against(rate) },
    { what: "per processor second", unit: "/s", value: of(done.ours, perProcessor), ...against(perProcessor) },
    { what: "p99", unit: "ms", value: of(done.ours, p99), goal: { atMost: 30 }, ...against(p99) },
  ];
  report("F1", "store", measured, [
    `${SESSIONS} sessions, ${ROUNDS} × ${SESSIONS * STORES} stores of ${bytes} bytes`,
    `spread ±${spread(done.ours.map(rate)).toFixed(0)}%`,
    ...(etcd ? [] : ["peer left out: etcd is not installed (Debian: etcd-server, etcd-client)"]),
  ]);
  for (const wire of [...wires, ...peers]) wire.close();
});
