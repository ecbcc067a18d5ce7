import { describe, expect, test } from "bun:test";
import { createPublicKey } from "node:crypto";
import { ed25519 } from "@noble/curves/ed25519.js";
import fc from "fast-check";
import { ED25519, signerFromSeed, spkiOf, verifyAhead, verifySignature } from "../../src/crypto/identity.ts";
import { bytesOf } from "../support/arbitraries.ts";

const hex = (text: string): Uint8Array => Uint8Array.fromHex(text);

/** RFC 8032 §7.1: TEST 1, 2, 3 and SHA(abc). */
const RFC_8032 = [
  {
    seed: "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    publicKey: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    message: "",
    signature:
      "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
  },
  {
    seed: "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    publicKey: "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    message: "72",
    signature:
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
  },
  {
    seed: "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    publicKey: "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    message: "af82",
    signature:
      "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
  },
  {
    seed: "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
    publicKey: "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
    message:
      "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    signature:
      "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
  },
] as const;

test.each(RFC_8032)("RFC 8032 §7.1 vector %#", ({ seed, publicKey, message, signature }) => {
  const signer = signerFromSeed(hex(seed));
  expect(signer.publicKey.toHex()).toBe(publicKey);
  expect(signer.sign(hex(message)).toHex()).toBe(signature);
  expect(verifySignature(hex(publicKey), hex(message), hex(signature))).toBe(true);
});

test("keys and signatures are those of @noble/curves", () => {
  fc.assert(
    fc.property(bytesOf(32), fc.uint8Array({ maxLength: 200 }), (seed, message) => {
      const signer = signerFromSeed(seed);
      expect(signer.publicKey).toEqual(ed25519.getPublicKey(seed));
      expect(signer.sign(message)).toEqual(ed25519.sign(message, seed));
      expect(verifySignature(signer.publicKey, message, ed25519.sign(message, seed))).toBe(true);
    }),
    { numRuns: 30 },
  );
});

test("wiping the seed afterwards does not hurt the signer", () => {
  const seed = hex(RFC_8032[1].seed);
  const signer = signerFromSeed(seed);
  seed.fill(0);
  expect(signer.sign(hex("72")).toHex()).toBe(RFC_8032[1].signature);
});

test.each([0, 31, 33, 64])("a seed of %d bytes is a caller's bug", (length) => {
  expect(() => signerFromSeed(new Uint8Array(length))).toThrow(RangeError);
});

