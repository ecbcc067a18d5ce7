import { createHmac, hash, hkdfSync, argon2 as nodeArgon2 } from "node:crypto";
import { Fault } from "../errors.ts";
import { type CanonValue, canon } from "./canon.ts";

/** SHA-256 of one byte string: 32 bytes. */
export function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(hash("sha256", bytes, "buffer"));
}

/** SHA-256 over canon(label, …parts): 32 bytes. The label separates purposes (docs/protocol.md §1.2). */
export function hashCanon(label: string, ...parts: readonly CanonValue[]): Uint8Array {
  return sha256(canon(label, ...parts));
}

/** HMAC-SHA-256 over canon(label, …parts) under `key`: 32 bytes. */
export function macCanon(key: Uint8Array, label: string, ...parts: readonly CanonValue[]): Uint8Array {
  return new Uint8Array(
    createHmac("sha256", key)
      .update(canon(label, ...parts))
      .digest(),
  );
}

/**
 * HKDF-SHA-512 (RFC 5869) with info = canon(label, …parts).
 *
 * @param ikm Secret input, not retained. @param length Bytes wanted, at most 16,320.
 */
export function deriveKey(
  ikm: Uint8Array,
  length: number,
  salt: Uint8Array,
  label: string,
  ...parts: readonly CanonValue[]
): Uint8Array {
  return new Uint8Array(hkdfSync("sha512", ikm, salt, canon(label, ...parts), length));
}

/** The same with HKDF-SHA-256. @param length Bytes wanted, at most 8,160. */
export function deriveKeySha256(
  ikm: Uint8Array,
  length: number,
  salt: Uint8Array,
  label: string,
  ...parts: readonly CanonValue[]
): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", ikm, salt, canon(label, ...parts), length));
}

/** Argon2id costs (RFC 9106): memory in KiB, passes, lanes. */
export interface Argon2Cost {
  readonly memoryKib: number;
  readonly passes: number;
  readonly lanes: number;
}

/** Argon2id through the platform's native implementation; `length` bytes, salt of 16 bytes or more. */
export function argon2id(
  password: Uint8Array,
  salt: Uint8Array,
  cost: Argon2Cost,
  length: number,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    nodeArgon2(
      "argon2id",
      {
        message: password,
        nonce: salt,
        parallelism: cost.lanes,
        tagLength: length,
        memory: cost.memoryKib,
        passes: cost.passes,
      },
      (error, key) => {
        if (error) reject(new Fault("internal", "Argon2id failed", { why: "out of memory?" }));
        else resolve(new Uint8Array(key));
      },
    );
  });
}
