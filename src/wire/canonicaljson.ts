import type { Json } from "./codec.ts";

/**
 * The one JSON text of a value: the JSON Canonicalization Scheme (RFC 8785) for what the codecs emit. Names are sorted
 * by UTF-16 code units; strings and numbers are written as ECMAScript writes them, which is what the scheme asks for.
 *
 * @throws RangeError for a number without an exact integer value, or ill-formed text.
 */
export function canonicalJson(value: Json): string {
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw new RangeError("json: not a safe integer");
  if (typeof value === "string" && !value.isWellFormed()) throw new RangeError("json: ill-formed text");
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (isList(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const names = Object.keys(value).sort();
  const members = names.map((name) => `${canonicalJson(name)}:${canonicalJson(value[name] ?? null)}`);
  return `{${members.join(",")}}`;
}

const isList = (value: Json): value is readonly Json[] => Array.isArray(value);
