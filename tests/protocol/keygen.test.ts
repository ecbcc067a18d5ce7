import { describe, expect, test } from "bun:test";
import { createHash, createPrivateKey, createPublicKey, diffieHellman, randomBytes, sign, verify } from "node:crypto";
import { x25519 } from "@noble/curves/ed25519.js";
import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import fc from "fast-check";
import wordlist from "../../src/crypto/eff_large_wordlist.txt" with { type: "text" };
import { generateRsa, rsaPublicKey } from "../../src/crypto/rsa.ts";
import { EFF_WORDS } from "../../src/crypto/wordlist.ts";
import { asId, type KeyId, type UserId } from "../../src/ids.ts";
import {
  deriveGenerated,
  generateValue,
  publicKeyOf,
  resolveLength,
  type SeededType,
} from "../../src/protocol/keygen.ts";
import { GENERATED_TYPES, type SecretType } from "../../src/protocol/secrettype.ts";
import vectors from "../vectors/keygen.json" with { type: "json" };

const BAD = { name: "Fault", code: "bad_input" };
const SEEDED = GENERATED_TYPES.filter((type) => type !== "rsa") as SeededType[];
const seed = fc.uint8Array({ minLength: 32, maxLength: 32 });
const hex = (text: string) => Uint8Array.fromHex(text);
const text = (value: Uint8Array) => new TextDecoder("utf-8", { fatal: true }).decode(value);
const USER = asId<UserId>("00112233445566778899aabbccddeeff");
const KEY = asId<KeyId>("ffeeddccbbaa99887766554433221100");

describe("vectors", () => {
  for (const v of vectors.values) {
    test(`${v.type} ${v.length} from ${v.seedHex.slice(0, 8)}…`, () => {
      expect(generateValue(v.type as SeededType, hex(v.seedHex), v.length).value.toHex()).toBe(v.valueHex);
    });
  }

  for (const v of vectors.derived) {
    test(`seed key of ${v.type} ${v.length}`, () => {
      const [user, key] = [asId<UserId>(v.userId), asId<KeyId>(v.keyId)];
      const made = deriveGenerated(hex(v.rSHex), hex(v.rCHex), user, key, v.type as SeededType, v.length);
      expect(made.toHex()).toBe(v.seedHex);
    });
  }
});

describe("deriveGenerated", () => {
  const [a, b] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];

  test("every input changes the seed key", () => {
    const base: Parameters<typeof deriveGenerated> = [a, b, USER, KEY, "bytes", 32];
    const others: Parameters<typeof deriveGenerated>[] = [
      [b, b, USER, KEY, "bytes", 32],
      [a, a, USER, KEY, "bytes", 32],
      [a, b, asId<UserId>(KEY), KEY, "bytes", 32],
      [a, b, USER, asId<KeyId>(USER), "bytes", 32],
      [a, b, USER, KEY, "token", 32],
      [a, b, USER, KEY, "bytes", 33],
    ];
    const made = [base, ...others].map((inputs) => deriveGenerated(...inputs).toHex());
    expect(new Set(made).size).toBe(7);
    expect(deriveGenerated(a, b, USER, KEY, "bytes", null)).toEqual(deriveGenerated(...base));
  });

  test("refuses random inputs that are not 32 bytes", () => {
    for (const length of [0, 31, 33]) {
      const wrong = new Uint8Array(length);
      expect(() => deriveGenerated(wrong, b, USER, KEY, "bytes", null)).toThrow(expect.objectContaining(BAD));
      expect(() => deriveGenerated(a, wrong, USER, KEY, "bytes", null)).toThrow(expect.objectContaining(BAD));
    }
  });
});

