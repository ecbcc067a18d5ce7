import { createPrivateKey, createPublicKey, type KeyObject, sign as nodeSign, verify as nodeVerify } from "node:crypto";
import { ed25519 } from "@noble/curves/ed25519.js";
import { concat } from "./bytes.ts";

/** Ed25519 (RFC 8032): seeds and public keys of 32 bytes, signatures of 64. */
export const ED25519 = { seedBytes: 32, publicBytes: 32, signatureBytes: 64 } as const;

const PKCS8_PREFIX = Uint8Array.fromHex("302e020100300506032b657004220420");
const SPKI_PREFIX = Uint8Array.fromHex("302a300506032b6570032100");

/** A signing key held as a platform key object; the seed is the caller's to wipe. */
export interface Signer {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  sign(message: Uint8Array): Uint8Array;
}

/** Makes a signer from a 32-byte seed. */
export function signerFromSeed(seed: Uint8Array): Signer {
  if (seed.length !== ED25519.seedBytes) throw new RangeError("ed25519: the seed has 32 bytes");
  const der = Buffer.from(concat(PKCS8_PREFIX, seed));
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  der.fill(0);
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  return {
    publicKey: new Uint8Array(spki.subarray(-ED25519.publicBytes)),
    sign: (message) => new Uint8Array(nodeSign(null, message, key)),
  };
}

/** SubjectPublicKeyInfo (RFC 8410) of a 32-byte public key: 44 bytes. */
export function spkiOf(publicKey: Uint8Array): Uint8Array {
  return concat(SPKI_PREFIX, publicKey);
}

const imported = new Map<string, KeyObject>();
const IMPORTED_MAX = 4096;

function importKey(publicKey: Uint8Array): KeyObject {
  const id = publicKey.toHex();
  const known = imported.get(id);
  if (known) return known;
  // a small-order key would verify one signature under every message
  if (ed25519.Point.fromBytes(publicKey).isSmallOrder()) throw new RangeError("ed25519: a small-order key");
  const key = createPublicKey({ key: Buffer.from(spkiOf(publicKey)), format: "der", type: "spki" });
  if (imported.size >= IMPORTED_MAX) imported.clear();
  imported.set(id, key);
  return key;
}

interface Verified {
  readonly publicKey: Uint8Array;
  readonly message: Uint8Array;
}

/** What {@link verifyAhead} found to hold, by signature, until it is asked for. */
const ahead = new Map<string, Verified>();
const AHEAD_MAX = 1_024;

/**
 * Verifies on another thread what {@link verifySignature} will be asked next: that call then only compares bytes. Says
 * nothing itself, and remembers nothing that does not hold.
 */
export function verifyAhead(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<void> {
  if (publicKey.length !== ED25519.publicBytes || signature.length !== ED25519.signatureBytes) return Promise.resolve();
  return new Promise((resolve) => {
    try {
      nodeVerify(null, message, importKey(publicKey), signature, (error, holds) => {
        if (!error && holds) {
          if (ahead.size >= AHEAD_MAX) ahead.clear();
          ahead.set(signature.toHex(), { publicKey: publicKey.slice(), message: message.slice() });
        }
        resolve();
      });
    } catch {
      resolve();
    }
  });
}

/** True once for the very bytes that {@link verifyAhead} verified. */
function takeVerified(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (ahead.size === 0) return false;
  const id = signature.toHex();
  const known = ahead.get(id);
  if (!known || Buffer.compare(known.publicKey, publicKey) !== 0 || Buffer.compare(known.message, message) !== 0) {
    return false;
  }
  return ahead.delete(id);
}

/** Verifies an Ed25519 signature; false for any malformed key or signature. */
export function verifySignature(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== ED25519.publicBytes || signature.length !== ED25519.signatureBytes) return false;
  if (takeVerified(publicKey, message, signature)) return true;
  try {
    return nodeVerify(null, message, importKey(publicKey), signature);
  } catch {
    return false;
  }
}
