import {
  constants,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
} from "node:crypto";
import { Fault } from "../errors.ts";

/** RSA-OAEP with SHA-256 for hash and mask (RFC 8017 §7.1), for clients without X25519: 3,072-bit keys alone. */
export const RSA_OAEP = { bits: 3_072, sealedBytes: 384, maxBytes: 318 } as const;

const padding = constants.RSA_PKCS1_OAEP_PADDING;

function checked(key: KeyObject): KeyObject {
  if (key.asymmetricKeyType === "rsa" && key.asymmetricKeyDetails?.modulusLength === RSA_OAEP.bits) return key;
  throw new Fault("bad_input", "this is no RSA key of 3,072 bits");
}

/** Reads a private key once for many openings. @param pkcs8 PKCS#8 DER; not retained. @throws Fault bad_input */
export function rsaOaepKey(pkcs8: Uint8Array): KeyObject {
  const der = Buffer.from(pkcs8);
  try {
    return checked(createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
  } catch {
    throw new Fault("bad_input", "this is no RSA key of 3,072 bits");
  } finally {
    der.fill(0);
  }
}

/**
 * Seals to a public key. The library draws the seed of the padding itself and accepts none: an exception to the purity
 * of this layer, like `generateRsa`.
 *
 * @param spki SubjectPublicKeyInfo DER. @param label What the ciphertext is, from `canon`; bound, not sent.
 * @param plaintext At most 318 bytes. @returns 384 bytes.
 * @throws Fault bad_input for a key that is none, or too long a text
 */
export function rsaOaepSeal(spki: Uint8Array, label: Uint8Array, plaintext: Uint8Array): Uint8Array {
  try {
    const key = checked(createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" }));
    return new Uint8Array(publicEncrypt({ key, padding, oaepHash: "sha256", oaepLabel: label.slice() }, plaintext));
  } catch {
    throw new Fault("bad_input", "cannot seal to this RSA key");
  }
}

/** Opens what {@link rsaOaepSeal} made; one error for all that can be wrong with it. @throws Fault integrity */
export function rsaOaepOpen(key: KeyObject, label: Uint8Array, sealed: Uint8Array): Uint8Array {
  try {
    return new Uint8Array(privateDecrypt({ key, padding, oaepHash: "sha256", oaepLabel: label.slice() }, sealed));
  } catch {
    throw new Fault("integrity", "this was not sealed to this key, or was changed");
  }
}
