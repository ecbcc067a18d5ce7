import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { PlainItem } from "../../src/formats/item.ts";
import { otpauth } from "../../src/formats/otpauth.ts";
import { otpauthMigration } from "../../src/formats/otpmigration.ts";
import { otpUri } from "../../src/protocol/otp.ts";
import { flipped, MARKER, outcome, readApart, readWith, refusal, text, truncated, utf8, writeWith } from "./foreign.ts";

const URI = "otpauth://totp/ACME:ada@example.com?issuer=ACME&secret=JBSWY3DPEHPK3PXP&algorithm=SHA1&digits=6&period=30";
/** The code of a published description of the form, with one key of the account alice@google.com at Example. */
const PUBLISHED =
  "otpauth-migration://offline?data=CjEKCkhlbGxvId6tvu8SGEV4YW1wbGU6YWxpY2VAZ29vZ2xlLmNvbRoHRXhhbXBsZSABKAEwAhABGAEgACjr4JKK%2B%2F%2F%2F%2F%2F8B";

const key = fc.record({
  kind: fc.constantFrom("totp" as const, "hotp" as const),
  issuer: fc.constantFrom("", "ACME", "Ä & Co"),
  label: fc.constantFrom("ada", "ada@example.com", "a b"),
  secret: fc.uint8Array({ minLength: 1, maxLength: 64 }),
  algorithm: fc.constantFrom("SHA1" as const, "SHA256" as const, "SHA512" as const),
  counter: fc.nat(2 ** 31),
});

const itemOf = (uri: string, i: number): PlainItem => ({
  name: `otp-${i}`,
  type: uri.startsWith("otpauth://hotp") ? "hotp" : "totp",
  value: utf8(uri),
  tags: [],
  createdAt: null,
});

