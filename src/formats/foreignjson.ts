import { Fault } from "../errors.ts";
import { fileText } from "./gathering.ts";
import { unreadable } from "./item.ts";

/** An object of a JSON file; its members are read with the functions below, which look at own ones alone. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** How deep a file may nest, and of how many objects, lists and members it may be made. */
const MOST = { depth: 64, nests: 1_000_000, commas: 8_000_000 } as const;

/**
 * Parses the JSON of another program, after a look at its shape that bounds memory and depth.
 *
 * @throws Fault bad_input, too_large
 */
export function parseForeign(format: string, source: Uint8Array | string): JsonObject {
  const text = fileText(format, source);
  checkShape(format, text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw unreadable(format, "it is no JSON, or cut short");
  }
  return objectOf(format, value);
}

function checkShape(format: string, text: string): void {
  let depth = 0;
  let nests = 0;
  let commas = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (quoted) {
      if (c === 0x5c) i++;
      else if (c === 0x22) quoted = false;
    } else if (c === 0x22) quoted = true;
    else if (c === 0x7b || c === 0x5b) {
      depth++;
      nests++;
      if (depth > MOST.depth) throw unreadable(format, `it nests deeper than ${MOST.depth} levels`);
    } else if (c === 0x7d || c === 0x5d) depth--;
    else if (c === 0x2c) commas++;
    if (nests > MOST.nests || commas > MOST.commas) {
      throw new Fault("too_large", `cannot read this file as ${format}: it holds too many values`, {
        hint: "import it in parts",
      });
    }
  }
}

/** The value as an object. @throws Fault bad_input */
export function objectOf(format: string, value: unknown): JsonObject {
  if (!isObject(value)) throw unreadable(format, "something stands where an object belongs");
  return value;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** An own member, or undefined. */
export function member(object: JsonObject, key: string): unknown {
  return Object.hasOwn(object, key) ? (object[key] ?? undefined) : undefined;
}

/** A member that is an object, or an empty one where it is missing. @throws Fault bad_input */
export function objectIn(format: string, object: JsonObject, key: string): JsonObject {
  const value = member(object, key);
  return value === undefined ? {} : objectOf(format, value);
}

/** A member that is a list, or an empty one where it is missing. @throws Fault bad_input */
export function listIn(format: string, object: JsonObject, key: string): readonly unknown[] {
  const value = member(object, key);
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw unreadable(format, "something stands where a list belongs");
  return value;
}

/** A member that is text, or a number as text; empty where it is missing. @throws Fault bad_input */
export function textIn(format: string, object: JsonObject, key: string): string {
  const value = member(object, key);
  if (value === undefined) return "";
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  throw unreadable(format, "something stands where text belongs");
}

/** A member that is a whole number, or null where it is missing or another thing. */
export function wholeIn(object: JsonObject, key: string): number | null {
  const value = member(object, key);
  return typeof value === "number" && Number.isSafeInteger(value) ? value : null;
}
