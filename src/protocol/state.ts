import { canon } from "../crypto/canon.ts";
import type { Signer } from "../crypto/identity.ts";
import { verifyAhead, verifySignature } from "../crypto/identity.ts";
import { hashCanon, sha256 } from "../crypto/kdf.ts";
import type { DeviceId, IncarnationId, RequestId, UserId } from "../ids.ts";

/** One device of an account; its name is sealed under the index key. */
export interface Device {
  readonly id: DeviceId;
  /** Ed25519 public key, 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly name: Uint8Array;
  /** SHA-256 of the device token, 32 bytes. */
  readonly tokenHash: Uint8Array;
  readonly addedAtMs: number;
}

/** One rotation of the account key and the identity (docs/protocol.md §5.7). */
export interface Rotation {
  /** Revision of the state that made it. */
  readonly revision: number;
  /** Ed25519 account identity before it, 32 bytes. */
  readonly identity: Uint8Array;
  /** Account key before it, sealed under the one after it. */
  readonly wrapped: Uint8Array;
  /** Signature of the identity before over {@link handoverBytes}, 64 bytes. */
  readonly handover: Uint8Array;
}

/** What the owner's signature covers beside the secrets (docs/protocol.md §5.3). */
export interface Settings {
  /** Ed25519 account identity, 32 bytes. */
  readonly identity: Uint8Array;
  readonly devices: readonly Device[];
  /** Account key sealed under the master key. */
  readonly wrappedAccountKey: Uint8Array;
  /** Commitment to the master key that opens it, 32 bytes. */
  readonly masterCommitment: Uint8Array;
  /** Account identity's seed sealed under the account key. */
  readonly wrappedIdentity: Uint8Array;
  /** HKDF(export key, account, credentialRevision), 32 bytes. */
  readonly credentialTag: Uint8Array;
  readonly credentialRevision: number;
  /** Public halves of the recovery kit: X25519 ‖ Ed25519, 64 bytes; null without a kit. */
  readonly kit: Uint8Array | null;
  /** Account key sealed to the kit; null without a kit. */
  readonly kitWrapped: Uint8Array | null;
  /** Earlier account keys and identities, oldest first. */
  readonly rotations: readonly Rotation[];
}

/** What an identity signs when another takes its place. */
export function handoverBytes(userId: UserId, from: Uint8Array, to: Uint8Array, revision: number): Uint8Array {
  return canon("keyhold/v1/identity-handover", userId, from, to, revision);
}

/**
 * True when each identity handed over to the next one, up to the current one: settings of an account that was never
 * rotated have nothing to show.
 */
export function handoversHold(userId: UserId, settings: Settings): boolean {
  return settings.rotations.every(({ identity, revision, handover }, i) => {
    const next = settings.rotations[i + 1]?.identity ?? settings.identity;
    return verifySignature(identity, handoverBytes(userId, identity, next, revision), handover);
  });
}

/** Stands in the last state of a deleted account in the place of its settings' hash: 32 bytes. */
export function closedHash(userId: UserId): Uint8Array {
  return hashCanon("keyhold/v1/account-closed", userId);
}

/** Hash of settings: 32 bytes. */
export function settingsHash(s: Settings): Uint8Array {
  return hashCanon(
    "keyhold/v1/settings",
    s.identity,
    s.devices.map((d) => [d.id, d.publicKey, d.name, d.tokenHash, d.addedAtMs]),
    s.wrappedAccountKey,
    s.masterCommitment,
    s.wrappedIdentity,
    s.credentialTag,
    s.credentialRevision,
    s.kit,
    s.kitWrapped,
    s.rotations.map((r) => [r.revision, r.identity, r.wrapped, r.handover]),
  );
}

/** The account after one mutation, as its owner signs it (docs/protocol.md §5.4). Hashes have 32 bytes. */
export interface AccountState {
  readonly incarnation: IncarnationId;
  readonly userId: UserId;
  readonly deviceId: DeviceId;
  /** From 1, without a gap. */
  readonly revision: number;
  /** Hash of the state before; zeros at revision 1. */
  readonly previous: Uint8Array;
  readonly requestId: RequestId;
  /** {@link bodyHash} of the request that this state belongs to. */
  readonly requestHash: Uint8Array;
  /** Root of the sparse Merkle map over all leaves. */
  readonly root: Uint8Array;
  readonly settingsHash: Uint8Array;
  /** Last audit entry that this device verified: sequence and link (0 and zeros for none). */
  readonly auditSeq: number;
  readonly auditLink: Uint8Array;
}

/** A state with the account identity's and the acting device's signatures (64 bytes each). */
export interface SignedState {
  readonly state: AccountState;
  readonly identitySignature: Uint8Array;
  readonly deviceSignature: Uint8Array;
}

/** What both signatures of a state cover. */
export function stateBytes(s: AccountState): Uint8Array {
  return canon(
    "keyhold/v1/account-state",
    s.incarnation,
    s.userId,
    s.deviceId,
    s.revision,
    s.previous,
    s.requestId,
    s.requestHash,
    s.root,
    s.settingsHash,
    s.auditSeq,
    s.auditLink,
  );
}

/** Hash of a state: what the next one names as `previous`, and what a client pins. */
export function stateHash(state: AccountState): Uint8Array {
  return sha256(stateBytes(state));
}

/** Signs a state with the account identity and the acting device. */
export function signState(state: AccountState, identity: Signer, device: Signer): SignedState {
  const message = stateBytes(state);
  return { state, identitySignature: identity.sign(message), deviceSignature: device.sign(message) };
}

/** Verifies a state's signatures on other threads, for {@link stateSignaturesHold} to find done; decides nothing. */
export async function verifyStateAhead(signed: SignedState, settings: Settings): Promise<void> {
  const device = settings.devices.find((d) => d.id === signed.state.deviceId);
  if (!device) return;
  const message = stateBytes(signed.state);
  await Promise.all([
    verifyAhead(settings.identity, message, signed.identitySignature),
    verifyAhead(device.publicKey, message, signed.deviceSignature),
  ]);
}

/** True when both signatures hold and the device stands in `settings` (never trust without it). */
export function stateSignaturesHold(signed: SignedState, settings: Settings): boolean {
  const device = settings.devices.find((d) => d.id === signed.state.deviceId);
  if (!device) return false;
  const message = stateBytes(signed.state);
  return (
    verifySignature(settings.identity, message, signed.identitySignature) &&
    verifySignature(device.publicKey, message, signed.deviceSignature)
  );
}

/** Hash of a request's plaintext body without its state (docs/protocol.md §4.3): 32 bytes. */
export function bodyHash(operation: string, bodyJson: string): Uint8Array {
  return hashCanon("keyhold/v1/request", operation, bodyJson);
}
