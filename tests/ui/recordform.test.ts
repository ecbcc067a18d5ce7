import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import { checkFields, FIELD_KINDS, type Field } from "../../src/protocol/content.ts";
import { VISIBLE_TYPES } from "../../src/protocol/secrettype.ts";
import { changedFields, expiryOf, hasCheckDigit, kindOfName } from "../../src/ui/recordfields.ts";
import { type RecordText, readRecord, writeRecord } from "../../src/ui/recordform.ts";

const awkward = fc.constantFrom(
  "",
  "|",
  " ",
  "\n",
  '"',
  "# no comment",
  "a\r\nb",
  "  indented\n\nand more\n  so",
  "ends\n",
  "\nbegins",
  "tab\there",
  "trailing \nspace",
  "\u2028",
  "\u00a0",
  "\ufeffmark",
  "type: note",
  "\u0000\u001b[31m",
  "ünïcödé 🗝",
);
const text = fc.oneof(awkward, fc.string({ unit: "grapheme" }), fc.string({ unit: "binary" }), lines());

function lines() {
  return fc.array(fc.oneof(awkward, fc.string()), { maxLength: 5 }).map((all) => all.join("\n"));
}

const isValid = (field: Field): boolean => {
  try {
    checkFields([field]);
    return true;
  } catch {
    return false;
  }
};
const name = fc.oneof(
  fc.constantFrom(
    "user",
    "url",
    "notes",
    "otp",
    "expires",
    "pin (old)",
    "a: b",
    "#1",
    '"',
    "a  ",
    " a",
    "é",
    "café au lait",
  ),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }),
);
const field = fc
  .record({ name: name.map((one) => one.normalize("NFC")), kind: fc.constantFrom(...FIELD_KINDS), value: text })
  .map((one) => {
    const value = one.value.toWellFormed();
    if (one.kind === "date") return { ...one, value: "2027-01-31" };
    return one.kind === "otp"
      ? { ...one, value: `otpauth://totp/x?secret=${encodeURIComponent(value)}` }
      : { ...one, value };
  })
  .filter(isValid);
const record: fc.Arbitrary<RecordText> = fc.record({
  type: fc.constantFrom(...VISIBLE_TYPES),
  expiresAt: fc.option(
    fc.date({ min: new Date(0), max: new Date("2999-12-31"), noInvalidDate: true }).map((at) => at.toISOString()),
  ),
  value: fc.option(text.map((one) => one.toWellFormed())),
  fields: fc.uniqueArray(field, { selector: (one) => one.name, maxLength: 6 }),
});

const sorted = ({ fields, ...rest }: RecordText) => ({
  ...rest,
  fields: [...fields.filter((one) => one.name !== "notes"), ...fields.filter((one) => one.name === "notes")],
});

