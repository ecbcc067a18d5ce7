import { describe, expect, test } from "bun:test";
import { argon2Sync, createCipheriv, createHash, createHmac, pbkdf2Sync } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { bitwarden, bitwardenProtected } from "../../src/formats/bitwarden.ts";
import type { PlainItem } from "../../src/formats/item.ts";
import {
  anyFields,
  anyName,
  anyText,
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
  writeWith,
} from "./foreign.ts";
import { SAMPLES } from "./samples.ts";

const SAMPLE = new Uint8Array(readFileSync(new URL("../vectors/formats/bitwarden.json", import.meta.url)));
const json = (value: unknown): Uint8Array => utf8(JSON.stringify(value));
const item = (more: object = {}) => ({ type: 1, name: "a", login: { password: MARKER }, ...more });
const exported = (...items: unknown[]) => json({ encrypted: false, folders: [], items });

interface Kdf {
  kdfType: number;
  kdfIterations: number;
  kdfMemory?: number;
  kdfParallelism?: number;
}

/** Bitwarden's own way of protecting an export, written here a second time. */
function protectedBy(
  password: string,
  plain: Uint8Array,
  kdf: Kdf,
  salt = "c2FsdHNhbHRzYWx0c2FsdA==",
  pads = true,
): object {
  const material =
    kdf.kdfType === 0
      ? pbkdf2Sync(password, salt, kdf.kdfIterations, 32, "sha256")
      : argon2Sync("argon2id", {
          message: password,
          nonce: createHash("sha256").update(salt).digest(),
          parallelism: kdf.kdfParallelism ?? 1,
          memory: (kdf.kdfMemory ?? 16) * 1_024,
          passes: kdf.kdfIterations,
          tagLength: 32,
        });
  const expand = (info: string) => createHmac("sha256", material).update(`${info}\x01`).digest();
  const sealed = (clear: Uint8Array) => {
    const iv = Buffer.alloc(16, 7);
    const cipher = createCipheriv("aes-256-cbc", expand("enc"), iv).setAutoPadding(pads || clear.length % 16 !== 0);
    const body = Buffer.concat([cipher.update(clear), cipher.final()]);
    const mac = createHmac("sha256", expand("mac")).update(iv).update(body).digest();
    return `2.${[iv, body, mac].map((part) => part.toString("base64")).join("|")}`;
  };
  const validation = sealed(utf8("7c3a8b1e-0000-4000-8000-000000000000"));
  return {
    encrypted: true,
    passwordProtected: true,
    salt,
    ...kdf,
    encKeyValidation_DO_NOT_EDIT: validation,
    data: sealed(plain),
  };
}

const PBKDF2 = { kdfType: 0, kdfIterations: 1_000 };
const ARGON2 = { kdfType: 1, kdfIterations: 1, kdfMemory: 16, kdfParallelism: 1 };

