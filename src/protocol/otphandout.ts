import { canon } from "../crypto/canon.ts";
import { type Signer, verifySignature } from "../crypto/identity.ts";
import { hashCanon } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { hashId, type OtpAskId, type StoredKeyId } from "../ids.ts";
import type { SignedCeremonyKey, StoredKeyRecord } from "./ceremony/model.ts";
import { ceremonyKeyHash, storedKeyHash } from "./ceremony/records.ts";

/** What one requester asks of the distribution server (docs/protocol.md §10.8). */
export interface OtpAsk {
  /** Identity of the server, 32 bytes. */
  readonly server: Uint8Array;
  readonly keyId: StoredKeyId;
  /** One code; or the key itself for an authenticator, which only one requester ever gets. */
  readonly want: "code" | "provision";
  /** X25519, drawn for this ask alone, 32 bytes. */
  readonly recipient: Uint8Array;
  readonly nonce: Uint8Array;
  /** By the requester's clock. */
  readonly atMs: number;
}

/** An ask of a device without an account. */
export interface SignedOtpAsk {
  readonly ask: OtpAsk;
  /** Ed25519 key that the issuer enrolled, 32 bytes. */
  readonly device: Uint8Array;
  readonly signature: Uint8Array;
}

const parts = (a: OtpAsk) => [a.server, a.keyId, a.want, a.recipient, a.nonce, a.atMs] as const;

/** What a device signs. */
export function otpAskBytes(ask: OtpAsk, device: Uint8Array): Uint8Array {
  return canon("keyhold/v1/otp-ask", ...parts(ask), device);
}

/** Names an ask: the same ask gets the same sealed bytes. @param requester Account id, or device key in hexadecimal. */
export function otpAskIdOf(ask: OtpAsk, requester: string): OtpAskId {
  return hashId(hashCanon("keyhold/v1/otp-ask-id", ...parts(ask), requester));
}

/**
 * What the issuer's log keeps of whom a key was handed to, 32 bytes: who knows the name can hold it to the entry.
 *
 * @param name Account name, or device key in hexadecimal.
 */
export function handedToHash(keyId: StoredKeyId, kind: "account" | "device", name: string): Uint8Array {
  return hashCanon("keyhold/v1/otp-handed-to", keyId, kind, name);
}

export function signOtpAsk(device: Signer, ask: OtpAsk): SignedOtpAsk {
  return { ask, device: device.publicKey, signature: device.sign(otpAskBytes(ask, device.publicKey)) };
}

/** @throws Fault denied */
export function verifyOtpAsk({ ask, device, signature }: SignedOtpAsk): OtpAsk {
  if (verifySignature(device, otpAskBytes(ask, device), signature)) return ask;
  throw new Fault("denied", "the device's signature under its request does not hold");
}

/** HPKE info of what is handed out. */
export function handoutInfo(ask: OtpAskId, want: OtpAsk["want"], record: StoredKeyRecord): Uint8Array {
  return canon("keyhold/v1/otp-handout", ask, want, record.enclave, record.keyId, record.version);
}

/** HPKE info of a key that moves to another server's store. @param counter Next one of a `hotp`; else 0. */
export function parcelInfo(record: StoredKeyRecord, to: SignedCeremonyKey["key"], counter: number): Uint8Array {
  return canon("keyhold/v1/stored-key-parcel", storedKeyHash(record), ceremonyKeyHash(to), counter);
}

/** What the enclave that lets a key go signs: record, destination, counter and the sealed value. */
export function parcelBytes(
  record: StoredKeyRecord,
  to: SignedCeremonyKey["key"],
  counter: number,
  sealed: Uint8Array,
): Uint8Array {
  return canon("keyhold/v1/stored-key-parcel-signed", storedKeyHash(record), ceremonyKeyHash(to), counter, sealed);
}
