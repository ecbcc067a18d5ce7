import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { kdbx } from "../../src/formats/kdbx.ts";
import { testNeeding } from "../support/skip.ts";
import {
  asksFor,
  fieldsOf,
  flipped,
  itemNamed,
  MARKER,
  outcome,
  readApart,
  readWith,
  refusal,
  text,
  truncated,
  utf8,
} from "./foreign.ts";
import { entryHex, entryId, kdbx4, kdbxString, kdbxXml, masking, u32, u64 } from "./kdbxfile.ts";

const PW = { password: "pw" };
const ONE = kdbxXml([{ Title: "a", Password: MARKER }]);

/** Runs keepassxc-cli with lines for its prompts. */
async function keepassxc(directory: string, lines: readonly string[], ...args: string[]): Promise<string> {
  const child = Bun.spawn(["keepassxc-cli", ...args], {
    cwd: directory,
    stdin: utf8(lines.map((line) => `${line}\n`).join("")),
    stdout: "pipe",
    stderr: "pipe",
    env: { PATH: process.env["PATH"] ?? "", HOME: directory, LANG: "C.UTF-8", QT_QPA_PLATFORM: "offscreen" },
  });
  const said = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(await new Response(child.stderr).text());
  return said;
}

async function inScratch<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-kdbx-"));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

