import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { base64 } from "../../src/formats/base64.ts";
import { hex } from "../../src/formats/hex.ts";
import { len8 } from "../../src/formats/len8.ts";
import { raw } from "../../src/formats/raw.ts";
import { ascii, BAD_INPUT } from "./samples.ts";

const SINGLE = { raw, hex, base64, len8 };
const read = (format: keyof typeof SINGLE, file: Uint8Array) => SINGLE[format].read(file, { name: "a" }).items[0];
const refused = (format: keyof typeof SINGLE, file: Uint8Array) =>
  expect(() => read(format, file)).toThrow(expect.objectContaining(BAD_INPUT));
const item = (value: Uint8Array) => ({ name: "a", type: "bytes" as const, value, tags: [], createdAt: null });

test("raw tells text from bytes and changes nothing", () => {
  expect(read("raw", ascii("grüße\n"))).toMatchObject({ type: "note", value: ascii("grüße\n") });
  expect(read("raw", Uint8Array.of(0xff, 0))).toMatchObject({ type: "bytes", value: Uint8Array.of(0xff, 0) });
  expect(read("raw", new Uint8Array(65_536))?.value.length).toBe(65_536);
  refused("raw", new Uint8Array(0));
  refused("raw", new Uint8Array(65_537));
});

test("a name that a file system decomposed is composed", () => {
  expect(raw.read(ascii("x"), { name: "gru\u0308n" }).items[0]?.name).toBe("gr\u00fcn");
});

test("what is read is a copy", () => {
  const file = Uint8Array.of(2, 8, 9);
  for (const format of ["raw", "len8"] as const) {
    const value = read(format, file)?.value;
    value?.fill(0);
    expect(file).toEqual(Uint8Array.of(2, 8, 9));
  }
});

describe("hex", () => {
  test("reads either case and white space at the end", () => {
    for (const text of ["00fFA0", "00FFA0\n", "00ffa0 \r\n\t\n"]) {
      expect(read("hex", ascii(text))?.value).toEqual(Uint8Array.of(0, 255, 160));
    }
    expect(new TextDecoder().decode(hex.write([item(Uint8Array.of(0, 255, 160))]))).toBe("00ffa0\n");
  });

  test("refuses everything else", () => {
    for (const text of ["", "\n", "0", "000", "0x00", " 00", "00 00", "00\n00", "0g", "٠٠"])
      refused("hex", ascii(text));
    refused("hex", ascii("00".repeat(65_537)));
    refused("hex", Uint8Array.of(0x30, 0x30, 0xff));
  });
});

describe("base64", () => {
  test("reads both alphabets, padded or not, in one line or wrapped", () => {
    const bytes = Uint8Array.of(0xfb, 0xff, 0xbf, 0x3e);
    for (const text of ["+/+/Pg==", "+/+/Pg", "-_-_Pg", "-_-_Pg==\n", "+/+/\nPg==\n", "+/+/\r\nPg==\r\n"]) {
      expect(read("base64", ascii(text))?.value).toEqual(bytes);
    }
    expect(new TextDecoder().decode(base64.write([item(bytes)]))).toBe("+/+/Pg==\n");
  });

  test("reads what the platform writes, wrapped at 64 and 76", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 400 }), fc.constantFrom(64, 76, 10_000), (value, width) => {
        const text = Buffer.from(value)
          .toString("base64")
          .replace(new RegExp(`.{${width}}(?=.)`, "g"), "$&\n");
        expect(read("base64", ascii(`${text}\n`))?.value).toEqual(value);
        expect(read("base64", ascii(Buffer.from(value).toString("base64url")))?.value).toEqual(value);
      }),
    );
  });

  test("refuses mixed alphabets, wrong padding, loose bits, ragged lines, other characters", () => {
    const wrong = ["", "=", "====", "A", "AA=", "AAA==", "AAAA=", "AA===", "AB", "AAB", "+_AA", "AA==AA==", "A A A A"];
    for (const text of [...wrong, " AAAA", "AAAA\n\nAAAA", "AAAA\nAAAAAAAA", "AAA\nAAAA", "AAAA.", "ÄAAA"]) {
      refused("base64", ascii(text));
    }
    refused("base64", ascii("AAAA".repeat(21_846)));
    refused("base64", ascii("A".repeat(300_000)));
  });
});

describe("len8", () => {
  test("is one length byte and that many bytes", () => {
    expect(read("len8", Uint8Array.of(2, 7, 8))).toMatchObject({ type: "bytes", value: Uint8Array.of(7, 8) });
    expect(len8.write([item(Uint8Array.of(7, 8))])).toEqual(Uint8Array.of(2, 7, 8));
    const longest = new Uint8Array(255).fill(1);
    expect(read("len8", len8.write([item(longest)]))?.value).toEqual(longest);
  });

  test("refuses a wrong length, no length, no value, and more than 255 bytes", () => {
    for (const file of [[], [0], [0, 1], [1], [2, 1], [1, 1, 1], [255]]) refused("len8", Uint8Array.from(file));
    expect(() => len8.write([item(new Uint8Array(256))])).toThrow(expect.objectContaining(BAD_INPUT));
  });
});