describe("reading", () => {
  test("maps every kind of item", async () => {
    const read = await readWith(bitwarden, SAMPLE);
    expect(read.items.map(({ name, type }) => `${type} ${name}`)).toEqual([
      "login Work/Mail/Example",
      "note Wi-Fi",
      "card Home/Visa",
      "identity Me",
      "ssh deploy key",
      "note Bank",
    ]);
    const login = itemNamed(read, "Work/Mail/Example");
    expect(text(login.value)).toBe("correct horse");
    expect(login.tags).toEqual(["favorite", "reprompt"]);
    expect(login.createdAt).toBe("2023-03-02T10:11:12.130Z");
    expect(fieldsOf(login)).toEqual({
      user: "ada@example.com",
      url: ["https://example.com/login", "https://mail.example.com"],
      otp: expect.stringMatching(/^otpauth:\/\/totp\/Example\?.*secret=JBSWY3DPEHPK3PXP/),
      notes: "first line\nsecond line",
      "Customer number": "4711",
      "Security answer": "blue",
      Newsletter: "true",
    });
    expect(login.fields?.find(({ name }) => name === "Security answer")?.kind).toBe("hidden");
    expect(text(itemNamed(read, "Wi-Fi").value)).toBe("network: attic");
    const card = itemNamed(read, "Home/Visa");
    expect(text(card.value)).toBe("4111111111111111");
    expect(fieldsOf(card)).toEqual({ holder: "Ada Lovelace", expiry: "03/2031", brand: "Visa", code: "123" });
    expect(fieldsOf(itemNamed(read, "Me"))).toMatchObject({ "first-name": "Ada", user: "ada", passport: "P123" });
    expect(text(itemNamed(read, "deploy key").value)).toStartWith("-----BEGIN OPENSSH PRIVATE KEY-----");
    expect(fieldsOf(itemNamed(read, "Bank"))).toMatchObject({ bank: "Post", "account-number": "000123" });
  });

  test("names what has no place, and nothing of its content", async () => {
    const { lost } = await readWith(bitwarden, SAMPLE);
    expect(lost.map(({ what }) => what)).toEqual([
      '"Work/Mail/Example": how 1 addresses are matched',
      '"Work/Mail/Example": 1 passkeys',
      '"Work/Mail/Example": 1 linked fields',
      '"Work/Mail/Example": 2 former passwords',
      "an item in the trash",
      '"empty": it holds nothing',
    ]);
  });

  test("names an organisation's items by their collection", async () => {
    const file = json({
      encrypted: false,
      collections: [
        { id: "c1", organizationId: "o", name: "Ops/Db", externalId: null },
        { id: "c2", organizationId: "o", name: "All", externalId: null },
      ],
      items: [item({ collectionIds: ["c1", "c2"], organizationId: "o", folderId: null })],
    });
    const read = await readWith(bitwarden, file);
    expect(itemNamed(read, "Ops/Db/a").tags).toEqual(["All"]);
  });

  test("gives the same names each time, also to items of one name", async () => {
    const twice = exported(item(), item(), item({ name: "a (2)" }), item({ name: "" }), item({ name: "../b//./c" }));
    const read = await readWith(bitwarden, twice);
    expect(read.items.map(({ name }) => name)).toEqual(["a", "a (2)", "a (2) (2)", "unnamed", "b/c"]);
    expect(await readWith(bitwarden, twice)).toEqual(read);
  });

  test("keeps a one-time password that is no key as it is", async () => {
    const read = await readWith(bitwarden, exported(item({ login: { totp: "steam://ABCDEFGH" } })));
    expect(read.items[0]?.fields).toEqual([{ name: "otp-secret", kind: "hidden", value: "steam://ABCDEFGH" }]);
  });

  test("keeps a text that no secret holds as a file beside it", async () => {
    const read = await readWith(bitwarden, exported(item({ notes: "n".repeat(100_000) })));
    expect(read.items.map(({ name, type, value }) => [name, type, value.length])).toEqual([
      ["a", "login", MARKER.length],
      ["a/notes", "file", 100_000],
    ]);
  });
});

