import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createPrivateKey } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { clearPem, pem, pemProtected } from "../../src/formats/pem.ts";
import { PKCS8_TYPES } from "../../src/formats/pkcs8.ts";
import type { SecretType } from "../../src/protocol/secrettype.ts";
import { testNeeding } from "../support/skip.ts";
import { ascii, asksFor, BAD_INPUT, NO_ASKS, sample } from "./samples.ts";

const PASSWORD = "only a test, grün";
const read = async (file: Uint8Array | string, asks = asksFor(PASSWORD)) => {
  const bytes = typeof file === "string" ? ascii(file) : file;
  return pem.read?.(bytes, { name: "a", map: new Map(), asks });
};
const made = new Map<string, Promise<string>>();
const write = (type: SecretType): Promise<string> => {
  const text = made.get(type) ?? writeAnew(type);
  made.set(type, text);
  return text;
};
const writeAnew = async (type: SecretType): Promise<string> => {
  const written = await pemProtected.write?.([sample(type)], { recipients: [], asks: asksFor(PASSWORD) });
  return new TextDecoder().decode(written?.file);
};
const derOf = (text: string) => Uint8Array.fromBase64(text.replace(/-----[A-Z ]+-----|\n/g, ""));
const wrap = (der: Uint8Array) =>
  `-----BEGIN ENCRYPTED PRIVATE KEY-----\n${der.toBase64().replace(/.{64}/g, "$&\n").trimEnd()}\n-----END ENCRYPTED PRIVATE KEY-----\n`;

