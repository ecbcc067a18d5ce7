import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import {
  checkName,
  FORMAT_NAMES,
  type Format,
  formatNamed,
  formatsFor,
  sniffFormat,
  verifyWritten,
} from "../../src/formats/index.ts";
import { SECRET_TYPES } from "../../src/protocol/secrettype.ts";
import { ascii, BAD_INPUT, SAMPLES, sample } from "./samples.ts";

const FORMATS = FORMAT_NAMES.map(formatNamed);
/** Values that a format can hold: len8 ends at 255 bytes. */
const fits = (format: Format) =>
  SAMPLES.filter((item) => format.types.includes(item.type) && (format.name !== "len8" || item.value.length < 256));

function faultOf(work: () => unknown): Fault {
  try {
    work();
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

test("the formats of this version", () => {
  expect(FORMAT_NAMES).toEqual(["raw", "hex", "base64", "len8", "json", "jwk", "pem"]);
  expect(() => formatNamed("kdbx")).toThrow(expect.objectContaining(BAD_INPUT));
  expect(() => formatNamed("__proto__")).toThrow(expect.objectContaining(BAD_INPUT));
});

describe.each(FORMATS)("$name", (format) => {
  test("gives back every type that it holds", () => {
    expect(fits(format).length).toBeGreaterThan(0);
    for (const item of fits(format)) {
      const file = format.write([item]);
      const { items, lost } = format.read(file, { name: item.name });
      expect(items.length).toBe(1);
      expect(items[0]?.value).toEqual(item.value);
      expect(items[0]?.name).toBe(item.name);
      for (const field of format.keeps) expect(items[0]?.[field]).toEqual(item[field]);
      expect(lost).toEqual([]);
      verifyWritten(format, [item], file);
      expect(format.write([item])).toEqual(file);
    }
  });

  test("refuses every other type and names the formats that can", () => {
    for (const type of SECRET_TYPES.filter((candidate) => !format.types.includes(candidate))) {
      const fault = faultOf(() => format.write([sample(type)]));
      expect(fault).toMatchObject(BAD_INPUT);
      expect(fault.hint).toBe(`use --to ${formatsFor(type).join(", ")}`);
      expect(formatsFor(type)).toContain("json");
    }
  });

  test("refuses values of 0 and of 65,537 bytes, writes one of 65,536 where it can", () => {
    const type = format.types.includes("bytes") ? "bytes" : "p256";
    for (const length of [0, 65_537]) {
      const item = { ...sample(type), value: new Uint8Array(length) };
      expect(faultOf(() => format.write([item]))).toMatchObject(BAD_INPUT);
    }
    if (type === "bytes" && format.name !== "len8") {
      const item = { ...sample(type), value: new Uint8Array(65_536).fill(0xfe) };
      verifyWritten(format, [item], format.write([item]));
    }
  });

  if (format.kind === "single") {
    test("holds exactly one secret, whose name the caller gives", () => {
      const [one] = fits(format);
      if (!one) throw new Error("no sample");
      expect(faultOf(() => format.write([]))).toMatchObject(BAD_INPUT);
      expect(faultOf(() => format.write([one, { ...one, name: "b" }]))).toMatchObject(BAD_INPUT);
      const file = format.write([one]);
      for (const name of [null, "", "a//b", "../b", "a\u0007"]) {
        expect(faultOf(() => format.read(file, { name }))).toMatchObject(BAD_INPUT);
      }
    });
  }

  test("random bytes and text throw nothing but bad_input", () => {
    const text = fc.string({ unit: "binary", maxLength: 300 }).map(ascii);
    const json = fc.json().map(ascii);
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 600 }), text, json), (file) => {
        sniffFormat(file);
        harmless(format, file);
      }),
      { numRuns: 300 },
    );
  });

  test("truncated, bent and extended files throw nothing but bad_input", () => {
    const files = fits(format).map((item) => format.write([item]));
    const change = fc.record({
      file: fc.constantFrom(...files),
      at: fc.nat(),
      how: fc.constantFrom("cut", "flip", "insert", "remove", "repeat"),
      by: fc.integer({ min: 1, max: 255 }),
    });
    fc.assert(
      fc.property(change, ({ file, at, how, by }) => {
        const i = at % file.length;
        const bent = {
          cut: () => file.slice(0, i),
          flip: () => file.map((byte, j) => (j === i ? byte ^ by : byte)),
          insert: () => Uint8Array.of(...file.subarray(0, i), by, ...file.subarray(i)),
          remove: () => Uint8Array.of(...file.subarray(0, i), ...file.subarray(i + 1)),
          repeat: () => Uint8Array.of(...file, ...file.subarray(i)),
        }[how]?.();
        harmless(format, bent ?? file);
      }),
      { numRuns: 400 },
    );
  });

  test("faults tell what, why and how to mend it, and never the content", () => {
    const secret = "correct-horse-battery";
    for (const file of [`-----BEGIN ${secret}-----`, `{"kty":"${secret}"}`, `{"keyhold":"${secret}"}`, `${secret}!`]) {
      if (format.name === "raw") continue;
      const fault = faultOf(() => format.read(ascii(file), { name: "a" }));
      expect(fault).toMatchObject(BAD_INPUT);
      expect(fault.message).toContain(format.name);
      expect(fault.why).toBeString();
      expect(fault.hint).toBeString();
      expect(`${fault.message} ${fault.why} ${fault.hint}`).not.toContain(secret);
    }
  });
});