describe("a password-protected file", () => {
  test.each([
    ["PBKDF2", PBKDF2],
    ["Argon2id", ARGON2],
  ])("opens with %s", async (_, kdf) => {
    const read = await readWith(bitwarden, json(protectedBy("päss", SAMPLE, kdf)), { password: "päss" });
    expect(read).toEqual(await readWith(bitwarden, SAMPLE));
  });

  test.each(["pbkdf2", "argon2id"])("that Bitwarden's own library sealed opens: %s", async (kdf) => {
    const sealed = readFileSync(new URL(`../vectors/formats/bitwarden-${kdf}.json`, import.meta.url));
    expect(bitwarden.sniff(sealed, "")).toBe(true);
    const { items, lost } = await readWith(bitwarden, sealed, { password: "päss wörd" });
    expect(items).toMatchObject([{ name: "Work/Sealed", type: "login", value: utf8("correct horse") }]);
    expect(lost).toEqual([]);
    expect(await refusal(bitwarden, sealed, { password: "pass word" })).toMatchObject({ code: "wrong_password" });
  });

  test("tells a wrong password from damage", async () => {
    const file = protectedBy("right", exported(item()), PBKDF2);
    expect(await refusal(bitwarden, json(file), { password: "wrong" })).toMatchObject({ code: "wrong_password" });
    const other = protectedBy("right", exported(item({ name: "b" })), { kdfType: 0, kdfIterations: 1_001 });
    const swapped = { ...file, data: "data" in other ? other.data : "" };
    expect(await refusal(bitwarden, json(swapped), { password: "right" })).toMatchObject({ code: "bad_input" });
  });

  test("is written so that Bitwarden's way opens it, each time with another salt", async () => {
    const items: PlainItem[] = [
      { name: "x/y", type: "login", value: utf8("pw"), tags: [], createdAt: null, fields: [] },
    ];
    const first = await writeWith(bitwardenProtected, items, "pass");
    const second = await writeWith(bitwardenProtected, items, "pass");
    expect(text(first.file)).not.toContain("x/y");
    const { salt, ...parsed }: { salt: string } & Kdf = JSON.parse(text(first.file));
    expect(JSON.parse(text(second.file)).salt).not.toBe(salt);
    const { kdfType, kdfIterations, kdfMemory = 0, kdfParallelism = 0 } = parsed;
    expect({ kdfType, kdfIterations, kdfMemory, kdfParallelism }).toEqual({
      kdfType: 1,
      kdfIterations: 3,
      kdfMemory: 64,
      kdfParallelism: 4,
    });
    const plain = await writeWith(bitwarden, items);
    const oracle = protectedBy("pass", plain.file, { kdfType, kdfIterations, kdfMemory, kdfParallelism }, salt);
    const swapped = { ...JSON.parse(text(first.file)), data: "data" in oracle ? oracle.data : "" };
    const read = await readWith(bitwarden, first.file, { password: "pass" });
    expect(text(read.items[0]?.value)).toBe("pw");
    expect(await readWith(bitwarden, json(swapped), { password: "pass" })).toEqual(read);
  });

  test("that is sealed to an account is refused with what to do", async () => {
    const sealed = json({ encrypted: true, encKeyValidation_DO_NOT_EDIT: "2.a|b|c", folders: [], items: [] });
    const fault = await refusal(bitwarden, sealed);
    expect(fault.code).toBe("unsupported");
    expect(fault.hint).toContain("Password protected");
  });
});

describe("writing", () => {
  const ours = fc
    .uniqueArray(
      fc.record({
        name: anyName,
        type: fc.constantFrom("login" as const, "note" as const, "card" as const, "password" as const),
        value: anyText.filter((value) => value !== "").map(utf8),
        tags: fc.constantFrom([], ["favorite"], ["reprompt"], ["favorite", "reprompt"]),
        createdAt: fc.constantFrom(null, "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05Z"),
        fields: anyFields,
      }),
      { minLength: 1, maxLength: 6, selector: ({ name }) => name },
    )
    .map((items): PlainItem[] => items);

  test("is read back as it was, whatever stands in it", async () => {
    await fc.assert(
      fc.asyncProperty(ours, async (items) => {
        const { file } = await writeWith(bitwarden, items);
        expect((await writeWith(bitwarden, items)).file).toEqual(file);
        const read = await readWith(bitwarden, file);
        expect(read.items.length).toBe(items.length);
        for (const [i, written] of items.entries()) {
          const again = read.items[i];
          expect(again?.tags).toEqual(written.tags);
          if (again) expect(bitwarden.same?.(written, again)).toBe(true);
          if (written.type !== "password") expect(again?.type).toBe(written.type);
        }
      }),
      { numRuns: 150 },
    );
  }, 30_000);

  test("takes every type but files, and names those that become another", async () => {
    for (const one of SAMPLES) {
      if (one.type === "file") {
        expect(bitwarden.types).not.toContain("file");
        continue;
      }
      const { file, lost } = await writeWith(bitwarden, [one]);
      const [again] = (await readWith(bitwarden, file)).items;
      expect(again && bitwarden.same?.(one, again)).toBe(true);
      const isKept = again?.type === one.type;
      expect(lost.some(({ what }) => what.includes(`its type is ${one.type}`))).toBe(!isKept);
    }
  }, 30_000);

  test("a one-time password that is no URI as Bitwarden takes it becomes a note, and is compared as one", async () => {
    const uri = "otpauth://totp/x?secret=JBSWY3DPEHPK3PXP";
    for (const value of [`${uri}\n`, "JBSWY3DPEHPK3PXP", "otpauth://hotp/x?secret=JBSWY3DP&counter=9007199254740993"]) {
      const otp: PlainItem = { name: "a", type: "totp", value: utf8(value), tags: [], createdAt: null };
      const { file } = await writeWith(bitwarden, [otp]);
      const { items } = await readWith(bitwarden, file);
      expect([items[0]?.type, text(items[0]?.value ?? new Uint8Array(0))]).toEqual(["note", value]);
      expect(bitwarden.same?.(otp, items[0] as PlainItem)).toBe(true);
    }
  });

  test("bytes that no note holds in base64 are refused by name", async () => {
    const large: PlainItem = {
      name: "a/b",
      type: "bytes",
      value: new Uint8Array(49_153).fill(255),
      tags: [],
      createdAt: null,
    };
    const fault = await writeWith(bitwarden, [large]).catch((error: unknown) => error);
    expect(fault).toMatchObject({ code: "bad_input", message: 'cannot write "a/b" as bitwarden' });
    expect((await writeWith(bitwarden, [{ ...large, value: large.value.subarray(1) }])).lost).toHaveLength(1);
  });

  test("the comparison notices another value, field, name and time", async () => {
    const one: PlainItem = {
      name: "a",
      type: "login",
      value: utf8("x"),
      tags: [],
      createdAt: null,
      fields: [{ name: "user", kind: "text", value: "u" }],
    };
    expect(bitwarden.same?.(one, one)).toBe(true);
    for (const other of [
      { ...one, value: utf8("y") },
      { ...one, name: "b" },
      { ...one, createdAt: "2026-01-01T00:00:00.000Z" },
      { ...one, fields: [] },
    ]) {
      expect(bitwarden.same?.(one, other)).toBe(false);
    }
  });

  test("an expired tag, an empty field and a day are named", async () => {
    const { lost } = await writeWith(bitwarden, [
      {
        name: "a",
        type: "login",
        value: utf8("x"),
        tags: ["other"],
        createdAt: null,
        expiresAt: "2027-01-01T00:00:00.000Z",
        fields: [
          { name: "born", kind: "date", value: "2000-01-01" },
          { name: "nothing", kind: "text", value: "" },
        ],
      },
    ]);
    expect(lost.map(({ what }) => what)).toEqual([
      '"a": that field "born" is of kind date',
      '"a": field "nothing", which is empty',
      '"a": tag "other"',
      '"a": its day of expiry',
    ]);
  });
});