describe("what is written", () => {
  test.each(PKCS8_TYPES)("%s comes back with the password alone", async (type) => {
    const text = await write(type);
    expect(text).toStartWith("-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    expect((await read(text))?.items[0]).toMatchObject({ name: "a", type, value: sample(type).value });
    await expect(read(text, asksFor(`${PASSWORD} `))).rejects.toMatchObject({ code: "wrong_password" });
  });

  test("two of the same key differ, the platform opens them, and a clear file asks for nothing", async () => {
    const [one, other] = [await write("p384"), await writeAnew("p384")];
    expect(one).not.toBe(other);
    const key = createPrivateKey({ key: one, passphrase: PASSWORD });
    expect(key.asymmetricKeyDetails?.namedCurve).toBe("secp384r1");
    const clear = await pem.read?.(clearPem.write([sample("rsa")]), { name: "a", map: new Map(), asks: NO_ASKS });
    expect(clear?.items[0]?.type).toBe("rsa");
  });
});

describe("openssl", () => {
  let dir = "";
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "keyhold-pbes2-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const run = (...args: string[]) => {
    const done = Bun.spawnSync(["openssl", ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    expect([args, done.exitCode, done.exitCode === 0 ? "" : done.stderr.toString()]).toEqual([args, 0, ""]);
    return done.stdout.toString();
  };
  const file = (name: string, content: string | Uint8Array) => {
    const path = join(dir, name);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  };

  for (const type of PKCS8_TYPES) {
    testNeeding("openssl", `opens ${type} as it is written`, async () => {
      const path = file(`${type}.pem`, await write(type));
      const clear = run("pkey", "-in", path, "-passin", `pass:${PASSWORD}`);
      expect(clear).toBe(new TextDecoder().decode(clearPem.write([sample(type)])));
    });
  }

  const ways = [
    ["genpkey's own", ["-v2", "aes-256-cbc"]],
    ["AES-128", ["-v2", "aes-128-cbc"]],
    ["AES-192", ["-v2", "aes-192-cbc"]],
    ["HMAC-SHA-1", ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"]],
    ["HMAC-SHA-512", ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512", "-iter", "100000"]],
    ["scrypt", ["-v2", "aes-256-cbc", "-scrypt"]],
  ] as const;
  for (const [name, flags] of ways) {
    testNeeding("openssl", `makes encrypted files with ${name}, which are read`, async () => {
      const clear = file("clear.pem", clearPem.write([sample("p256")]));
      const text = run("pkcs8", "-topk8", "-in", clear, ...flags, "-passout", `pass:${PASSWORD}`);
      expect((await read(text))?.items[0]).toMatchObject({ type: "p256", value: sample("p256").value });
      await expect(read(text, asksFor("another"))).rejects.toMatchObject({ code: "wrong_password" });
    });
  }

  testNeeding(
    "openssl",
    "genpkey -aes256 is read; PBES1, Triple DES and absurd costs are refused unasked",
    async () => {
      const made = run("genpkey", "-algorithm", "ED25519", "-aes256", "-pass", `pass:${PASSWORD}`);
      expect((await read(made))?.items[0]?.type).toBe("ed25519");
      const clear = file("clear.pem", clearPem.write([sample("p256")]));
      const topk8 = (...flags: string[]) =>
        run("pkcs8", "-topk8", "-in", clear, ...flags, "-passout", `pass:${PASSWORD}`);
      const refused = [
        topk8("-v1", "PBE-SHA1-3DES"),
        topk8("-v2", "des3"),
        topk8("-v2", "aes-256-cbc", "-iter", "10000001"),
      ];
      for (const text of refused) await expect(read(text, NO_ASKS as never)).rejects.toMatchObject(BAD_INPUT);
    },
  );
});

describe("refuses before it asks for the password", () => {
  test("costs, salts and lengths beyond bounds, unknown algorithms, nested and damaged structures", async () => {
    const der = derOf(await write("ed25519"));
    const hex = der.toHex();
    const swapped = (from: string, to: string) => {
      expect(hex.split(from).length).toBe(2);
      return Uint8Array.fromHex(hex.replace(from, to));
    };
    const bad: Uint8Array[] = [
      // 600,000 iterations become 16,777,215, then a negative number, then none
      swapped("02030927c0", "0203ffffff"),
      swapped("02030927c0", "0203800000"),
      swapped("02030927c0", "0203000000"),
      swapped("02030927c0", "02037fffff").fill(0xff, 0, 2),
      // HMAC-SHA256 becomes MD5's number; AES-256-CBC becomes GCM; PBES2 becomes PBES1; PBKDF2 becomes nothing known
      swapped("2a864886f70d0209", "2a864886f70d0202"),
      swapped("60864801650304012a", "60864801650304012e"),
      swapped("2a864886f70d01050d", "2a864886f70d010503"),
      swapped("2a864886f70d01050c", "2a864886f70d01050e"),
      der.slice(0, -1),
      Uint8Array.of(...der, 0),
      Uint8Array.of(...der, ...der),
      der.slice(2),
      new Uint8Array(0),
      Uint8Array.of(0x30, 0x80, 0, 0),
      Uint8Array.of(0x30, 0x84, 0xff, 0xff, 0xff, 0xff),
      Uint8Array.fromHex("30".repeat(400)),
      Uint8Array.of(0x30, 0),
      derOf(new TextDecoder().decode(clearPem.write([sample("ed25519")]))),
    ];
    for (let i = 0; i < 24; i++) bad.push(der.map((byte, j) => (j === i ? byte ^ 0x80 : byte)));
    for (const [i, one] of bad.entries()) {
      const text = wrap(one);
      const error: unknown = await read(text, NO_ASKS as never).then(
        () => "accepted",
        (reason: unknown) => reason,
      );
      expect([i, error]).toEqual([i, expect.objectContaining(BAD_INPUT)]);
    }
  });

  test("scrypt that would fill the memory", async () => {
    // PBES2 { scrypt { salt, N = 2^22, r = 8, p = 1 }, AES-256-CBC }
    const salt = `0410${"00".repeat(16)}`;
    const scrypt = (n: string, r: string, p: string) => {
      const parameters = sequence(`${salt}${n}${r}${p}`);
      const kdf = sequence(`06092b06010401da47040b${parameters}`);
      const cipher = sequence(`060960864801650304012a0410${"00".repeat(16)}`);
      const algorithm = sequence(`06092a864886f70d01050d${sequence(kdf + cipher)}`);
      return wrap(Uint8Array.fromHex(sequence(`${algorithm}0410${"00".repeat(16)}`)));
    };
    const costs = [
      ["0203400000", "020108", "020101"],
      ["02034000ff", "020108", "020101"],
      ["02020400", "02030fffff", "020101"],
      ["02020400", "020108", "02020400"],
      ["020100", "020108", "020101"],
      ["020101", "020108", "020101"],
      ["020500ffffffff", "020108", "020101"],
    ] as const;
    for (const cost of costs)
      await expect(read(scrypt(cost[0], cost[1], cost[2]), NO_ASKS as never)).rejects.toMatchObject(BAD_INPUT);
    // a bearable one is worked on
    await expect(read(scrypt("02020400", "020108", "020101"))).rejects.toMatchObject({ code: "wrong_password" });
  });
});

function sequence(content: string): string {
  const length = content.length / 2;
  return `30${length < 128 ? length.toString(16).padStart(2, "0") : `81${length.toString(16)}`}${content}`;
}
