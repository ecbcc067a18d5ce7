import { constants, createHash, createPrivateKey, sign as nodeSign } from "node:crypto";
import { p256, p384 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { Fault } from "../errors.ts";
import { type Hedge, withHedge } from "./hedge.ts";
import { signerFromSeed } from "./identity.ts";
import { curveOf, type EcdsaScheme, hashOfScheme, isEcdsa, type SignatureScheme } from "./schemes.ts";

/** Curves of the ECDSA schemes. */
export const ECDSA_CURVES = {
  "ecdsa-p256-sha256": p256,
  "ecdsa-p384-sha384": p384,
  "ecdsa-secp256k1-sha256": secp256k1,
} as const satisfies Record<EcdsaScheme, unknown>;

/**
 * Signs a message: Ed25519 (RFC 8032), ECDSA with the nonce of RFC 6979, RSASSA-PSS with MGF1 and a salt of 32 bytes
 * or RSASSA-PKCS1-v1_5 (RFC 8017 §8). secp256k1 signatures have the lower of the two s.
 *
 * An exception to the purity of this layer: the salt of RSASSA-PSS is the platform's own randomness.
 *
 * @param key Seed of 32 bytes (`ed25519`), scalar of 32 or 48 bytes (ECDSA), PKCS#8 DER (RSA): valid ones. Not retained.
 * @param message Any length; hashed here.
 * @param hedge For ECDSA alone: mixed into the nonce (docs/protocol.md §10.6). Not retained.
 * @returns 64 bytes (`ed25519`), r ‖ s of 64 or 96 bytes (ECDSA), as many bytes as the modulus (RSA).
 * @throws Fault bad_input for a key that cannot be used
 */
export function signMessage(
  scheme: SignatureScheme,
  key: Uint8Array,
  message: Uint8Array,
  hedge: Hedge | null = null,
): Uint8Array {
  if (hedge !== null && !isEcdsa(scheme)) throw new Fault("bad_input", "a hedge goes with ECDSA alone");
  try {
    switch (scheme) {
      case "ed25519":
        return signerFromSeed(key).sign(message);
      case "ecdsa-p256-sha256":
      case "ecdsa-p384-sha384":
      case "ecdsa-secp256k1-sha256":
        return withHedge(
          hedge,
          curveOf(scheme),
          () => digestOf(scheme, message),
          (extraEntropy) =>
            ECDSA_CURVES[scheme].sign(message, key, {
              prehash: true,
              format: "compact",
              lowS: scheme === "ecdsa-secp256k1-sha256",
              extraEntropy,
            }),
        );
      case "rsa-pss-sha256":
        return signRsa("sha256", key, message, { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 });
      case "rsa-pkcs1-sha256":
        return signRsa("sha256", key, message, { padding: constants.RSA_PKCS1_PADDING });
      case "rsa-pkcs1-sha512":
        return signRsa("sha512", key, message, { padding: constants.RSA_PKCS1_PADDING });
      default:
        return scheme satisfies never;
    }
  } catch {
    throw new Fault("bad_input", "cannot sign: the key cannot be used");
  }
}

const digestOf = (scheme: EcdsaScheme, message: Uint8Array): Uint8Array =>
  createHash(hashOfScheme(scheme) ?? "sha256")
    .update(message)
    .digest();

function signRsa(
  hash: "sha256" | "sha512",
  pkcs8: Uint8Array,
  message: Uint8Array,
  options: { readonly padding: number; readonly saltLength?: number },
): Uint8Array {
  const der = Buffer.from(pkcs8);
  try {
    const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    return new Uint8Array(nodeSign(hash, message, { key, ...options }));
  } finally {
    der.fill(0);
  }
}

/** An ECDSA signature r ‖ s as the DER that X.509, TLS and openssl use (RFC 3279 §2.2.3). @throws Fault bad_input */
export function ecdsaDer(scheme: EcdsaScheme, signature: Uint8Array): Uint8Array {
  try {
    return ECDSA_CURVES[scheme].Signature.fromBytes(signature, "compact").toBytes("der");
  } catch {
    throw new Fault("bad_input", "this is not an ECDSA signature of r and s");
  }
}
