import { wipe } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { type Signer, signerFromSeed } from "../../crypto/identity.ts";
import { deriveKey } from "../../crypto/kdf.ts";
import type { FederationId } from "../../ids.ts";

/** Bytes of the federation secret F: random, of one account, never derived from a password (docs/protocol.md §8.2). */
export const FEDERATION_SECRET_BYTES = 32;

const NO_SALT = new Uint8Array(0);

/** Derives one purpose's 32 bytes from F; `index` is a server's, or 0 where all servers share the purpose. */
function derive(secret: Uint8Array, federationId: FederationId, purpose: string, index: number): Uint8Array {
  return deriveKey(secret, 32, NO_SALT, "keyhold/v1/federation-secret", federationId, purpose, index);
}

function signerOf(secret: Uint8Array, federationId: FederationId, purpose: string, index = 0): Signer {
  const seed = derive(secret, federationId, purpose, index);
  try {
    return signerFromSeed(seed);
  } finally {
    wipe(seed);
  }
}

/** Signs requests, orders and decisions; the same at all servers. */
export const requestSigner = (secret: Uint8Array, id: FederationId): Signer => signerOf(secret, id, "request");

/** Signs votes and policies; the same at all servers. */
export const approvalSigner = (secret: Uint8Array, id: FederationId): Signer => signerOf(secret, id, "approval");

/** OPAQUE password at one server: 32 bytes, which no other server's record helps to guess. */
export const opaqueSecret = (secret: Uint8Array, id: FederationId, index: number): Uint8Array =>
  derive(secret, id, "opaque", index);

/** Seed of the account identity at one server, 32 bytes. */
export const identitySeed = (secret: Uint8Array, id: FederationId, index: number): Uint8Array =>
  derive(secret, id, "identity", index);

/** Seed of the one device that the account lists at one server, 32 bytes: all of the owner's devices are this one. */
export const deviceSeed = (secret: Uint8Array, id: FederationId, index: number): Uint8Array =>
  derive(secret, id, "device", index);

/** Token of that device, 32 bytes: gives the owner a login limit that nobody else uses up. */
export const deviceToken = (secret: Uint8Array, id: FederationId, index: number): Uint8Array =>
  derive(secret, id, "device-token", index);

/** Account name at every server: tells who it is to nobody who does not hold F. */
export const memberName = (secret: Uint8Array, id: FederationId): string =>
  `federated-${derive(secret, id, "name", 0).subarray(0, 16).toHex()}`;

/** Seals names of keys for the servers to keep, 32 bytes. */
export const labelKey = (secret: Uint8Array, id: FederationId): Uint8Array => derive(secret, id, "label", 0);

/**
 * Seed of the owner's additive part of a self-custodial key, 32 bytes; the scalar is made of it by wide reduction.
 *
 * @param nonce Nonce of the request that makes the key, 32 bytes.
 */
export function ownerSeed(secret: Uint8Array, id: FederationId, nonce: Uint8Array, type: string): Uint8Array {
  return deriveKey(
    secret,
    32,
    canon("keyhold/v1/federation-owner-salt", nonce),
    "keyhold/v1/federation-owner",
    id,
    type,
  );
}

/**
 * Seed of the X25519 key that shares let out for one request through a keyring are sealed to, 32 bytes (docs/protocol.md
 * §9.2): every device of the owner can open them.
 *
 * @param scope `registryScope` of the registry. @param nonce Nonce of the request, 32 bytes.
 */
export function keyringRecipientSeed(secret: Uint8Array, scope: FederationId, nonce: Uint8Array): Uint8Array {
  return deriveKey(secret, 32, NO_SALT, "keyhold/v1/keyring-recipient", scope, nonce);
}
