import { describe, expect, test } from "bun:test";
import { createHmac, createPrivateKey, createPublicKey, hkdfSync } from "node:crypto";
import { ed25519 } from "@noble/curves/ed25519.js";
import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { canon } from "../../../src/crypto/canon.ts";
import { sha256 } from "../../../src/crypto/kdf.ts";
import { rsaPublicKey } from "../../../src/crypto/rsa.ts";
import { rsaFromSeed } from "../../../src/crypto/rsaprime.ts";
import { Fault } from "../../../src/errors.ts";
import { bip39 } from "../../../src/formats/bip39.ts";
import { type CeremonyId, hashId } from "../../../src/ids.ts";
import type { OutputSpec } from "../../../src/protocol/ceremony/model.ts";
import { checkOutput, makeOutput, secretOf } from "../../../src/protocol/ceremony/output.ts";
import { publicKeyOf } from "../../../src/protocol/keygen.ts";
import { otpCode, parseOtpUri } from "../../../src/protocol/otp.ts";

const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);
const RUN = { ceremonyId: hashId<CeremonyId>(new Uint8Array(32).fill(0xce)), joins: [] };
const OTHER = { ceremonyId: hashId<CeremonyId>(new Uint8Array(32).fill(0xcf)), joins: [] };

const TOTP: OutputSpec = {
  kind: "totp",
  algorithm: "SHA1",
  digits: 6,
  period: 30,
  issuer: "Example",
  label: "alice",
};
const HOTP: OutputSpec = { kind: "hotp", algorithm: "SHA512", digits: 8, issuer: "", label: "door" };

const SPECS: readonly (readonly [string, OutputSpec])[] = [
  ["totp SHA1", TOTP],
  ["totp SHA256", { ...TOTP, algorithm: "SHA256" }],
  ["hotp SHA512", HOTP],
  ["bytes 1", { kind: "bytes", length: 1 }],
  ["bytes 1024", { kind: "bytes", length: 1_024 }],
  ["hedge", { kind: "hedge" }],
  ["secp256k1", { kind: "secp256k1" }],
  ["p256", { kind: "p256" }],
  ["ed25519", { kind: "ed25519" }],
  ["bip39 12", { kind: "bip39", words: 12 }],
  ["bip39 24", { kind: "bip39", words: 24 }],
  ["rsa 2048", { kind: "rsa", bits: 2_048 }],
];

async function made(spec: OutputSpec, key = KEY, run = RUN) {
  const output = await makeOutput(spec, key, run);
  if (output.value === null) throw new Error("nothing was made");
  return { ...output, value: output.value };
}

/** HKDF-SHA-512 as docs/protocol.md §10.6 writes it. */
const expected = (kind: string, length: number) =>
  new Uint8Array(
    hkdfSync("sha512", KEY, "", canon("keyhold/v1/ceremony-output", RUN.ceremonyId, kind, length), length),
  );

/** For K = 00 01 … 3f: SHA-256 of each value, from a program of its own in Python. */
const VECTORS: Readonly<Record<string, string>> = {
  "totp SHA1": "59c96381291c3e930206188aa3340d51f01cefee12cc05aabe7ea3c7ef418234",
  "totp SHA256": "e7de7e4bbf0760e8922f811b99ba82db3c0dd67c91687ccbf2b7dad94626513e",
  "hotp SHA512": "5655be763e2db1eabeced1e8be7add28f4519de10fc7072965020845ca27fe54",
  "bytes 1": "4f362f9093bb8e7012f466224ff1237c0746d8c8f660b16699f5036ccba9c64a",
  "bytes 1024": "03e827ff7f3e8970d9f9c41faf9868892153b60de5d21c68efda9c1cafb8ca97",
  hedge: "1062bb48c5f864e871dc562b6ac05ccf53725d309b1882ae742fff4997dfbb54",
  secp256k1: "e8730f582eb757cf2b88890e2730b5af2c1bf3c595f623d1e81edbce71c6230c",
  p256: "89139716ec7afeda43a6cc85af463ae6cb4a0e530f2f5cac92c52019af3dfae1",
  ed25519: "3b9910938229c1ed8c0881b5b0a82da72ce80b18d7d22edb790a5d0477117c06",
  "bip39 12": "39338dd8d5995545a85faebebb03045bd11dc385923095da5e24ed19cecb3381",
  "bip39 24": "a509059cf2e5c0020b817fe06bdf41b5b98bfa6be0e21406cb2e418e827895bc",
  "rsa 2048": "b84bc08ac45d6e3ab0a7acf0edd8dbbcafe96c8484737996fc6d88729c0f3fde",
};

