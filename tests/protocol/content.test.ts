import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { checkFields, type Field, fieldValue, isDay, shownFields } from "../../src/protocol/content.ts";
import { decodeRecord, encodeRecord } from "../../src/wire/content.ts";

const refusal = (code: string) => expect.objectContaining({ name: "Fault", code });
const field = (name: string, value = "x", kind: Field["kind"] = "text"): Field => ({ name, kind, value });
const ascii = (text: string) => new TextEncoder().encode(text);

describe("fields of a secret", () => {
  const names = fc.string({ minLength: 1, maxLength: 20, unit: "grapheme-ascii" }).map((text) => `f-${text}`);
  const fields = fc.uniqueArray(
    fc.record({
      name: names,
      kind: fc.constantFrom("text" as const, "hidden" as const, "url" as const),
      value: fc.string({ unit: "grapheme", maxLength: 200 }),
    }),
    { selector: ({ name }) => name, maxLength: 20 },
  );

  test("a record gives back its value and its fields, in order", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), fields, (value, given) => {
        expect(decodeRecord(encodeRecord({ value, fields: given }))).toEqual({ value, fields: given });
      }),
    );
  });

  test.each([
    ["two of one name", [field("a"), field("a")]],
    ["an empty name", [field("")]],
    ["a name of 129 bytes", [field("n".repeat(129))]],
    ["a control character", [field("a\nb")]],
    ["a name in another form", [field("u\u0308")]],
    ["a name that means the value", [field("value")]],
    ["a day that does not exist", [field("d", "2026-02-30", "date")]],
    ["an otp that is no URI", [field("otp", "JBSWY3DP", "otp")]],
    ["half a character", [field("a", "\ud800")]],
    ["65 of them", Array.from({ length: 65 }, (_, i) => field(`n${i}`))],
  ])("refuses %s", (_, given) => {
    expect(() => checkFields(given)).toThrow(refusal("bad_input"));
  });

  test("only url may stand there more than once", () => {
    const urls = [field("url", "https://a.example", "url"), field("url", "https://b.example", "url")];
    expect(() => checkFields(urls)).not.toThrow();
    expect(fieldValue(urls, "url")).toBe("https://a.example");
    expect(fieldValue(urls, "user")).toBeNull();
  });

  test("a record of more than 65,536 bytes is refused, and other bytes are no record", () => {
    const notes = field("notes", "n".repeat(65_500));
    expect(() => encodeRecord({ value: ascii("v"), fields: [notes] })).toThrow(refusal("too_large"));
    for (const bytes of [
      "",
      "{}",
      '{"v":2,"value":"","fields":[]}',
      '{"v":1,"value":"","fields":[{"name":"value"}]}',
    ]) {
      expect(() => decodeRecord(ascii(bytes))).toThrow(refusal("integrity"));
    }
    const named = ascii('{"v":1,"value":"","fields":[{"name":"type","kind":"text","value":""}]}');
    expect(() => decodeRecord(named)).toThrow(refusal("integrity"));
  });

  test("metadata shows the user and at most four addresses, none of them too long", () => {
    const urls = Array.from({ length: 6 }, (_, i) => field("url", `https://${i}.example`, "url"));
    const long = field("url", `https://${"x".repeat(512)}`, "url");
    const shown = shownFields([field("user", "ada"), long, ...urls, field("pin", "1234", "hidden")]);
    expect(shown).toEqual({ user: "ada", urls: urls.slice(0, 4).map(({ value }) => value) });
    expect(shownFields([field("user", "")])).toEqual({ user: null, urls: [] });
  });

  test("a day is one of the calendar, as the system's own calendar has it", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 9_999 }), fc.nat(13), fc.nat(32), (year, month, day) => {
        const pad = (n: number, size: number) => String(n).padStart(size, "0");
        const text = `${pad(year, 4)}-${pad(month, 2)}-${pad(day, 2)}`;
        const at = new Date(`${text}T00:00:00Z`);
        expect(isDay(text)).toBe(!Number.isNaN(at.getTime()) && at.toISOString().slice(0, 10) === text);
      }),
    );
    expect(["", "2026-1-01", "20260101", "2026-01-01 "].some(isDay)).toBe(false);
  });
});
