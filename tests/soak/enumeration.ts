import { sweepLogins } from "../../src/server/handlers/login.ts";
import { finishRaw, postInput, registerRaw, startRaw } from "../support/attacker.ts";
import type { Figure } from "../support/figure.ts";
import { startTestServer, type TestServer } from "../support/harness.ts";
import { startLogin } from "../support/opaque-oracle.ts";
import { hookedStore, recorder } from "../support/storeprobe.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
/** Names of one length, so that only what the server knows of them differs. */
const KNOWN = "alice";
const OFF = "david";
const UNKNOWN = ["nobdy", "nemo1", "noone"];
/** No login of these runs is to be held off. */
const NO_LIMITS = { loginFreeFailures: 1e9, loginFreeFailuresPerAddress: 1e9, deviceTokenFailures: 1e9 };

/** Jobs that the server gives to its OPAQUE Workers, where all stretching and evaluating would be. */
function countJobs(server: TestServer): { take(): string[] } {
  const { pool } = server.ctx;
  const seen: string[] = [];
  Object.assign(server.ctx, {
    pool: {
      run: (job: Parameters<typeof pool.run>[0]) => {
        seen.push(job.kind);
        return pool.run(job);
      },
      close: () => pool.close(),
    },
  });
  return { take: () => seen.splice(0) };
}

/** Statements, Worker jobs and reply lengths of failing logins: alike for a known, a disabled and unknown names. */
export async function enumeration(rounds: number): Promise<Figure> {
  const hooked = hookedStore();
  const server = await startTestServer({ wrap: hooked.wrap, limits: NO_LIMITS });
  const jobs = countJobs(server);
  const wrong: string[] = [];
  let compared = 0;
  try {
    await registerRaw(server, KNOWN);
    const off = await registerRaw(server, OFF);
    await server.store.transaction((tx) => tx.setDisabled(off.userId, true));
    const names = [KNOWN, OFF, ...UNKNOWN];
    const fail = async (name: string): Promise<string> => {
      const record = recorder();
      jobs.take();
      hooked.hook = record.hook;
      const started = await startRaw(server, name, "a wrong password");
      const finished = await finishRaw(server, { ...started, fitting: undefined });
      hooked.hook = null;
      const replies = [started.reply, finished].map((reply) => `${reply.status} ${String(reply.body).length}`);
      return JSON.stringify({ statements: record.lines, jobs: jobs.take(), replies });
    };
    // a first failure each, so that a log and a bucket exist for all
    for (const name of names) await fail(name);
    for (let round = 0; round < rounds; round++) {
      const seen = new Map<string, string>();
      for (const name of names) seen.set(name, await fail(name));
      compared += names.length;
      for (const [name, form] of seen) {
        if (form !== seen.get(KNOWN)) wrong.push(`${name} differs from ${KNOWN}: ${form} against ${seen.get(KNOWN)}`);
      }
    }
  } finally {
    await server.close();
  }
  return {
    name: "enumeration",
    ran: "statements, Worker jobs and reply lengths of failing logins, known against unknown names",
    counts: [`${compared} logins`],
    lost: 0,
    corrupt: 0,
    wrong,
  };
}

/** Welch's t of two samples. */
export function welch(a: readonly number[], b: readonly number[]): number {
  const moments = (all: readonly number[]) => {
    const mean = all.reduce((sum, value) => sum + value, 0) / all.length;
    const variance = all.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (all.length - 1);
    return { mean, error: variance / all.length };
  };
  const [x, y] = [moments(a), moments(b)];
  return (x.mean - y.mean) / Math.sqrt(x.error + y.error);
}

/** Above it two samples are held to differ. */
const T_MAX = 4.5;
/** What is slower than this share of all is the machine's doing and not the server's. */
const KEPT_SHARE = 0.95;
const SWEEP_EVERY = 500;

/** Time of the answer to a login's start, for a known and an unknown name in random order. */
export async function loginTiming(pairs: number, progress?: (done: number) => void): Promise<Figure> {
  const server = await startTestServer({ limits: NO_LIMITS });
  const times: [number[], number[]] = [[], []];
  try {
    await registerRaw(server, KNOWN);
    const { ke1 } = startLogin(utf8("a wrong password"));
    const measure = async (which: 0 | 1): Promise<number> => {
      const account = which === 0 ? KNOWN : (UNKNOWN[0] ?? "");
      const before = performance.now();
      const reply = await postInput(server, "session.login.start", { account, request: ke1, deviceToken: null });
      const took = performance.now() - before;
      if (reply.status !== 200) throw new Error(`a login could not start: ${String(reply.body)}`);
      return took;
    };
    for (let warm = 0; warm < 200; warm++) await measure((warm % 2) as 0 | 1);
    for (let pair = 0; pair < pairs; pair++) {
      const first = Math.random() < 0.5 ? 0 : 1;
      for (const which of [first, 1 - first] as (0 | 1)[]) times[which].push(await measure(which));
      if (pair % SWEEP_EVERY === SWEEP_EVERY - 1) {
        // half logins pile up for both names alike; they end as they do by time
        server.advance(61_000);
        await sweepLogins(server.ctx);
        progress?.(pair + 1);
      }
    }
  } finally {
    await server.close();
  }
  const limit = times.flat().toSorted((a, b) => a - b)[Math.floor(pairs * 2 * KEPT_SHARE)] ?? Number.POSITIVE_INFINITY;
  const kept = times.map((all) => all.filter((value) => value <= limit)) as [number[], number[]];
  const t = welch(kept[0], kept[1]);
  return {
    name: "timing",
    ran: "start of a login, known against unknown name",
    counts: [`${pairs} pairs`, `Welch t ${t.toFixed(2)}`],
    lost: 0,
    corrupt: 0,
    wrong: Math.abs(t) < T_MAX ? [] : [`|t| is not below ${T_MAX}`],
  };
}
