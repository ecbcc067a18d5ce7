import { createCipheriv, createDecipheriv } from "node:crypto";
import { concat, wipe } from "./bytes.ts";

/** XAES-256-GCM (C2SP xaes-256-gcm, docs/protocol.md §2.1): sizes in bytes. */
export const XAES = { keyBytes: 32, nonceBytes: 24, tagBytes: 16 } as const;

/**
 * AES-256-CMAC (RFC 4493) of each of several messages of exactly one block.
 *
 * @param messages 16 bytes each, one after the other. @returns Their tags in the same order, 16 bytes each.
 */
export function cmacOfBlocks(key: Uint8Array, messages: Uint8Array): Uint8Array {
  const blocksOf = aesBlocks(key);
  const k1 = blocksOf(new Uint8Array(16));
  let carry = 0;
  for (let i = 15; i >= 0; i--) {
    const byte = k1[i] ?? 0;
    k1[i] = ((byte << 1) | carry) & 0xff;
    carry = byte >>> 7;
  }
  k1[15] = (k1[15] ?? 0) ^ (carry * 0x87);
  const blocks = new Uint8Array(messages.length);
  for (let i = 0; i < blocks.length; i++) blocks[i] = (messages[i] ?? 0) ^ (k1[i % 16] ?? 0);
  wipe(k1);
  return blocksOf(blocks);
}

/** Derives the AES-256-GCM key of one nonce: two CMAC blocks, NIST SP 800-108r1 counter mode. */
function deriveKey(key: Uint8Array, nonce: Uint8Array): Uint8Array {
  const messages = new Uint8Array(32);
  for (const counter of [1, 2]) {
    const at = (counter - 1) * 16;
    messages.set([0, counter, 0x58, 0], at);
    messages.set(nonce.subarray(0, 12), at + 4);
  }
  return cmacOfBlocks(key, messages);
}

/** AES-256 of whole blocks, each by itself: the key's schedule is made once for all of them. */
function aesBlocks(key: Uint8Array): (blocks: Uint8Array) => Uint8Array {
  const cipher = createCipheriv("aes-256-ecb", key, null).setAutoPadding(false);
  return (blocks) => new Uint8Array(cipher.update(blocks));
}

function check(key: Uint8Array, nonce: Uint8Array): void {
  if (key.length !== XAES.keyBytes) throw new RangeError("xaes: the key has 32 bytes");
  if (nonce.length !== XAES.nonceBytes) throw new RangeError("xaes: the nonce has 24 bytes");
}

/** AES-256-GCM (NIST SP 800-38D): key 32 bytes, iv 12; ciphertext ‖ tag, plaintext length + 16 bytes. */
export function gcmSeal(key: Uint8Array, iv: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array {
  const cipher = createCipheriv("aes-256-gcm", key, iv);
  cipher.setAAD(aad);
  const body = cipher.update(plaintext);
  return concat(body, cipher.final(), cipher.getAuthTag());
}

/** Decrypts {@link gcmSeal}'s result; `undefined` when the tag does not fit (nothing is released before). */
export function gcmOpen(key: Uint8Array, iv: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Uint8Array | undefined {
  if (sealed.length < XAES.tagBytes) return undefined;
  const decipher = createDecipheriv("aes-256-gcm", key, iv, { authTagLength: XAES.tagBytes });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(-XAES.tagBytes));
  const body = decipher.update(sealed.subarray(0, -XAES.tagBytes));
  try {
    return concat(body, decipher.final());
  } catch {
    wipe(body);
    return undefined;
  }
}

/**
 * Encrypts with XAES-256-GCM.
 *
 * @param key 32 bytes, not retained. @param nonce 24 bytes, fresh and random.
 * @returns ciphertext ‖ tag: plaintext length + 16 bytes.
 */
export function xaesSeal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array {
  check(key, nonce);
  const derived = deriveKey(key, nonce);
  try {
    return gcmSeal(derived, nonce.subarray(12), aad, plaintext);
  } finally {
    wipe(derived);
  }
}

/** Decrypts {@link xaesSeal}'s result; `undefined` when the tag does not fit (nothing is released before). */
export function xaesOpen(
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  sealed: Uint8Array,
): Uint8Array | undefined {
  check(key, nonce);
  const derived = deriveKey(key, nonce);
  try {
    return gcmOpen(derived, nonce.subarray(12), aad, sealed);
  } finally {
    wipe(derived);
  }
}
