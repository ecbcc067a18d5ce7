import { describe, expect, test } from "bun:test";
import { argon2 as nodeArgon2 } from "node:crypto";
import { argon2id as nobleArgon2id } from "@noble/hashes/argon2.js";
import { hkdf as nobleHkdf } from "@noble/hashes/hkdf.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 as nobleSha256, sha512 } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { canon } from "../../src/crypto/canon.ts";
import { argon2id, deriveKey, hashCanon, macCanon, sha256 } from "../../src/crypto/kdf.ts";
import { KDF } from "../../src/protocol/defaults.ts";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const range = (from: number, to: number): Uint8Array => Uint8Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe("SHA-256", () => {
  // FIPS 180-4 examples (NIST CSRC, "SHA256.pdf")
  test.each([
    ["", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    ["abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
    [
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ],
  ])("of %p", (text, digest) => {
    expect(sha256(utf8(text)).toHex()).toBe(digest);
  });

  test("hashCanon is SHA-256 of the canonical encoding", () => {
    fc.assert(
      fc.property(fc.string(), fc.uint8Array(), fc.maxSafeNat(), (label, bytes, n) => {
        fc.pre(label.isWellFormed());
        expect(hashCanon(label, bytes, n)).toEqual(nobleSha256(canon(label, bytes, n)));
      }),
    );
  });
});

test("macCanon is HMAC-SHA-256 over the canonical encoding", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 150 }), fc.uint8Array(), (key, bytes) => {
      expect(macCanon(key, "label", bytes)).toEqual(hmac(nobleSha256, key, canon("label", bytes)));
    }),
  );
  const key = new Uint8Array(32);
  expect(macCanon(key, "a", "b")).not.toEqual(macCanon(key, "a", "c"));
  expect(macCanon(key, "a", "b")).not.toEqual(macCanon(key, "b", "b"));
});

describe("HKDF-SHA-512", () => {
  /**
   * The inputs of RFC 5869 A.1 to A.3 under SHA-512, from brycx/Test-Vector-Generation
   * (HKDF/hkdf-hmac-sha2-test-vectors.md). `deriveKey` always puts canon(…) into info, so they judge the reference,
   * and the reference judges it.
   */
  test.each([
    {
      ikm: new Uint8Array(22).fill(0x0b),
      salt: range(0x00, 0x0c),
      info: range(0xf0, 0xf9),
      okm: "832390086cda71fb47625bb5ceb168e4c8e26a1a16ed34d9fc7fe92c1481579338da362cb8d9f925d7cb",
    },
    {
      ikm: range(0x00, 0x4f),
      salt: range(0x60, 0xaf),
      info: range(0xb0, 0xff),
      okm:
        "ce6c97192805b346e6161e821ed165673b84f400a2b514b2fe23d84cd189ddf1b695b48cbd1c8388441137b3ce28f16aa64ba33ba466" +
        "b24df6cfcb021ecff235f6a2056ce3af1de44d572097a8505d9e7a93",
    },
    {
      ikm: new Uint8Array(22).fill(0x0b),
      salt: new Uint8Array(0),
      info: new Uint8Array(0),
      okm: "f5fa02b18298a72a8c23898a8703472c6eb179dc204c03425c970e3b164bf90fff22d04836d0e2343bac",
    },
  ])("the reference reproduces vector %#", ({ ikm, salt, info, okm }) => {
    expect(nobleHkdf(sha512, ikm, salt, info, okm.length / 2).toHex()).toBe(okm);
  });

  test("deriveKey is the reference with info = canon(label, …parts)", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.uint8Array({ maxLength: 200 }),
        fc.integer({ min: 1, max: 300 }),
        fc.string({ unit: "grapheme" }),
        (ikm, salt, length, part) => {
          const made = deriveKey(ikm, length, salt, "keyhold/test", part, 7);
          expect(made).toEqual(nobleHkdf(sha512, ikm, salt, canon("keyhold/test", part, 7), length));
        },
      ),
    );
  });

  test("label, each part, salt, input and the split between them all matter", () => {
    const ikm = new Uint8Array(32).fill(1);
    const salt = new Uint8Array(32).fill(2);
    const made = [
      deriveKey(ikm, 32, salt, "a"),
      deriveKey(ikm, 32, salt, "b"),
      deriveKey(ikm, 32, salt, "a", ""),
      deriveKey(ikm, 32, salt, "a", "b"),
      deriveKey(ikm, 32, salt, "ab"),
      deriveKey(ikm, 32, salt, "a", "b", "c"),
      deriveKey(ikm, 32, salt, "a", "bc"),
      deriveKey(salt, 32, ikm, "a"),
      deriveKey(ikm, 32, new Uint8Array(0), "a"),
    ].map((key) => key.toHex());
    expect(new Set(made).size).toBe(made.length);
  });

  test("gives up to 16,320 bytes and refuses more", () => {
    const ikm = new Uint8Array(32);
    expect(deriveKey(ikm, 16_320, ikm, "x")).toEqual(nobleHkdf(sha512, ikm, ikm, canon("x"), 16_320));
    expect(() => deriveKey(ikm, 16_321, ikm, "x")).toThrow(RangeError);
  });
});

