import { describe, expect, test } from "bun:test";
import type { CeremonyInfo } from "../../src/client/ceremonyapi.ts";
import { advancing, waitForEnd } from "../../src/commands/ceremonywait.ts";
import { Fault } from "../../src/errors.ts";
import type { Context } from "../../src/ui/command.ts";
import { COURSE, infoOf } from "./ceremonyhome.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const GO_ON = "keyhold ceremony join --ceremony backup-key";
const START = Date.UTC(2026, 0, 1);

const AWAY = new Fault("unreachable", "cannot reach https://keys.test");
const LOCKED = new Fault("locked", "the vault is locked");
const DONE = COURSE.at(-1) ?? infoOf();

/** Committed an hour before its stage ends; who has committed may reveal for two hours. */
const running = (change: Partial<CeremonyInfo> = {}): CeremonyInfo => ({
  ...(COURSE[0] ?? infoOf()),
  until: new Date(START + HOUR).toISOString(),
  revealMs: 2 * HOUR,
  ...change,
});

type Answer = CeremonyInfo | Fault;

interface Waited {
  readonly end: CeremonyInfo | Fault;
  readonly said: readonly string[];
  readonly pauses: readonly number[];
  /** Milliseconds that it took by the clock. */
  readonly tookMs: number;
}

/** Waits with a clock that pauses alone move; the last answer is given for ever. */
async function waited(
  answers: readonly Answer[] | ((ms: number) => Answer),
  { from = running(), prompt = false, json = false, timeoutMs = null as number | null } = {},
): Promise<Waited> {
  const said: string[] = [];
  const pauses: number[] = [];
  let nowMs = START;
  let looks = 0;
  const ctx = {
    out: { animated: false, json, notice: (text: string) => said.push(text) },
    term: { canPrompt: prompt },
  } as unknown as Pick<Context, "out" | "term">;
  const end = await waitForEnd(ctx, from, {
    timeoutMs,
    goOn: GO_ON,
    look: async () => {
      const answer =
        typeof answers === "function" ? answers(nowMs - START) : answers[Math.min(looks++, answers.length - 1)];
      if (answer === undefined || answer instanceof Fault) throw answer ?? new Error("no answer");
      return answer;
    },
    signal: new AbortController().signal,
    time: {
      now: () => nowMs,
      async pause(ms) {
        if (pauses.length > 20_000) throw new Error("it waits for ever");
        pauses.push(ms);
        nowMs += ms;
      },
    },
  }).catch((error: unknown) => {
    if (error instanceof Fault) return error;
    throw error;
  });
  return { end, said, pauses, tookMs: nowMs - START };
}

const about = (said: readonly string[], part: string) => said.filter((line) => line.includes(part));

