import { expect, test } from "bun:test";
import fc from "fast-check";
import { isParsable, parseObject } from "../../src/formats/jsontext.ts";
import { ascii } from "./samples.ts";

const PADDING = 1_100_000;

test("what stands in texts does not count, whatever is escaped there", () => {
  const text = JSON.stringify({ text: `${'",:{['.repeat(1_000_000)}\\`, "a\\": "\\\\" });
  expect(isParsable(ascii(text))).toBe(true);
  expect(parseObject(ascii(text), 64_000_000)).toEqual(JSON.parse(text));
  expect(isParsable(ascii(`${'"\\\\",'.repeat(4_000_001)}`))).toBe(false);
  expect(isParsable(ascii(`${'"\\"",'.repeat(4_000_001)}`))).toBe(false);
  expect(isParsable(ascii(`"${",".repeat(5_000_000)}`))).toBe(true);
});

test("objects, lists, members and elements count", () => {
  for (const part of ["{", "[", ",", ":"]) {
    expect(isParsable(ascii(part.repeat(4_000_000)))).toBe(true);
    expect(isParsable(ascii(part.repeat(4_000_001)))).toBe(false);
  }
});

test("any JSON of moderate size is parsed as it is", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
      const text = `${" ".repeat(PADDING)}${JSON.stringify(value)}`;
      expect(parseObject(ascii(text), 64_000_000)).toEqual(JSON.parse(text));
    }),
    { numRuns: 20 },
  );
});

test("no object, too long, not UTF-8: null", () => {
  for (const text of ["", "[]", "null", "1", '"x"', "{", "{}x"]) expect(parseObject(ascii(text), 100)).toBeNull();
  expect(parseObject(ascii('{"a":1}'), 6)).toBeNull();
  expect(parseObject(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d), 100)).toBeNull();
});
