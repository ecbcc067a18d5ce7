import { expect, test } from "bun:test";
import fc from "fast-check";
import { ATTEMPTS_MAX, type Course, openCourse, pursue, wakeAtMs } from "../../../src/server/keyring/course.ts";

const PATIENCE = { graceMs: 2_000, stepMs: 30_000 };
type Event = Parameters<typeof pursue>[1];

const index = fc.integer({ min: 1, max: 6 });
const indices = fc.uniqueArray(index, { maxLength: 5 });
const event: fc.Arbitrary<Event> = fc.oneof(
  fc.constantFrom<Event[]>(
    { type: "called" },
    { type: "recalled" },
    { type: "settled" },
    { type: "ended" },
    { type: "tick" },
  ),
  fc.record({ type: fc.constant("ready" as const), index }),
  fc.record({ type: fc.constant("away" as const), index, final: fc.boolean() }),
  fc.record({ type: fc.constant("answered" as const), index }),
  fc.record({ type: fc.constant("step" as const), due: indices }),
  fc.record({ type: fc.constant("spoilt" as const), culprits: indices, suspects: indices, absent: indices }),
);

test("whatever happens, attempts count up to eight, among parties that are ready, and nothing starts after the end", () => {
  const kinds = fc.constantFrom("make" as const, "use" as const, "release" as const);
  fc.assert(
    fc.property(kinds, fc.integer({ min: 2, max: 4 }), fc.array(event, { maxLength: 80 }), (kind, least, events) => {
      let course = openCourse(kind, least, [3, 1, 2, 4, 5]);
      let nowMs = 0;
      const apply = (one: Event): void => {
        const before = course;
        const { course: after, effects } = pursue(course, one, nowMs, PATIENCE);
        course = after;
        const stands = (of: Course, stand: string) => of.parties.flatMap((p) => (p.stand === stand ? [p.index] : []));
        // who is out stays out
        for (const gone of stands(before, "out")) expect(stands(after, "out")).toContain(gone);
        if (before.stage === "over") expect(after.stage).toBe("over");
        for (const effect of effects) {
          if (effect.do === "ask" || effect.do === "askLater") expect(stands(after, "asked")).toContain(effect.index);
          if (effect.do !== "order") continue;
          expect(after.stage).toBe("preparing");
          expect(effect.attempt).toBe(before.attempt + 1);
          expect(effect.attempt).toBeLessThanOrEqual(ATTEMPTS_MAX);
          expect(effect.roster.length).toBeGreaterThanOrEqual(least);
          for (const member of effect.roster) expect(stands(after, "ready")).toContain(member);
          expect([...effect.roster]).toEqual(effect.roster.toSorted((a, b) => a - b));
          if (kind !== "make") expect(effect.roster).toHaveLength(least);
          apply({ type: "ordered", attempt: effect.attempt, roster: effect.roster });
          apply({ type: "step", due: effect.roster });
        }
      };
      for (const one of events) {
        nowMs += 700;
        apply(one);
      }
    }),
  );
});

const happen = (course: Course, nowMs: number, ...events: Event[]) => {
  let step: ReturnType<typeof pursue> = { course, effects: [] };
  for (const one of events) step = pursue(step.course, one, nowMs, PATIENCE);
  return step;
};

test("a new key waits for stragglers, a use does not", () => {
  const ready = (n: number): Event[] => Array.from({ length: n }, (_, i) => ({ type: "ready", index: i + 1 }));
  const make = happen(openCourse("make", 3, [1, 2, 3, 4]), 100, { type: "called" }, ...ready(3));
  expect(make.effects).toEqual([]);
  expect(wakeAtMs(make.course, PATIENCE)).toBe(2_100);
  expect(happen(make.course, 2_099, { type: "tick" }).effects).toEqual([]);
  const order = { do: "order", attempt: 1, roster: [1, 2, 3] } as const;
  expect(happen(make.course, 2_100, { type: "tick" }).effects).toEqual([order]);
  const last = happen(make.course, 150, { type: "ready", index: 4 });
  expect(last.effects).toEqual([{ ...order, roster: [1, 2, 3, 4] }]);
  const out = happen(make.course, 150, { type: "away", index: 4, final: true });
  expect(out.effects).toEqual([order]);
  const use = happen(openCourse("use", 2, [1, 2, 3]), 100, { type: "called" }, ...ready(2));
  expect(use.effects).toEqual([{ do: "order", attempt: 1, roster: [1, 2] }]);
});

test("who has spoiled an attempt comes last in the next one", () => {
  const ready: Event[] = [1, 2, 3].map((one) => ({ type: "ready", index: one }));
  const begun = happen(
    openCourse("use", 2, [1, 2, 3]),
    0,
    { type: "called" },
    ...ready,
    { type: "ordered", attempt: 1, roster: [1, 2] },
    { type: "ready", index: 3 },
  );
  const next = happen(begun.course, 0, { type: "spoilt", culprits: [], suspects: [1], absent: [] });
  expect(next.effects).toEqual([{ do: "order", attempt: 2, roster: [2, 3] }]);
  const proven = happen(begun.course, 0, { type: "spoilt", culprits: [2], suspects: [], absent: [] });
  expect(proven.effects).toEqual([{ do: "order", attempt: 2, roster: [1, 3] }]);
  const two = happen(begun.course, 0, { type: "spoilt", culprits: [1, 2], suspects: [], absent: [] });
  expect(two.effects).toEqual([{ do: "fail", why: "too few parties can take part" }]);
});

test("a step that nobody answers is silent after its time; one whose conclusion was lost is looked at again", () => {
  const ready: Event[] = [1, 2].map((one) => ({ type: "ready", index: one }));
  const { course } = happen(
    openCourse("use", 2, [1, 2]),
    0,
    { type: "called" },
    ...ready,
    { type: "ordered", attempt: 1, roster: [1, 2] },
    { type: "step", due: [1, 2] },
  );
  expect(happen(course, 29_999, { type: "tick" }).effects).toEqual([]);
  expect(happen(course, 30_000, { type: "tick" }).effects).toEqual([{ do: "silent", indices: [1, 2] }]);
  const answered = happen(course, 5, { type: "answered", index: 1 }, { type: "answered", index: 2 });
  expect(answered.effects).toEqual([{ do: "move" }]);
  expect(happen(answered.course, 30_000, { type: "tick" }).effects).toEqual([{ do: "move" }]);
});
