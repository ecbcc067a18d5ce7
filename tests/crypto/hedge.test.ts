import { describe, expect, test } from "bun:test";
import { createHash, hkdfSync } from "node:crypto";
import { p256, p384 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { canon } from "../../src/crypto/canon.ts";
import { signDigest } from "../../src/crypto/digestsignature.ts";
import { hmacDrbg } from "../../src/crypto/drbg.ts";
import type { Hedge } from "../../src/crypto/hedge.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import type { EcdsaScheme, SignatureScheme } from "../../src/crypto/schemes.ts";
import { signMessage } from "../../src/crypto/signature.ts";
import { Fault } from "../../src/errors.ts";
import { ecdsaHolds, signEcdsa } from "../../src/protocol/federation/ecdsa.ts";

const message = new TextEncoder().encode("sample");
const hedge = (secret: number, fresh: number): Hedge => ({
  secret: new Uint8Array(32).fill(secret),
  fresh: new Uint8Array(32).fill(fresh),
});
const NO_SALT = new Uint8Array(32);

const SCHEMES = [
  ["ecdsa-p256-sha256", p256, "sha256"],
  ["ecdsa-p384-sha384", p384, "sha384"],
  ["ecdsa-secp256k1-sha256", secp256k1, "sha256"],
] as const;

/** Every way in which keyhold signs by ECDSA. */
function signers(scheme: EcdsaScheme, key: Uint8Array, hash: string) {
  const digest = new Uint8Array(createHash(hash).update(message).digest());
  const ways = [
    (with_: Hedge | null) => signMessage(scheme, key, message, with_),
    (with_: Hedge | null) => signDigest(scheme, key, digest, NO_SALT, with_),
  ];
  if (scheme === "ecdsa-p384-sha384") return ways;
  const type = scheme === "ecdsa-p256-sha256" ? "p256" : "secp256k1";
  return [
    ...ways,
    (with_: Hedge | null) => signEcdsa(type, key, message, false, with_).compact,
    (with_: Hedge | null) => signEcdsa(type, key, digest, true, with_).compact,
  ];
}

describe("hedged ECDSA signatures", () => {
  for (const [scheme, curve, hash] of SCHEMES) {
    const key = curve.utils.randomSecretKey(new Uint8Array(scheme === "ecdsa-p384-sha384" ? 72 : 48).fill(5));
    const holds = (signature: Uint8Array) =>
      curve.verify(signature, message, curve.getPublicKey(key), { prehash: true, lowS: false });

    test(`${scheme}: they hold; equal with equal hedges, otherwise not; without one nothing changes`, () => {
      for (const sign of signers(scheme, key, hash)) {
        const plain = sign(null);
        const made = [plain, sign(hedge(1, 1)), sign(hedge(1, 2)), sign(hedge(2, 1))];
        expect(made.map(holds)).toEqual([true, true, true, true]);
        expect(new Set(made.map((one) => one.toHex())).size).toBe(4);
        expect(sign(null)).toEqual(plain);
        expect(sign(hedge(1, 1))).toEqual(made[1] ?? plain);
        // r too: it is the nonce that changes
        expect(new Set(made.map((one) => one.slice(0, one.length / 2).toHex())).size).toBe(4);
      }
    });
  }

  test("without a hedge: RFC 6979 A.2.5", () => {
    const x = Uint8Array.fromHex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
    expect(signMessage("ecdsa-p256-sha256", x, message).toHex()).toBe(
      "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    );
  });

  test("the nonce is RFC 6979 §3.6 with the hedge behind private key and digest, and not the hedge", () => {
    const key = new Uint8Array(32).fill(7);
    const { secret, fresh } = hedge(3, 4);
    const digest = sha256(message);
    const info = canon("keyhold/v1/signature-hedge", "secp256k1", digest);
    const data = new Uint8Array(hkdfSync("sha512", secret, fresh, info, 32));
    const rOf = (nonce: Uint8Array) =>
      secp256k1.Point.BASE.multiply(BigInt(`0x${nonce.toHex()}`))
        .toBytes()
        .slice(1);
    const { compact } = signEcdsa("secp256k1", key, message, false, { secret, fresh });
    expect(compact.slice(0, 32)).toEqual(rOf(hmacDrbg("sha256", key, digest, data).read(32)));
    for (const nonce of [data, secret, fresh]) expect(compact.slice(0, 32)).not.toEqual(rOf(nonce));
  });

  test("a hedge all of zeros, and one that is the private key itself, still give nonces that differ by message", () => {
    const key = new Uint8Array(32).fill(9);
    for (const secret of [new Uint8Array(32), key]) {
      const fresh = new Uint8Array(32);
      const made = [message, sha256(message)].map(
        (one) => signEcdsa("p256", key, one, false, { secret, fresh }).compact,
      );
      const [a, b] = made as [Uint8Array, Uint8Array];
      expect(a.slice(0, 32)).not.toEqual(b.slice(0, 32));
      expect(ecdsaHolds("p256", p256.getPublicKey(key), { message, prehashed: false }, a)).toBe(true);
    }
  });

  test("it is not changed, and the inputs that do not fit are refused", () => {
    const key = new Uint8Array(32).fill(7);
    const lent = hedge(1, 2);
    signEcdsa("p256", key, message, false, lent);
    expect(lent).toEqual(hedge(1, 2));
    expect(() => signEcdsa("p256", key, message, false, { ...lent, secret: new Uint8Array(31) })).toThrow(Fault);
    expect(() => signEcdsa("p256", key, message, false, { ...lent, fresh: new Uint8Array(0) })).toThrow(Fault);
    for (const scheme of ["ed25519", "rsa-pss-sha256", "rsa-pkcs1-sha256"] satisfies SignatureScheme[]) {
      expect(() => signMessage(scheme, key, message, lent)).toThrow("ECDSA alone");
      expect(() => signDigest(scheme, key, sha256(message), NO_SALT, lent)).toThrow("ECDSA alone");
    }
  });
});
