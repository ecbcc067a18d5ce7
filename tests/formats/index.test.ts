import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import { base64 } from "../../src/formats/base64.ts";
import { bip39 } from "../../src/formats/bip39.ts";
import { hex } from "../../src/formats/hex.ts";
import {
  checkName,
  FORMAT_NAMES,
  factsOf,
  formatNamed,
  formatsFor,
  READ_FORMATS,
  refuseTypes,
  sniffFormat,
  verifyWritten,
  WRITE_FORMATS,
} from "../../src/formats/index.ts";
import type { Format, PlainItem } from "../../src/formats/item.ts";
import { json } from "../../src/formats/json.ts";
import { jwk } from "../../src/formats/jwk.ts";
import { jwks } from "../../src/formats/jwks.ts";
import { len8 } from "../../src/formats/len8.ts";
import { openssh } from "../../src/formats/opensshfile.ts";
import { clearPem } from "../../src/formats/pem.ts";
import { raw } from "../../src/formats/raw.ts";
import { VISIBLE_TYPES } from "../../src/protocol/secrettype.ts";
import { ascii, BAD_INPUT, NO_ASKS, SAMPLES, sample } from "./samples.ts";

/** Formats without questions, which are read and written at once. */
const FORMATS: readonly Format[] = [raw, hex, base64, len8, json, jwk, jwks, clearPem, openssh, bip39];
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

test("the formats of this version", async () => {
  expect(FORMAT_NAMES.join(" ")).toBe(
    "raw hex base64 len8 json jwk jwks pem openssh age bitwarden 1pux kdbx pass otpauth otpauth-migration bip39 csv dotenv",
  );
  for (const name of ["cxf", "__proto__", ""]) {
    await expect(formatNamed(name)).rejects.toMatchObject(BAD_INPUT);
  }
});

test("what the table says of a format before it is loaded is what the format says", async () => {
  for (const name of FORMAT_NAMES) {
    const facts = factsOf(name);
    const format = await formatNamed(name);
    expect([name, format.name, format.kind]).toEqual([name, name, facts.kind]);
    expect([name, format.read !== undefined, format.write !== undefined]).toEqual([name, facts.reads, facts.writes]);
    expect([name, format.encrypted]).toEqual([name, facts.encrypted === "always"]);
    if (facts.encrypted === "never") {
      await expect(formatNamed(name, { protect: true })).rejects.toMatchObject(BAD_INPUT);
    } else {
      expect(await formatNamed(name, { protect: true })).toMatchObject({ name, encrypted: true });
    }
  }
  expect(READ_FORMATS).toContain("kdbx");
  expect(WRITE_FORMATS).not.toContain("kdbx");
});

test("a type that a format cannot hold is refused, with the formats that can", async () => {
  for (const name of WRITE_FORMATS) {
    const format = await formatNamed(name);
    for (const type of VISIBLE_TYPES) {
      const error: unknown = await refuseTypes(format, [sample(type)]).then(
        () => null,
        (reason: unknown) => reason,
      );
      if (format.types.includes(type)) {
        expect(error).toBeNull();
        continue;
      }
      const able = await formatsFor(type);
      expect(able).toContain("json");
      expect(able).not.toContain(name);
      expect(error).toMatchObject({ ...BAD_INPUT, hint: `use --to ${able.join(", ")}` });
    }
  }
});

