/**
 * JSON Schema 2020-12 of what a codec takes: as narrow as the language allows. What it cannot say stays the codec's
 * alone: lengths of text in bytes (here code points), well-formed UTF-16, negative zero, normal forms.
 */
export interface Schema {
  readonly type?: "object" | "array" | "string" | "integer" | "boolean" | "null";
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: false;
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly contentEncoding?: "base64url";
  readonly minimum?: number;
  readonly maximum?: number;
  readonly const?: string | number | boolean;
  readonly enum?: readonly string[];
  readonly oneOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
  readonly not?: Schema;
}

/** Base64url without padding, its unused bits zero (RFC 4648 §3.5, §5). */
const BASE64URL = "^(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?$";
/** Most bytes that a code point takes in UTF-8. */
const CODE_POINT_BYTES = 4;

/** Characters of so many bytes as base64url. */
const encodedLength = (bytes: number): number => Math.ceil((bytes * 4) / 3);

/** Of bytes as base64url; bounds in bytes, inclusive. */
export function bytesSchema(min: number, max: number): Schema {
  return {
    type: "string",
    contentEncoding: "base64url",
    minLength: encodedLength(min),
    maxLength: encodedLength(max),
    pattern: BASE64URL,
  };
}

/** Patterns of whole texts that admit nothing beyond ASCII, where a byte is a code point; others may, too. */
function isAscii({ source, flags }: RegExp): boolean {
  const wide = /[^\x20-\x7e]|\[\^|\\[sSWDpPux]|\|/;
  // in a class a dot is a dot
  const anything = /(?<!\\)\./.test(source.replace(/(?<!\\)\[[^\]]*\]/g, ""));
  return source.startsWith("^") && source.endsWith("$") && !/[imuv]/.test(flags) && !wide.test(source) && !anything;
}

/** Of text; bounds in UTF-8 bytes, which are told in code points. */
export function textSchema(min: number, max: number, pattern: RegExp | undefined): Schema {
  return {
    type: "string",
    minLength: pattern && isAscii(pattern) ? min : Math.ceil(min / CODE_POINT_BYTES),
    maxLength: max,
    ...(pattern && { pattern: pattern.source }),
  };
}

/** Of an object with exactly these fields. */
export function structSchema(properties: Readonly<Record<string, Schema>>): Schema {
  return { type: "object", properties, required: Object.keys(properties), additionalProperties: false };
}

/**
 * Of several objects that the word in `field` tells apart.
 *
 * @throws RangeError for a case that is no object with fields.
 */
export function taggedSchema(field: string, cases: Readonly<Record<string, Schema>>): Schema {
  const branches = Object.entries(cases).map(([tag, { properties, additionalProperties }]) => {
    if (!properties || additionalProperties !== false) throw new RangeError(`schema: the case ${tag} is no object`);
    return structSchema({ [field]: { const: tag }, ...properties });
  });
  return { oneOf: branches };
}

/** Of what may be null too. */
export function nullableSchema(inner: Schema): Schema {
  return { anyOf: [inner, { type: "null" }] };
}

/** Of nothing at all. */
export const NEVER: Schema = { not: {} };