describe("otpauth", () => {
  test("reads one URI a line, and names it by issuer and account", async () => {
    const file = `\ufeff${URI}\r\n\r\n${URI.replace("totp", "HOTP").replace("period=30", "counter=7")}\n`;
    const { items, lost } = await readWith(otpauth, utf8(file));
    expect(items.map(({ name, type }) => [name, type])).toEqual([
      ["ACME/ada@example.com", "totp"],
      ["ACME/ada@example.com (2)", "hotp"],
    ]);
    expect(text(items[0]?.value)).toBe(URI);
    expect(text(items[1]?.value)).toStartWith("otpauth://hotp/");
    expect(lost).toEqual([]);
  });

  test("writes what it reads: every hash, 6 to 10 digits, any period", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(key, fc.integer({ min: 6, max: 10 }), fc.integer({ min: 1, max: 86_400 })), {
          minLength: 1,
          maxLength: 4,
        }),
        async (keys) => {
          const items = keys.map(([one, digits, period], i) => itemOf(otpUri({ ...one, digits, period }), i));
          const { file, lost } = await writeWith(otpauth, items);
          expect(lost).toEqual([]);
          const read = await readWith(otpauth, file);
          expect(read.items.map(({ type, value }) => [type, text(value)])).toEqual(
            items.map(({ type, value }) => [type, text(value)]),
          );
          expect(items.every((item, i) => otpauth.same?.(item, read.items[i] ?? item))).toBe(true);
        },
      ),
      { numRuns: 100 },
    );
  }, 30_000);

  test("writes the one-time password of a login, and names the rest", async () => {
    const login: PlainItem = {
      name: "a",
      type: "login",
      value: utf8("pw"),
      tags: [],
      createdAt: null,
      fields: [{ name: "otp", kind: "otp", value: URI }],
    };
    const { file, lost } = await writeWith(otpauth, [login]);
    expect(text(file)).toBe(`${URI}\n`);
    expect(lost).toEqual([{ what: '"a": all but its one-time password' }]);
    for (const fields of [[], [{ name: "user", kind: "text" as const, value: "u" }]]) {
      await expect(writeWith(otpauth, [{ ...login, fields }])).rejects.toMatchObject({ code: "bad_input" });
    }
    for (const broken of ["nothing", `${URI}\n`, "otpauth://totp/a?secret=1"]) {
      const item = { ...itemOf(URI, 0), value: utf8(broken) };
      await expect(writeWith(otpauth, [item])).rejects.toMatchObject({ code: "bad_input" });
    }
  });

  const HOSTILE: readonly [string, Uint8Array | string][] = [
    ["nothing", utf8("")],
    ["blank lines", utf8("\n \n\t\n")],
    ["text", utf8(MARKER)],
    ["a good line and text", utf8(`${URI}\n${MARKER}\n`)],
    ["another scheme", utf8(`https://example.com/?secret=${MARKER}`)],
    ["another type", utf8("otpauth://yubi/a?secret=JBSWY3DPEHPK3PXP")],
    ["no secret", utf8("otpauth://totp/a?issuer=b")],
    ["an empty secret", utf8("otpauth://totp/a?secret=")],
    ["a secret that is no base32", utf8("otpauth://totp/a?secret=0189")],
    ["a secret beyond all bounds", utf8(`otpauth://totp/a?secret=${"A".repeat(9_000)}`)],
    ["five digits", utf8(`${URI.replace("digits=6", "digits=5")}`)],
    ["eleven digits", utf8(`${URI.replace("digits=6", "digits=11")}`)],
    ["digits that are no number", utf8(`${URI.replace("digits=6", "digits=x")}`)],
    ["a period of nothing", utf8(`${URI.replace("period=30", "period=0")}`)],
    ["an absurd period", utf8(`${URI.replace("period=30", "period=99999999999")}`)],
    ["a hash that nobody uses", utf8(`${URI.replace("SHA1", "MD5")}`)],
    ["a counter below zero", utf8("otpauth://hotp/a?secret=JBSWY3DPEHPK3PXP&counter=-1")],
    ["no counter", utf8("otpauth://hotp/a?secret=JBSWY3DPEHPK3PXP")],
    ["a counter beyond all bounds", utf8("otpauth://hotp/a?secret=JBSWY3DPEHPK3PXP&counter=99999999999999999999")],
    ["a line beyond all bounds", utf8(`${URI}${"A".repeat(20_000)}`)],
    ["invalid UTF-8", Uint8Array.from([...utf8(URI), 0xff])],
    ["a label that is no UTF-8", utf8("otpauth://totp/%ff%fe?secret=JBSWY3DPEHPK3PXP")],
    ["UTF-16", new Uint8Array(Buffer.from(URI, "utf16le"))],
    ["more lines than can be", utf8(`${URI}\n`.repeat(100_001))],
    ["a directory", "/tmp"],
  ];
  test.each(HOSTILE)(
    "%s: a fault, and nothing read",
    async (_, source) => {
      await refusal(otpauth, source);
    },
    30_000,
  );

  test("truncated and changed files end in a fault, or are read", async () => {
    for (const part of truncated(utf8(URI), 60)) await outcome(otpauth, part);
    for (const part of flipped(utf8(URI), 200)) await outcome(otpauth, part);
  }, 30_000);

  test("is recognised by its first line", () => {
    expect(otpauth.sniff(utf8(`\n${URI}`), "")).toBe(true);
    expect(otpauth.sniff(utf8(PUBLISHED), "")).toBe(false);
    expect(otpauth.sniff(utf8(`# ${URI}`), "")).toBe(false);
    expect(otpauth.sniff(utf8(`{"otp":"${URI}"}`), "")).toBe(false);
  });
});

/** A code made by hand: `parameters` of one key, and what else stands in the payload. */
function code(parameters: readonly number[], rest: readonly number[] = []): Uint8Array {
  const payload = [0x0a, parameters.length, ...parameters, ...rest];
  const data = encodeURIComponent(Buffer.from(payload).toString("base64"));
  return utf8(`otpauth-migration://offline?data=${data}`);
}

const KEY = [0x0a, 3, 1, 2, 3, 0x12, 1, 0x61];

