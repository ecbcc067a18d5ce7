import { type CanonValue, canon } from "../../crypto/canon.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import { type FederatedRequestId, hashId, type KeyringId, type KeyringRequestId, type WorkspaceId } from "../../ids.ts";

/** One party of a keyring: an operator's connector beside one server of the federation (docs/protocol.md §9.1). */
export interface Party {
  /** 1 to 64 lower-case letters, digits, `.` `_` `-`; unique in the keyring. */
  readonly name: string;
  /** Index of its server in the federation's manifest. */
  readonly index: number;
  /** Ed25519 key of its responses, 32 bytes. */
  readonly key: Uint8Array;
}

/** What a keyring asks for, in whole credits. */
export interface Fees {
  readonly key: number;
  /** For each signature of a batch. */
  readonly signature: number;
}

/** What of a keyring holds for a request from its creation on, whatever changes meanwhile. */
export interface Snapshot {
  /** Ascending by index. */
  readonly parties: readonly Party[];
  /** Agreeing responses that fulfil. */
  readonly threshold: number;
  /** Of the whole request, escrowed. */
  readonly fee: number;
}

/** The id of a keyring: hash of who made it, its first name, and 32 random bytes of its maker. */
export function keyringIdOf(registry: Uint8Array, name: string, nonce: Uint8Array): KeyringId {
  return hashId(hashCanon("keyhold/v1/keyring-id", registry, name, nonce));
}

/** The id of a request that goes through a keyring: hash over its items, in their order. */
export function keyringRequestIdOf(
  keyringId: KeyringId,
  workspaceId: WorkspaceId,
  items: readonly FederatedRequestId[],
): KeyringRequestId {
  return hashId(hashCanon("keyhold/v1/keyring-request-id", keyringId, workspaceId, [...items]));
}

/** Ties an Ed25519 key to an account at a registry: `owner` of workspaces, or `party` of keyrings. */
export interface KeyringEnrolment {
  readonly registry: Uint8Array;
  readonly userId: string;
  readonly role: "owner" | "party";
  readonly key: Uint8Array;
}

/** What the key itself signs, so that nobody enrols another's. */
export function keyringEnrolmentBytes(e: KeyringEnrolment): Uint8Array {
  const parts: CanonValue[] = [e.registry, e.userId, e.role, e.key];
  return canon("keyhold/v1/keyring-enrol", ...parts);
}