/** Reads; what is accepted is well-formed, and what is refused is refused by a Fault. */
function harmless(format: Format, file: Uint8Array): void {
  const before = file.slice();
  try {
    for (const item of format.read(file, { name: "a/b" }).items) {
      expect(item.value.length).toBeWithin(1, 65_537);
      expect(SECRET_TYPES).toContain(item.type);
      checkName(item.name);
    }
  } catch (error) {
    expect(error).toBeInstanceOf(Fault);
    expect((error as Fault).code).toBe("bad_input");
  }
  expect(file).toEqual(before);
}

test("only formats with a mark of their own are guessed", () => {
  const guesses = FORMATS.map((format) => {
    const [item] = fits(format);
    return item ? (sniffFormat(format.write([item]))?.name ?? null) : undefined;
  });
  expect(guesses).toEqual([null, null, null, null, "json", "jwk", "pem"]);
  for (const file of ["", "{}", "[]", "null", '{"keyhold":"else"}', "deadbeef", "-----BEGIN"]) {
    expect(sniffFormat(ascii(file))).toBeNull();
  }
});

test("hostile JSON is refused quickly: deep, huge, not UTF-8", () => {
  const hostile = [
    ascii("[".repeat(4_000_000)),
    ascii(`{"kty":${"[".repeat(200_000)}`),
    ascii('{"keyhold":"export","v":1,"items":'.padEnd(8 * 1_024 * 1_024 + 1, " ")),
    Uint8Array.of(0x7b, 0xff, 0x7d),
  ];
  for (const file of hostile) {
    expect(sniffFormat(file)).toBeNull();
    for (const name of ["json", "jwk"]) harmless(formatNamed(name), file);
  }
});

test("verifyWritten finds any difference in what a format keeps", () => {
  const json = formatNamed("json");
  const item = sample("password");
  const file = json.write([item]);
  const others = [
    [],
    [item, sample("pin")],
    [{ ...item, name: "other" }],
    [{ ...item, type: "note" as const }],
    [{ ...item, tags: ["other"] }],
    [{ ...item, createdAt: null, tags: [] }],
    [{ ...item, value: ascii("other") }],
  ];
  for (const items of others) {
    expect(faultOf(() => verifyWritten(json, items, file)).code).toBe("corrupt");
  }
  expect(faultOf(() => verifyWritten(json, [item], file.slice(1))).code).toBe("corrupt");
  verifyWritten(json, [item], file);
});

test("names follow docs/cli.md §3", () => {
  for (const name of ["a", "a/b c/ü", "...", "x".repeat(512)]) checkName(name);
  const wrong = ["", "/", "a/", "/a", "a//b", ".", "a/../b", "a\nb", "u\u0308", "\ud800", "x".repeat(513), "a\u2028b"];
  for (const name of wrong) expect(faultOf(() => checkName(name))).toMatchObject(BAD_INPUT);
});
