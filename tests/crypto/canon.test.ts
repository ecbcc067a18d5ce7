import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type CanonValue, canon } from "../../src/crypto/canon.ts";

/** What a slow, separate reader makes of the encoding: numbers are bigint, all else as it was. */
type Parsed = null | boolean | bigint | string | Uint8Array | Parsed[];

/** Reads exactly one value and refuses everything that the encoder would not write. */
function parse(bytes: Uint8Array): Parsed {
  let at = 0;
  const take = (length: number): number[] => {
    if (at + length > bytes.length) throw new Error("cut short");
    const out = [...bytes.slice(at, at + length)];
    at += length;
    return out;
  };
  const unsigned = (length: number): bigint => take(length).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  const value = (): Parsed => {
    const [tag] = take(1);
    switch (tag) {
      case 0:
        return null;
      case 1:
        return false;
      case 2:
        return true;
      case 3:
        return unsigned(8);
      case 4:
        return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
          Uint8Array.from(take(Number(unsigned(4)))),
        );
      case 5:
        return Uint8Array.from(take(Number(unsigned(4))));
      case 6: {
        const items: Parsed[] = [];
        for (let left = unsigned(4); left > 0n; left--) items.push(value());
        return items;
      }
      default:
        throw new Error(`unknown tag ${tag}`);
    }
  };
  const out = value();
  if (at !== bytes.length) throw new Error("bytes left over");
  return out;
}

function isList(value: CanonValue): value is readonly CanonValue[] {
  return Array.isArray(value);
}

function normal(value: CanonValue): Parsed {
  if (typeof value === "number") return BigInt(value);
  if (isList(value)) return value.map(normal);
  return value;
}

const wellFormed = fc.string({ unit: "binary", maxLength: 12 }).filter((text) => text.isWellFormed());
const { value: valueArbitrary } = fc.letrec<{ value: CanonValue }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constantFrom<CanonValue>(null, true, false, 0, 1, "", "0", new Uint8Array(0), Uint8Array.of(0), []),
    fc.maxSafeNat(),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    wellFormed,
    fc.uint8Array({ maxLength: 12 }),
    fc.array(tie("value"), { maxLength: 4 }),
  ),
}));
const partsArbitrary = fc.tuple(wellFormed, fc.array(valueArbitrary, { maxLength: 5 }));

describe("canon", () => {
  test("a separate reader gets back exactly what went in: the encoding is injective", () => {
    fc.assert(
      fc.property(partsArbitrary, ([label, parts]) => {
        expect(parse(canon(label, ...parts))).toEqual([label, ...parts.map(normal)]);
      }),
      { numRuns: 500 },
    );
  });

  test("two values encode alike only if they are alike", () => {
    fc.assert(
      fc.property(partsArbitrary, partsArbitrary, ([a, as], [b, bs]) => {
        const alike = Bun.deepEquals([a, ...as.map(normal)], [b, ...bs.map(normal)], true);
        expect(Buffer.compare(canon(a, ...as), canon(b, ...bs)) === 0).toBe(alike);
      }),
      { numRuns: 500 },
    );
  });

  test("no encoding is the beginning of another", () => {
    fc.assert(
      fc.property(partsArbitrary, fc.nat(), ([label, parts], cut) => {
        const whole = canon(label, ...parts);
        expect(() => parse(whole.subarray(0, cut % whole.length))).toThrow();
        expect(() => parse(Uint8Array.of(...whole, 0))).toThrow();
      }),
    );
  });

  test("look-alikes differ from each other", () => {
    const lookAlikes: CanonValue[][] = [
      [],
      [null],
      [false],
      [true],
      [0],
      [1],
      ["0"],
      ["1"],
      [""],
      ["", ""],
      ["a", "b"],
      ["ab"],
      ["ab", ""],
      ["", "ab"],
      [["a", "b"]],
      [["a"], "b"],
      [["a"], ["b"]],
      [[["a", "b"]]],
      [["ab"]],
      [[]],
      [[[]]],
      [[], []],
      [[null]],
      [new TextEncoder().encode("ab")],
      [new Uint8Array(0)],
      [Uint8Array.of(0)],
      [Uint8Array.of(0, 0)],
      ["null"],
      ["\u00e9"],
      ["e\u0301"],
      [2 ** 32],
      [2n ** 64n - 1n],
      [canon("x", "ab")],
      ["x", "ab"],
    ];
    const seen = new Map<string, number>();
    lookAlikes.forEach((parts, i) => {
      const key = canon("x", ...parts).toHex();
      expect({ i, same: seen.get(key) }).toEqual({ i, same: undefined });
      seen.set(key, i);
    });
  });

  test("a label and a first text part do not flow into each other", () => {
    expect(canon("ab", "c")).not.toEqual(canon("a", "bc"));
    expect(canon("a", "b")).not.toEqual(canon("ab"));
  });

  test("the bytes are those of the documented form", () => {
    const parts: CanonValue[] = [null, false, true, 258, 2n ** 64n - 1n, "\u00e9", Uint8Array.of(7), ["y", []]];
    expect(canon("x", ...parts).toHex()).toBe(
      [
        "0600000009",
        "040000000178",
        "00",
        "01",
        "02",
        "030000000000000102",
        "03ffffffffffffffff",
        "0400000002c3a9",
        "050000000107",
        "06000000020400000001790600000000",
      ].join(""),
    );
  });

  test("number and bigint of one value are one value, and -0 is 0", () => {
    expect(canon("x", 5)).toEqual(canon("x", 5n));
    expect(canon("x", -0)).toEqual(canon("x", 0));
  });

  test.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, -1n, 2n ** 64n])("refuses the number %p", (n) => {
    expect(() => canon("x", n)).toThrow(RangeError);
    expect(() => canon("x", [n])).toThrow(RangeError);
  });

  test.each(["\ud800", "a\udc00", "\udc00\ud800"])("refuses ill-formed text", (text) => {
    expect(() => canon("x", text)).toThrow(RangeError);
    expect(() => canon(text)).toThrow(RangeError);
  });

  test("does not keep a reference to its arguments", () => {
    const part = Uint8Array.of(1, 2, 3);
    const out = canon("x", part);
    const before = out.slice();
    part.fill(0);
    expect(out).toEqual(before);
  });
});
