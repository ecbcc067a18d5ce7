import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { PlainItem } from "../../src/formats/index.ts";
import { json } from "../../src/formats/json.ts";
import { isTextType, VISIBLE_TYPES } from "../../src/protocol/secrettype.ts";
import { ascii, BAD_INPUT, SAMPLES, sample } from "./samples.ts";

const read = (value: unknown) =>
  json.read(ascii(typeof value === "string" ? value : JSON.stringify(value)), { name: null });
const refused = (value: unknown) => expect(() => read(value)).toThrow(expect.objectContaining(BAD_INPUT));
const entry = { name: "a", type: "note", value: "x", tags: [], createdAt: null };
const file = (...items: unknown[]) => ({ keyhold: "export", v: 1, items });

test("its form is fixed", () => {
  const note: PlainItem = { ...sample("note"), name: "a/b", value: ascii('"ü"'), tags: ["t"], createdAt: null };
  const bytes: PlainItem = {
    ...sample("bytes"),
    name: "c",
    value: Uint8Array.of(255),
    tags: [],
    createdAt: "2026-01-02T03:04:05Z",
  };
  expect(new TextDecoder().decode(json.write([note, bytes]))).toBe(
    '{"keyhold":"export","v":1,"items":[' +
      '{"name":"a/b","type":"note","value":"\\"ü\\"","tags":["t"],"createdAt":null},' +
      '{"name":"c","type":"bytes","valueB64":"_w","tags":[],"createdAt":"2026-01-02T03:04:05Z"}]}\n',
  );
});

test("says of a value that a server has seen where it comes from, and of any other nothing", () => {
  const origin = `ceremony:${"5a".repeat(16)}`;
  const note: PlainItem = { ...sample("note"), name: "a", value: ascii("x"), tags: [], createdAt: null };
  const items = [
    { ...note, fields: [], expiresAt: null, origin },
    { ...note, name: "b", fields: [], expiresAt: null },
  ];
  const written = new TextDecoder().decode(json.write(items));
  const item = (name: string, of: string) =>
    `{"name":"${name}","type":"note","value":"x","tags":[],"createdAt":null,"fields":[],"expiresAt":null,"origin":${of}}`;
  expect(written).toBe(`{"keyhold":"export","v":3,"items":[${item("a", `"${origin}"`)},${item("b", "null")}]}\n`);
  expect(read(written).items).toEqual(items);
  for (const wrong of ["stored", "imported:json", "ceremony:5a", "", 7])
    refused({ ...file({ ...items[0], value: "x", origin: wrong }), v: 3 });
  for (const v of [1, 2]) refused({ ...file({ ...items[0], value: "x" }), v });
});

test("every type at once, and none at all, comes back", () => {
  expect(json.read(json.write(SAMPLES), { name: "ignored" })).toEqual({ items: [...SAMPLES], lost: [] });
  expect(read(file())).toEqual({ items: [], lost: [] });
  expect(read(new TextDecoder().decode(json.write([]))).items).toEqual([]);
});

test("any value of any type without an inner form comes back byte for byte", () => {
  const loose = VISIBLE_TYPES.filter((type) => type === "bytes" || isTextType(type));
  const items = fc.uniqueArray(
    fc.record({
      name: fc.string({ unit: fc.constantFrom("a", "Z", "0", " ", "ü", "語", "😀"), minLength: 1, maxLength: 40 }),
      type: fc.constantFrom(...loose),
      value: fc.uint8Array({ minLength: 1, maxLength: 200 }),
      tags: fc.array(fc.string({ unit: "grapheme", minLength: 1, maxLength: 10 }), { maxLength: 3 }),
      createdAt: fc.option(
        fc
          .date({ min: new Date(0), max: new Date("9999-12-31"), noInvalidDate: true })
          .map((date) => date.toISOString()),
        { nil: null },
      ),
    }),
    { selector: (item) => item.name, maxLength: 8 },
  );
  fc.assert(
    fc.property(items, (list) => {
      expect(json.read(json.write(list), { name: null }).items).toEqual(list);
    }),
  );
});

