import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  accept,
  afterRestore,
  aheadUntil,
  allocate,
  COUNTER_MAX,
  expiryOf,
  freshSteps,
  LOOK_AHEAD,
  type OtpKind,
  type OtpPosition,
  provisioned,
  RESTORE_JUMP,
  RESYNC_SPAN,
  resync,
  startingAt,
  stepAt,
  windowOf,
  withUsed,
} from "../../src/protocol/otpwindow.ts";
import { countIn, RATE_SLOTS_MAX, type RateSlot } from "../../src/protocol/ratewindow.ts";

const TOTP = { kind: "totp", period: 30 } as const;
const HOTP = { kind: "hotp" } as const;
const STEP = 30_000;
const kind = fc.constantFrom<OtpKind>(HOTP, TOTP, { kind: "totp", period: 1 }, { kind: "totp", period: 86_400 });
/** A clock that goes on, stands still and goes back. */
const ticks = fc.array(fc.integer({ min: -90_000, max: 120_000 }), { maxLength: 60 });

describe("counters", () => {
  test("that are handed out only go up, whatever the clock does, and codes of steps are of now or the next step", () => {
    fc.assert(
      fc.property(kind, ticks, fc.nat(1e9), (key, moves, start) => {
        let at: OtpPosition = startingAt(key.kind === "hotp" ? start : 0);
        let nowMs = 1_800_000_000_000;
        let last = -1;
        for (const move of moves) {
          nowMs += move;
          const taken = allocate(key, at, nowMs);
          if (taken.counter === null) {
            expect(taken.fromMs).toBeGreaterThan(nowMs);
            // from then on there is one
            expect(allocate(key, at, taken.fromMs ?? 0).counter).not.toBeNull();
            continue;
          }
          expect(taken.counter).toBeGreaterThan(last);
          expect(taken.position.next).toBe(taken.counter + 1);
          if (key.kind === "totp") expect([0, 1]).toContain(taken.counter - stepAt(nowMs, key.period));
          expect(expiryOf(key, taken.counter, nowMs, 300_000)).toBeGreaterThan(nowMs);
          last = taken.counter;
          at = taken.position;
        }
      }),
    );
  });

  test("of steps are shared: whoever asks once in every step has one of two, however often another one asks", () => {
    const moments = fc.array(fc.nat(STEP - 1), { minLength: 2, maxLength: 20 });
    fc.assert(
      fc.property(moments, (late) => {
        let at = startingAt(0);
        let last = "";
        const ask = (who: string, nowMs: number): number => {
          if (last === who && aheadUntil(TOTP, at, nowMs) !== null) return 0;
          const taken = allocate(TOTP, at, nowMs);
          if (taken.counter === null) return 0;
          [at, last] = [taken.position, who];
          return 1;
        };
        let [greedy, patient] = [0, 0];
        for (const [step, moment] of late.entries()) {
          const beginMs = 1_800_000_000_000 + step * STEP;
          for (let time = 0; time <= moment; time += 3_000) greedy += ask("greedy", beginMs + time);
          patient += ask("patient", beginMs + moment);
          for (let time = moment; time < STEP; time += 3_000) greedy += ask("greedy", beginMs + time);
        }
        expect(patient).toBeGreaterThanOrEqual(Math.floor(late.length / 2));
        expect(greedy).toBeGreaterThanOrEqual(Math.floor(late.length / 2));
      }),
    );
    const now = 1_800_000_000_000;
    expect(aheadUntil(TOTP, startingAt(stepAt(now, 30)), now)).toBeNull();
    expect(aheadUntil(TOTP, startingAt(stepAt(now, 30) + 1), now)).toBe(now + STEP);
    expect(aheadUntil(TOTP, startingAt(stepAt(now, 30) + 2), now)).toBeNull();
    expect(aheadUntil(HOTP, startingAt(1), 0)).toBeNull();
  });

  test("end below 2^53, and are not begun again", () => {
    expect(allocate(HOTP, startingAt(COUNTER_MAX), 0).counter).toBe(COUNTER_MAX);
    expect(allocate(HOTP, startingAt(COUNTER_MAX + 1), 0)).toEqual({ counter: null, fromMs: null });
    const after = afterRestore(HOTP, startingAt(COUNTER_MAX), 0);
    expect(allocate(HOTP, after, 0).counter).toBeNull();
    expect(Number.isSafeInteger(COUNTER_MAX + RESTORE_JUMP + RESYNC_SPAN)).toBe(true);
  });
});

