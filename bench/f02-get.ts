import { join } from "node:path";
import { type Account, type Batch, findServer } from "./account.ts";
import { selfSigned } from "./etcd.ts";
import { inTurn, leaveServerCore, type Measured, median, onServerCore, percentile, report, spread } from "./harness.ts";
import { closedLoop, http1, openWire, type Round, type Target, type Wire } from "./load.ts";
import { eventually, freePort, inWorld, processorSeconds, startServe, type World } from "./processes.ts";

/** F2: `secret.get` over TLS on one core; the peer is nginx that answers "hello" over TLS to the same load. */

const SESSIONS = 32;
const GETS = 250;
const ROUNDS = 5;
const LIMIT_SECONDS = 60;

const NGINX = Bun.which("nginx") ?? Bun.which("nginx", { PATH: "/usr/sbin:/usr/local/sbin" });

async function startNginx(world: World, nginx: string): Promise<{ target: Target; pid: () => Promise<number> }> {
  const { cert, key, pem } = await selfSigned(world);
  const port = freePort();
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${join(world.dir, kind)};`,
  );
  const config = `daemon off; worker_processes 1; pid ${join(world.dir, "nginx.pid")};
    events { worker_connections 1024; }
    http { access_log off; ${temporary.join(" ")} keepalive_requests 10000000;
      server { listen 127.0.0.1:${port} ssl; ssl_protocols TLSv1.3; ssl_certificate ${cert}; ssl_certificate_key ${key};
        location / { return 200 "hello"; } } }`;
  const file = world.file("nginx.conf", config);
  const child = Bun.spawn(onServerCore([nginx, "-c", file, "-e", join(world.dir, "nginx.err")]), {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  });
  world.stopLater(child);
  const target = { port, caPem: pem };
  (await eventually(() => openWire(target, http1))).close();
  return {
    target,
    // the worker answers, not the process that was started
    pid: async () =>
      Number((await Bun.file(`/proc/${child.pid}/task/${child.pid}/children`).text()).trim().split(" ")[0]),
  };
}

await inWorld(async (world) => {
  leaveServerCore();
  const served = await startServe(world, { hold: onServerCore });
  const { target, newAccount } = await findServer(served.url, served.pin);
  const accounts: Account[] = [];
  for (let at = 0; at < SESSIONS; at++) accounts.push(await newAccount(`bench-${at}`));
  const wires = await Promise.all(accounts.map(() => openWire(target, http1)));

  async function pass(
    pid: number,
    over: readonly Wire[],
    batches: readonly Batch[],
  ): Promise<Round & { used: number }> {
    const before = processorSeconds(pid);
    const requests = batches.map((batch) => batch.requests);
    const round = await closedLoop(over, requests, LIMIT_SECONDS, (wire, at, answer) =>
      batches[wire]?.answer(at, answer),
    );
    return { ...round, used: processorSeconds(pid) - before };
  }
  async function ours() {
    const batches: Batch[] = [];
    for (const account of accounts) batches.push(await account.gets(GETS));
    const round = await pass(served.pid, wires, batches);
    for (const batch of batches) await batch.verified();
    return round;
  }

  const nginx = NGINX ? await startNginx(world, NGINX) : null;
  const peers = nginx ? await Promise.all(accounts.map(() => openWire(nginx.target, http1))) : [];
  const hello = Buffer.from("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
  async function peer() {
    if (!nginx) throw new Error("no nginx");
    const pid = await nginx.pid();
    const before = processorSeconds(pid);
    const requests = peers.map(() => Array.from({ length: GETS }, () => hello));
    const round = await closedLoop(peers, requests, LIMIT_SECONDS, (_wire, _at, { status }) => {
      if (status !== 200) throw new Error("nginx refused a request");
    });
    return { ...round, used: processorSeconds(pid) - before };
  }

  const stored: Batch[] = [];
  for (const account of accounts) stored.push(await account.stores(50));
  await pass(served.pid, wires, stored);
  for (const batch of stored) await batch.verified();
  await ours();
  if (nginx) await peer();
  const done = await inTurn(ROUNDS, ours, nginx ? peer : null);

  type Done = (typeof done.ours)[number];
  const of = (rounds: readonly Done[], value: (round: Done) => number) => median(rounds.map(value));
  const against = (value: (round: Done) => number) =>
    nginx ? { peer: { name: "nginx hello", value: of(done.peer, value) } } : {};
  const rate = (round: Done) => round.count / round.seconds;
  const perProcessor = (round: Done) => round.count / round.used;
  const measured: Measured[] = [
    { what: "gets", unit: "/s", value: of(done.ours, rate), goal: { atLeast: 8_000 }, ...against(rate) },
    { what: "per processor second", unit: "/s", value: of(done.ours, perProcessor), ...against(perProcessor) },
    { what: "p99", unit: "ms", value: of(done.ours, (round) => percentile(round.latencies, 99)) },
  ];
  report("F2", "get", measured, [
    `${SESSIONS} sessions, ${ROUNDS} × ${SESSIONS * GETS} gets of a 32-byte secret, each with its durable audit entry`,
    `spread ±${spread(done.ours.map(rate)).toFixed(0)}%`,
    ...(nginx ? [] : ["peer left out: nginx is not installed (Debian: nginx-light)"]),
  ]);
  for (const wire of [...wires, ...peers]) wire.close();
});
