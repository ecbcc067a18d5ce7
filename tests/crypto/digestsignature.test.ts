import { describe, expect, test } from "bun:test";
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import { signDigest } from "../../src/crypto/digestsignature.ts";
import { hashOfScheme, SIGNATURE_SCHEMES, type SignatureScheme } from "../../src/crypto/schemes.ts";
import { signMessage } from "../../src/crypto/signature.ts";
import { Fault } from "../../src/errors.ts";
import { testNeeding } from "../support/skip.ts";

const message = new TextEncoder().encode("a message");
const salt = new Uint8Array(32).fill(3);
const digestOf = (scheme: SignatureScheme): Uint8Array =>
  new Uint8Array(
    createHash(hashOfScheme(scheme) ?? "sha256")
      .update(message)
      .digest(),
  );
const rsaKeys = [2_048, 3_072].map((modulusLength) => {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength });
  return {
    bits: publicKey.asymmetricKeyDetails?.modulusLength ?? 0,
    publicKey,
    key: new Uint8Array(privateKey.export({ format: "der", type: "pkcs8" })),
  };
});
const refused = (work: () => unknown): Fault => {
  try {
    work();
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it was accepted");
};

describe("a signature of a hash", () => {
  test.each(["ecdsa-p256-sha256", "ecdsa-p384-sha384", "ecdsa-secp256k1-sha256"] as const)(
    "by %s is that of the message: both are deterministic",
    (scheme) => {
      for (let i = 1; i < 30; i++) {
        const key = new Uint8Array(scheme === "ecdsa-p384-sha384" ? 48 : 32).fill(i);
        expect(signDigest(scheme, key, digestOf(scheme), salt)).toEqual(signMessage(scheme, key, message));
      }
    },
  );

  test.each(["rsa-pkcs1-sha256", "rsa-pkcs1-sha512"] as const)("by %s is that of the message", (scheme) => {
    for (const { key } of rsaKeys) {
      expect(signDigest(scheme, key, digestOf(scheme), salt)).toEqual(signMessage(scheme, key, message));
    }
  });

  test("by RSASSA-PSS verifies with exactly this length of salt", () => {
    for (const { key, publicKey, bits } of rsaKeys) {
      const signature = signDigest("rsa-pss-sha256", key, digestOf("rsa-pss-sha256"), salt);
      const holds = (text: Uint8Array, saltLength: number) =>
        verify(
          "sha256",
          text,
          { key: createPublicKey(publicKey.export({ format: "pem", type: "spki" })), padding: 6, saltLength },
          signature,
        );
      expect([bits, signature.length, holds(message, 32), holds(message, 20), holds(salt, 32)]).toEqual([
        bits,
        Math.ceil(bits / 8),
        true,
        false,
        false,
      ]);
      const other = signDigest("rsa-pss-sha256", key, digestOf("rsa-pss-sha256"), new Uint8Array(32).fill(4));
      expect(other).not.toEqual(signature);
    }
  });

  testNeeding("openssl", "by RSA of a modulus that fills no whole bytes", () => {
    for (const bits of [2_050, 2_054]) {
      const argv = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", `rsa_keygen_bits:${bits}`];
      const made = createPrivateKey(Bun.spawnSync(argv, { stderr: "ignore" }).stdout);
      const key = new Uint8Array(made.export({ format: "der", type: "pkcs8" }));
      const publicKey = createPublicKey(made);
      expect(publicKey.asymmetricKeyDetails?.modulusLength).toBe(bits);
      const signature = signDigest("rsa-pss-sha256", key, digestOf("rsa-pss-sha256"), salt);
      expect(signature.length).toBe(257);
      expect(verify("sha256", message, { key: publicKey, padding: 6, saltLength: 32 }, signature)).toBe(true);
    }
  });

  test("is refused by Ed25519, of another length, and by a key that is none", () => {
    expect(refused(() => signDigest("ed25519", new Uint8Array(32).fill(1), new Uint8Array(64), salt)).code).toBe(
      "bad_input",
    );
    for (const scheme of SIGNATURE_SCHEMES.filter((one) => one !== "ed25519")) {
      const key = scheme.startsWith("rsa")
        ? (rsaKeys[0]?.key ?? salt)
        : new Uint8Array(scheme.includes("384") ? 48 : 32).fill(1);
      for (const length of [0, 20, digestOf(scheme).length - 1, digestOf(scheme).length + 1]) {
        expect(refused(() => signDigest(scheme, key, new Uint8Array(length), salt)).message).toContain("bytes");
      }
      expect(refused(() => signDigest(scheme, new Uint8Array(32), digestOf(scheme), salt)).message).toContain(
        "cannot be used",
      );
    }
  });
});