describe("codes of an authenticator", () => {
  test("of a counter or step are accepted once, in any order and whatever the clock does", () => {
    const offers = fc.array(fc.tuple(fc.integer({ min: -90_000, max: 90_000 }), fc.integer({ min: -4, max: 14 })), {
      maxLength: 80,
    });
    fc.assert(
      fc.property(kind, offers, (key, moves) => {
        let at = provisioned(startingAt(5));
        let nowMs = 1_800_000_000_000;
        const seen = new Set<number>();
        for (const [move, by] of moves) {
          nowMs += move;
          const counter = (key.kind === "hotp" ? at.floor : stepAt(nowMs, key.period)) + by;
          const next = accept(key, at, counter, nowMs);
          if (!next) continue;
          expect(seen.has(counter)).toBe(false);
          seen.add(counter);
          expect(next.floor).toBeGreaterThanOrEqual(at.floor);
          expect(next.next).toBeGreaterThan(counter);
          expect(next.used.length).toBeLessThanOrEqual(8);
          at = next;
        }
      }),
    );
  });

  test("of a step lie one step around now", () => {
    const now = 100 * STEP;
    for (const [step, taken] of [
      [98, false],
      [99, true],
      [100, true],
      [101, true],
      [102, false],
    ] as const)
      expect([step, accept(TOTP, startingAt(0), step, now) !== null]).toEqual([step, taken]);
    expect(windowOf(TOTP, { ...startingAt(0), floor: 101 }, now)).toEqual({ from: 101, span: 1 });
    expect(windowOf(TOTP, { ...startingAt(0), floor: 200 }, now).span).toBe(0);
  });

  test("of a counter lie in the look-ahead window, and nowhere while the counter is not known", () => {
    expect(accept(HOTP, startingAt(7), 6, 0)).toBeNull();
    expect(accept(HOTP, startingAt(7), 7 + LOOK_AHEAD, 0)).toBeNull();
    expect(accept(HOTP, startingAt(7), 6 + LOOK_AHEAD, 0)?.floor).toBe(7 + LOOK_AHEAD);
    const unsure = afterRestore(HOTP, startingAt(7), 0);
    expect(accept(HOTP, unsure, 7, 0)).toBeNull();
    expect(resync(HOTP, unsure, 7)).toEqual({ ...unsure, floor: 9, unsure: false });
  });

  test("two in a row find a counter again in a thousand, and no step", () => {
    const at = startingAt(7);
    expect(resync(HOTP, at, 6)).toBeNull();
    expect(resync(HOTP, at, 7 + RESYNC_SPAN)).toBeNull();
    expect(resync(HOTP, at, 6 + RESYNC_SPAN)).toMatchObject({ floor: 8 + RESYNC_SPAN, next: 8 + RESYNC_SPAN });
    expect(resync(TOTP, at, 7)).toBeNull();
  });

  test("a step that a hand-out used up is not taken of the authenticator", () => {
    const now = 100 * STEP;
    const at = withUsed(TOTP, startingAt(0), 100, now);
    expect(accept(TOTP, at, 100, now)).toBeNull();
    expect(accept(TOTP, at, 101, now)).not.toBeNull();
  });
});

test("after a restore, and at another server, nothing of before is handed out or taken", () => {
  fc.assert(
    fc.property(kind, fc.nat(1_000), fc.nat(900), (key, known, lost) => {
      const nowMs = 1_800_000_000_000;
      const before = startingAt(key.kind === "hotp" ? known : stepAt(nowMs, key.period) - known);
      const after = afterRestore(key, before, nowMs);
      const forgotten = key.kind === "hotp" ? known + lost : stepAt(nowMs, key.period) + 1;
      const taken = allocate(key, after, nowMs);
      if (taken.counter !== null) expect(taken.counter).toBeGreaterThan(forgotten);
      expect(accept(key, after, forgotten, nowMs)).toBeNull();
      if (key.kind === "totp") expect(freshSteps(key, startingAt(0), nowMs)).toEqual({ ...after, next: after.floor });
    }),
  );
});

describe("rates", () => {
  test("no window of any place has more than the limit, and who waits as told goes through", () => {
    const times = fc.array(fc.nat(20_000), { maxLength: 120 });
    fc.assert(
      fc.property(times, fc.integer({ min: 1, max: 20 }), (steps, max) => {
        const windowMs = 60_000;
        let slots: readonly RateSlot[] = [];
        let nowMs = 1_800_000_000_000;
        const taken: number[] = [];
        for (const step of steps) {
          nowMs += step;
          const counted = countIn(slots, nowMs, windowMs, max);
          if ("waitMs" in counted) {
            expect(counted.waitMs).toBeGreaterThan(0);
            expect(counted.waitMs).toBeLessThanOrEqual(windowMs + windowMs / 12);
            expect("slots" in countIn(slots, nowMs + counted.waitMs, windowMs, max)).toBe(true);
            continue;
          }
          slots = counted.slots;
          taken.push(nowMs);
          expect(slots.length).toBeLessThanOrEqual(RATE_SLOTS_MAX);
          expect(taken.filter((at) => at > nowMs - windowMs).length).toBeLessThanOrEqual(max);
        }
      }),
    );
  });

  test("a clock that goes back frees nothing", () => {
    let slots: readonly RateSlot[] = [];
    for (let i = 0; i < 3; i++) {
      const counted = countIn(slots, 1_000_000 - i * 10_000, 60_000, 3);
      if ("waitMs" in counted) throw new Error("it waits");
      slots = counted.slots;
    }
    expect("waitMs" in countIn(slots, 900_000, 60_000, 3)).toBe(true);
  });
});
