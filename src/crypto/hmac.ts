import { createHmac } from "node:crypto";

/** HMAC (RFC 2104) of one byte string; as long as the hash. The key is not retained. */
export function hmac(hash: "sha1" | "sha256" | "sha512", key: Uint8Array, data: Uint8Array): Uint8Array {
  return new Uint8Array(createHmac(hash, key).update(data).digest());
}
