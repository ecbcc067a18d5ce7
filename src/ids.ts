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