describe("against keepassxc-cli", () => {
  testNeeding(
    "keepassxc-cli",
    "a database that it made, with groups, an attachment, history and a bin",
    () =>
      inScratch(async (dir) => {
        const blob = randomBytes(3_000);
        writeFileSync(join(dir, "blob"), blob);
        await keepassxc(dir, ["pw", "pw"], "db-create", "-q", "-p", "a.kdbx", "-t", "100");
        await keepassxc(dir, ["pw"], "mkdir", "-q", "a.kdbx", "Work");
        await keepassxc(dir, ["pw"], "mkdir", "-q", "a.kdbx", "Work/Mail");
        const added = ["-q", "-u", "ada", "--url", "https://example.com", "--notes", "n1 & <n2>", "-p"];
        await keepassxc(dir, ["pw", "first"], "add", ...added, "a.kdbx", "Work/Mail/Exämple");
        await keepassxc(dir, ["pw"], "attachment-import", "-q", "a.kdbx", "Work/Mail/Exämple", "b.bin", "blob");
        await keepassxc(dir, ["pw", "sécret & <2>"], "edit", "-q", "-p", "a.kdbx", "Work/Mail/Exämple");
        await keepassxc(dir, ["pw", "x"], "add", "-q", "-p", "a.kdbx", "deleted");
        await keepassxc(dir, ["pw"], "rm", "-q", "a.kdbx", "deleted");
        const file = new Uint8Array(readFileSync(join(dir, "a.kdbx")));
        expect(kdbx.sniff(file, "")).toBe(true);
        const read = await readWith(kdbx, file, PW);
        expect(read.items.map(({ name, type }) => `${type} ${name}`)).toEqual([
          "login Work/Mail/Exämple",
          "file Work/Mail/Exämple/b.bin",
        ]);
        const login = itemNamed(read, "Work/Mail/Exämple");
        expect(text(login.value)).toBe("sécret & <2>");
        expect(fieldsOf(login)).toEqual({ user: "ada", url: "https://example.com", notes: "n1 & <n2>" });
        expect(Date.parse(login.createdAt ?? "")).toBeGreaterThan(Date.parse("2020-01-01"));
        expect(itemNamed(read, "Work/Mail/Exämple/b.bin").value).toEqual(new Uint8Array(blob));
        expect(read.lost.map(({ what }) => what)).toEqual([
          '"Work/Mail/Exämple": 2 former versions',
          "1 entries in the recycle bin",
        ]);
        expect(await readWith(kdbx, file, PW)).toEqual(read);
        expect(await refusal(kdbx, file, { password: "other" })).toMatchObject({ code: "wrong_password" });
        for (const part of truncated(file, 10)) await refusal(kdbx, part, PW);
        for (const part of flipped(file, 16)) {
          const end = await outcome(kdbx, part, PW);
          if ("items" in end) expect(end).toEqual(read);
        }
      }),
    60_000,
  );

  testNeeding(
    "keepassxc-cli",
    "a database of version 3.1, of which every change is noticed",
    () =>
      inScratch(async (dir) => {
        await keepassxc(dir, ["pw", "pw"], "db-create", "-q", "-p", "a.kdbx", "-t", "100");
        await keepassxc(dir, ["pw", "first"], "add", "-q", "-u", "ada", "-p", "a.kdbx", "one");
        await keepassxc(dir, ["pw", "second"], "add", "-q", "-p", "a.kdbx", "two");
        const file = new Uint8Array(readFileSync(join(dir, "a.kdbx")));
        expect(file[10]).toBe(3);
        const read = await readWith(kdbx, file, PW);
        expect(read.items.map(({ name, value }) => [name, text(value)])).toEqual([
          ["one", "first"],
          ["two", "second"],
        ]);
        expect(await refusal(kdbx, file, { password: "other" })).toMatchObject({ code: "wrong_password" });
        for (const part of truncated(file, 12)) await refusal(kdbx, part, PW);
        for (const part of flipped(file.subarray(0, 240), 24)) {
          await refusal(kdbx, Buffer.concat([part, file.subarray(240)]), PW);
        }
        for (const part of flipped(file, 24)) {
          const end = await outcome(kdbx, part, PW);
          if ("items" in end) expect(end).toEqual(read);
        }
      }),
    60_000,
  );

  testNeeding(
    "keepassxc-cli",
    "opens what the tests build of version 4",
    () =>
      inScratch(async (dir) => {
        const mask = masking();
        const xml = ONE.replace("<Value>hunter2-marker</Value>", `<Value Protected="True">${mask("masked")}</Value>`);
        for (const cipher of ["aes", "chacha20"] as const) {
          for (const kdf of ["argon2d", "argon2id", "aes"] as const) {
            writeFileSync(join(dir, "a.kdbx"), kdbx4(xml, { cipher, kdf, gzip: kdf !== "aes" }));
            expect(await keepassxc(dir, ["pw"], "show", "-q", "-s", "-a", "Password", "a.kdbx", "a")).toBe("masked\n");
          }
        }
      }),
    60_000,
  );

  testNeeding(
    "keepassxc-cli",
    "a key file is taken from the identities",
    () =>
      inScratch(async (dir) => {
        const args = ["db-create", "-q", "-p", "-t", "100", "--set-key-file", "key.keyx", "a.kdbx"];
        await keepassxc(dir, ["pw", "pw"], ...args);
        await keepassxc(dir, ["pw", "x"], "add", "-q", "-p", "-k", "key.keyx", "a.kdbx", "entry");
        const file = new Uint8Array(readFileSync(join(dir, "a.kdbx")));
        const key = new Uint8Array(readFileSync(join(dir, "key.keyx")));
        const read = await readWith(kdbx, file, { ...PW, identities: [utf8("not this one"), key] });
        expect(text(itemNamed(read, "entry").value)).toBe("x");
        expect(await refusal(kdbx, file, PW)).toMatchObject({ code: "wrong_password" });
        expect(await refusal(kdbx, file, { ...PW, identities: [utf8("x")] })).toMatchObject({ code: "wrong_password" });
      }),
    60_000,
  );
});

