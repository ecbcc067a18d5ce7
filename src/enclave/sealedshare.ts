import { type AadContext, open, seal } from "../crypto/aead.ts";
import type { RandomSource } from "../crypto/bytes.ts";
import { type Certificate, certificateHash } from "../protocol/federation/certificate.ts";
import type { EnclaveKeys } from "./keys.ts";

/** Of a share in use: opens nowhere but under this key, generation, type, custody, epoch and server. */
function live({ signer }: EnclaveKeys, c: Certificate): AadContext {
  return {
    kind: "key-share",
    server: signer.publicKey,
    keyId: c.keyId,
    manifestEpoch: c.epoch,
    shareGeneration: c.generation,
    type: c.type,
    custody: c.custody,
  };
}

/** Of a share whose certificate the owner has not accepted: it serves no request. */
function pending({ signer }: EnclaveKeys, c: Certificate): AadContext {
  return {
    kind: "pending-share",
    server: signer.publicKey,
    requestId: c.requestId,
    attempt: c.attempt,
    certificateHash: certificateHash(c),
  };
}

/** Seals a new share until its certificate is accepted. The share stays the caller's to wipe. */
export function sealPending(keys: EnclaveKeys, c: Certificate, share: Uint8Array, random: RandomSource): Uint8Array {
  return seal(keys.shareKey, pending(keys, c), share, random);
}

/** Opens a pending share; the caller wipes it. @throws Fault integrity */
export function openPending(keys: EnclaveKeys, c: Certificate, sealed: Uint8Array): Uint8Array {
  return open(keys.shareKey, pending(keys, c), sealed);
}

/** Seals a share for use. It stays the caller's to wipe. */
export function sealLive(keys: EnclaveKeys, c: Certificate, share: Uint8Array, random: RandomSource): Uint8Array {
  return seal(keys.shareKey, live(keys, c), share, random);
}

/** Opens a share for use; the caller wipes it. @throws Fault integrity */
export function openLive(keys: EnclaveKeys, c: Certificate, sealed: Uint8Array): Uint8Array {
  return open(keys.shareKey, live(keys, c), sealed);
}
