import { Fault } from "../errors.ts";
import type {
  DeviceId,
  EntryId,
  FederatedKeyId,
  FederatedRequestId,
  FederationId,
  KeyId,
  RequestId,
  SessionId,
  StoredKeyId,
  UserId,
} from "../ids.ts";
import { concat, type RandomSource } from "./bytes.ts";
import { type CanonValue, canon } from "./canon.ts";
import { XAES, xaesOpen, xaesSeal } from "./xaes.ts";

/** What a ciphertext is. A new one starts here and in docs/protocol.md §2.2. */
export type AadContext =
  | { kind: "secret"; userId: UserId; keyId: KeyId; version: number; type: string }
  | { kind: "data-key"; userId: UserId; keyId: KeyId; version: number }
  | { kind: "meta"; userId: UserId; keyId: KeyId; serial: number }
  | { kind: "meta-key"; userId: UserId; keyId: KeyId; serial: number }
  | { kind: "account-key"; userId: UserId; revision: number }
  | { kind: "account-identity"; userId: UserId }
  | { kind: "previous-account-key"; userId: UserId; revision: number }
  | { kind: "device-link"; linkId: Uint8Array }
  | { kind: "device-name"; userId: UserId; deviceId: DeviceId }
  | { kind: "login-reply"; sessionId: SessionId }
  | {
      kind: "frame";
      sessionId: SessionId;
      direction: "request" | "reply";
      sequence: number;
      operation: string;
      requestId: RequestId;
      /** SHA-256 of the request's frame, for a reply only. */
      requestFrameHash: Uint8Array | null;
    }
  | { kind: "login-state"; sessionId: SessionId; credentialId: Uint8Array; recordVersion: number; expiresAtMs: number }
  | { kind: "session"; sessionId: SessionId; userId: UserId }
  | { kind: "account-name"; credentialId: Uint8Array }
  | { kind: "vault-key"; vaultId: Uint8Array; slot: "password" | "account" | "kit"; header: Uint8Array }
  | { kind: "vault-body"; vaultId: Uint8Array; generation: number; header: Uint8Array }
  | { kind: "vault-pending"; vaultId: Uint8Array }
  | { kind: "queued"; userId: UserId; entryId: EntryId; type: string }
  | {
      kind: "key-share";
      /** Ed25519 key of the enclave that holds it, 32 bytes. */
      server: Uint8Array;
      keyId: FederatedKeyId;
      manifestEpoch: number;
      shareGeneration: number;
      type: string;
      custody: string;
    }
  | {
      kind: "pending-share";
      server: Uint8Array;
      requestId: FederatedRequestId;
      attempt: number;
      /** Of the certificate that this server has signed, 32 bytes. */
      certificateHash: Uint8Array;
    }
  | { kind: "federation-label"; federationId: FederationId; requestId: FederatedRequestId }
  /** Imported `bytes`: request key and nonce of the request that brings them, 32 bytes each. */
  | { kind: "federated-value"; federationId: FederationId; requester: Uint8Array; nonce: Uint8Array }
  /** Private halves of an enclave's key pair for ceremonies. */
  | { kind: "ceremony-key"; server: Uint8Array; number: number; statementHash: Uint8Array }
  /** Seed of a ceremony that its server has committed to. */
  | { kind: "ceremony-seed"; server: Uint8Array; seedHash: Uint8Array }
  /** Value of the key store under one version of its record. */
  | { kind: "stored-key"; server: Uint8Array; keyId: StoredKeyId; version: number; recordHash: Uint8Array }
  /** Key of an account's second factor, sealed by its server. */
  | { kind: "second-factor"; userId: UserId };

/** First byte of each sealed value: which suite made it. 0x01 is XAES-256-GCM. */
export const SUITE_XAES = 0x01;

/** Bytes that sealing adds: suite (1), nonce (24), tag (16). */
export const SEAL_OVERHEAD = 1 + XAES.nonceBytes + XAES.tagBytes;

/** The associated data of a context: canon over its kind and its fields in the documented order. */
export function aadBytes(context: AadContext): Uint8Array {
  return canon(`keyhold/v1/aad/${context.kind}`, SUITE_XAES, ...fields(context));
}

function fields(c: AadContext): CanonValue[] {
  switch (c.kind) {
    case "secret":
      return [c.userId, c.keyId, c.version, c.type];
    case "data-key":
      return [c.userId, c.keyId, c.version];
    case "meta":
    case "meta-key":
      return [c.userId, c.keyId, c.serial];
    case "account-key":
      return [c.userId, c.revision];
    case "previous-account-key":
      return [c.userId, c.revision];
    case "device-link":
      return [c.linkId];
    case "account-identity":
      return [c.userId];
    case "device-name":
      return [c.userId, c.deviceId];
    case "login-reply":
      return [c.sessionId];
    case "frame":
      return [c.sessionId, c.direction, c.sequence, c.operation, c.requestId, c.requestFrameHash];
    case "login-state":
      return [c.sessionId, c.credentialId, c.recordVersion, c.expiresAtMs];
    case "session":
      return [c.sessionId, c.userId];
    case "account-name":
      return [c.credentialId];
    case "vault-key":
      return [c.vaultId, c.slot, c.header];
    case "vault-body":
      return [c.vaultId, c.generation, c.header];
    case "vault-pending":
      return [c.vaultId];
    case "queued":
      return [c.userId, c.entryId, c.type];
    case "key-share":
      return [c.server, c.keyId, c.manifestEpoch, c.shareGeneration, c.type, c.custody];
    case "pending-share":
      return [c.server, c.requestId, c.attempt, c.certificateHash];
    case "federation-label":
      return [c.federationId, c.requestId];
    case "federated-value":
      return [c.federationId, c.requester, c.nonce];
    case "ceremony-key":
      return [c.server, c.number, c.statementHash];
    case "ceremony-seed":
      return [c.server, c.seedHash];
    case "stored-key":
      return [c.server, c.keyId, c.version, c.recordHash];
    case "second-factor":
      return [c.userId];
  }
}

/**
 * Encrypts and binds one value to its context (XAES-256-GCM, docs/protocol.md §2).
 *
 * @param key 32 bytes from `deriveKey`; never a raw export key. Not retained.
 * @param context Bound as AAD: opening under another context fails.
 * @param random Source of the 24-byte nonce, fresh per call.
 * @returns suite (1) ‖ nonce (24) ‖ ciphertext ‖ tag (16): plaintext length + 41 bytes.
 */
export function seal(key: Uint8Array, context: AadContext, plaintext: Uint8Array, random: RandomSource): Uint8Array {
  const nonce = random(XAES.nonceBytes);
  return concat(Uint8Array.of(SUITE_XAES), nonce, xaesSeal(key, nonce, aadBytes(context), plaintext));
}

/**
 * Opens what {@link seal} made under the same key and context.
 *
 * @returns The plaintext, owned by the caller.
 * @throws Fault integrity when anything differs: key, context, a bit, the length.
 */
export function open(key: Uint8Array, context: AadContext, sealed: Uint8Array): Uint8Array {
  const start = 1 + XAES.nonceBytes;
  if (sealed.length >= SEAL_OVERHEAD && sealed[0] === SUITE_XAES) {
    const plaintext = xaesOpen(key, sealed.subarray(1, start), aadBytes(context), sealed.subarray(start));
    if (plaintext) return plaintext;
  }
  throw new Fault("integrity", `a ciphertext does not belong where it was found (${context.kind})`);
}
