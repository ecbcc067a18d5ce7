import { describe, expect, test } from "bun:test";
import { createPublicKey, generateKeyPairSync, type KeyObject, verify } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { p256, p384 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import fc from "fast-check";
import type { EcdsaScheme, SignatureScheme } from "../../src/crypto/schemes.ts";
import { ecdsaDer, signMessage } from "../../src/crypto/signature.ts";
import { testNeeding } from "../support/skip.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
const message = utf8("a message");
const seed = new Uint8Array(32).fill(7);
const rsa = generateKeyPairSync("rsa", { modulusLength: 2_048 });
const rsaKey = new Uint8Array(rsa.privateKey.export({ format: "der", type: "pkcs8" }));
const CURVES = {
  "ecdsa-p256-sha256": { curve: p256, key: new Uint8Array(32).fill(7), crv: "P-256", hash: "sha256" },
  "ecdsa-p384-sha384": { curve: p384, key: new Uint8Array(48).fill(7), crv: "P-384", hash: "sha384" },
} as const;

function ecKey(scheme: keyof typeof CURVES): KeyObject {
  const { curve, key, crv } = CURVES[scheme];
  const point = curve.getPublicKey(key, false);
  const half = (point.length - 1) / 2;
  const part = (from: number) => Buffer.from(point.subarray(from, from + half)).toString("base64url");
  return createPublicKey({ key: { kty: "EC", crv, x: part(1), y: part(1 + half) }, format: "jwk" });
}

/** The signature with one bit of it changed, and over another message, must not hold. */
function expectHolds(holds: (message: Uint8Array, signature: Uint8Array) => boolean, signature: Uint8Array): void {
  const other = signature.slice();
  other[other.length - 1] = (other.at(-1) ?? 0) ^ 1;
  expect([holds(message, signature), holds(message, other), holds(utf8("another"), signature)]).toEqual([
    true,
    false,
    false,
  ]);
}

describe("signatures", () => {
  test("Ed25519 of RFC 8032 §7.1, test 2", () => {
    const key = Uint8Array.fromHex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
    expect(signMessage("ed25519", key, Uint8Array.of(0x72)).toHex()).toBe(
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    );
  });

  test.each([
    [
      "ecdsa-p256-sha256",
      "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
      "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716" +
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    ],
    [
      "ecdsa-p384-sha384",
      "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5",
      "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46" +
        "99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8",
    ],
  ] as const)('%s of RFC 6979 §A.2, message "sample"', (scheme, key, wanted) => {
    expect(signMessage(scheme, Uint8Array.fromHex(key), utf8("sample")).toHex()).toBe(wanted);
  });

  test.each(Object.keys(CURVES) as (keyof typeof CURVES)[])("%s: raw and DER hold for node:crypto", (scheme) => {
    const { key, hash } = CURVES[scheme];
    const signature = signMessage(scheme, key, message);
    const publicKey = ecKey(scheme);
    expectHolds((text, raw) => verify(hash, text, { key: publicKey, dsaEncoding: "ieee-p1363" }, raw), signature);
    expectHolds(
      (text, raw) => verify(hash, text, { key: publicKey, dsaEncoding: "der" }, ecdsaDer(scheme, raw)),
      signature,
    );
  });

  test("secp256k1: holds, with the lower s", () => {
    const publicKey = secp256k1.getPublicKey(seed);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (text) => {
        const signature = signMessage("ecdsa-secp256k1-sha256", seed, text);
        expect(signature.length).toBe(64);
        expect(secp256k1.verify(signature, text, publicKey, { prehash: true, lowS: true })).toBe(true);
      }),
      { numRuns: 20 },
    );
  });

  test.each(["rsa-pss-sha256", "rsa-pkcs1-sha256", "rsa-pkcs1-sha512"] as const)(
    "%s holds for node:crypto",
    (scheme) => {
      const options = scheme === "rsa-pss-sha256" ? { padding: 6, saltLength: 32 } : { padding: 1 };
      const hash = scheme === "rsa-pkcs1-sha512" ? "sha512" : "sha256";
      const key = rsaKey.slice();
      const signature = signMessage(scheme, key, message);
      expect([signature.length, key]).toEqual([256, rsaKey]);
      expectHolds((text, raw) => verify(hash, text, { key: rsa.publicKey, ...options }, raw), signature);
    },
  );

  test("a key that is none is refused, and not shown", () => {
    const bad: [SignatureScheme, Uint8Array][] = [
      ["ed25519", utf8("hunter2")],
      ["ecdsa-p256-sha256", new Uint8Array(32)],
      ["ecdsa-p384-sha384", seed],
      ["rsa-pss-sha256", utf8("hunter2")],
      ["rsa-pkcs1-sha256", rsaKey.subarray(1)],
    ];
    for (const [scheme, key] of bad) {
      expect(() => signMessage(scheme, key, message)).toThrow(
        expect.objectContaining({ code: "bad_input", message: expect.not.stringContaining("hunter2") }),
      );
    }
    for (const scheme of ["ecdsa-p256-sha256", "ecdsa-p384-sha384"] as const) {
      expect(() => ecdsaDer(scheme, new Uint8Array(63))).toThrow(expect.objectContaining({ code: "bad_input" }));
    }
  });

  testNeeding("openssl", "openssl says so too", () => {
    const dir = mkdtempSync(join(tmpdir(), "keyhold-sign-"));
    try {
      const check = (pem: KeyObject, signature: Uint8Array, flags: readonly string[]) => {
        writeFileSync(join(dir, "pub"), pem.export({ format: "pem", type: "spki" }));
        writeFileSync(join(dir, "sig"), signature);
        writeFileSync(join(dir, "msg"), message);
        const files = ["-verify", join(dir, "pub"), "-signature", join(dir, "sig"), join(dir, "msg")];
        return Bun.spawnSync(["openssl", "dgst", ...flags, ...files]).exitCode;
      };
      for (const [scheme, { key, hash }] of Object.entries(CURVES) as [
        EcdsaScheme & keyof typeof CURVES,
        (typeof CURVES)[keyof typeof CURVES],
      ][]) {
        const der = ecdsaDer(scheme, signMessage(scheme, key, message));
        expect(check(ecKey(scheme), der, [`-${hash}`])).toBe(0);
        der[der.length - 1] = (der.at(-1) ?? 0) ^ 1;
        expect(check(ecKey(scheme), der, [`-${hash}`])).toBe(1);
      }
      const pss = ["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"];
      expect(check(rsa.publicKey, signMessage("rsa-pss-sha256", rsaKey, message), pss)).toBe(0);
      expect(check(rsa.publicKey, signMessage("rsa-pkcs1-sha512", rsaKey, message), ["-sha512"])).toBe(0);
      expect(check(rsa.publicKey, signMessage("rsa-pkcs1-sha512", rsaKey, message), ["-sha256"])).toBe(1);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
