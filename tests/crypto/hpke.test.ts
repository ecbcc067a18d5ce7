import { describe, expect, test } from "bun:test";
import { createDecipheriv } from "node:crypto";
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";
import { x25519 } from "@noble/curves/ed25519.js";
import { expand, extract } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { concat } from "../../src/crypto/bytes.ts";
import { canSealTo, HPKE_OVERHEAD, hpkeKeyPair, hpkeOpen, hpkeSeal } from "../../src/crypto/hpke.ts";
import { sealBase } from "../../src/crypto/hpkeseal.ts";
import { bent, bytesOf } from "../support/arbitraries.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

const utf8 = (text: string) => new TextEncoder().encode(text);
const none = new Uint8Array(0);
const KEM = concat(utf8("KEM"), Uint8Array.of(0x00, 0x20));

/** LabeledExtract and LabeledExpand of RFC 9180 §4, written anew. */
const labeledExtract = (suite: Uint8Array, salt: Uint8Array, label: string, ikm: Uint8Array) =>
  extract(sha256, concat(utf8("HPKE-v1"), suite, utf8(label), ikm), salt);
const labeledExpand = (suite: Uint8Array, prk: Uint8Array, label: string, info: Uint8Array, length: number) =>
  expand(
    sha256,
    prk,
    concat(Uint8Array.of(length >> 8, length & 255), utf8("HPKE-v1"), suite, utf8(label), info),
    length,
  );

/** DeriveKeyPair of DHKEM(X25519, HKDF-SHA256), §7.1.3. */
function deriveSecret(ikm: Uint8Array): Uint8Array {
  return labeledExpand(KEM, labeledExtract(KEM, none, "dkp_prk", ikm), "sk", none, 32);
}

/** Key and nonce of base mode for an AEAD, §4.1 and §5.1. */
function schedule(secret: Uint8Array, enc: Uint8Array, info: Uint8Array, aead: number, keyBytes: number) {
  const publicKey = x25519.getPublicKey(secret);
  const prk = labeledExtract(KEM, none, "eae_prk", x25519.getSharedSecret(secret, enc));
  const shared = labeledExpand(KEM, prk, "shared_secret", concat(enc, publicKey), 32);
  const suite = concat(utf8("HPKE"), Uint8Array.of(0x00, 0x20, 0x00, 0x01, 0x00, aead));
  const context = concat(
    Uint8Array.of(0),
    labeledExtract(suite, none, "psk_id_hash", none),
    labeledExtract(suite, none, "info_hash", info),
  );
  const key = labeledExtract(suite, shared, "secret", none);
  return {
    key: labeledExpand(suite, key, "key", context, keyBytes),
    nonce: labeledExpand(suite, key, "base_nonce", context, 12),
  };
}

function openSlowly(secret: Uint8Array, info: Uint8Array, sealed: Uint8Array): Uint8Array {
  const { key, nonce } = schedule(secret, sealed.subarray(0, 32), info, 0x02, 32);
  const cipher = createDecipheriv("aes-256-gcm", key, nonce);
  cipher.setAuthTag(sealed.subarray(-16));
  return new Uint8Array(Buffer.concat([cipher.update(sealed.subarray(32, -16)), cipher.final()]));
}