describe("Argon2id", () => {
  /** RFC 9106 §5.3. The tag needs a secret and associated data, which `argon2id` leaves empty. */
  const rfc = {
    password: new Uint8Array(32).fill(1),
    salt: new Uint8Array(16).fill(2),
    secret: new Uint8Array(8).fill(3),
    associatedData: new Uint8Array(12).fill(4),
    tag: "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659",
  };

  test("the platform's implementation reproduces RFC 9106 §5.3", async () => {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    const parameters = {
      message: rfc.password,
      nonce: rfc.salt,
      secret: rfc.secret,
      associatedData: rfc.associatedData,
      parallelism: 4,
      tagLength: 32,
      memory: 32,
      passes: 3,
    };
    nodeArgon2("argon2id", parameters, (error, key) => (error ? reject(error) : resolve(new Uint8Array(key))));
    expect((await promise).toHex()).toBe(rfc.tag);
  });

  test("so does the reference", () => {
    const made = nobleArgon2id(rfc.password, rfc.salt, {
      m: 32,
      t: 3,
      p: 4,
      dkLen: 32,
      key: rfc.secret,
      personalization: rfc.associatedData,
    });
    expect(made.toHex()).toBe(rfc.tag);
  });

  test("argon2id agrees with the reference", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 100 }),
        fc.uint8Array({ minLength: 16, maxLength: 48 }),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 4, max: 100 }),
        async (password, salt, passes, lanes, length) => {
          const made = await argon2id(password, salt, { memoryKib: 32 * lanes, passes, lanes }, length);
          expect(made).toEqual(nobleArgon2id(password, salt, { m: 32 * lanes, t: passes, p: lanes, dkLen: length }));
        },
      ),
      { numRuns: 20 },
    );
  });

  test("password, salt, each cost and the length all matter", async () => {
    const password = utf8("password");
    const salt = new Uint8Array(16).fill(1);
    const base = { memoryKib: 64, passes: 1, lanes: 1 };
    const made = await Promise.all([
      argon2id(password, salt, base, 32),
      argon2id(utf8("Password"), salt, base, 32),
      argon2id(password, new Uint8Array(16), base, 32),
      argon2id(password, salt, { ...base, memoryKib: 72 }, 32),
      argon2id(password, salt, { ...base, passes: 2 }, 32),
      argon2id(password, salt, { ...base, lanes: 2 }, 32),
      argon2id(password, salt, base, 33).then((key) => key.subarray(0, 32)),
    ]);
    expect(new Set(made.map((key) => key.toHex())).size).toBe(made.length);
  });

  test.each([
    ["no passes", 16, { memoryKib: 64, passes: 0, lanes: 1 }],
    ["too little memory", 16, { memoryKib: 1, passes: 1, lanes: 1 }],
    ["no lanes", 16, { memoryKib: 64, passes: 1, lanes: 0 }],
    ["a short salt", 7, { memoryKib: 64, passes: 1, lanes: 1 }],
  ])("rejects %s", async (_, saltLength, cost) => {
    await expect(argon2id(utf8("p"), new Uint8Array(saltLength), cost, 32)).rejects.toThrow();
  });

  test("the settings are ordered: floors below defaults below the ceiling", () => {
    expect(KDF.opaque).toEqual({ memoryKib: 65_536, passes: 3, lanes: 4 });
    for (const key of ["memoryKib", "passes", "lanes"] as const) {
      expect(KDF.vaultSmall[key]).toBeLessThanOrEqual(KDF.vault[key]);
      expect(KDF.vault[key]).toBeLessThanOrEqual(KDF.vaultCeiling[key]);
      expect(KDF.test[key]).toBeLessThan(KDF.opaque[key]);
    }
  });
});
