import { describe, expect, test } from "bun:test";
import { gcm } from "@noble/ciphers/aes.js";
import { shake128 } from "@noble/hashes/sha3.js";
import fc from "fast-check";
import { XAES, xaesOpen, xaesSeal } from "../../src/crypto/xaes.ts";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const NONCE = utf8("ABCDEFGHIJKLMNOPQRSTUVWX");

/** C2SP xaes-256-gcm, "Test vectors": one key whose L has its top bit clear, one where it is set. */
const VECTORS = [
  {
    key: new Uint8Array(32).fill(1),
    derived: "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
    aad: "",
    sealed: "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
  },
  {
    key: new Uint8Array(32).fill(3),
    derived: "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
    aad: "c2sp.org/XAES-256-GCM",
    sealed: "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
  },
] as const;

describe("C2SP vectors", () => {
  test.each(VECTORS)("seals and opens %#", ({ key, aad, sealed, derived }) => {
    expect(xaesSeal(key, NONCE, utf8(aad), utf8("XAES-256-GCM")).toHex()).toBe(sealed);
    expect(xaesOpen(key, NONCE, utf8(aad), Uint8Array.fromHex(sealed))).toEqual(utf8("XAES-256-GCM"));
    // the derived key K_x under an independent AES-256-GCM
    const inner = gcm(Uint8Array.fromHex(derived), NONCE.subarray(12), utf8(aad));
    expect(inner.encrypt(utf8("XAES-256-GCM")).toHex()).toBe(sealed);
  });

  test("accumulated randomized: 10,000 iterations", () => {
    const source = shake128.create({});
    const sum = shake128.create({ dkLen: 32 });
    for (let i = 0; i < 10_000; i++) {
      const key = source.xof(32);
      const nonce = source.xof(24);
      const plaintext = source.xof(source.xof(1)[0] ?? 0);
      const aad = source.xof(source.xof(1)[0] ?? 0);
      const sealed = xaesSeal(key, nonce, aad, plaintext);
      const opened = xaesOpen(key, nonce, aad, sealed);
      if (!opened || Buffer.compare(opened, plaintext) !== 0) throw new Error(`iteration ${i} does not open`);
      sum.update(sealed);
    }
    expect(sum.digest().toHex()).toBe("e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
  }, 30_000);
});

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const caseArbitrary = fc.record({
  key: bytes(32),
  nonce: bytes(24),
  aad: fc.uint8Array({ maxLength: 40 }),
  plaintext: fc.uint8Array({ maxLength: 100 }),
});

test("opens what it sealed, 16 bytes longer", () => {
  fc.assert(
    fc.property(caseArbitrary, ({ key, nonce, aad, plaintext }) => {
      const sealed = xaesSeal(key, nonce, aad, plaintext);
      expect(sealed.length).toBe(plaintext.length + XAES.tagBytes);
      expect(xaesOpen(key, nonce, aad, sealed)).toEqual(plaintext);
    }),
  );
});

test("any flipped bit of key, nonce, AAD or ciphertext is refused", () => {
  fc.assert(
    fc.property(caseArbitrary, fc.nat(), ({ key, nonce, aad, plaintext }, at) => {
      const sealed = xaesSeal(key, nonce, aad, plaintext);
      const flip = (value: Uint8Array): Uint8Array => {
        const out = value.slice();
        const bit = at % (out.length * 8);
        out[bit >> 3] = (out[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        return out;
      };
      expect(xaesOpen(flip(key), nonce, aad, sealed)).toBeUndefined();
      expect(xaesOpen(key, flip(nonce), aad, sealed)).toBeUndefined();
      expect(xaesOpen(key, nonce, aad, flip(sealed))).toBeUndefined();
      if (aad.length > 0) expect(xaesOpen(key, nonce, flip(aad), sealed)).toBeUndefined();
      expect(xaesOpen(key, nonce, Uint8Array.of(...aad, 0), sealed)).toBeUndefined();
    }),
  );
});

test("every truncation and any extension is refused", () => {
  const sealed = xaesSeal(new Uint8Array(32), NONCE, utf8("aad"), utf8("a plaintext"));
  for (let length = 0; length < sealed.length; length++) {
    expect(xaesOpen(new Uint8Array(32), NONCE, utf8("aad"), sealed.subarray(0, length))).toBeUndefined();
    if (length > 0) {
      expect(xaesOpen(new Uint8Array(32), NONCE, utf8("aad"), sealed.subarray(length))).toBeUndefined();
    }
  }
  expect(xaesOpen(new Uint8Array(32), NONCE, utf8("aad"), Uint8Array.of(...sealed, 0))).toBeUndefined();
});

test.each([0, 16, 24, 31, 33, 64])("a key of %d bytes is a caller's bug", (length) => {
  expect(() => xaesSeal(new Uint8Array(length), NONCE, utf8(""), utf8(""))).toThrow(RangeError);
  expect(() => xaesOpen(new Uint8Array(length), NONCE, utf8(""), new Uint8Array(16))).toThrow(RangeError);
});

test.each([0, 12, 23, 25])("a nonce of %d bytes is a caller's bug", (length) => {
  expect(() => xaesSeal(new Uint8Array(32), new Uint8Array(length), utf8(""), utf8(""))).toThrow(RangeError);
  expect(() => xaesOpen(new Uint8Array(32), new Uint8Array(length), utf8(""), new Uint8Array(16))).toThrow(RangeError);
});

test("leaves its arguments as they were", () => {
  const key = new Uint8Array(32).fill(5);
  const nonce = NONCE.slice();
  const plaintext = utf8("plain");
  const sealed = xaesSeal(key, nonce, utf8("aad"), plaintext);
  const copy = sealed.slice();
  xaesOpen(key, nonce, utf8("aad"), sealed);
  expect([key, nonce, plaintext, sealed]).toEqual([new Uint8Array(32).fill(5), NONCE, utf8("plain"), copy]);
});