describe("outputs of a ceremony", () => {
  for (const [name, spec] of SPECS) {
    test(`${name}: the same key always gives the same bytes`, async () => {
      const one = await made(spec);
      expect(sha256(one.value).toHex()).toBe(VECTORS[name] ?? "no vector");
      expect(await made(spec)).toEqual(one);
      expect(one.parts).toEqual([]);
      expect(one.public.descriptor).toBeNull();
    });
  }

  test("another key, another ceremony and another kind give other bytes", async () => {
    const other = KEY.slice();
    other[63] = 0;
    const values: string[] = [];
    for (const spec of [{ kind: "bytes", length: 32 }, { kind: "hedge" }, { kind: "ed25519" }] as const) {
      for (const [key, run] of [
        [KEY, RUN],
        [other, RUN],
        [KEY, OTHER],
      ] as const) {
        values.push((await made(spec, key, run)).value.toHex());
      }
    }
    const short = (await made({ kind: "bytes", length: 31 })).value.toHex();
    expect(new Set(values).size).toBe(9);
    expect(values.some((one) => one.startsWith(short))).toBe(false);
  });

  test("bytes, keys of one-time passwords, entropy and seeds are HKDF's output", async () => {
    expect((await made(TOTP)).value).toEqual(expected("totp", 20));
    expect((await made({ ...TOTP, algorithm: "SHA256" })).value).toEqual(expected("totp", 32));
    expect((await made(HOTP)).value).toEqual(expected("hotp", 64));
    expect((await made({ kind: "bytes", length: 77 })).value).toEqual(expected("bytes", 77));
    expect((await made({ kind: "hedge" })).value).toEqual(expected("hedge", 32));
    expect((await made({ kind: "ed25519" })).value).toEqual(expected("ed25519", 32));
    expect((await made({ kind: "bip39", words: 12 })).value).toEqual(expected("bip39", 16));
    expect((await made({ kind: "bip39", words: 24 })).value).toEqual(expected("bip39", 32));
  });

  test("scalars are 48 bytes reduced to 1 … n-1; the public halves are those of noble and of node:crypto", async () => {
    for (const [kind, curve] of [
      ["secp256k1", secp256k1],
      ["p256", p256],
    ] as const) {
      const { value, public: open } = await made({ kind });
      const n = curve.Point.CURVE().n;
      const wide = BigInt(`0x${expected(kind, 48).toHex()}`);
      expect(BigInt(`0x${value.toHex()}`)).toBe((wide % (n - 1n)) + 1n);
      expect(open.publicKey).toEqual(curve.getPublicKey(value, true));
    }
    const { value, public: open } = await made({ kind: "ed25519" });
    expect(open.publicKey).toEqual(ed25519.getPublicKey(value));
    const pkcs8 = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), value]);
    const key = createPublicKey(createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" }));
    expect(Buffer.from(key.export({ format: "jwk" }).x ?? "", "base64url")).toEqual(Buffer.from(open.publicKey ?? []));
    const ec = await made({ kind: "p256" });
    const x = Buffer.from(ec.public.publicKey?.slice(1) ?? []).toString("base64url");
    const y = Buffer.from(p256.getPublicKey(ec.value, false).slice(33)).toString("base64url");
    const d = Buffer.from(ec.value).toString("base64url");
    const jwk = { kty: "EC", crv: "P-256", x, y, d };
    expect(createPrivateKey({ key: jwk, format: "jwk" }).asymmetricKeyDetails?.namedCurve).toBe("prime256v1");
  });

  test("an rsa key is that of the seed and the purpose", async () => {
    const { value, public: open } = await made({ kind: "rsa", bits: 2_048 });
    const purpose = canon("keyhold/v1/ceremony-rsa", RUN.ceremonyId, 2_048);
    expect(value).toEqual((await rsaFromSeed(expected("rsa", 64), purpose, 2_048)).value);
    expect(open.publicKey).toEqual(rsaPublicKey(value));
  });

  test("kinds that are no key pair have no public half", async () => {
    for (const spec of [TOTP, HOTP, { kind: "hedge" }, { kind: "bip39", words: 12 }] as const) {
      expect((await made(spec)).public).toEqual({ publicKey: null, descriptor: null, keys: [] });
    }
  });

  test("what is out of bounds is refused, before a key is touched", async () => {
    const bad: unknown[] = [
      { ...TOTP, digits: 5 },
      { ...TOTP, digits: 11 },
      { ...TOTP, period: 0 },
      { ...TOTP, period: 86_401 },
      { ...TOTP, algorithm: "MD5" },
      { ...TOTP, algorithm: "toString" },
      { ...HOTP, digits: 6.5 },
      { ...HOTP, label: "\ud800" },
      { kind: "bytes", length: 0 },
      { kind: "bytes", length: 1_025 },
      { kind: "bytes", length: 1.5 },
      { kind: "rsa", bits: 1_024 },
      { kind: "rsa", bits: 2_049 },
      { kind: "bip39", words: 15 },
      { kind: "multisig", threshold: 1, network: "mainnet" },
    ];
    for (const spec of bad) {
      const refusal = await makeOutput(spec as OutputSpec, KEY, RUN).catch((error: unknown) => error);
      expect([spec, refusal instanceof Fault && refusal.code]).toEqual([spec, "bad_input"]);
    }
    const short = await makeOutput({ kind: "hedge" }, new Uint8Array(63), RUN).catch((error: unknown) => error);
    expect(short).toBeInstanceOf(Fault);
  });

  test("a wallet has 2 to 15 participants and needs no more signatures than that", () => {
    const wallet = (threshold: number): OutputSpec => ({ kind: "multisig", threshold, network: "mainnet" });
    for (const [threshold, participants] of [
      [1, 2],
      [2, 2],
      [15, 15],
    ] as const) {
      checkOutput(wallet(threshold), participants);
    }
    for (const [threshold, participants] of [
      [0, 2],
      [3, 2],
      [1.5, 2],
      [2, 16],
    ] as const) {
      expect(() => checkOutput(wallet(threshold), participants)).toThrow(Fault);
    }
  });
});