/** The value with each of its bits flipped. */
const flips = (value: Uint8Array): Uint8Array[] =>
  Array.from({ length: value.length * 8 }, (_, bit) => {
    const out = value.slice();
    out[bit >> 3] = (out[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    return out;
  });

describe("verifySignature says no to", () => {
  const { publicKey, message, signature } = RFC_8032[2];
  const key = hex(publicKey);
  const text = hex(message);
  const good = hex(signature);

  test("every flipped bit of signature, key or message", () => {
    for (const other of flips(good)) expect(verifySignature(key, text, other)).toBe(false);
    for (const other of flips(key)) expect(verifySignature(other, text, good)).toBe(false);
    for (const other of flips(text)) expect(verifySignature(key, other, good)).toBe(false);
    expect(verifySignature(key, text, good)).toBe(true);
  });

  test("wrong lengths, without throwing", () => {
    for (const length of [0, 31, 33, 64]) expect(verifySignature(new Uint8Array(length), text, good)).toBe(false);
    for (const length of [0, 32, 63, 65]) expect(verifySignature(key, text, new Uint8Array(length))).toBe(false);
    expect(verifySignature(key, text, Uint8Array.of(...good, 0))).toBe(false);
  });

  test("a key that is no point", () => {
    const none = new Uint8Array(32).fill(0xff);
    expect(verifySignature(none, text, good)).toBe(false);
    const y2 = new Uint8Array(32);
    y2[0] = 2; // y = 2 has no x on the curve
    expect(verifySignature(y2, text, good)).toBe(false);
  });

  test("the same signature with the group order added to S (RFC 8032 §5.1.7)", () => {
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    const s = good.slice(32).reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n);
    const other = good.slice();
    for (let i = 32, rest = s + order; i < 64; i++, rest >>= 8n) other[i] = Number(rest & 255n);
    expect(verifySignature(key, text, other)).toBe(false);
  });

  test("another key's signature, also after both keys were seen", () => {
    const a = signerFromSeed(new Uint8Array(32).fill(1));
    const b = signerFromSeed(new Uint8Array(32).fill(2));
    expect(verifySignature(a.publicKey, text, a.sign(text))).toBe(true);
    expect(verifySignature(b.publicKey, text, b.sign(text))).toBe(true);
    expect(verifySignature(a.publicKey, text, b.sign(text))).toBe(false);
    expect(verifySignature(b.publicKey, text, a.sign(text))).toBe(false);
  });
});

test("changing a key's buffer after a verification does not change what was remembered", () => {
  const signer = signerFromSeed(new Uint8Array(32).fill(3));
  const other = signerFromSeed(new Uint8Array(32).fill(4));
  const message = Uint8Array.of(1, 2, 3);
  const buffer = signer.publicKey.slice();
  expect(verifySignature(buffer, message, signer.sign(message))).toBe(true);
  buffer.set(other.publicKey);
  expect(verifySignature(buffer, message, signer.sign(message))).toBe(false);
  expect(verifySignature(buffer, message, other.sign(message))).toBe(true);
});

test("spkiOf is what the platform writes", () => {
  fc.assert(
    fc.property(bytesOf(32), (seed) => {
      const { publicKey } = signerFromSeed(seed);
      const spki = spkiOf(publicKey);
      expect(spki.length).toBe(44);
      const key = createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
      expect(key.asymmetricKeyType).toBe("ed25519");
      expect(key.export({ format: "jwk" })).toMatchObject({ crv: "Ed25519", kty: "OKP" });
      expect(key.export({ format: "der", type: "spki" }).toHex()).toBe(spki.toHex());
    }),
    { numRuns: 20 },
  );
  expect(ED25519).toEqual({ seedBytes: 32, publicBytes: 32, signatureBytes: 64 });
});

describe("verifyAhead", () => {
  const signer = signerFromSeed(new Uint8Array(32).fill(5));
  const other = signerFromSeed(new Uint8Array(32).fill(6));
  const message = new TextEncoder().encode("the next state");
  const signature = signer.sign(message);

  test("changes no answer: what holds holds, twice, and nothing else does", async () => {
    await verifyAhead(signer.publicKey, message, signature);
    for (const [key, text] of [
      [other.publicKey, message],
      [signer.publicKey, new TextEncoder().encode("another state")],
      [signer.publicKey, new Uint8Array(0)],
    ] as const) {
      expect(verifySignature(key, text, signature)).toBe(false);
    }
    for (const flipped of flips(signature)) expect(verifySignature(signer.publicKey, message, flipped)).toBe(false);
    expect(verifySignature(signer.publicKey, message, signature)).toBe(true);
    expect(verifySignature(signer.publicKey, message, signature)).toBe(true);
  });

  test("remembers nothing that does not hold, and takes anything", async () => {
    const wrong = other.sign(message);
    await verifyAhead(signer.publicKey, message, wrong);
    expect(verifySignature(signer.publicKey, message, wrong)).toBe(false);
    for (const [key, made] of [
      [new Uint8Array(0), signature],
      [new Uint8Array(32), signature],
      [new Uint8Array(32).fill(255), signature],
      [signer.publicKey, new Uint8Array(64)],
      [signer.publicKey, new Uint8Array(3)],
    ] as const) {
      await verifyAhead(key, message, made);
      expect(verifySignature(key, message, made)).toBe(false);
    }
  });

  test("is not misled by bytes that change after it", async () => {
    const [key, text, made] = [signer.publicKey.slice(), message.slice(), signature.slice()];
    await verifyAhead(key, text, made);
    text[0] = (text[0] ?? 0) ^ 1;
    expect(verifySignature(key, text, made)).toBe(false);
    text[0] = (text[0] ?? 0) ^ 1;
    key.set(other.publicKey);
    expect(verifySignature(key, text, made)).toBe(false);
  });
});
