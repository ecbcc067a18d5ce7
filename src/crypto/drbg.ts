import { createHmac } from "node:crypto";
import { Fault } from "../errors.ts";
import { concat, wipe } from "./bytes.ts";

/** Hash functions of {@link hmacDrbg}, by their output in bytes. */
const OUTPUT_BYTES = { sha256: 32, sha512: 64 } as const;
export type DrbgHash = keyof typeof OUTPUT_BYTES;

/** Most bytes of one read (2^19 bits, SP 800-90A table 2). */
export const DRBG_READ_MAX_BYTES = 65_536;

/** A generator that gives the same bytes for the same inputs and the same lengths of reads. */
export interface Drbg {
  /**
   * The next bytes: one call of HMAC_DRBG_Generate without additional input, so that two reads of one byte are not one
   * read of two.
   *
   * @param length 0 to 65,536. @returns The caller's to wipe. @throws Fault internal after `wipe` or for another length
   */
  readonly read: (length: number) => Uint8Array;
  /** Forgets the state: from now on it gives nothing. */
  readonly wipe: () => void;
}

/**
 * HMAC_DRBG (SP 800-90A Rev. 1 §10.1.2) without reseeding and prediction resistance.
 *
 * @param entropy At least 32 bytes that are secret and uniform: there is no other source. Not retained.
 * @param nonce @param personalization Any length, also none. All three are joined as the standard says, without
 * lengths: where one of them varies in length, give it in an encoding that says so. Not retained.
 * @throws Fault internal for less entropy
 */
export function hmacDrbg(hash: DrbgHash, entropy: Uint8Array, nonce: Uint8Array, personalization: Uint8Array): Drbg {
  if (entropy.length < 32) throw new Fault("internal", "a deterministic generator needs 32 bytes to start from");
  const size = OUTPUT_BYTES[hash];
  const key = new Uint8Array(size);
  const v = new Uint8Array(size).fill(1);
  let alive = true;

  const mac = (...parts: readonly Uint8Array[]): Buffer => {
    const h = createHmac(hash, key);
    for (const part of parts) h.update(part);
    return h.digest();
  };
  const become = (target: Uint8Array, next: Buffer): void => {
    target.set(next);
    wipe(next);
  };
  const update = (data: Uint8Array): void => {
    for (const round of data.length === 0 ? [0] : [0, 1]) {
      become(key, mac(v, Uint8Array.of(round), data));
      become(v, mac(v));
    }
  };

  const seed = concat(entropy, nonce, personalization);
  try {
    update(seed);
  } finally {
    wipe(seed);
  }
  return {
    read: (length) => {
      if (!alive || !Number.isInteger(length) || length < 0 || length > DRBG_READ_MAX_BYTES) {
        throw new Fault("internal", "a deterministic generator was asked for what it does not give");
      }
      const out = new Uint8Array(length);
      for (let at = 0; at < length; at += size) {
        become(v, mac(v));
        out.set(v.subarray(0, length - at), at);
      }
      update(new Uint8Array(0));
      return out;
    },
    wipe: () => {
      alive = false;
      wipe(key, v);
    },
  };
}