describe("the text form of a record", () => {
  test("gives back every value as it is", () => {
    fc.assert(
      fc.property(record, (one) => {
        expect(readRecord(writeRecord(one, "a name"), one)).toEqual(sorted(one));
      }),
      { numRuns: 2_000 },
    );
  });

  test("also through an editor that writes CRLF or strips the last newline", () => {
    fc.assert(
      fc.property(record, (one) => {
        const form = writeRecord(one, "x");
        expect(readRecord(form.replaceAll("\n", "\r\n"), one)).toEqual(sorted(one));
        expect(readRecord(form.trimEnd(), one)).toEqual(sorted(one));
      }),
    );
  });

  const EMPTY: RecordText = { type: "login", expiresAt: null, value: "", fields: [] };

  test("is meant for people", () => {
    const form = writeRecord(
      {
        type: "login",
        expiresAt: "2027-01-31T00:00:00.000Z",
        value: "secret",
        fields: [
          { name: "user", kind: "text", value: "ada" },
          { name: "notes", kind: "text", value: "two\nlines" },
          { name: "door", kind: "hidden", value: "1234" },
        ],
      },
      "web/shop",
    );
    const body = form.split("\n").filter((line) => !line.startsWith("#") && line !== "");
    expect(body).toEqual([
      "type: login",
      "expires: 2027-01-31",
      "value: secret",
      "user: ada",
      "door (hidden): 1234",
      "url:",
      "otp:",
      "notes: |",
      "  two",
      "  lines",
    ]);
  });

  test("takes what people write", () => {
    const got = readRecord(
      'value: new\nuser:   ada  \n url : https://x\nurl: https://y\n"expires": no day\nPIN (hidden): 12\nexpires: never\nempty:\n',
      EMPTY,
    );
    expect(got).toEqual({
      type: "login",
      expiresAt: null,
      value: "new",
      fields: [
        { name: "user", kind: "text", value: "ada" },
        { name: "url", kind: "url", value: "https://x" },
        { name: "url", kind: "url", value: "https://y" },
        { name: "expires", kind: "text", value: "no day" },
        { name: "PIN", kind: "hidden", value: "12" },
      ],
    });
  });

  test("refuses what it cannot read by its line, and never says what stands there", () => {
    const canary = "c4nary";
    for (const [form, line] of [
      [`user: a\n${canary}`, 2],
      [`type: ${canary}`, 1],
      [`expires: ${canary}`, 1],
      [`user (${canary}): x`, 1],
      [`user: "${canary}`, 1],
      [`"${canary}: x`, 1],
      [`: ${canary}`, 1],
      [`\ntype: login\ntype: ${canary}`, 3],
      [`value (hidden): ${canary}`, 1],
      [` | ${canary}`, 1],
    ] as const) {
      let fault: unknown;
      try {
        readRecord(form, EMPTY);
      } catch (error) {
        fault = error;
      }
      if (!(fault instanceof Fault)) throw new Error(`no fault for ${form}`);
      expect([form, fault.code, fault.message]).toEqual([
        form,
        "bad_input",
        `line ${line} of the record cannot be read`,
      ]);
      expect(`${fault.message}${fault.why}${fault.hint}`).not.toContain(canary);
    }
    expect(() => readRecord("user: a\nuser: b", EMPTY)).toThrow("two fields have the same name");
    expect(() => readRecord("value: x", { ...EMPTY, value: null })).toThrow(Fault);
  });

  test("never fails in another way", () => {
    fc.assert(
      fc.property(fc.oneof(lines(), fc.string({ unit: "binary", maxLength: 200 })), (form) => {
        try {
          readRecord(form, EMPTY);
        } catch (error) {
          expect(error).toBeInstanceOf(Fault);
        }
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("fields by name", () => {
  test("names that mean a secret are hidden", () => {
    for (const one of ["pin", "password", "API token", "cvv", "Recovery codes", "security answer", "private-key"]) {
      expect([one, kindOfName(one)]).toEqual([one, "hidden"]);
    }
    for (const one of ["user", "notes", "email", "spinning wheel", "postcard", "zip-area"]) {
      expect([one, kindOfName(one)]).toEqual([one, "text"]);
    }
    expect([kindOfName("url"), kindOfName("otp"), kindOfName("birthday")]).toEqual(["url", "otp", "date"]);
  });

  test("changes touch what they name: the first address of a command takes the place of those that were there", () => {
    const set = (name: string, value: string | null) => ({ name, value, otherwise: "text" as const });
    const before: Field[] = [
      { name: "url", kind: "url", value: "https://a" },
      { name: "mine", kind: "hidden", value: "x" },
      { name: "url", kind: "url", value: "https://b" },
    ];
    const values = (fields: readonly Field[]) => fields.map(({ name, value }) => `${name}=${value}`);
    expect(values(changedFields(before, [set("url", "https://c"), set("url", "https://d")]))).toEqual([
      "url=https://c",
      "mine=x",
      "url=https://d",
    ]);
    expect(changedFields(before, [set("mine", "y")])[1]).toEqual({ name: "mine", kind: "hidden", value: "y" });
    expect(values(changedFields(before, [set("url", null)]))).toEqual(["mine=x"]);
    expect(() => changedFields(before, [set("none", null)])).toThrow("there is no field");
  });

  test("expiry is a day, a time from now or never", () => {
    const now = Date.parse("2026-11-21T12:00:00Z");
    expect(expiryOf("2027-01-31", now)).toBe("2027-01-31T00:00:00.000Z");
    expect(expiryOf("90d", now)).toBe("2027-02-19T12:00:00.000Z");
    expect(expiryOf("never", now)).toBeNull();
    for (const bad of ["", "soon", "2027-02-30", "90", "90x", "-1d", "31.01.2027", "99999999d", "2920000d"]) {
      expect(() => expiryOf(bad, now)).toThrow("--expires");
    }
  });

  test("check digits of cards", () => {
    for (const good of ["4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"]) {
      expect([good, hasCheckDigit(good)]).toEqual([good, true]);
    }
    for (const bad of ["4111 1111 1111 1112", "", "0", "4111x111"])
      expect([bad, hasCheckDigit(bad)]).toEqual([bad, false]);
  });
});
