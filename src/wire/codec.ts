import { fromBase64url, toBase64url } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type AnyHashId, type AnyId, isHashId, isId } from "../ids.ts";
import { bytesSchema, NEVER, nullableSchema, type Schema, structSchema, taggedSchema, textSchema } from "./schema.ts";

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Reads and writes one type. `decode` is the only way for outside data to get a type. */
export interface Codec<T> {
  /** @throws Fault bad_input naming `path`; never echoes the value. */
  decode(value: unknown, path: string): T;
  /** Deterministic: the order of a struct's fields is the table's. */
  encode(value: T): Json;
  /** What it takes, in the words of JSON Schema; codecs that no operation uses may have none: {@link schemaOf}. */
  readonly schema?: () => Schema;
}

/** The type that a codec reads. */
export type Of<C> = C extends Codec<infer T> ? T : never;

function bad(path: string, what: string): never {
  throw new Fault("bad_input", `${path || "body"} must be ${what}`);
}

/** @param schema Made when it is first asked for: no command pays for it at its start. */
function codec<T>(decode: Codec<T>["decode"], encode: (value: T) => Json, schema: () => Schema): Codec<T> {
  let made: Schema | undefined;
  return {
    decode,
    encode,
    schema: () => {
      made ??= schema();
      return made;
    },
  };
}

/**
 * What a codec takes, in the words of JSON Schema 2020-12 (docs/protocol.md §1.4).
 *
 * @throws RangeError for a codec, or a part of it, that does not describe itself.
 */
export function schemaOf<T>(inner: Codec<T>): Schema {
  if (!inner.schema) throw new RangeError("codec: it does not describe itself");
  return inner.schema();
}

/** The same codec, with a sentence for who reads its schema. */
export function described<T>(inner: Codec<T>, description: string): Codec<T> {
  return codec(
    (value, path) => inner.decode(value, path),
    (value) => inner.encode(value),
    () => ({ ...schemaOf(inner), description }),
  );
}

/** Bytes as base64url without padding; bounds in bytes, inclusive. */
export function bytes(bounds: { min?: number; max: number } | { length: number }): Codec<Uint8Array> {
  const [min, max] = "length" in bounds ? [bounds.length, bounds.length] : [bounds.min ?? 0, bounds.max];
  const what = min === max ? `${min} bytes as base64url` : `${min} to ${max} bytes as base64url`;
  return codec(
    (value, path) => {
      if (typeof value !== "string" || value.length > Math.ceil((max * 4) / 3)) bad(path, what);
      try {
        const out = fromBase64url(value);
        if (out.length >= min && out.length <= max) return out;
      } catch {
        // falls through to the one error
      }
      return bad(path, what);
    },
    (value) => toBase64url(value),
    () => bytesSchema(min, max),
  );
}

/** Well-formed text; bounds in UTF-8 bytes, inclusive. */
export function text(bounds: { min?: number; max: number; pattern?: RegExp }): Codec<string> {
  const min = bounds.min ?? 0;
  return codec(
    (value, path) => {
      if (typeof value === "string" && value.length <= bounds.max && value.isWellFormed()) {
        const length = Buffer.byteLength(value);
        if (length >= min && length <= bounds.max && (bounds.pattern?.test(value) ?? true)) return value;
      }
      return bad(path, `text of ${min} to ${bounds.max} bytes${bounds.pattern ? " in the documented form" : ""}`);
    },
    (value) => value,
    () => textSchema(min, bounds.max, bounds.pattern),
  );
}

/** An unsigned integer up to `max` (default 2^32-1). */
export function uint(max = 0xffff_ffff, min = 0): Codec<number> {
  return codec(
    (value, path) =>
      typeof value === "number" && Number.isInteger(value) && value >= min && value <= max && !Object.is(value, -0)
        ? value
        : bad(path, `a whole number from ${min} to ${max}`),
    (value) => value,
    () => ({ type: "integer", minimum: min, maximum: max }),
  );
}

/** Milliseconds since 1970 or another count up to 2^53-1. */
export const u53: Codec<number> = uint(Number.MAX_SAFE_INTEGER);

export const bool: Codec<boolean> = codec(
  (value, path) => (typeof value === "boolean" ? value : bad(path, "true or false")),
  (value) => value,
  () => ({ type: "boolean" }),
);

/** One of a fixed list of words. */
export function oneOf<const W extends readonly string[]>(words: W): Codec<W[number]> {
  return codec(
    (value, path) =>
      typeof value === "string" && words.includes(value) ? value : bad(path, `one of ${words.join(", ")}`),
    (value) => value,
    () => ({ type: "string", enum: words }),
  );
}

/** A 128-bit id in its text form. */
export function id<T extends AnyId>(): Codec<T> {
  return codec(
    (value, path) =>
      typeof value === "string" && isId(value) ? (value as T) : bad(path, "an id of 32 hexadecimal digits"),
    (value) => value,
    () => ({ type: "string", pattern: "^[0-9a-f]{32}$" }),
  );
}

/** A 256-bit id in its text form. */
export function hashIdOf<T extends AnyHashId>(): Codec<T> {
  return codec(
    (value, path) =>
      typeof value === "string" && isHashId(value) ? (value as T) : bad(path, "an id of 64 hexadecimal digits"),
    (value) => value,
    () => ({ type: "string", pattern: "^[0-9a-f]{64}$" }),
  );
}

export function nullable<T>(inner: Codec<T>): Codec<T | null> {
  return codec(
    (value, path) => (value === null ? null : inner.decode(value, path)),
    (value) => (value === null ? null : inner.encode(value)),
    () => nullableSchema(schemaOf(inner)),
  );
}