describe("uniformity", () => {
  const drawn = Array.from(
    { length: 10_000 },
    () =>
      generateValue("bytes", deriveGenerated(randomBytes(32), randomBytes(32), USER, KEY, "bytes", null), null).value,
  );

  test("10,000 draws do not repeat", () => {
    expect(new Set(drawn.map((value) => value.toHex())).size).toBe(10_000);
  });

  test("monobit and runs over 2,560,000 bits stay within 6 sigma (SP 800-22 §2.1, §2.3)", () => {
    let ones = 0;
    let runs = 1;
    let before = -1;
    const bits = 10_000 * 256;
    for (const value of drawn) {
      for (const byte of value) {
        for (let i = 7; i >= 0; i--) {
          const bit = (byte >> i) & 1;
          ones += bit;
          if (before >= 0 && bit !== before) runs++;
          before = bit;
        }
      }
    }
    expect(Math.abs(2 * ones - bits) / Math.sqrt(bits)).toBeLessThan(6);
    const share = ones / bits;
    const expected = 2 * bits * share * (1 - share);
    expect(Math.abs(runs - expected) / (2 * Math.sqrt(bits) * share * (1 - share))).toBeLessThan(6);
  });

  test("digits, password characters and words are equally likely (chi-square within 6 sigma)", () => {
    const key = (i: number) => new Uint8Array(createHash("sha256").update(`uniform ${i}`).digest());
    const counts = (values: string[]) => {
      const table = new Map<string, number>();
      for (const value of values) table.set(value, (table.get(value) ?? 0) + 1);
      return table;
    };
    const chi = (values: string[], cells: number) => {
      const table = counts(values);
      expect(table.size).toBeLessThanOrEqual(cells);
      const expected = values.length / cells;
      let sum = (cells - table.size) * expected;
      for (const count of table.values()) sum += (count - expected) ** 2 / expected;
      return (sum - (cells - 1)) / Math.sqrt(2 * (cells - 1));
    };
    const all = (type: SeededType, length: number, count: number) =>
      Array.from({ length: count }, (_, i) => text(generateValue(type, key(i), length).value));
    expect(Math.abs(chi(all("pin", 64, 500).join("").split(""), 10))).toBeLessThan(6);
    expect(Math.abs(chi(all("password", 1_024, 100).join("").split(""), 70))).toBeLessThan(6);
    expect(Math.abs(chi(all("passphrase", 64, 1_500).flatMap(wordsOf), 7_776))).toBeLessThan(6);
  });
});

describe("lengths", () => {
  const bounds: [SeededType, number, number, number][] = [
    ["bytes", 32, 1, 65_536],
    ["password", 24, 8, 1_024],
    ["passphrase", 6, 4, 64],
    ["pin", 6, 4, 64],
    ["token", 32, 16, 1_024],
  ];

  test.each(bounds)("%s: default %i, %i to %i", (type, preset, min, max) => {
    const key = new Uint8Array(32).fill(9);
    const size = (value: Uint8Array) =>
      type === "passphrase"
        ? wordsOf(text(value)).length
        : type === "token"
          ? Uint8Array.fromBase64(text(value), { alphabet: "base64url" }).length
          : value.length;
    expect(resolveLength(type, null)).toBe(preset);
    expect(generateValue(type, key, null)).toEqual(generateValue(type, key, preset));
    for (const length of [min, preset, max]) expect(size(generateValue(type, key, length).value)).toBe(length);
    for (const length of [min - 1, max + 1, -1, 0, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => generateValue(type, key, length)).toThrow(expect.objectContaining(BAD));
    }
  });

  test("types of one size refuse a length, notes are not generated, rsa has three sizes", () => {
    for (const type of ["uuid", "secp256k1", "p256", "ed25519", "x25519"] as const) {
      expect(resolveLength(type, null)).toBeNull();
      expect(() => resolveLength(type, 32)).toThrow(expect.objectContaining(BAD));
    }
    expect(() => resolveLength("note", null)).toThrow(expect.objectContaining(BAD));
    expect([null, 2_048, 3_072, 4_096].map((bits) => resolveLength("rsa", bits))).toEqual([3_072, 2_048, 3_072, 4_096]);
    for (const bits of [0, 1_024, 3_073, 8_192]) {
      expect(() => resolveLength("rsa", bits)).toThrow(expect.objectContaining(BAD));
    }
  });

  test("refuses a seed key that is not 32 bytes", () => {
    for (const length of [0, 31, 33, 64]) {
      expect(() => generateValue("bytes", new Uint8Array(length), null)).toThrow(expect.objectContaining(BAD));
    }
  });
});

