import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Validator } from "@cfworker/json-schema";
import fc from "fast-check";
import {
  bytes,
  type Codec,
  described,
  type Json,
  list,
  nullable,
  recursive,
  schemaOf,
  struct,
  tagged,
  text,
  uint,
} from "../../src/wire/codec.ts";
import { operations } from "../../src/wire/operations.ts";
import { type Schema, taggedSchema } from "../../src/wire/schema.ts";
import { badInputs, complaint, jsonOf, shapeOf, smallest } from "../support/codec-shape.ts";
import { valuesOf } from "../support/schemavalues.ts";

// the widest codecs have many ways to be broken
setDefaultTimeout(30_000);

type Any = Codec<unknown>;

/** Each codec of the table once, by the first operation that has it. */
const sides = new Map<Any, string>();
for (const [name, { input, output }] of Object.entries(operations)) {
  for (const [side, codec] of Object.entries({ input, output } as Record<string, Any>)) {
    if (!sides.has(codec)) sides.set(codec, `${name} ${side}`);
  }
}

/** What JSON Schema cannot say: docs/protocol.md §1.4. */
const UNSAID = /: (negative zero|too long in bytes, not in characters|ill-formed|too short)$/;

const allows = (codec: Any) => {
  const validator = new Validator(schemaOf(codec) as object, "2020-12");
  return (value: unknown): boolean => validator.validate(value).valid;
};

describe("the schema of", () => {
  for (const [codec, name] of sides) {
    test(`${name} allows what the codec takes, and refuses what it refuses`, () => {
      const valid = allows(codec);
      const shape = shapeOf(codec);
      fc.assert(
        fc.property(jsonOf(shape), (value) => {
          expect(complaint(codec, value)).toBeNull();
          expect([value, valid(value)]).toEqual([value, true]);
        }),
        { numRuns: 10 },
      );
      const passed = badInputs(shape, smallest(shape)).filter(
        ({ value }) => complaint(codec, value) !== null && valid(value),
      );
      expect(passed.map(({ why }) => why).filter((why) => !UNSAID.test(why))).toEqual([]);
    });

    test(`${name} allows nothing that the codec refuses, in no branch`, () => {
      const valid = allows(codec);
      fc.assert(
        fc.property(valuesOf(schemaOf(codec)), (value) => {
          expect([value, complaint(codec, value)]).toEqual([value, null]);
          expect(valid(value)).toBe(true);
          expect(valid(codec.encode(codec.decode(value, "")))).toBe(true);
        }),
        { numRuns: 15 },
      );
    });
  }
});

test("every operation describes its input as an object, and its output", () => {
  for (const [name, { input, output }] of Object.entries(operations)) {
    expect([name, schemaOf(input as Any).type]).toEqual([name, "object"]);
    expect([name, schemaOf(output as Any).type]).toEqual([name, "object"]);
  }
});

describe("bounds", () => {
  const encoded = (length: number) => new Uint8Array(length).toBase64({ alphabet: "base64url", omitPadding: true });

  test("of bytes are exact, byte by byte, with the unused bits", () => {
    for (let min = 0; min < 9; min++) {
      for (let max = min; max < 9; max++) {
        const codec: Any = bytes({ min, max });
        const valid = allows(codec);
        for (let length = 0; length < 12; length++) {
          expect([min, max, length, valid(encoded(length))]).toEqual([
            min,
            max,
            length,
            length >= min && length <= max,
          ]);
        }
      }
    }
    const one = allows(bytes({ max: 2 }));
    for (const text of ["A", "AB", "AAB", "AA==", "+A", "A\n"]) expect([text, one(text)]).toEqual([text, false]);
    expect(one("Ag")).toBe(true);
  });

  test("of text are told in code points: none that the codec takes is refused", () => {
    const codec = text({ min: 8, max: 8 });
    const valid = allows(codec);
    for (const taken of ["abcdefgh", "\u{1f511}\u{1f511}", "éééé"]) {
      expect([taken, complaint(codec, taken), valid(taken)]).toEqual([taken, null, true]);
    }
    for (const refused of ["abcdefghi", "a", ""]) expect([refused, valid(refused)]).toEqual([refused, false]);
  });

  test("of a type that contains itself end where the codec ends", () => {
    interface Nest {
      readonly of: readonly Nest[];
    }
    const codec = recursive<Nest>(3, (self) => struct({ of: list(self, { max: 2 }) }));
    const valid = allows(codec);
    let value: Json = { of: [] };
    for (let depth = 1; depth < 6; depth++) {
      expect([depth, valid(value), complaint(codec, value) === null]).toEqual([depth, depth <= 3, depth <= 3]);
      value = { of: [value] };
    }
  });
});

describe("a schema", () => {
  test("tells cases apart by their word", () => {
    const codec = tagged("kind", { a: struct({ n: uint(9) }), b: struct({ n: uint(9), m: nullable(uint(1)) }) });
    expect(schemaOf(codec).oneOf?.map(({ properties }) => properties?.["kind"])).toEqual([
      { const: "a" },
      { const: "b" },
    ]);
    const valid = allows(codec);
    expect(valid({ kind: "a", n: 1 })).toBe(true);
    expect(valid({ kind: "b", n: 1, m: null })).toBe(true);
    for (const bad of [{ kind: "a", n: 1, m: null }, { kind: "b", n: 1 }, { kind: "c", n: 1 }, { n: 1 }]) {
      expect(valid(bad)).toBe(false);
    }
  });

  test("is refused for cases that are no objects, and for codecs that do not describe themselves", () => {
    expect(() => taggedSchema("kind", { a: { type: "string" } satisfies Schema })).toThrow(RangeError);
    const mute: Codec<number> = { decode: () => 1, encode: () => 1 };
    expect(() => schemaOf(struct({ mute }))).toThrow(RangeError);
  });

  test("carries the sentence that a codec was given, and decodes alike", () => {
    const codec = described(uint(5), "Up to five.");
    expect(schemaOf(codec)).toEqual({ type: "integer", minimum: 0, maximum: 5, description: "Up to five." });
    expect(codec.decode(5, "")).toBe(5);
    expect(() => codec.decode(6, "")).toThrow("a whole number from 0 to 5");
  });
});

test("lengths of what a pattern keeps to ASCII are told as they are, of other text in code points", () => {
  const least = (pattern?: RegExp) => schemaOf(text({ min: 6, max: 10, ...(pattern && { pattern }) })).minLength;
  for (const pattern of [/^[0-9]{6,10}$/, /^[a-z][\w.-]*$/, /^\d+\.\d+$/]) expect(least(pattern)).toBe(6);
  const wide = [/^[^x]+$/, /^.+$/, /^\S+$/, /^\P{C}+$/u, /^[a-zé]+$/, /[0-9]+/, /^[a-z]+$/i, /^[0-9]|é$/, /^\u00e9$/];
  for (const pattern of [undefined, ...wide]) expect([pattern, least(pattern)]).toEqual([pattern, 2]);
  expect(schemaOf(operations["otp.verify"].input).properties?.["code"]).toMatchObject({ minLength: 6, maxLength: 10 });
});
