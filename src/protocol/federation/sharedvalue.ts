import { shake256 } from "@noble/hashes/sha3.js";
import { open, SEAL_OVERHEAD, seal } from "../../crypto/aead.ts";
import { equalBytes, type RandomSource, wipe } from "../../crypto/bytes.ts";
import { deriveKey } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId } from "../../ids.ts";
import type { Certificate } from "./certificate.ts";
import { type FederatedRequest, requestIdOf, valueHash } from "./request.ts";

const NO_SALT = new Uint8Array(0);

/**
 * The bytes of a generated `bytes` key: SHAKE256 over a key of the scalar (docs/protocol.md §8.6).
 *
 * @param scalar 32 bytes from `combineRelease`; stays the caller's. @param length Bytes wanted.
 * @returns The caller's to wipe.
 */
export function bytesOf(scalar: Uint8Array, keyId: FederatedKeyId, length: number): Uint8Array {
  const seed = deriveKey(scalar, 32, NO_SALT, "keyhold/v1/federated-bytes", keyId, length);
  try {
    return shake256(seed, { dkLen: length });
  } finally {
    wipe(seed);
  }
}

/** The request that imports, as far as it is known before the value is sealed. */
export type ValueOrigin = Pick<FederatedRequest, "federationId" | "requester" | "nonce">;

const valueKey = (scalar: Uint8Array): Uint8Array => deriveKey(scalar, 32, NO_SALT, "keyhold/v1/federated-value-key");

const contextOf = ({ federationId, requester, nonce }: ValueOrigin) =>
  ({ kind: "federated-value", federationId, requester, nonce }) as const;

/**
 * Seals imported bytes under a key of the scalar that is shared out for them.
 *
 * @param scalar Fresh for this import, 32 bytes; stays the caller's. @param value Stays the caller's.
 * @returns As many bytes as the value and 41.
 */
export function sealValue(
  scalar: Uint8Array,
  origin: ValueOrigin,
  value: Uint8Array,
  random: RandomSource,
): Uint8Array {
  const key = valueKey(scalar);
  try {
    return seal(key, contextOf(origin), value, random);
  } finally {
    wipe(key);
  }
}

/**
 * What a `bytes` key holds.
 *
 * @param scalar 32 bytes from `combineRelease`; stays the caller's.
 * @param imported Of imported bytes: the request that the certificate names, from any server; otherwise null.
 * @returns The caller's to wipe.
 * @throws Fault bad_input, integrity
 */
export function sharedValue(
  certificate: Certificate,
  scalar: Uint8Array,
  imported: FederatedRequest | null,
): Uint8Array {
  const { type, value, keyId, length } = certificate;
  if (type !== "bytes") throw new Fault("bad_input", `keys of type ${type} hold no bytes`);
  if (!value) return bytesOf(scalar, keyId, length);
  const body = imported?.body;
  const sealed = body?.kind === "import" ? body.sealedValue : null;
  if (!imported || !sealed || requestIdOf(imported) !== value.requestId || !equalBytes(valueHash(sealed), value.hash))
    throw new Fault("integrity", "this is not the request that the value was imported with");
  if (sealed.length !== length + SEAL_OVERHEAD) throw new Fault("integrity", "the imported value has another length");
  const key = valueKey(scalar);
  try {
    return open(key, contextOf(imported), sealed);
  } finally {
    wipe(key);
  }
}