describe("a server that is away", () => {
  test("is waited for as long as the stage lasts, with longer and longer pauses, and named once", async () => {
    const { end, said, pauses, tookMs } = await waited((ms) => (ms < 50 * MINUTE ? AWAY : DONE));
    expect(end).toEqual(DONE);
    expect(about(said, AWAY.message)).toEqual([`! ${AWAY.message}: trying again, for 3 h at most`]);
    expect(about(said, "is back")).toEqual(["the server is back"]);
    expect(tookMs).toBeLessThan(52 * MINUTE);
    expect(pauses.slice(0, 12)).toEqual(pauses.slice(0, 12).toSorted((a, b) => a - b));
    expect(pauses.at(12)).toBeGreaterThan(10_000);
    expect(Math.max(...pauses)).toBe(MINUTE);
    expect(pauses.length).toBeLessThan(100);
  });

  test("may still be revealed to after the commitments' end: then it is given up, with the command that goes on", async () => {
    const { end, tookMs } = await waited([AWAY]);
    expect(end).toMatchObject({ code: "unreachable", hint: `${GO_ON} goes on` });
    expect(Math.round(tookMs / MINUTE)).toBe(3 * 60 + 2);
  });

  test("is looked for more often towards the end of a stage", async () => {
    const from = running({ status: "reveal", until: new Date(START + 10 * MINUTE).toISOString() });
    const { end, pauses, tookMs } = await waited([AWAY], { from });
    expect([end instanceof Fault && end.code, Math.round(tookMs / MINUTE)]).toEqual(["unreachable", 12]);
    expect(Math.max(...pauses)).toBeLessThan(40_000);
    expect(pauses.at(-1)).toBeLessThan(2_000);
  });

  test("is waited for while the key is made, which no time ends; and by a clock that runs ahead", async () => {
    const made = await waited((ms) => (ms < HOUR ? AWAY : DONE), { from: running({ status: "combine", until: null }) });
    expect(made.end).toEqual(DONE);
    const past = running({ status: "reveal", until: new Date(START - HOUR).toISOString() });
    const ahead = await waited((ms) => (ms < MINUTE ? AWAY : DONE), { from: past });
    expect(ahead.end).toEqual(DONE);
  });

  test("is told of anew when it is away again, and after it there is no long pause", async () => {
    const course = [AWAY, ...Array<Answer>(20).fill(AWAY), running(), AWAY, running(), DONE];
    const { said, pauses } = await waited(course);
    expect(about(said, AWAY.message).length).toBe(2);
    expect(about(said, "is back").length).toBe(2);
    expect(pauses.at(-1)).toBeLessThan(2_000);
  });

  test("that asks to slow down is asked later, not given up", async () => {
    const busy = new Fault("rate_limited", "too many requests", { retryAfterMs: 40_000 });
    const { end, pauses } = await waited([busy, DONE]);
    expect([end, pauses]).toEqual([DONE, [40_000]]);
  });

  test("ends it after --timeout all the same; scripts are told nothing until the end", async () => {
    const { end, said, tookMs } = await waited([AWAY], { timeoutMs: 10 * MINUTE, json: true });
    expect(end).toMatchObject({ code: "timed_out", hint: `${GO_ON} goes on` });
    expect([tookMs, said]).toEqual([10 * MINUTE, []]);
  });
});

describe("a vault that is locked meanwhile", () => {
  test("is waited for at a terminal, which says once what to do", async () => {
    const { end, said, pauses } = await waited((ms) => (ms < 30 * MINUTE ? LOCKED : DONE), { prompt: true });
    expect(end).toEqual(DONE);
    expect(about(said, "! the vault is locked")).toEqual([
      "! the vault is locked: this waits until it is unlocked, for 3 h at most\n  in another window: keyhold unlock",
    ]);
    expect(about(said, "unlocked: going on").length).toBe(1);
    // whoever unlocks it sees it go on
    expect(Math.max(...pauses)).toBeLessThanOrEqual(5_000);
  });

  test("is one trouble, an agent that went away before its answer another", async () => {
    const gone = new Fault("outcome_unknown", "the agent went away before it answered");
    const { end, said } = await waited([gone, LOCKED, LOCKED, AWAY, AWAY, DONE], { prompt: true });
    expect(end).toEqual(DONE);
    expect(said.filter((line) => line.startsWith("!")).map((line) => line.split(":")[0])).toEqual([
      `! ${gone.message}`,
      "! the vault is locked",
      "! cannot reach https",
    ]);
  });

  test.each([
    ["without a terminal", {}],
    ["for a script", { prompt: true, json: true }],
  ])("ends it %s, and says how it goes on", async (_, how) => {
    const { end, pauses } = await waited([running(), LOCKED], how);
    expect(end).toMatchObject({ code: "locked", exit: 4, hint: `keyhold unlock; then ${GO_ON} goes on` });
    expect(pauses.length).toBe(1);
  });

  test("is given up when the stage is over", async () => {
    const { end, tookMs } = await waited([LOCKED], { prompt: true });
    expect(end).toMatchObject({ code: "locked", hint: `keyhold unlock; then ${GO_ON} goes on` });
    expect(Math.round(tookMs / MINUTE)).toBe(3 * 60 + 2);
  });
});

test("other faults end it at once", async () => {
  const forked = new Fault("integrity", "the transcript forks");
  expect(await waited([forked], { prompt: true })).toMatchObject({ end: forked, pauses: [] });
});

test("its looks are no use of the agent", async () => {
  const asked: unknown[] = [];
  const client = {
    ceremonyAdvance: async (input: unknown) => {
      asked.push(input);
      return DONE;
    },
  };
  expect(await advancing(client, "4f4f")()).toEqual(DONE);
  expect(asked).toEqual([{ ceremony: "4f4f", passive: true }]);
});
