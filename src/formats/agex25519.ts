import { hkdfSync } from "node:crypto";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import type { Identity } from "age-encryption";
import { concat, wipe } from "../crypto/bytes.ts";
import { utf8Bytes } from "./item.ts";

const LABEL = utf8Bytes("age-encryption.org/v1/X25519");
/** A wrapped file key: 16 bytes and a tag. */
const BODY_BYTES = 32;

const ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];

/** Checksum of Bech32 (BIP 173). */
function polymod(values: readonly number[]): number {
  let sum = 1;
  for (const value of values) {
    const top = sum >>> 25;
    sum = ((sum & 0x1ffffff) << 5) ^ value;
    for (const [i, word] of GENERATOR.entries()) if (((top >>> i) & 1) === 1) sum ^= word;
  }
  return sum;
}

/** Groups of five bits, the last one filled with zeros. */
function fives(bytes: Uint8Array): number[] {
  const out: number[] = [];
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    bits = ((bits << 8) | byte) & 0xfff;
    for (held += 8; held >= 5; held -= 5) out.push((bits >>> (held - 5)) & 31);
  }
  if (held > 0) out.push((bits << (5 - held)) & 31);
  return out;
}

/**
 * The age recipient of an X25519 public key (age-encryption.org/v1, BIP 173).
 *
 * @param publicKey 32 bytes.
 */
export function ageRecipientOf(publicKey: Uint8Array): string {
  const prefix = "age";
  const letters = [...utf8Bytes(prefix)];
  const data = fives(publicKey);
  const expanded = [...letters.map((letter) => letter >>> 5), 0, ...letters.map((letter) => letter & 31)];
  const sum = polymod([...expanded, ...data, 0, 0, 0, 0, 0, 0]) ^ 1;
  const check = [25, 20, 15, 10, 5, 0].map((shift) => (sum >>> shift) & 31);
  return `${prefix}1${[...data, ...check].map((value) => ALPHABET[value]).join("")}`;
}

/**
 * Decrypts what was encrypted to {@link ageRecipientOf} of this key.
 *
 * @param key 32 bytes. Retained: wiped by the caller when the identity is of no more use.
 */
export function x25519Identity(key: Uint8Array): Identity {
  const own = x25519.getPublicKey(key);
  return {
    unwrapFileKey: (stanzas) => {
      for (const { args, body } of stanzas) {
        if (args[0] !== "X25519") continue;
        const share = args.length === 2 ? decodeShare(args[1] ?? "") : null;
        if (share === null || body.length !== BODY_BYTES) throw new Error("malformed stanza");
        const fileKey = unwrap(key, own, share, body);
        if (fileKey !== null) return fileKey;
      }
      return null;
    },
  };
}

/** 32 bytes in base64 without padding, in the one form that age takes. */
function decodeShare(text: string): Uint8Array | null {
  try {
    const share = Uint8Array.fromBase64(text);
    return share.length === 32 && share.toBase64({ omitPadding: true }) === text ? share : null;
  } catch {
    return null;
  }
}

function unwrap(key: Uint8Array, own: Uint8Array, share: Uint8Array, body: Uint8Array): Uint8Array | null {
  const parts: Uint8Array[] = [];
  try {
    // it refuses a share of small order, whose shared secret anybody knows
    const shared = x25519.getSharedSecret(key, share);
    parts.push(shared);
    const wrapping = new Uint8Array(hkdfSync("sha256", shared, concat(share, own), LABEL, 32));
    parts.push(wrapping);
    return chacha20poly1305(wrapping, new Uint8Array(12)).decrypt(body);
  } catch {
    return null;
  } finally {
    wipe(...parts);
  }
}
