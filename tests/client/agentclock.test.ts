import { describe, expect, test } from "bun:test";
import { type AgentLimits, agentTimer, systemClock } from "../../src/client/agentclock.ts";
import { libc } from "../../src/wire/libc.ts";
import { setClock } from "../support/fakeagent.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const limits = { idleMs: 15 * MINUTE, absoluteMs: 12 * HOUR, lockOnSuspend: true };
const started = (change: Partial<AgentLimits> = {}) => {
  const clock = setClock();
  return { clock, timer: agentTimer(clock, { ...limits, ...change }) };
};

describe("an agent's time", () => {
  test("ends when it is unused, and each use starts anew", () => {
    const { clock, timer } = started();
    clock.pass(15 * MINUTE - 1);
    expect(timer.over()).toBeNull();
    timer.touch();
    clock.pass(15 * MINUTE - 1);
    expect(timer.over()).toBeNull();
    clock.pass(1);
    expect(timer.over()).toBe("idle");
  });

  test("ends absolutely however much it is used; with idle 0 only so", () => {
    const { clock, timer } = started({ absoluteMs: HOUR, idleMs: 0 });
    clock.pass(HOUR - 1);
    expect(timer.over()).toBeNull();
    timer.touch();
    clock.pass(1);
    expect(timer.over()).toBe("absolute");
  });

  test("a wall clock that is set back prolongs neither limit", () => {
    for (const [absoluteMs, why] of [
      [12 * HOUR, "idle"],
      [10 * MINUTE, "absolute"],
    ] as const) {
      const { clock, timer } = started({ absoluteMs });
      clock.setWall(-24 * HOUR);
      clock.pass(15 * MINUTE);
      expect(timer.over()).toBe(why);
    }
  });

  test("a wall clock that is set forward ends it early: a paused machine that caught up", () => {
    const { clock, timer } = started();
    clock.setWall(15 * MINUTE);
    expect(timer.over()).toBe("idle");
  });

  test("sleep locks, unless that is switched off: then the time slept counts", () => {
    const { clock, timer } = started();
    clock.sleep(499);
    expect(timer.over()).toBeNull();
    clock.sleep(1);
    expect(timer.over()).toBe("suspend");
    timer.touch();
    expect(timer.over()).toBe("suspend");

    const off = started({ lockOnSuspend: false });
    off.clock.sleep(HOUR);
    off.clock.setWall(-HOUR);
    expect(off.timer.over()).toBe("idle");
    off.timer.touch();
    expect(off.timer.over()).toBeNull();
  });

  test("tells its ends by the wall clock, as it stands", () => {
    const { clock, timer } = started();
    const at = clock.wallMs();
    expect(timer.ends()).toEqual({ locksAtMs: at + 15 * MINUTE, endsAtMs: at + 12 * HOUR });
    clock.pass(12 * HOUR - MINUTE);
    timer.touch();
    expect(timer.ends()).toEqual({ locksAtMs: at + 12 * HOUR, endsAtMs: at + 12 * HOUR });
    clock.setWall(-HOUR);
    expect(timer.ends()).toEqual({ locksAtMs: at + 11 * HOUR, endsAtMs: at + 11 * HOUR });
    const idle = started({ idleMs: 0 });
    expect(idle.timer.ends().locksAtMs).toBe(idle.clock.wallMs() + 12 * HOUR);
  });
});

describe.skipIf(process.platform !== "linux")("the system's clocks", () => {
  test("the time slept never grows while the system is awake, whatever happens between two readings", () => {
    const first = libc()?.sleptMs();
    expect(first).toBeNumber();
    const readings = Array.from({ length: 200 }, () => libc()?.sleptMs() ?? Number.NaN);
    expect(Math.max(...readings) - (first ?? 0)).toBeLessThan(1);
  });

  test("go on", () => {
    const clock = systemClock();
    const before = clock.awakeMs();
    while (clock.awakeMs() === before) Bun.sleepSync(1);
    expect(clock.awakeMs()).toBeGreaterThan(before);
  });
});
