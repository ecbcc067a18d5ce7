import { open, seal } from "../crypto/aead.ts";
import { equalBytes, type RandomSource, wipe } from "../crypto/bytes.ts";
import { deriveKey } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { DeviceId, UserId } from "../ids.ts";
import type { Settings } from "./state.ts";

const NO_SALT = new Uint8Array(0);

/** What an OPAQUE export key yields for one account (docs/protocol.md §5.1); 32 bytes each. */
export interface PasswordKeys {
  readonly master: Uint8Array;
  readonly commitment: Uint8Array;
}

/** Derives the master key and its commitment from an export key (64 bytes, not retained). */
export function passwordKeys(exportKey: Uint8Array, userId: UserId): PasswordKeys {
  return {
    master: deriveKey(exportKey, 32, NO_SALT, "keyhold/v1/master", userId),
    commitment: deriveKey(exportKey, 32, NO_SALT, "keyhold/v1/master-commitment", userId),
  };
}

/** Proof in the signed settings that they belong to this password: 32 bytes. */
export function credentialTag(exportKey: Uint8Array, userId: UserId, revision: number): Uint8Array {
  return deriveKey(exportKey, 32, NO_SALT, "keyhold/v1/credential-tag", userId, revision);
}

/** Keys under the account key, 32 bytes each. */
export interface AccountKeys {
  /** Wraps the data keys of secrets. */
  readonly record: Uint8Array;
  /** Seals names, tags and device names. */
  readonly index: Uint8Array;
  /** Wraps the account identity's seed. */
  readonly identity: Uint8Array;
  /** Wraps the account key before this one. */
  readonly previous: Uint8Array;
}

/** Derives what the account key (32 bytes, not retained) opens. */
export function accountKeys(accountKey: Uint8Array, userId: UserId): AccountKeys {
  const derive = (purpose: string) => deriveKey(accountKey, 32, NO_SALT, "keyhold/v1/account-subkey", userId, purpose);
  return {
    record: derive("record"),
    index: derive("index"),
    identity: derive("identity"),
    previous: derive("previous"),
  };
}

/** Wraps the account key under a password; the result goes into the settings. */
export function wrapAccountKey(
  exportKey: Uint8Array,
  userId: UserId,
  revision: number,
  accountKey: Uint8Array,
  random: RandomSource,
): Pick<Settings, "wrappedAccountKey" | "masterCommitment" | "credentialTag" | "credentialRevision"> {
  const keys = passwordKeys(exportKey, userId);
  try {
    return {
      wrappedAccountKey: seal(keys.master, { kind: "account-key", userId, revision }, accountKey, random),
      masterCommitment: keys.commitment,
      credentialTag: credentialTag(exportKey, userId, revision),
      credentialRevision: revision,
    };
  } finally {
    wipe(keys.master);
  }
}

/**
 * Opens the account key after a login.
 *
 * @throws Fault integrity when the settings do not belong to this password and account.
 */
export function unwrapAccountKey(exportKey: Uint8Array, userId: UserId, settings: Settings): Uint8Array {
  const keys = passwordKeys(exportKey, userId);
  try {
    const tag = credentialTag(exportKey, userId, settings.credentialRevision);
    if (!equalBytes(keys.commitment, settings.masterCommitment) || !equalBytes(tag, settings.credentialTag)) {
      throw new Fault("integrity", "the server's account settings do not belong to this password");
    }
    const context = { kind: "account-key", userId, revision: settings.credentialRevision } as const;
    return open(keys.master, context, settings.wrappedAccountKey);
  } finally {
    wipe(keys.master);
  }
}

/** Seals the account identity's 32-byte seed. */
export function wrapIdentity(keys: AccountKeys, userId: UserId, seed: Uint8Array, random: RandomSource): Uint8Array {
  return seal(keys.identity, { kind: "account-identity", userId }, seed, random);
}

/** Opens the account identity's seed. @throws Fault integrity */
export function unwrapIdentity(keys: AccountKeys, userId: UserId, wrapped: Uint8Array): Uint8Array {
  return open(keys.identity, { kind: "account-identity", userId }, wrapped);
}

/** Seals the account key before (32 bytes) under the one that takes its place at `revision`. */
export function wrapPreviousKey(
  keys: AccountKeys,
  userId: UserId,
  revision: number,
  previous: Uint8Array,
  random: RandomSource,
): Uint8Array {
  return seal(keys.previous, { kind: "previous-account-key", userId, revision }, previous, random);
}

/**
 * Earlier account keys (32 bytes each), newest first, which the current one opens one after another. The caller wipes
 * them.
 *
 * @throws Fault integrity
 */
export function previousKeys(accountKey: Uint8Array, userId: UserId, settings: Settings): readonly Uint8Array[] {
  const found: Uint8Array[] = [];
  let key = accountKey;
  for (const { revision, wrapped } of settings.rotations.toReversed()) {
    key = open(accountKeys(key, userId).previous, { kind: "previous-account-key", userId, revision }, wrapped);
    found.push(key);
  }
  return found;
}

/** Seals a device's name. */
export function sealDeviceName(
  keys: AccountKeys,
  userId: UserId,
  deviceId: DeviceId,
  name: string,
  random: RandomSource,
): Uint8Array {
  return seal(keys.index, { kind: "device-name", userId, deviceId }, new TextEncoder().encode(name), random);
}

/** Opens a device's name. @throws Fault integrity */
export function openDeviceName(keys: AccountKeys, userId: UserId, deviceId: DeviceId, sealed: Uint8Array): string {
  return new TextDecoder().decode(open(keys.index, { kind: "device-name", userId, deviceId }, sealed));
}
