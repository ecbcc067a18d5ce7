import { pbkdf2, scrypt } from "node:crypto";
import { Fault } from "../errors.ts";

/** Hashes that PBKDF2 is run with. */
export type Pbkdf2Hash = "sha1" | "sha224" | "sha256" | "sha384" | "sha512";

/** PBKDF2-HMAC (RFC 8018 §5.2), for files of other programs alone; the platform's own. @throws Fault internal */
export function pbkdf2Key(
  password: Uint8Array,
  salt: Uint8Array,
  iterations: number,
  hash: Pbkdf2Hash,
  length: number,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    pbkdf2(password, salt, iterations, length, hash, (error, key) => {
      if (error) reject(new Fault("internal", "PBKDF2 failed"));
      else resolve(new Uint8Array(key));
    });
  });
}

/** Costs of scrypt (RFC 7914 §2): memory is 128 n r bytes. */
export interface ScryptCost {
  readonly n: number;
  readonly r: number;
  readonly p: number;
}

/** scrypt (RFC 7914), for files of other programs alone; the platform's own. @throws Fault internal */
export function scryptKey(
  password: Uint8Array,
  salt: Uint8Array,
  cost: ScryptCost,
  length: number,
): Promise<Uint8Array> {
  const maxmem = 256 * cost.n * cost.r + 1_024 * 1_024;
  return new Promise((resolve, reject) => {
    scrypt(password, salt, length, { N: cost.n, r: cost.r, p: cost.p, maxmem }, (error, key) => {
      if (error) reject(new Fault("internal", "scrypt failed", { why: "out of memory?" }));
      else resolve(new Uint8Array(key));
    });
  });
}