describe.each(FORMATS)("$name", (format) => {
  test("gives back every type that it holds", () => {
    expect(fits(format).length).toBeGreaterThan(0);
    for (const item of fits(format)) {
      const file = format.write([item]);
      const { items, lost } = format.read(file, { name: item.name });
      expect(items.length).toBe(1);
      const [read] = items;
      if (!read) throw new Error("nothing was read");
      if (format.same) expect(format.same(item, read)).toBe(true);
      else expect(read.value).toEqual(item.value);
      if (format.kind === "single") expect(read.name).toBe(item.name);
      for (const field of format.keeps) expect(items[0]?.[field]).toEqual(item[field]);
      expect(lost).toEqual([]);
      expect(format.write([item])).toEqual(file);
    }
  });

  test("refuses values of 0 and of 65,537 bytes, writes one of 65,536 where it can", () => {
    const type = format.types.includes("bytes") ? "bytes" : "p256";
    for (const length of [0, 65_537]) {
      const item = { ...sample(type), value: new Uint8Array(length) };
      expect(faultOf(() => format.write([item]))).toMatchObject(BAD_INPUT);
    }
    if (type === "bytes" && !["len8", "bip39"].includes(format.name)) {
      const item = { ...sample(type), value: new Uint8Array(65_536).fill(0xfe) };
      expect(format.read(format.write([item]), { name: "a" }).items[0]?.value).toEqual(item.value);
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
        format.sniff(file);
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
      expect<readonly string[]>(VISIBLE_TYPES).toContain(item.type);
      checkName(item.name);
    }
  } catch (error) {
    expect(error).toBeInstanceOf(Fault);
    expect((error as Fault).code).toBe("bad_input");
  }
  expect(file).toEqual(before);
}

test("only formats with a mark of their own are guessed", async () => {
  const guesses: unknown[] = [];
  for (const format of FORMATS) {
    const [item] = fits(format);
    guesses.push(item ? await sniffFormat(format.write([item])) : undefined);
  }
  expect(guesses).toEqual([null, null, null, null, "json", "jwk", "jwks", "pem", "openssh", "bip39"]);
  for (const file of ["", "{}", "[]", "null", '{"keyhold":"else"}', "deadbeef", "-----BEGIN"]) {
    expect(await sniffFormat(ascii(file))).toBeNull();
  }
  expect(await sniffFormat(ascii("-----BEGIN AGE ENCRYPTED FILE-----\nYQ==\n"))).toBe("age");
  expect(await sniffFormat(ascii('{"items":[],"v":1,"keyhold":"export"}'))).toBe("json");
  expect(await sniffFormat(ascii(`{"keyhold":"export","v":1,"items":[${" ".repeat(70_000)}`).slice(0, 65_536))).toBe(
    "json",
  );
});

test("hostile JSON is refused quickly: deep, huge, not UTF-8", () => {
  const hostile = [
    ascii("[".repeat(4_000_000)),
    ascii(`{"kty":${"[".repeat(200_000)}`),
    ascii('{"keyhold":"export","v":1,"items":'.padEnd(8 * 1_024 * 1_024 + 1, " ")),
    ascii(`{"keyhold":"export","v":1,"items":[${"{},".repeat(4_000_000)}{}]}`),
    ascii(`{"keys":[${"{},".repeat(1_000_000)}{}]}`),
    Uint8Array.of(0x7b, 0xff, 0x7d),
  ];
  for (const file of hostile) {
    for (const format of [json, jwk, jwks]) {
      expect(() => format.read(file, { name: "a" })).toThrow(expect.objectContaining(BAD_INPUT));
    }
  }
});

test("verifyWritten finds any difference in what a format keeps", async () => {
  const format = await formatNamed("json");
  const item = sample("password");
  const file = json.write([item]);
  const verify = (items: readonly PlainItem[], bytes = file, lossy = false) =>
    verifyWritten(format, items, bytes, NO_ASKS, lossy);
  const others: PlainItem[][] = [
    [],
    [item, sample("pin")],
    [{ ...item, name: "other" }],
    [{ ...item, type: "note" }],
    [{ ...item, tags: ["other"] }],
    [{ ...item, createdAt: null, tags: [] }],
    [{ ...item, fields: [{ name: "user", kind: "text", value: "me" }] }],
    [{ ...item, expiresAt: "2026-01-01T00:00:00.000Z" }],
    [{ ...item, value: ascii("other") }],
  ];
  for (const items of others) await expect(verify(items)).rejects.toMatchObject({ code: "corrupt" });
  await expect(verify([item], file.slice(1))).rejects.toMatchObject({ code: "corrupt" });
  await verify([item]);
  await verify([{ ...item, tags: ["other"] }], file, true);
  await expect(verify([{ ...item, value: ascii("other") }], file, true)).rejects.toMatchObject({ code: "corrupt" });
});

test("names follow docs/cli.md §3", () => {
  for (const name of ["a", "a/b c/ü", "...", "x".repeat(512)]) checkName(name);
  const wrong = ["", "/", "a/", "/a", "a//b", ".", "a/../b", "a\nb", "u\u0308", "\ud800", "x".repeat(513), "a\u2028b"];
  for (const name of wrong) expect(faultOf(() => checkName(name))).toMatchObject(BAD_INPUT);
});