describe("the independent model", () => {
  test("reproduces RFC 9180 A.1.1 (base mode, X25519, SHA-256, AES-128-GCM)", () => {
    const ikmR = Uint8Array.fromHex("6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037");
    const enc = Uint8Array.fromHex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
    const secret = deriveSecret(ikmR);
    expect(secret.toHex()).toBe("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
    const info = Uint8Array.fromHex("4f6465206f6e2061204772656369616e2055726e");
    const { key, nonce } = schedule(secret, enc, info, 0x01, 16);
    expect(key.toHex()).toBe("4531685d41d65f03dc48f6b8302c05b0");
    expect(nonce.toHex()).toBe("56d890e5accaaf011cff4b7d");
  });
});

describe("HPKE", () => {
  test("what is sealed opens with the independent model and with the key pair of the seed", async () => {
    await fc.assert(
      fc.asyncProperty(
        bytesOf(32),
        fc.uint8Array({ maxLength: 64 }),
        fc.uint8Array({ maxLength: 200 }),
        async (seed, info, text) => {
          const pair = await hpkeKeyPair(seed);
          const secret = deriveSecret(seed);
          expect(pair.publicKey).toEqual(x25519.getPublicKey(secret));
          const sealed = await hpkeSeal(pair.publicKey, info, text, random);
          expect(sealed.length).toBe(text.length + HPKE_OVERHEAD);
          expect(await hpkeOpen(pair, info, sealed)).toEqual(text);
          expect(openSlowly(secret, info, sealed)).toEqual(text);
        },
      ),
      { numRuns: 20 },
    );
  });

  test("sealing gives the very bytes that the library gives for the same randomness", async () => {
    const suite = new CipherSuite({
      kem: new DhkemX25519HkdfSha256(),
      kdf: new HkdfSha256(),
      aead: new Aes256Gcm(),
    });
    const buffer = (bytes: Uint8Array) => new Uint8Array(bytes).buffer;
    await fc.assert(
      fc.asyncProperty(
        bytesOf(32),
        bytesOf(32),
        fc.uint8Array({ maxLength: 200 }),
        fc.uint8Array({ maxLength: 500 }),
        async (seed, ekm, info, text) => {
          const { publicKey } = await hpkeKeyPair(seed);
          const recipientPublicKey = await suite.kem.deserializePublicKey(buffer(publicKey));
          const sender = await suite.createSenderContext({ recipientPublicKey, info: buffer(info), ekm: buffer(ekm) });
          const expected = concat(new Uint8Array(sender.enc), new Uint8Array(await sender.seal(buffer(text))));
          expect(sealBase(publicKey, info, text, ekm)).toEqual(expected);
        },
      ),
      { numRuns: 30 },
    );
  });

  test("no other info, key, length or bit opens", async () => {
    const pair = await hpkeKeyPair(random(32));
    const other = await hpkeKeyPair(random(32));
    const info = utf8("info");
    const sealed = await hpkeSeal(pair.publicKey, info, utf8("text"), random);
    const refused = (work: Promise<unknown>) => expect(work).rejects.toMatchObject({ code: "integrity" });
    await refused(hpkeOpen(other, info, sealed));
    await refused(hpkeOpen(pair, utf8("inf"), sealed));
    for (const changed of bent(sealed)) await refused(hpkeOpen(pair, info, changed as Uint8Array));
    for (let at = 0; at < sealed.length; at++) {
      const bit = sealed.slice();
      // bit 255 of an X25519 point is ignored by RFC 7748; the key schedule binds the bytes all the same
      bit[at] = (bit[at] ?? 0) ^ 0x80;
      await refused(hpkeOpen(pair, info, bit));
    }
  });

  test("a point of small order and a key of another length are no recipients", async () => {
    for (const bad of [new Uint8Array(32), Uint8Array.of(1, ...new Uint8Array(31)), new Uint8Array(31)]) {
      await expect(hpkeSeal(bad, none, none, random)).rejects.toMatchObject({ code: "bad_input" });
    }
  });

  test("two sealings of one text differ", async () => {
    const pair = await hpkeKeyPair(random(32));
    const [one, two] = [
      await hpkeSeal(pair.publicKey, none, none, random),
      await hpkeSeal(pair.publicKey, none, none, random),
    ];
    expect(one).not.toEqual(two);
    expect(one.subarray(0, 32)).not.toEqual(two.subarray(0, 32));
  });
});

describe("a public key", () => {
  test("can be sealed to, unless it is of small order (RFC 7748 §6.1) or of another length", async () => {
    const { publicKey } = await hpkeKeyPair(random(32));
    expect(canSealTo(publicKey)).toBe(true);
    for (const length of [0, 31, 33]) expect(canSealTo(new Uint8Array(length).fill(9))).toBe(false);
    const small = [
      "0000000000000000000000000000000000000000000000000000000000000000",
      "0100000000000000000000000000000000000000000000000000000000000000",
      "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
      "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
      "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ].map((hex) => Uint8Array.fromHex(hex));
    const noncanonical = small.map((key) => key.with(31, (key[31] ?? 0) | 0x80));
    for (const key of [...small, ...noncanonical]) expect(canSealTo(key)).toBe(false);
  });

  test("is one where the library finds a shared secret", () => {
    fc.assert(
      fc.property(bytesOf(32), (key) => {
        const found = () => {
          try {
            x25519.getSharedSecret(new Uint8Array(32).fill(7), key);
            return true;
          } catch {
            return false;
          }
        };
        expect(canSealTo(key)).toBe(found());
      }),
    );
  });
});
