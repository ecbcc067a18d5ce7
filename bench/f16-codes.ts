import { randomBytes } from "node:crypto";
import { hpkeKeyPair, hpkeSeal } from "../src/crypto/hpke.ts";
import { otpCode } from "../src/protocol/otp.ts";
import { type Account, type Batch, type Codes, findServer } from "./account.ts";
import { inTurn, leaveServerCore, type Measured, median, onServerCore, percentile, report, spread } from "./harness.ts";
import { closedLoop, http1, openWire } from "./load.ts";
import { familySeconds, inWorld, startServe } from "./processes.ts";

/**
 * F16: one-time codes handed out by one server on one core: session, grant, throttle, counter, code in the enclave
 * process, sealed to each ask, durable, with its audit entries. Counters are exact: as many as codes. The peer is the
 * bare cost of a code in one process: HMAC and HPKE, nothing kept.
 */

const SESSIONS = 32;
const ASKS = 100;
const ROUNDS = 5;
const LIMIT_SECONDS = 120;
const PEER_CODES = 1_000;

/** Codes a second in one process that only makes and seals them. */
async function bare(): Promise<number> {
  const random = (length: number) => new Uint8Array(randomBytes(length));
  const { publicKey } = await hpkeKeyPair(random(32));
  const about = { kind: "hotp", issuer: "bench", label: "bench", algorithm: "SHA1", digits: 6, period: 30 } as const;
  const key = { ...about, secret: random(20), counter: 0 };
  const began = performance.now();
  for (let counter = 0; counter < PEER_CODES; counter++) {
    const { code } = otpCode({ ...key, counter }, 0);
    await hpkeSeal(publicKey, random(64), new TextEncoder().encode(code), random);
  }
  return (PEER_CODES * 1_000) / (performance.now() - began);
}

await inWorld(async (world) => {
  leaveServerCore();
  const served = await startServe(world, { hold: onServerCore });
  const { target, newAccount } = await findServer(served.url, served.pin);
  const accounts: Account[] = [];
  for (let at = 0; at < SESSIONS; at++) accounts.push(await newAccount(`bench-${at}`));
  const keys: Codes[] = [];
  for (const [at, account] of accounts.entries()) keys.push(await account.hotp(`bench-${at}`));
  const wires = await Promise.all(accounts.map(() => openWire(target, http1)));
  let asked = 0;

  async function ours() {
    const batches: Batch[] = [];
    for (const key of keys) batches.push(await key.asks(ASKS));
    const before = familySeconds(served.pid);
    const requests = batches.map((batch) => batch.requests);
    const round = await closedLoop(wires, requests, LIMIT_SECONDS, (wire, at, answer) =>
      batches[wire]?.answer(at, answer),
    );
    const after = familySeconds(served.pid);
    for (const batch of batches) await batch.verified();
    asked += ASKS;
    const used = { own: after.own - before.own, children: after.children - before.children };
    return { ...round, used };
  }

  await ours();
  const done = await inTurn(ROUNDS, ours, bare);
  for (const key of keys) {
    const counter = await key.counter();
    if (counter !== asked) throw new Error(`${asked} codes were handed out and the counter is ${counter}`);
  }
  type Done = (typeof done.ours)[number];
  const of = (value: (round: Done) => number) => median(done.ours.map(value));
  const rate = (round: Done) => round.count / round.seconds;
  const perProcessor = ({ count, used }: Done) => count / (used.own + used.children);
  const peer = { name: "bare HMAC and HPKE", value: median(done.peer) };
  const measured: Measured[] = [
    { what: "codes", unit: "/s", value: of(rate), goal: { atLeast: 1_000 }, peer },
    { what: "per processor second", unit: "/s", value: of(perProcessor) },
    { what: "server, each", unit: "µs", value: of(({ count, used }) => (used.own * 1e6) / count) },
    { what: "enclave, each", unit: "µs", value: of(({ count, used }) => (used.children * 1e6) / count) },
    { what: "p99", unit: "ms", value: of((round) => percentile(round.latencies, 99)) },
  ];
  report("F16", "codes", measured, [
    `${SESSIONS} sessions with a key each, ${ROUNDS} × ${SESSIONS * ASKS} codes, counters exact after them`,
    `spread ±${spread(done.ours.map(rate)).toFixed(0)}%`,
  ]);
  for (const wire of wires) wire.close();
});
