import { Fault } from "./errors.ts";

declare const brand: unique symbol;
type Branded<B extends string> = string & { readonly [brand]: B };

/** 128-bit identifiers, text form: 32 lower-case hexadecimal digits (docs/protocol.md §1.3). */
export type UserId = Branded<"UserId">;
export type KeyId = Branded<"KeyId">;
export type SessionId = Branded<"SessionId">;
export type RequestId = Branded<"RequestId">;
export type DeviceId = Branded<"DeviceId">;
export type IncarnationId = Branded<"IncarnationId">;
/** A change that waits in a vault for a server that is away. */
export type EntryId = Branded<"EntryId">;

export type AnyId = UserId | KeyId | SessionId | RequestId | DeviceId | IncarnationId | EntryId;

/** Size of every id in bytes. */
export const ID_BYTES = 16;

const ID_TEXT = /^[0-9a-f]{32}$/;

/** True for the text form of an id. */
export function isId(text: string): boolean {
  return ID_TEXT.test(text);
}

/**
 * Gives a text its id type after checking its form.
 *
 * @throws Fault bad_input
 */
export function asId<T extends AnyId>(text: string): T {
  if (!ID_TEXT.test(text)) {
    throw new Fault("bad_input", "an id is 32 lower-case hexadecimal digits");
  }
  return text as T;
}

/** Draws 16 bytes from `random` and gives their text form. */
export function newId<T extends AnyId>(random: (length: number) => Uint8Array): T {
  return random(ID_BYTES).toHex() as T;
}

/** The 16 bytes of an id. */
export function idBytes(id: AnyId): Uint8Array {
  return Uint8Array.fromHex(id);
}

/** 256-bit identifiers, text form: 64 lower-case hexadecimal digits; each is the hash of what it names (§8). */
export type FederationId = Branded<"FederationId">;
export type FederatedRequestId = Branded<"FederatedRequestId">;
export type FederatedKeyId = Branded<"FederatedKeyId">;
/** Hash of the first document of a policy's chain. */
export type PolicyId = Branded<"PolicyId">;

/** A workspace is named by its policy: its owners are the approvers (docs/protocol.md §9.1). */
export type WorkspaceId = PolicyId;
export type KeyringId = Branded<"KeyringId">;
/** Hash over the items of a request that goes through a keyring. */
export type KeyringRequestId = Branded<"KeyringRequestId">;

/** Hash of a ceremony's manifest (docs/protocol.md §10.2). */
export type CeremonyId = Branded<"CeremonyId">;
/** A key in the key store; its versions share it. */
export type StoredKeyId = Branded<"StoredKeyId">;
/** What one requester asked of the distribution server. */
export type OtpAskId = Branded<"OtpAskId">;

export type AnyHashId =
  | FederationId
  | FederatedRequestId
  | FederatedKeyId
  | PolicyId
  | KeyringId
  | KeyringRequestId
  | CeremonyId
  | StoredKeyId
  | OtpAskId;

const HASH_TEXT = /^[0-9a-f]{64}$/;

/** True for the text form of a 256-bit id. */
export function isHashId(text: string): boolean {
  return HASH_TEXT.test(text);
}

/**
 * Gives a text its id type after checking its form.
 *
 * @throws Fault bad_input
 */
export function asHashId<T extends AnyHashId>(text: string): T {
  if (!HASH_TEXT.test(text)) throw new Fault("bad_input", "this id is 64 lower-case hexadecimal digits");
  return text as T;
}

/** The id that a 32-byte hash is. */
export function hashId<T extends AnyHashId>(hash: Uint8Array): T {
  return asHashId(hash.toHex());
}