describe("shapes", () => {
  test("text types have the documented form and every password each class", () => {
    const forms: [SeededType, RegExp][] = [
      ["password", /^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?=.*[-_.!@#%+])[A-Za-z0-9_.!@#%+-]{24}$/],
      ["pin", /^\d{6}$/],
      ["token", /^[A-Za-z0-9_-]{43}$/],
      ["uuid", /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/],
      ["passphrase", /^[a-z]+(-[a-z]+){5,11}$/],
    ];
    for (const [type, form] of forms) {
      fc.assert(
        fc.property(seed, (key) => {
          expect(text(generateValue(type, key, null).value)).toMatch(form);
        }),
      );
    }
    fc.assert(
      fc.property(seed, (key) => {
        expect(text(generateValue("password", key, 8).value)).toMatch(
          /^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?=.*[-_.!@#%+]).{8}$/,
        );
      }),
    );
  });

  test("the same seed key gives the same value, and is neither kept nor changed", () => {
    fc.assert(
      fc.property(seed, fc.constantFrom(...SEEDED), (key, type) => {
        const before = key.slice();
        const first = generateValue(type, key, null);
        expect(generateValue(type, key, null)).toEqual(first);
        first.value.fill(0);
        expect(key).toEqual(before);
      }),
    );
  });

  test("the word list is EFF's, whole and without repetition", () => {
    expect(createHash("sha256").update(wordlist).digest("hex")).toBe(
      "addd35536511597a02fa0a9ff1e5284677b8883b83e986e43f15a3db996b903e",
    );
    expect(EFF_WORDS.length).toBe(7_776);
    expect(new Set(EFF_WORDS).size).toBe(7_776);
    expect(EFF_WORDS.every((word) => /^[a-z]{1,9}(-[a-z]{2,5})?$/.test(word))).toBe(true);
  });
});

describe("generated keys work elsewhere", () => {
  const message = new TextEncoder().encode("a message");

  test("ed25519 signs with the platform", () => {
    fc.assert(
      fc.property(seed, (key) => {
        const { value, publicKey } = generateValue("ed25519", key, null);
        const open = { kty: "OKP", crv: "Ed25519", x: b64(publicKey) };
        const privateKey = createPrivateKey({ key: { ...open, d: b64(value) }, format: "jwk" });
        const signature = sign(null, message, privateKey);
        expect(verify(null, message, createPublicKey({ key: open, format: "jwk" }), signature)).toBe(true);
      }),
      { numRuns: 20 },
    );
  });

  test("x25519 agrees with the platform", () => {
    const alice = generateValue("x25519", new Uint8Array(32).fill(1), null);
    const bob = generateValue("x25519", new Uint8Array(32).fill(2), null);
    const key = { kty: "OKP", crv: "X25519", x: b64(alice.publicKey), d: b64(alice.value) };
    const other = { kty: "OKP", crv: "X25519", x: b64(bob.publicKey) };
    const shared = diffieHellman({
      privateKey: createPrivateKey({ key, format: "jwk" }),
      publicKey: createPublicKey({ key: other, format: "jwk" }),
    });
    expect(new Uint8Array(shared)).toEqual(x25519.getSharedSecret(bob.value, alice.publicKey ?? new Uint8Array()));
  });

  test("p256 signs with the platform and verifies under the compressed public key", () => {
    fc.assert(
      fc.property(seed, (key) => {
        const { value, publicKey } = generateValue("p256", key, null);
        if (!publicKey) throw new Error("no public key");
        expect(publicKey.length).toBe(33);
        const point = p256.Point.fromBytes(publicKey).toBytes(false);
        const jwk = { kty: "EC", crv: "P-256", x: b64(point.slice(1, 33)), y: b64(point.slice(33)), d: b64(value) };
        const signature = sign("sha256", message, {
          key: createPrivateKey({ key: jwk, format: "jwk" }),
          dsaEncoding: "ieee-p1363",
        });
        expect(p256.verify(signature, message, publicKey, { lowS: false })).toBe(true);
      }),
      { numRuns: 20 },
    );
  });

  test("secp256k1 signs and verifies under the compressed public key", () => {
    fc.assert(
      fc.property(seed, (key) => {
        const { value, publicKey } = generateValue("secp256k1", key, null);
        if (!publicKey) throw new Error("no public key");
        expect(publicKey.length).toBe(33);
        expect(secp256k1.verify(secp256k1.sign(message, value), message, publicKey)).toBe(true);
      }),
      { numRuns: 20 },
    );
  });

  test("rsa of 2,048 bits signs with the platform; two keys differ", async () => {
    const [one, two] = [await generateRsa(2_048), await generateRsa(2_048)];
    expect(one.value).not.toEqual(two.value);
    expect(rsaPublicKey(one.value)).toEqual(one.publicKey);
    const privateKey = createPrivateKey({ key: Buffer.from(one.value), format: "der", type: "pkcs8" });
    const publicKey = createPublicKey({ key: Buffer.from(one.publicKey), format: "der", type: "spki" });
    expect(publicKey.asymmetricKeyDetails?.modulusLength).toBe(2_048);
    expect(verify("sha256", message, publicKey, sign("sha256", message, privateKey))).toBe(true);
  });

  test("rsa has 3,072 bits by default", async () => {
    const { publicKey } = await generateRsa();
    const key = createPublicKey({ key: Buffer.from(publicKey), format: "der", type: "spki" });
    expect(key.asymmetricKeyDetails?.modulusLength).toBe(3_072);
  });
});

describe("publicKeyOf", () => {
  const n = {
    secp256k1: "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
    p256: "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
  };

  test.each(["secp256k1", "p256"] as const)("%s takes 1 and n-1 and refuses 0, n and other lengths", (type) => {
    const order = BigInt(`0x${n[type]}`);
    const scalar = (value: bigint) => hex(value.toString(16).padStart(64, "0"));
    for (const value of [1n, order - 1n]) expect(publicKeyOf(type, scalar(value))?.length).toBe(33);
    const wrong = [scalar(0n), scalar(order), scalar(order + 1n), hex("ff".repeat(32)), new Uint8Array(31).fill(1)];
    for (const value of [...wrong, new Uint8Array(33).fill(1), new Uint8Array(0)]) {
      expect(() => publicKeyOf(type, value)).toThrow(expect.objectContaining(BAD));
    }
  });

  test.each(["ed25519", "x25519"] as const)("%s takes 32 bytes only", (type) => {
    expect(publicKeyOf(type, new Uint8Array(32))?.length).toBe(32);
    for (const length of [0, 31, 33, 64]) {
      expect(() => publicKeyOf(type, new Uint8Array(length))).toThrow(expect.objectContaining(BAD));
    }
  });

  test("ed25519 gives the public key of RFC 8032 §7.1 test 1", () => {
    const value = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    expect(publicKeyOf("ed25519", value)?.toHex()).toBe(
      "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    );
  });

  test("x25519 gives the result of the first iteration of RFC 7748 §5.2", () => {
    const value = hex(`09${"00".repeat(31)}`);
    expect(publicKeyOf("x25519", value)?.toHex()).toBe(
      "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
    );
  });

  test("types that are no keys have no public key", () => {
    const others: SecretType[] = ["bytes", "password", "passphrase", "pin", "token", "uuid", "note"];
    for (const type of others) expect(publicKeyOf(type, Uint8Array.of(1))).toBeNull();
  });

  test("a fault never holds the value", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 33, maxLength: 40 }), fc.constantFrom("p256", "rsa"), (value, type) => {
        try {
          publicKeyOf(type as SecretType, value);
          throw new Error("accepted");
        } catch (error) {
          expect(error).toMatchObject(BAD);
          expect(JSON.stringify(error, ["message", "why", "hint"])).not.toContain(value.toHex());
        }
      }),
    );
  });
});

/** Splits at hyphens, except inside the four words that have one. */
function wordsOf(passphrase: string): string[] {
  const inner = /\b(drop)-(down)(?=-|$)|\b(felt)-(tip)(?=-|$)|\b(t)-(shirt)(?=-|$)|\b(yo)-(yo)(?=-|$)/g;
  return passphrase.replace(inner, (word) => word.replace("-", "_")).split("-");
}

function b64(bytes: Uint8Array | null): string {
  return Buffer.from(bytes ?? new Uint8Array()).toString("base64url");
}