describe("version 4", () => {
  test.each([
    ["AES and Argon2d", {}],
    ["ChaCha20 and Argon2id", { cipher: "chacha20", kdf: "argon2id" } as const],
    ["AES-KDF, not compressed", { kdf: "aes", gzip: false } as const],
  ])("opens %s; values of former versions count for the mask", async (_, options) => {
    const mask = masking();
    const value = (plain: string) => `<Value Protected="True">${mask(plain)}</Value>`;
    const xml = kdbxXml([
      `<Entry><UUID>${entryId(0)}</UUID>${kdbxString("Title", "a")}<String><Key>Password</Key>${value("first")}</String>
       <History><Entry><String><Key>Password</Key>${value("older")}</String></Entry></History></Entry>`,
      `<Entry><UUID>${entryId(1)}</UUID><String><Key>Password</Key>${value("second")}</String>
       <String><Key>secret</Key>${value("third")}</String>${kdbxString("Title", "b")}</Entry>`,
    ]);
    const read = await readWith(kdbx, kdbx4(xml, options), PW);
    expect(read.items.map(({ name, value: bytes }) => [name, text(bytes)])).toEqual([
      ["a", "first"],
      ["b", "second"],
    ]);
    expect(itemNamed(read, "b").fields).toEqual([{ name: "secret", kind: "hidden", value: "third" }]);
    expect(read.lost).toEqual([{ what: '"a": 1 former versions' }]);
  });

  test("maps times, tags, expiry, addresses and attachments", async () => {
    const seconds = (iso: string) => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64LE(BigInt(Date.parse(iso) / 1_000) + 62_135_596_800n);
      return bytes.toString("base64");
    };
    const xml = kdbxXml([
      `<Entry><UUID>${entryId(0)}</UUID><Tags>one;two, three</Tags><Times>
       <CreationTime>${seconds("2024-02-03T04:05:06Z")}</CreationTime><Expires>True</Expires>
       <ExpiryTime>${seconds("2030-01-01T00:00:00Z")}</ExpiryTime></Times>
       ${kdbxString("Title", "a")}${kdbxString("Password", "p")}${kdbxString("URL", "https://a")}
       ${kdbxString("KP2A_URL_1", "https://b")}${kdbxString("custom", "c")}
       <Binary><Key>f/1.txt</Key><Value Ref="1"/></Binary><Binary><Key>gone</Key><Value Ref="7"/></Binary></Entry>`,
    ]);
    const read = await readWith(kdbx, kdbx4(xml, { binaries: [utf8("zero"), utf8("one")] }), PW);
    expect(itemNamed(read, "a")).toMatchObject({
      tags: ["one", "three", "two"],
      createdAt: "2024-02-03T04:05:06.000Z",
      expiresAt: "2030-01-01T00:00:00.000Z",
    });
    expect(fieldsOf(itemNamed(read, "a"))).toEqual({ url: ["https://a", "https://b"], custom: "c" });
    expect(text(itemNamed(read, "a/f-1.txt").value)).toBe("one");
    expect(read.lost).toEqual([{ what: '"a": an attachment that the database does not hold' }]);
  });

  test.each([
    ["KeePassXC", { otp: "otpauth://totp/a?secret=JBSWY3DPEHPK3PXP&period=60" }, "period=60"],
    ["KeeOtp", { otp: "key=JBSWY3DPEHPK3PXP&step=45&size=8" }, "digits=8&period=45"],
    ["TrayTotp", { "TOTP Seed": "JBSWY3DPEHPK3PXP", "TOTP Settings": "60;7" }, "digits=7&period=60"],
    ["TrayTotp without settings", { "TOTP Seed": "JBSW Y3DP EHPK 3PXP" }, "digits=6&period=30"],
    ["KeePass", { "TimeOtp-Secret-Base32": "JBSWY3DPEHPK3PXP", "TimeOtp-Algorithm": "HMAC-SHA-256" }, "SHA256"],
    ["KeePass, hex", { "TimeOtp-Secret-Hex": "48656c6c6f21deadbeef", "TimeOtp-Length": "8" }, "digits=8"],
    ["KeePass, base64", { "TimeOtp-Secret-Base64": "SGVsbG8h3q2+7w==", "TimeOtp-Period": "60" }, "period=60"],
  ])("one-time passwords of %s", async (_, strings, part) => {
    const read = await readWith(kdbx, kdbx4(kdbxXml([{ Title: "a", ...strings }])), PW);
    const [otp, ...rest] = read.items[0]?.fields ?? [];
    expect(rest).toEqual([]);
    expect(otp).toMatchObject({ name: "otp", kind: "otp" });
    for (const one of ["secret=JBSWY3DPEHPK3PXP", ...part.split("&")]) expect(otp?.value).toContain(one);
  });

  test("a one-time password that is none is kept as it is", async () => {
    const read = await readWith(kdbx, kdbx4(kdbxXml([{ Title: "a", "TOTP Seed": "!!", otp: "key=1&step=x" }])), PW);
    expect(fieldsOf(read.items[0] ?? itemNamed(read, "a"))).toEqual({
      "otp-secret": "key=1&step=x",
      "otp-secret (2)": "!!",
    });
  });

  test("references are followed where they are the whole value, and never grow", async () => {
    const laughs = Array.from({ length: 12 }, (_, i) => ({
      Title: `n${i}`,
      Password: `{REF:P@I:${entryHex(i + 1)}}{REF:P@I:${entryHex(i + 1)}}`,
    }));
    const xml = kdbxXml([
      { Title: "a", UserName: `{REF:U@I:${entryHex(1)}}`, Password: `{REF:P@I:${entryHex(1)}}` },
      { Title: "b", UserName: "ada", Password: `{REF:P@I:${entryHex(2)}}` },
      { Title: "c", Password: "deep" },
      { Title: "loop", Password: `{REF:P@I:${entryHex(3)}}` },
      { Title: "by title", Password: "{REF:P@T:c}" },
      ...laughs,
    ]);
    const read = await readWith(kdbx, kdbx4(xml), PW);
    expect(text(itemNamed(read, "a").value)).toBe("deep");
    expect(fieldsOf(itemNamed(read, "a"))).toEqual({ user: "ada" });
    expect(text(itemNamed(read, "by title").value)).toBe("{REF:P@T:c}");
    expect(text(itemNamed(read, "n0").value).length).toBeLessThan(200);
    const named = read.lost.map(({ what }) => what);
    expect(named).toContain('"loop": a reference to another entry, kept as it is written');
    expect(named).toContain('"by title": a reference to another entry, kept as it is written');
    expect(named.some((what) => what.startsWith('"a"'))).toBe(false);
  });

  test("an entry of notes alone is a note; one of nothing is named", async () => {
    const read = await readWith(kdbx, kdbx4(kdbxXml([{ Title: "n", Notes: "x" }, { Title: "e" }])), PW);
    expect(read.items).toMatchObject([{ name: "n", type: "note" }]);
    expect(read.lost).toEqual([{ what: '"e": it holds nothing' }]);
  });

  test("the password is asked for once, and not at all where the header is absurd", async () => {
    let asked = 0;
    const asks = { ...asksFor("pw"), password: async () => utf8(`pw${asked++ > 0 ? asked : ""}`) };
    const absurd = kdbx4(ONE, { parameters: [["M", 0x05, u64(1n << 42n)]] });
    await expect(kdbx.read?.(absurd, { name: null, map: new Map(), asks })).rejects.toMatchObject({
      code: "too_large",
    });
    expect(asked).toBe(0);
    await kdbx.read?.(kdbx4(ONE), { name: null, map: new Map(), asks });
    expect(asked).toBe(1);
  });
});

