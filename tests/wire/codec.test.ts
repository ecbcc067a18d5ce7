import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { toBase64url } from "../../src/crypto/bytes.ts";
import { Fault } from "../../src/errors.ts";
import {
  bool,
  bytes,
  type Codec,
  decodeJson,
  encodeJson,
  id,
  list,
  nullable,
  oneOf,
  struct,
  text,
  u53,
  uint,
} from "../../src/wire/codec.ts";
import { badInputs, complaint, jsonOf, MARKER, shapeOf } from "../support/codec-shape.ts";

const utf8 = (value: string): Uint8Array => new TextEncoder().encode(value);

function fault(run: () => unknown): Fault {
  try {
    run();
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

const everything = struct({
  blob: bytes({ max: 9 }),
  hash: bytes({ length: 32 }),
  word: text({ min: 1, max: 12 }),
  form: text({ min: 2, max: 6, pattern: /^[0-9A-Z-]+$/ }),
  small: uint(9, 3),
  big: u53,
  flag: bool,
  choice: oneOf(["one", "two"]),
  key: id(),
  perhaps: nullable(uint()),
  many: list(struct({ n: uint(5), deep: nullable(list(bool, { max: 2 })) }), { min: 1, max: 3 }),
  nothing: struct({}),
});

describe("the shape that the tests derive", () => {
  test("is the one that was written", () => {
    const field = { nullable: false } as const;
    expect(shapeOf(everything)).toEqual({
      ...field,
      is: "object",
      fields: {
        blob: { ...field, is: "bytes", min: 0, max: 9 },
        hash: { ...field, is: "bytes", min: 32, max: 32 },
        word: { ...field, is: "text", min: 1, max: 12, form: false },
        form: { ...field, is: "text", min: 2, max: 6, form: true },
        small: { ...field, is: "number", min: 3, max: 9 },
        big: { ...field, is: "number", min: 0, max: Number.MAX_SAFE_INTEGER },
        flag: { ...field, is: "boolean" },
        choice: { ...field, is: "word", words: ["one", "two"] },
        key: { ...field, is: "id", digits: 32 },
        perhaps: { is: "number", nullable: true, min: 0, max: 0xffff_ffff },
        many: {
          ...field,
          is: "list",
          min: 1,
          max: 3,
          item: {
            ...field,
            is: "object",
            fields: {
              n: { ...field, is: "number", min: 0, max: 5 },
              deep: { is: "list", nullable: true, min: 0, max: 2, item: { ...field, is: "boolean" } },
            },
          },
        },
        nothing: { ...field, is: "object", fields: {} },
      },
    });
  });

  test("gives good values that go there and back, and bad ones that are refused without an echo", () => {
    const shape = shapeOf(everything);
    fc.assert(
      fc.property(jsonOf(shape), (json) => {
        expect(everything.encode(everything.decode(json, ""))).toEqual(json);
        for (const { why, value } of badInputs(shape, json)) {
          const said = complaint(everything, value);
          expect({ why, refused: said !== null }).toEqual({ why, refused: true });
          expect(said).not.toContain(MARKER);
        }
      }),
      { numRuns: 30 },
    );
  });
});

describe("bytes", () => {
  const codec = bytes({ min: 2, max: 5 });

  test("takes every length within its bounds and no other", () => {
    for (let length = 0; length < 10; length++) {
      const value = toBase64url(new Uint8Array(length).fill(0xff));
      expect(complaint(codec, value) === null).toBe(length >= 2 && length <= 5);
    }
  });

  test("refuses a giant text before it decodes it", () => {
    expect(complaint(codec, "A".repeat(10_000_000))).toBe("body must be 2 to 5 bytes as base64url");
  });

  test.each(["AAE=", "AA+/", "AA ", "AAF", "AAAA\n", "ÄÄ"])("refuses %p", (value) => {
    expect(complaint(codec, value)).not.toBeNull();
  });
});

describe("text", () => {
  const codec = text({ min: 1, max: 4 });

  test.each([
    ["a", true],
    ["abcd", true],
    ["abcde", false],
    ["éé", true],
    ["ééé", false],
    ["🔑", true],
    ["🔑a", false],
    ["", false],
    ["\ud83d", false],
    ["\u0000", true],
  ])("counts bytes: %p is accepted: %p", (value, accepted) => {
    expect(complaint(codec, value) === null).toBe(accepted);
  });

  test("does not normalise", () => {
    expect(codec.decode("e\u0301", "")).toBe("e\u0301");
  });
});

describe("uint", () => {
  test.each([3, 4, 9])("takes %p", (n) => expect(uint(9, 3).decode(n, "")).toBe(n));
  test.each([2, 10, -3, 3.5, -0, Number.NaN, Number.POSITIVE_INFINITY, 3n, "3", { n: 3 }, true, null, undefined])(
    "refuses %p",
    (n) => expect(complaint(uint(9, 3), n)).toBe("body must be a whole number from 3 to 9"),
  );
  test("refuses a list that holds one", () => expect(complaint(uint(9, 3), [3])).not.toBeNull());
  test("u53 ends at 2^53-1", () => {
    expect(u53.decode(2 ** 53 - 1, "")).toBe(2 ** 53 - 1);
    expect(complaint(u53, 2 ** 53)).not.toBeNull();
  });
});

describe("oneOf", () => {
  test.each(["three", "", "On", "ONE", "constructor", "0", "length", 0, null])("refuses %p", (value) => {
    expect(complaint(oneOf(["one", "two"]), value)).toBe("body must be one of one, two");
  });
  test("refuses a list of one of them", () => expect(complaint(oneOf(["one", "two"]), ["one"])).not.toBeNull());
});

describe("struct", () => {
  const codec = struct({ a: uint(9), b: nullable(uint(9)) });

  test("refuses a missing field, also one that could be null, and says which", () => {
    expect(complaint(codec, { b: null })).toBe("a is missing");
    expect(complaint(codec, { a: 1 })).toBe("b is missing");
    expect(complaint(struct({ outer: codec }), { outer: { a: 1 } })).toBe("outer.b is missing");
    expect(complaint(list(codec, { max: 3 }), [{ a: 1, b: 1 }, { a: 1 }])).toBe("[1].b is missing");
  });

  test("refuses an unknown field without repeating its name", () => {
    expect(complaint(codec, { a: 1, b: 1, [MARKER]: 1 })).toBe("body has an unknown field");
    expect(complaint(struct({ outer: codec }), { outer: { a: 1, b: 1, c: 1 } })).toBe("outer has an unknown field");
  });

  test("does not take fields from a prototype", () => {
    expect(complaint(codec, Object.create({ a: 1, b: 1 }))).toBe("a is missing");
    const hostile = decodeFails(codec, '{"a":1,"b":1,"__proto__":{"a":2}}');
    expect(hostile.message).toBe("body has an unknown field");
    const taught = struct({ toString: uint(9) });
    expect(complaint(taught, {})).toBe("toString is missing");
  });

  test("refuses what is no object", () => {
    for (const value of [[], [{ a: 1, b: 1 }], "x", 1, true, null, undefined]) {
      expect(complaint(codec, value)).toBe("body must be an object");
    }
  });

  test("gives a new object and writes fields in the table's order", () => {
    const from = { b: 2, a: 1 };
    const decoded = codec.decode(from, "");
    expect(decoded).not.toBe(from);
    expect(encodeJson(codec, { b: 2, a: 1 })).toBe('{"a":1,"b":2}');
    expect(encodeJson(codec, decoded)).toBe('{"a":1,"b":2}');
  });
});

function decodeFails(codec: Codec<unknown>, json: string | Uint8Array): Fault {
  const found = fault(() => decodeJson(codec, typeof json === "string" ? utf8(json) : json));
  expect(found.code).toBe("bad_input");
  return found;
}

describe("decodeJson", () => {
  const codec = struct({ a: uint(9) });

  test.each(["", "{", '{"a":1}x', '{"a":01}', "{'a':1}", '{"a":1,}', "NaN", "[".repeat(100_000), MARKER])(
    "refuses what is not JSON",
    (json) => {
      expect(decodeFails(codec, json).message).toBe("the body must be JSON in UTF-8");
    },
  );

  test.each([
    ["an overlong form", [0xc0, 0x80]],
    ["a lone continuation byte", [0x80]],
    ["a surrogate in UTF-8", [0xed, 0xa0, 0x80]],
    ["a cut sequence", [0xe2, 0x82]],
  ])("refuses %s", (_, raw) => {
    const json = Uint8Array.of(...utf8('{"a":"'), ...raw, ...utf8('"}'));
    expect(decodeFails(struct({ a: text({ max: 9 }) }), json).message).toBe("the body must be JSON in UTF-8");
  });

  test("refuses an escaped lone surrogate", () => {
    decodeFails(struct({ a: text({ max: 9 }) }), '{"a":"\\ud800"}');
  });

  test("never fails with anything but bad_input, and never echoes", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.string(),
          fc.jsonValue().map((v) => JSON.stringify({ a: v })),
        ),
        (json) => {
          try {
            decodeJson(codec, utf8(json));
          } catch (error) {
            expect(error).toBeInstanceOf(Fault);
            expect((error as Fault).code).toBe("bad_input");
            expect([
              "the body must be JSON in UTF-8",
              "body must be an object",
              "body has an unknown field",
              "a is missing",
              "a must be a whole number from 0 to 9",
            ]).toContain((error as Fault).message);
          }
        },
      ),
    );
  });
});