describe("otpauth-migration", () => {
  test("reads the code that descriptions of the form show", async () => {
    const { items } = await readWith(otpauthMigration, utf8(PUBLISHED));
    expect(items.map(({ name, type }) => [name, type])).toEqual([["Example/alice@google.com", "totp"]]);
    expect(text(items[0]?.value)).toContain("secret=JBSWY3DPEHPK3PXP");
  });

  test("writes what it reads, in as many codes as it needs, in any order", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(key, fc.constantFrom(6, 8)), { minLength: 1, maxLength: 25 }),
        async (keys) => {
          const items = keys.map(([one, digits], i) => itemOf(otpUri({ ...one, digits, period: 30 }), i));
          const { file } = await writeWith(otpauthMigration, items);
          const lines = text(file).trim().split("\n");
          expect(lines.length).toBe(Math.ceil(items.length / 10));
          const read = await readWith(otpauthMigration, utf8(lines.reverse().join("\n")));
          expect(read.items.length).toBe(items.length);
          expect(items.every((item, i) => otpauthMigration.same?.(item, read.items[i] ?? item))).toBe(true);
          for (const line of lines.length > 1 ? lines : []) {
            const fewer = lines.filter((one) => one !== line).join("\n");
            expect((await refusal(otpauthMigration, utf8(fewer))).why).toMatch(/codes of one export/);
          }
        },
      ),
      { numRuns: 60 },
    );
  }, 30_000);

  test("refuses to write what the form cannot hold", async () => {
    for (const uri of [
      URI.replace("digits=6", "digits=7"),
      URI.replace("period=30", "period=60"),
      "otpauth://totp/a?secret=1",
    ]) {
      await expect(writeWith(otpauthMigration, [itemOf(uri, 0)])).rejects.toMatchObject({ code: "bad_input" });
    }
  });

  test("the comparison notices another key, hash and kind", () => {
    const one = itemOf(URI, 0);
    for (const other of [
      URI.replace("JBSW", "JBSX"),
      URI.replace("SHA1", "SHA256"),
      URI.replace("digits=6", "digits=8"),
      URI.replace("period=30", "period=60"),
      URI.replace("totp", "hotp"),
    ]) {
      expect(otpauthMigration.same?.(one, itemOf(other, 0))).toBe(false);
    }
  });

  const HOSTILE: readonly [string, Uint8Array | string][] = [
    ["nothing", utf8("")],
    ["text", utf8(MARKER)],
    ["no data", utf8("otpauth-migration://offline")],
    ["empty data", utf8("otpauth-migration://offline?data=")],
    ["another host", utf8(PUBLISHED.replace("offline", "online"))],
    ["data that is no base64", utf8(`otpauth-migration://offline?data=${MARKER}!`)],
    ["data with a broken escape", utf8("otpauth-migration://offline?data=%E0%A4%A")],
    ["no key", code([], [])],
    ["a key without a secret", code([0x12, 1, 0x61])],
    ["a length beyond the end", code([0x0a, 0x7f, 1])],
    ["a length of 2^63", code([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])],
    ["a number that never ends", code([0x20, ...Array.from({ length: 20 }, () => 0xff)])],
    ["a field number of zero", code([0x00, 0x01])],
    ["a wire type that does not exist", code([0x0f, 0x01])],
    ["a group that never ends", code([0x0b, ...Array.from({ length: 100 }, () => 0x0b)])],
    ["MD5", code([...KEY, 0x20, 4])],
    ["a hash that nobody knows", code([...KEY, 0x20, 9])],
    ["digits that nobody knows", code([...KEY, 0x28, 9])],
    ["a kind that nobody knows", code([...KEY, 0x30, 9])],
    ["a counter below zero", code([...KEY, 0x30, 1, 0x38, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1])],
    ["a name that is no UTF-8", code([0x0a, 3, 1, 2, 3, 0x12, 2, 0xff, 0xfe])],
    ["a number of codes below one", code(KEY, [0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1])],
    ["an absurd number of codes", code(KEY, [0x18, 255, 255, 255, 255, 7])],
    ["the second code without the first", code(KEY, [0x18, 2, 0x20, 1])],
    ["one code twice", utf8(`${PUBLISHED}\n${PUBLISHED}`)],
    ["another line after it", utf8(`${PUBLISHED}\n${URI}`)],
    ["invalid UTF-8", Uint8Array.from([...utf8(PUBLISHED), 0xff])],
    ["a directory", "/tmp"],
  ];
  test.each(HOSTILE)(
    "%s: a fault, and nothing read",
    async (_, source) => {
      await refusal(otpauthMigration, source);
    },
    30_000,
  );

  test("truncated and changed codes end in a fault, or are read", async () => {
    for (const part of truncated(utf8(PUBLISHED), 80)) await outcome(otpauthMigration, part);
    for (const part of flipped(utf8(PUBLISHED), 200)) await outcome(otpauthMigration, part);
  }, 30_000);

  test("hundreds of thousands of lines cost no memory to speak of", async () => {
    const { code: end, peakMib } = await readApart("otpauth", utf8(`${URI}\n`.repeat(400_000)));
    expect(end).toBe("too_large");
    expect(peakMib).toBeLessThan(400);
  }, 30_000);

  test("is recognised by its first line", () => {
    expect(otpauthMigration.sniff(utf8(PUBLISHED), "")).toBe(true);
    expect(otpauthMigration.sniff(utf8(URI), "")).toBe(false);
  });
});