const entities = Array.from({ length: 12 }, (_, i) => `<!ENTITY l${i + 1} "${`&l${i};`.repeat(10)}">`).join("");
const LAUGHS = `<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">${entities}]>${kdbxXml([{ Title: "a" }])
  .replace(/^<\?.*?\?>/, "")
  .replace("<Name>Root</Name>", "<Name>&l12;</Name>")}`;

describe("bad input", () => {
  const good = kdbx4(ONE);
  const changed = (at: number, byte: number) => {
    const copy = good.slice();
    copy[at] = byte;
    return copy;
  };
  const parameter = (key: string, type: number, bytes: Uint8Array) => kdbx4(ONE, { parameters: [[key, type, bytes]] });
  const HOSTILE: readonly [string, Uint8Array | string][] = [
    ["nothing", utf8("")],
    ["text", utf8(MARKER)],
    ["a signature alone", good.slice(0, 8)],
    ["version 2", changed(10, 2)],
    ["version 5", changed(10, 5)],
    ["a KDB file of KeePass 1", changed(4, 0x65)],
    ["another version's header", kdbx4(ONE, { version: 3 })],
    ["an unknown key derivation", kdbx4(ONE, { kdf: "unknown" })],
    ["an unknown cipher", kdbx4(ONE, { cipher: "twofish" })],
    ["absurd memory", parameter("M", 0x05, u64(1n << 40n))],
    ["memory of 2^64 - 1", parameter("M", 0x05, u64(0xffff_ffff_ffff_ffffn))],
    ["memory of nothing", parameter("M", 0x05, u64(0n))],
    ["memory that is a fraction of a block", parameter("M", 0x05, u64(65_537n))],
    ["absurd passes", parameter("I", 0x05, u64(1n << 33n))],
    ["no pass", parameter("I", 0x05, u64(0n))],
    ["absurd lanes", parameter("P", 0x04, u32(0xffff_ffff))],
    ["no lane", parameter("P", 0x04, u32(0))],
    ["a parameter of another type", parameter("M", 0x18, utf8("many"))],
    ["an old version of Argon2", parameter("V", 0x04, u32(0x10))],
    ["a secret of Argon2's own", parameter("K", 0x42, utf8("secret"))],
    ["a salt of nothing", parameter("S", 0x42, new Uint8Array())],
    ["absurd rounds of AES", kdbx4(ONE, { kdf: "aes", parameters: [["R", 0x05, u64(1n << 50n)]] })],
    ["no round of AES", kdbx4(ONE, { kdf: "aes", parameters: [["R", 0x05, u64(0n)]] })],
    ["an unknown mask of values", kdbx4(ONE, { streamCipher: 1 })],
    ["content that is no gzip", kdbx4(ONE, { content: utf8(MARKER) })],
    ["content of nothing", kdbx4(ONE, { gzip: false, content: new Uint8Array() })],
    ["an inner header that is cut short", kdbx4(ONE, { gzip: false, content: Uint8Array.of(1, 4, 0) })],
    ["an inner field beyond the end", kdbx4(ONE, { gzip: false, content: Uint8Array.of(3, 255, 255, 255, 127, 0) })],
    ["an unknown inner field", kdbx4(ONE, { gzip: false, content: Uint8Array.of(9, 0, 0, 0, 0) })],
    ["no XML", kdbx4("")],
    ["text in place of XML", kdbx4(MARKER)],
    ["XML that is no UTF-8", kdbx4(Buffer.concat([Buffer.from(ONE), Uint8Array.of(0xff)]))],
    ["XML that is cut short", kdbx4(ONE.slice(0, -20))],
    ["elements that cross", kdbx4(ONE.replace("</Root></KeePassFile>", "</KeePassFile></Root>"))],
    ["two documents", kdbx4(`${ONE}<a/>`)],
    ["billion laughs", kdbx4(LAUGHS)],
    ["an external entity", kdbx4(`<!DOCTYPE x SYSTEM "file:///etc/passwd">${ONE.replace(/^<\?.*?\?>/, "")}`)],
    ["an entity that is not declared", kdbx4(ONE.replace(MARKER, "&secret;"))],
    ["a character that does not exist", kdbx4(ONE.replace(MARKER, "&#x110000;"))],
    ["half a surrogate as a number", kdbx4(ONE.replace(MARKER, "&#xd800;"))],
    ["an attribute twice", kdbx4(ONE.replace("<Value>", '<Value a="1" a="2">'))],
    ["deep nesting", kdbx4(`<KeePassFile><Root>${"<Group>".repeat(100_000)}`)],
    ["a masked value that is no base64", kdbx4(ONE.replace("<Value>", '<Value Protected="True">'))],
    [
      "a masked value that is no text",
      kdbx4(ONE.replace(/<Value>hunter.*?</, '<Value Protected="True">/////////w==<')),
    ],
    ["a million entries", kdbx4(kdbxXml([]).replace("</Group>", `${"<Entry/>".repeat(1_000_001)}</Group>`))],
    ["a million attachments", kdbx4(ONE, { binaries: Array.from({ length: 100_100 }, () => Uint8Array.of(1)) })],
    ["a directory", "/tmp"],
  ];
  test.each(HOSTILE)(
    "%s: a fault, and nothing read",
    async (_, source) => {
      await refusal(kdbx, source, PW);
    },
    30_000,
  );

  test("every truncated and every changed file is refused", async () => {
    for (const part of truncated(good, 60)) await refusal(kdbx, part, PW);
    for (const part of flipped(good, 150)) await refusal(kdbx, part, PW);
  }, 30_000);

  test("the order of blocks, and another key's block, are noticed", async () => {
    const other = kdbx4(ONE, { password: "other" });
    await refusal(kdbx, Buffer.concat([good.subarray(0, 300), other.subarray(300)]), PW);
    expect(await refusal(kdbx, other, PW)).toMatchObject({ code: "wrong_password" });
  });

  test("names of methods and hostile names are names like others", async () => {
    const xml = kdbxXml([{ Title: "../../../etc/passwd", Password: "x", __proto__x: "1", constructor: "2", "": "3" }]);
    const read = await readWith(kdbx, kdbx4(xml), PW);
    expect(read.items[0]?.name).toBe("etc/passwd");
    expect(fieldsOf(read.items[0] ?? itemNamed(read, ""))).toEqual({ __proto__x: "1", constructor: "2", field: "3" });
  });

  test("bombs cost no memory to speak of", async () => {
    const bomb = kdbx4(ONE, { content: gzipSync(Buffer.alloc(1 << 30), { level: 9 }) });
    expect(bomb.length).toBeLessThan(2_000_000);
    const inflated = await readApart("kdbx", bomb, "pw");
    expect(inflated.code).toBe("too_large");
    expect(inflated.peakMib).toBeLessThan(700);
    const laughs = await readApart("kdbx", kdbx4(LAUGHS), "pw");
    expect(laughs.code).toBe("bad_input");
    expect(laughs.peakMib).toBeLessThan(250);
    const many = await readApart(
      "kdbx",
      kdbx4(kdbxXml([]).replace("</Group>", `${"<Entry/>".repeat(1_000_001)}</Group>`)),
      "pw",
    );
    expect(many.code).toBe("too_large");
    expect(many.peakMib).toBeLessThan(400);
    const inner = `<Binaries><Binary ID="0" Compressed="True">${gzipSync(Buffer.alloc(300_000_000)).toString("base64")}</Binary></Binaries>`;
    const attached = await readApart("kdbx", kdbx4(kdbxXml([], inner)), "pw");
    expect(attached.code).toBe("bad_input");
    expect(attached.peakMib).toBeLessThan(400);
  }, 60_000);
});

test("is recognised by both signatures", () => {
  expect(kdbx.sniff(kdbx4(ONE), "")).toBe(true);
  expect(kdbx.sniff(Uint8Array.of(0x03, 0xd9, 0xa2, 0x9a, 0x65, 0xfb, 0x4b, 0xb5), "a.kdbx")).toBe(false);
  expect(kdbx.sniff(new Uint8Array(), "a.kdbx")).toBe(false);
});