describe("bad input", () => {
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  const good = protectedBy("pw", exported(item()), PBKDF2);
  const HOSTILE: readonly [string, Uint8Array | string][] = [
    ["nothing", utf8("")],
    ["a number", utf8("42")],
    ["a list", json([item()])],
    ["half a file", SAMPLE.slice(0, 900)],
    ["no items", json({ encrypted: false, folders: [] })],
    ["items that are text", json({ encrypted: false, items: MARKER })],
    ["an item that is null", exported(null)],
    ["an item that is text", exported(MARKER)],
    ["a name that is an object", exported(item({ name: { [MARKER]: 1 } }))],
    ["a password that is a list", exported(item({ login: { password: [MARKER] } }))],
    ["addresses that are text", exported(item({ login: { uris: MARKER } }))],
    ["fields that are an object", exported(item({ fields: { a: MARKER } }))],
    ["a type that nobody knows", exported(item({ type: 99 }))],
    ["a type that is the name of a method", exported(item({ type: "constructor" }))],
    ["half a surrogate", utf8('{"encrypted":false,"items":[{"type":1,"name":"a","login":{"password":"\\ud800"}}]}')],
    [
      "bytes that are no UTF-8",
      Uint8Array.from([...utf8('{"encrypted":false,"items":["'), 0xff, 0xfe, 0x22, 0x5d, 0x7d]),
    ],
    ["UTF-16", new Uint8Array(Buffer.from('{"encrypted":false,"items":[]}', "utf16le"))],
    ["deep nesting", utf8(`{"encrypted":false,"items":${deep}}`)],
    ["more items than can be", utf8(`{"encrypted":false,"items":[${"{},".repeat(100_001)}{}]}`)],
    ["a million items", utf8(`{"encrypted":false,"items":[${"{},".repeat(1_000_001)}{}]}`)],
    ["a directory", "/tmp"],
    ["what is protected twice", json(protectedBy("pw", json(good), PBKDF2))],
    ["what protects no JSON", json(protectedBy("pw", utf8(MARKER), PBKDF2))],
    ["a padding that is none", json(protectedBy("pw", new Uint8Array(32), PBKDF2, "c2FsdA==", false))],
    ["no salt", json({ ...good, salt: "" })],
    ["no cost", json({ ...good, kdfIterations: undefined })],
    ["a cost that is text", json({ ...good, kdfIterations: "1000" })],
    ["a cost below one", json({ ...good, kdfIterations: 0 })],
    ["an absurd cost", json({ ...good, kdfIterations: 4_000_000_000 })],
    ["a cost that is no whole number", utf8(JSON.stringify(good).replace("1000", "1e400"))],
    ["absurd memory", json({ ...good, ...ARGON2, kdfMemory: 1_048_576 })],
    ["absurd passes", json({ ...good, ...ARGON2, kdfIterations: 1_000_000 })],
    ["absurd lanes", json({ ...good, ...ARGON2, kdfParallelism: 100_000 })],
    ["a key derivation of tomorrow", json({ ...good, kdfType: 7 })],
    ["a cipher of tomorrow", json({ ...good, data: "7.AAAA" })],
    ["a cipher without a MAC", json({ ...good, data: "0.AAAAAAAAAAAAAAAAAAAAAA==|AAAAAAAAAAAAAAAAAAAAAA==" })],
    ["a short MAC", json({ ...good, data: "2.AAAAAAAAAAAAAAAAAAAAAA==|AAAAAAAAAAAAAAAAAAAAAA==|AAAA" })],
    ["no data", json({ ...good, data: "" })],
  ];

  test.each(HOSTILE)(
    "%s: a fault, and nothing read",
    async (_, source) => {
      await refusal(bitwarden, source, { password: "pw" });
    },
    30_000,
  );

  test("names of methods and of prototypes are names like others", async () => {
    const file = utf8(
      `{"encrypted":false,"folders":[{"id":"__proto__","name":"constructor"}],"items":[{"__proto__":{"type":2},"type":1,"name":"__proto__","folderId":"__proto__","login":{"password":"x"},"fields":[{"name":"__proto__","value":"v","type":0}]}]}`,
    );
    const read = await readWith(bitwarden, file);
    expect(read.items).toMatchObject([
      { name: "constructor/__proto__", type: "login", fields: [{ name: "__proto__", kind: "text", value: "v" }] },
    ]);
    expect(Object.hasOwn(Object.prototype, "type")).toBe(false);
  });

  test("truncated and changed files end in a fault, or are read", async () => {
    for (const part of truncated(SAMPLE, 60)) await refusal(bitwarden, part);
    for (const part of flipped(SAMPLE, 120)) await outcome(bitwarden, part);
    const whole = json(good);
    for (const part of truncated(whole, 30)) await refusal(bitwarden, part, { password: "pw" });
    const from = text(whole).indexOf("kdfIterations");
    for (const part of flipped(whole, 60)) {
      const end = await outcome(bitwarden, part, { password: "pw" });
      // a byte of the file's head may be changed without harm: what is sealed is what counts
      if ("items" in end) expect(end.items.map(({ name }) => name)).toEqual(["a"]);
    }
    expect(from).toBeGreaterThan(0);
  }, 30_000);

  test("a million items cost no memory to speak of", async () => {
    const bomb = await readApart("bitwarden", utf8(`{"encrypted":false,"items":[${"{},".repeat(1_000_001)}{}]}`));
    expect(bomb.code).toBe("too_large");
    expect(bomb.peakMib).toBeLessThan(300);
    const nulls = await readApart("bitwarden", utf8(`{"encrypted":false,"items":[${"0,".repeat(9_000_000)}0]}`));
    expect(nulls.code).toBe("too_large");
    expect(nulls.peakMib).toBeLessThan(400);
  }, 30_000);
});

describe("recognition", () => {
  test("by how both forms begin, and nothing else", () => {
    expect(bitwarden.sniff(SAMPLE, "")).toBe(true);
    expect(bitwarden.sniff(json(protectedBy("pw", SAMPLE, PBKDF2)), "")).toBe(true);
    for (const other of ['{"keyhold":"export","v":1,"items":[]}', '{"encrypted":false}', '[{"encrypted":false}]', ""]) {
      expect(bitwarden.sniff(utf8(other), "bitwarden.json")).toBe(false);
    }
  });
});
