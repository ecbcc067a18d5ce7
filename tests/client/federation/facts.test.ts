import { expect, test } from "bun:test";
import { messageFacts } from "../../../src/client/federation/facts.ts";
import { fewest, nextStep, standingOf, widest, withAll } from "../../../src/client/federation/standing.ts";
import { Fault } from "../../../src/errors.ts";

const shown = (bytes: Uint8Array) => messageFacts(bytes).find(({ label }) => label !== "message length");

test("a message is shown as text where all of it is printable, and as bytes otherwise", () => {
  const encode = (text: string) => new TextEncoder().encode(text);
  expect(shown(encode("pay 5 €\nto Ada"))).toEqual({ label: "message", value: "pay 5 €\nto Ada" });
  // escape, right-to-left override, zero width space, line separator, carriage return
  for (const text of ["\u001b[2J", "a\u202eb", "a\u200bb", "a\u2028b", "a\rb"]) {
    expect(shown(encode(text))?.label).toBe("message (hex)");
  }
  expect(shown(Uint8Array.of(0xff, 0xfe))).toEqual({ label: "message (hex)", value: "fffe" });
  expect(shown(encode("x".repeat(5_000)))?.value).toHaveLength(2_000 + "… (cut)".length);
});

const NONE: ReadonlyMap<number, number> = new Map();

test("a roster is everyone who has not failed, and of those who have only as many as it takes", () => {
  expect(widest(3)([1, 2, 3, 4], NONE)).toEqual([1, 2, 3, 4]);
  expect(widest(3)([1, 2, 3, 4], new Map([[2, 1]]))).toEqual([1, 3, 4]);
  expect(widest(4)([1, 2, 3, 4], new Map([[2, 1]]))).toEqual([1, 2, 3, 4]);
  expect(
    widest(3)(
      [1, 2, 3, 4],
      new Map([
        [1, 2],
        [2, 1],
        [3, 3],
      ]),
    ),
  ).toEqual([1, 2, 4]);
  expect(widest(3)([1, 2], NONE)).toBeNull();
  expect(fewest(2, [2, 3, 4])([1, 2, 3, 4], new Map([[2, 1]]))).toEqual([3, 4]);
  expect(fewest(2, [2, 3])([1, 2], NONE)).toBeNull();
  expect(withAll([1, 5], [2, 3, 4], 2)([1, 2, 3, 5], NONE)).toEqual([1, 2, 3, 5]);
  expect(withAll([1, 5], [2, 3, 4], 2)([1, 2, 3], NONE)).toBeNull();
});

test("an answer that is a refusal counts as one, and a server that cannot be asked is absent", () => {
  const answers = [
    { index: 1, value: null, fault: new Fault("denied", "no") },
    { index: 2, value: null, fault: new Fault("timed_out", "late") },
  ];
  const standing = standingOf(answers);
  expect([...standing.refusing.keys()]).toEqual([1]);
  expect(standing.absent).toEqual([2]);
  const manifest = { servers: [] } as unknown as Parameters<typeof nextStep>[0];
  expect(nextStep(manifest, answers, widest(2), NONE, [])).toMatchObject({
    step: "refused",
    fault: { code: "denied" },
  });
  expect(nextStep(manifest, answers, widest(1), NONE, [])).toMatchObject({
    step: "refused",
    fault: { code: "unavailable" },
  });
});
