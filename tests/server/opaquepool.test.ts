import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { clientLoginStart, createServerSetup, opaqueReady } from "../../src/crypto/opaque.ts";
import { type OpaquePool, startOpaquePool } from "../../src/server/opaque.ts";
import { random } from "../support/harness.ts";

const REAL = new URL("../../src/server/opaque.worker.ts", import.meta.url).href;
/** Answers nothing; dies by its own error at a job for the account `die`. */
const MUTE = `data:text/javascript,${encodeURIComponent(
  `self.onmessage = ({ data }) => { if (data.job.account === "die") setTimeout(() => { throw new RangeError("x"); }); };`,
)}`;

let setup: string;
let pool: OpaquePool | undefined;
const made: Worker[] = [];

beforeAll(async () => {
  await opaqueReady();
  setup = createServerSetup();
});

afterEach(() => {
  pool?.close();
  made.length = 0;
});

/** A pool whose workers the test holds; `sources` in the order in which they are started, the last one repeated. */
function start(size: number, ...sources: string[]): OpaquePool {
  pool = startOpaquePool(size, () => {
    const worker = new Worker(sources[Math.min(made.length, sources.length - 1)] ?? REAL);
    made.push(worker);
    return worker;
  });
  return pool;
}

const job = (account = "ada") => {
  const { request } = clientLoginStart("x");
  return { kind: "login-start", setup, credentialId: random(32), account, record: null, request } as const;
};

const outcome = (running: Promise<unknown>): Promise<string> =>
  running.then(
    () => "ok",
    (error: { code?: string }) => error.code ?? String(error),
  );

describe("a worker that dies", () => {
  test("fails its own jobs alone, and another takes its place", async () => {
    const running = start(2, MUTE, REAL);
    const jobs = [running.run(job()), running.run(job()), running.run(job())].map(outcome);
    // the second worker answers although the first never does
    expect(await jobs[1]).toBe("ok");
    made[0]?.terminate();
    expect(await Promise.all(jobs)).toEqual(["internal", "ok", "internal"]);
    expect(await Promise.all([1, 2, 3, 4].map(() => outcome(running.run(job()))))).toEqual(new Array(4).fill("ok"));
    expect(made).toHaveLength(3);
  });

  test("by an error of its own is replaced too", async () => {
    const running = start(1, MUTE, REAL);
    expect(await outcome(running.run(job("die")))).toBe("internal");
    expect(await outcome(running.run(job()))).toBe("ok");
    expect(made).toHaveLength(2);
  });

  test("again and again is started once a job, not without end", async () => {
    const running = start(1, MUTE);
    for (let i = 0; i < 3; i++) expect(await outcome(running.run(job("die")))).toBe("internal");
    expect(made).toHaveLength(3);
  });
});

test("what is too many is refused with the time to wait, and what waits is not lost", async () => {
  const running = start(2, MUTE);
  const waiting = Array.from({ length: 1_024 }, () => outcome(running.run(job("mute"))));
  await expect(running.run(job("mute"))).rejects.toMatchObject({ code: "unavailable", retryAfterMs: 1_000 });
  made[0]?.terminate();
  made[1]?.terminate();
  expect(new Set(await Promise.all(waiting))).toEqual(new Set(["internal"]));
  void outcome(running.run(job("die")));
  expect(made).toHaveLength(3);
});

test("closing refuses what waits and what comes", async () => {
  const running = start(1, MUTE);
  const waiting = outcome(running.run(job()));
  running.close();
  expect(await waiting).toBe("unavailable");
  expect(await outcome(running.run(job()))).toBe("unavailable");
  expect(made).toHaveLength(1);
});

test("a malformed message is the sender's fault and kills nobody", async () => {
  const running = start(1, REAL);
  expect(await outcome(running.run({ ...job(), request: new Uint8Array(96) }))).toBe("bad_input");
  expect(await outcome(running.run(job()))).toBe("ok");
  expect(made).toHaveLength(1);
});
