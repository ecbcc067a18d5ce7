import { Fault } from "../errors.ts";
import { type AnyId, idBytes } from "../ids.ts";
import type { Settings, SignedState } from "../protocol/state.ts";
import { type Codec, encodeJson } from "../wire/codec.ts";
import { settings, signedState } from "../wire/records.ts";

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

/** Texts that one memory keeps: some kilobytes each, an account has one of each kind. */
const REMEMBERED = 1_024;

/** Decodes a text once while it is remembered, for each request of an account reads the same ones. */
function remembering<T extends object>(decode: (text: string) => T): (text: string) => T {
  const known = new Map<string, T>();
  return (text) => {
    const before = known.get(text);
    if (before !== undefined) return before;
    const made = decode(text);
    if (known.size >= REMEMBERED) known.clear();
    known.set(text, made);
    return made;
  };
}

/** Settings as their column holds them: JSON text. */
export const settingsColumn = (value: Settings): string => encodeJson(settings, value);

/** The settings in a column; shared by all who ask for the same ones, so never changed. @throws Fault corrupt */
export const settingsOf = remembering((text): Settings => jsonOf(settings, text, "an account's settings"));

/** A signed state as its column holds it: JSON text. */
export const stateColumn = (value: SignedState): string => encodeJson(signedState, value);

/** The signed state in a column; shared by all who ask for the same one, so never changed. @throws Fault corrupt */
export const stateOf = remembering((text): SignedState => jsonOf(signedState, text, "an account's state"));

/** True when two byte strings of a row are equal; not for secrets. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