describe("what vaults keep of it", () => {
  const kept = async (spec: OutputSpec) => secretOf(spec, (await made(spec)).value);
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

  test("a one-time password's URI with everything that the manifest said, a hotp from counter 0", async () => {
    for (const spec of [TOTP, HOTP, { ...TOTP, algorithm: "SHA256", digits: 8, period: 60 } as const]) {
      const { type, value } = await kept(spec);
      const key = parseOtpUri(text(value));
      expect(type).toBe(spec.kind);
      expect(key).toMatchObject({ ...spec, counter: 0 });
      expect(key.secret).toEqual((await made(spec)).value);
    }
  });

  test("its codes are those of RFC 4226 over the key", async () => {
    const { value } = await made(HOTP);
    const mac = createHmac("sha512", value).update(new Uint8Array(8)).digest();
    const at = (mac.at(-1) ?? 0) & 15;
    const code = ((mac.readUInt32BE(at) & 0x7fff_ffff) % 10 ** 8).toString().padStart(8, "0");
    const key = parseOtpUri(text((await kept(HOTP)).value));
    expect(otpCode(key, 0).code).toBe(code);
  });

  test("a mnemonic that the house's format reads back as the entropy", async () => {
    for (const words of [12, 24]) {
      const spec: OutputSpec = { kind: "bip39", words };
      const { type, value } = await kept(spec);
      expect(type).toBe("bip39");
      expect(text(value).split(" ")).toHaveLength(words);
      const { items } = await bip39.read(value, { name: "wallet" } as never);
      expect(items[0]?.value).toEqual((await made(spec)).value);
    }
  });

  test("key pairs as generate makes them; bytes and hedges as bytes; a copy each", async () => {
    for (const kind of ["secp256k1", "p256", "ed25519"] as const) {
      const { type, value } = await kept({ kind });
      const { public: open } = await made({ kind });
      expect(type).toBe(kind);
      expect(publicKeyOf(type, value)).toEqual(open.publicKey);
    }
    const source = (await made({ kind: "hedge" })).value;
    const { type, value } = secretOf({ kind: "hedge" }, source);
    expect([type, value]).toEqual(["bytes", source]);
    source.fill(0);
    expect(value).not.toEqual(source);
  });

  test("a value of another kind is refused, and a wallet has none", async () => {
    const value = new Uint8Array(31).fill(1);
    for (const [, spec] of SPECS) expect(() => secretOf(spec, value)).toThrow(Fault);
    expect(() => secretOf({ kind: "secp256k1" }, new Uint8Array(32))).toThrow(Fault);
    expect(() => secretOf({ kind: "multisig", threshold: 1, network: "mainnet" }, value)).toThrow(Fault);
  });
});