describe("refuses", () => {
  test("other documents", () => {
    for (const value of ["", "{", "null", "[]", "3", "{}", file(entry).items, { ...file(), keyhold: "other" }])
      refused(value);
    for (const v of [0, 4, "1", 1.5, null]) refused({ ...file(), v });
    refused({ ...file(), more: 1 });
    refused({ keyhold: "export", v: 1 });
    refused({ ...file(), items: {} });
    refused(`${JSON.stringify(file(entry))} {}`);
  });

  test("items with a missing, wrong, extra or doubled field", () => {
    expect(read(file(entry)).items.length).toBe(1);
    for (const field of Object.keys(entry)) {
      const { [field]: _, ...rest } = entry as Record<string, unknown>;
      refused(file(rest));
      refused(file({ ...entry, [field]: 7 }));
    }
    refused(file({ ...entry, more: 1 }));
    refused(file({ ...entry, valueB64: "eA" }));
    refused(
      '{"keyhold":"export","v":1,"items":[{"__proto__":{},"name":"a","type":"note","value":"x","tags":[],"createdAt":null}]}',
    );
    for (const tags of [[""], [1], ["x".repeat(129)], Array(65).fill("x"), "x"]) refused(file({ ...entry, tags }));
    for (const createdAt of [
      "",
      "2026-01-01",
      "2026-02-30T00:00:00Z",
      "2026-01-01T24:00:00Z",
      "2026-01-01T00:00:00+01:00",
    ]) {
      refused(file({ ...entry, createdAt }));
    }
    for (const type of ["", "part", "BYTES", "constructor"]) refused(file({ ...entry, type }));
    for (const name of ["", "a//b", "..", "a\u0000", "x".repeat(513), "u\u0308"]) refused(file({ ...entry, name }));
  });

  test("values that are empty, too long, ill-formed, or no key of their type", () => {
    for (const value of ["", "x".repeat(65_537), "\ud800"]) refused(file({ ...entry, value }));
    const { value: _, ...binary } = { ...entry, type: "bytes" };
    expect(read(file({ ...binary, valueB64: "eA" })).items[0]?.value).toEqual(ascii("x"));
    for (const valueB64 of ["", "eA==", "eB", "e", "e+", 3]) refused(file({ ...binary, valueB64 }));
    refused(file({ ...entry, type: "bytes" }));
    for (const type of ["secp256k1", "p256", "rsa", "ed25519", "x25519"])
      refused(file({ ...binary, type, valueB64: "eA" }));
    refused(file({ ...binary, type: "p256", valueB64: Buffer.alloc(32, 255).toString("base64url") }));
  });

  test("one name twice, on reading and on writing", () => {
    refused(file(entry, { ...entry, value: "y" }));
    const twice = [sample("pin"), { ...sample("token"), name: sample("pin").name }];
    expect(() => json.write(twice)).toThrow(expect.objectContaining(BAD_INPUT));
  });

  test("names, tags and times on writing that could not be read again", () => {
    for (const wrong of [{ name: "a//b" }, { name: "" }]) {
      expect(() => json.write([{ ...sample("pin"), ...wrong }])).toThrow(expect.objectContaining(BAD_INPUT));
    }
  });

  test("more than 128 MiB on writing; files of 16 MiB it holds", () => {
    const files = Array.from({ length: 7 }, (_, i) => ({
      ...sample("file"),
      name: `big/${i}`,
      value: new Uint8Array(16 * 1_024 * 1_024),
    }));
    expect(() => json.write(files)).toThrow(expect.objectContaining({ code: "too_large" }));
    const two = json.read(json.write(files.slice(0, 2)), { name: null }).items;
    expect(two.map(({ value }) => value.length)).toEqual([16_777_216, 16_777_216]);
    const larger = { ...sample("file"), value: new Uint8Array(16 * 1_024 * 1_024 + 1) };
    expect(() => json.write([larger])).toThrow(expect.objectContaining(BAD_INPUT));
  });
});

describe("version 2", () => {
  const fields = [
    { name: "user", kind: "text", value: "ada" },
    { name: "url", kind: "url", value: "https://example.com" },
    { name: "url", kind: "url", value: "https://example.org" },
    { name: "born", kind: "date", value: "1815-12-10" },
  ] as const;
  const full = { ...entry, type: "login", fields, expiresAt: "2027-01-01T00:00:00.000Z" };
  const second = (...items: unknown[]) => ({ keyhold: "export", v: 2, items });

  test("fields and an expiry come back, of a secret without a value too; version 1 is written where there are none", () => {
    const { items } = read(second(full, { ...full, name: "b", value: "" }));
    expect(items.map(({ fields, expiresAt }) => ({ fields, expiresAt }))).toEqual([
      { fields: [...fields], expiresAt: full.expiresAt },
      { fields: [...fields], expiresAt: full.expiresAt },
    ]);
    const written = new TextDecoder().decode(json.write(items));
    expect(JSON.parse(written)).toEqual(second(full, { ...full, name: "b", value: "" }));
    expect(
      JSON.parse(new TextDecoder().decode(json.write([{ ...sample("pin"), fields: [], expiresAt: null }]))).v,
    ).toBe(1);
  });

  test("refuses what is no field, doubled ones, reserved names, and fields in version 1", () => {
    const one = (field: unknown) => second({ ...full, fields: [field] });
    const good = fields[0];
    for (const wrong of [
      null,
      {},
      [],
      "user",
      { ...good, more: 1 },
      { ...good, name: "" },
      { ...good, name: "a\u0007" },
      { ...good, name: "u\u0308" },
      { ...good, name: "x".repeat(129) },
      { ...good, name: "value" },
      { ...good, kind: "secret" },
      { ...good, kind: "date" },
      { ...good, kind: "otp" },
      { ...good, value: 7 },
      { ...good, value: "\ud800" },
      { ...good, value: "x".repeat(65_537) },
      { name: "user", kind: "text" },
    ]) {
      refused(one(wrong));
    }
    refused(second({ ...full, fields: [good, good] }));
    refused(second({ ...full, fields: Array.from({ length: 65 }, (_, i) => ({ ...good, name: `f${i}` })) }));
    refused(second({ ...full, fields: {} }));
    refused(second({ ...full, fields: [], value: "" }));
    for (const expiresAt of ["", "2027-01-01", "2027-02-30T00:00:00Z", 7]) refused(second({ ...full, expiresAt }));
    const { expiresAt: _, ...undated } = full;
    refused(second(undated));
    refused(file(full));
    refused(second({ ...full, type: "part" }));
  });
});
