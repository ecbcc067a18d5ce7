import { expect, test } from "bun:test";
import fc from "fast-check";
import { canonicalJson } from "../../src/wire/canonicaljson.ts";
import type { Json } from "../../src/wire/codec.ts";

test("strings are written as RFC 8785 §3.2.2.2 shows", () => {
  const text = JSON.parse('"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/"') as string;
  expect(canonicalJson(text)).toBe('"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"');
});

test("names are sorted as RFC 8785 §3.2.3 shows", () => {
  const names = { "\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\ud83d\ude00": 5, "\u0080": 6, "\u00f6": 7 };
  expect(canonicalJson(names)).toBe('{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"😀":5,"\ufb33":3}');
});

test("lists keep their order, nothing has white space", () => {
  expect(canonicalJson({ b: [3, 1, [], {}], a: [null, true, false, ""] })).toBe(
    '{"a":[null,true,false,""],"b":[3,1,[],{}]}',
  );
  expect(canonicalJson(-0)).toBe("0");
});

test("numbers that are no exact integers and ill-formed text are refused", () => {
  for (const value of [0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY, "\ud800", { "\ud800": 1 }]) {
    expect(() => canonicalJson(value as Json)).toThrow(RangeError);
  }
});

test("it means the same, and is the same for every order of names", () => {
  const whole = fc.integer({ min: -(2 ** 53) + 1, max: 2 ** 53 - 1 }).map((n) => (n === 0 ? 0 : n));
  const json = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      fc.constantFrom(null, true, false),
      whole,
      fc.string({ unit: "grapheme" }),
      fc.array(tie("value"), { maxLength: 4 }),
      fc.dictionary(fc.string({ unit: "grapheme" }), tie("value"), { maxKeys: 4, noNullPrototype: true }),
    ),
  })).value;
  const turned = (value: Json): Json =>
    value === null || typeof value !== "object"
      ? value
      : Array.isArray(value)
        ? value.map((item) => turned(item as Json))
        : Object.fromEntries(
            Object.entries(value)
              .reverse()
              .map(([name, item]) => [name, turned(item as Json)]),
          );
  fc.assert(
    fc.property(json, (value) => {
      const text = canonicalJson(value as Json);
      expect(JSON.parse(text)).toEqual(value);
      expect(canonicalJson(turned(value as Json))).toBe(text);
      expect(canonicalJson(JSON.parse(text) as Json)).toBe(text);
    }),
  );
});