/** A list of at most `max` items. */
export function list<T>(inner: Codec<T>, bounds: { min?: number; max: number }): Codec<readonly T[]> {
  const min = bounds.min ?? 0;
  return codec(
    (value, path) => {
      if (!Array.isArray(value) || value.length < min || value.length > bounds.max) {
        bad(path, `a list of ${min} to ${bounds.max} items`);
      }
      return (value as unknown[]).map((item, i) => inner.decode(item, `${path}[${i}]`));
    },
    (value) => value.map((item) => inner.encode(item)),
    () => ({ type: "array", items: schemaOf(inner), minItems: min, maxItems: bounds.max }),
  );
}

type Fields = { readonly [name: string]: Codec<unknown> };
type StructOf<F extends Fields> = { readonly [K in keyof F]: Of<F[K]> };

function schemasOf(codecs: Fields): Readonly<Record<string, Schema>> {
  return Object.fromEntries(Object.entries(codecs).map(([name, inner]) => [name, schemaOf(inner)]));
}

/** Fields of the codecs that {@link struct} made, so that {@link tagged} reads a case in one go. */
const fieldsOf = new WeakMap<Codec<unknown>, Fields>();

/** Refuses an object that has not exactly the wanted fields, for the first thing that is wrong with it. */
function badFields(from: Readonly<Record<string, unknown>>, fields: Fields, path: string): never {
  for (const key of Object.keys(from)) {
    if (!Object.hasOwn(fields, key)) throw new Fault("bad_input", `${path || "body"} has an unknown field`);
  }
  for (const [name, inner] of Object.entries(fields)) {
    const at = path ? `${path}.${name}` : name;
    if (!Object.hasOwn(from, name)) throw new Fault("bad_input", `${at} is missing`);
    inner.decode(from[name], at);
  }
  return bad(path, "an object");
}

/** An object with exactly these fields: a missing or an unknown one is refused. */
export function struct<F extends Fields>(fields: F): Codec<StructOf<F>> {
  const entries = Object.entries(fields);
  const made: Codec<StructOf<F>> = codec(
    (value, path) => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) bad(path, "an object");
      const from = value as Record<string, unknown>;
      // as many, and each of them there: no other
      let known = Object.keys(from).length === entries.length;
      for (const [name] of entries) known &&= Object.hasOwn(from, name);
      if (!known) badFields(from, fields, path);
      const out: Record<string, unknown> = {};
      for (const [name, inner] of entries) out[name] = inner.decode(from[name], path ? `${path}.${name}` : name);
      return out as StructOf<F>;
    },
    (value) => {
      const out: Record<string, Json> = {};
      for (const [name, inner] of entries) out[name] = inner.encode((value as Record<string, unknown>)[name]);
      return out;
    },
    () => structSchema(schemasOf(fields)),
  );
  fieldsOf.set(made, fields);
  return made;
}

type Cases = { readonly [tag: string]: Codec<unknown> };
type CaseOf<F extends string, C extends Cases> = {
  readonly [K in keyof C & string]: { readonly [P in F]: K } & Of<C[K]>;
}[keyof C & string];

/** One case with its tag: both at once where the case is a struct without a field of that name. */
function caseOf(field: string, tag: string, inner: Codec<unknown>): Codec<object> {
  const fields = fieldsOf.get(inner);
  if (fields && !Object.hasOwn(fields, field)) return struct({ [field]: oneOf([tag]), ...fields });
  return {
    decode(value, path) {
      const { [field]: _, ...rest } = value as Record<string, unknown>;
      return { [field]: tag, ...(inner.decode(rest, path) as object) };
    },
    encode(value) {
      const { [field]: _, ...rest } = value as Record<string, unknown>;
      return { [field]: tag, ...(inner.encode(rest) as object) };
    },
  };
}

/** One of several objects, told apart by the word in `field`; the cases name the other fields. */
export function tagged<const F extends string, C extends Cases>(field: F, cases: C): Codec<CaseOf<F, C>> {
  const all = new Map(Object.entries(cases).map(([tag, inner]) => [tag, caseOf(field, tag, inner)]));
  return codec(
    (value, path) => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) bad(path, "an object");
      const tag = Object.hasOwn(value, field) ? (value as Record<string, unknown>)[field] : undefined;
      const found = typeof tag === "string" ? all.get(tag) : undefined;
      if (!found) return bad(path ? `${path}.${field}` : field, `one of ${Object.keys(cases).join(", ")}`);
      return found.decode(value, path) as CaseOf<F, C>;
    },
    (value) => {
      const tag = (value as Record<string, unknown>)[field] as string;
      const found = all.get(tag);
      if (!found) throw new RangeError("codec: there is no such case");
      return found.encode(value);
    },
    () => taggedSchema(field, schemasOf(cases)),
  );
}

/** A type that contains itself, at most `depth` deep. */
export function recursive<T>(depth: number, make: (self: Codec<T>) => Codec<T>): Codec<T> {
  const deepest: Codec<T> = codec<T>(
    (_, path) => bad(path, "less deeply nested"),
    () => {
      throw new RangeError("codec: nested too deeply");
    },
    () => NEVER,
  );
  let self = deepest;
  for (let i = 0; i < depth; i++) self = make(self);
  return self;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Parses and decodes one JSON text. @throws Fault bad_input */
export function decodeJson<T>(inner: Codec<T>, json: Uint8Array): T {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(json));
  } catch {
    throw new Fault("bad_input", "the body must be JSON in UTF-8");
  }
  return inner.decode(value, "");
}

/** The one JSON text of a value. */
export function encodeJson<T>(inner: Codec<T>, value: T): string {
  return JSON.stringify(inner.encode(value));
}
