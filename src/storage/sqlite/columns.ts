import { Fault } from "../../errors.ts";
import { type AnyId, idBytes } from "../../ids.ts";
import type { Settings, SignedState } from "../../protocol/state.ts";
import { type Codec, encodeJson } from "../../wire/codec.ts";
import { settings, signedState } from "../../wire/records.ts";

/** An id as its column holds it. */
export function idColumn(id: AnyId): Uint8Array {
  return idBytes(id);
}

/** An id or null as its column holds it. */
export function optionalIdColumn(id: AnyId | null): Uint8Array | null {
  return id === null ? null : idBytes(id);
}

/** The id in a column. */
export function idOf<T extends AnyId>(column: Uint8Array): T {
  return column.toHex() as T;
}

/** The id or null in a column. */
export function optionalIdOf<T extends AnyId>(column: Uint8Array | null): T | null {
  return column === null ? null : idOf<T>(column);
}

function jsonOf<T>(codec: Codec<T>, text: string, what: string): T {
  try {
    return codec.decode(JSON.parse(text), what);
  } catch {
    throw new Fault("corrupt", `cannot read the database: ${what} are not in the documented form`, {
      hint: "keyhold server check, or restore a backup",
    });
  }
}

/** Settings as their column holds them: JSON text. */
export const settingsColumn = (value: Settings): string => encodeJson(settings, value);

/** The settings in a column. @throws Fault corrupt */
export const settingsOf = (text: string): Settings => jsonOf(settings, text, "an account's settings");

/** A signed state as its column holds it: JSON text. */
export const stateColumn = (value: SignedState): string => encodeJson(signedState, value);

/** The signed state in a column. @throws Fault corrupt */
export const stateOf = (text: string): SignedState => jsonOf(signedState, text, "an account's state");

/** True when two byte strings of a row are equal; not for secrets. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
