import fc from "fast-check";
import { toBase64url } from "../../src/crypto/bytes.ts";
import { Fault } from "../../src/errors.ts";
import type { Codec, Json } from "../../src/wire/codec.ts";

/**
 * Finds out what a codec accepts by asking it: its refusals say in words what stands where. So generators and bad
 * inputs follow the operation table by themselves, also for operations that come later.
 */
export type Shape = { readonly nullable: boolean } & (
  | { readonly is: "bytes"; readonly min: number; readonly max: number }
  | {
      readonly is: "text";
      readonly min: number;
      readonly max: number;
      readonly form: boolean;
      /** A text that is taken, where a form asks for more than letters. */
      readonly sample?: string;
    }
  | { readonly is: "number"; readonly min: number; readonly max: number }
  | { readonly is: "boolean" }
  | { readonly is: "word"; readonly words: readonly string[] }
  | { readonly is: "id"; readonly digits: number }
  | { readonly is: "list"; readonly min: number; readonly max: number; readonly item: Shape }
  | { readonly is: "object"; readonly fields: Readonly<Record<string, Shape>> }
);

type Any = Codec<never> | Codec<unknown>;
type Place = (value: unknown) => unknown;

/** The refusal of `value`, or null if the codec takes it. */
export function complaint(codec: Any, value: unknown): string | null {
  try {
    codec.decode(value, "");
    return null;
  } catch (error) {
    if (error instanceof Fault && error.code === "bad_input") return error.message;
    throw error;
  }
}

/** The shape of everything that `codec` reads. */
export function shapeOf(codec: Any): Shape {
  return explore(codec, (value) => value, "");
}

function explore(codec: Any, place: Place, path: string): Shape {
  const lead = `${path || "body"} must be `;
  const refused = complaint(codec, place(undefined));
  if (!refused?.startsWith(lead)) throw new Error(`no description of ${path || "body"}: ${refused}`);
  const nullable = !complaint(codec, place(null))?.startsWith(lead);
  const what = refused.slice(lead.length);
  const found = (pattern: RegExp): string[] | undefined => pattern.exec(what)?.slice(1);

  if (what === "true or false") return { is: "boolean", nullable };
  const id = found(/^an id of (\d+) hexadecimal digits$/);
  if (id) return { is: "id", nullable, digits: Number(id[0]) };
  const exact = found(/^(\d+) bytes as base64url$/);
  if (exact) return { is: "bytes", nullable, min: Number(exact[0]), max: Number(exact[0]) };
  const bytes = found(/^(\d+) to (\d+) bytes as base64url$/);
  if (bytes) return { is: "bytes", nullable, min: Number(bytes[0]), max: Number(bytes[1]) };
  const text = found(/^text of (\d+) to (\d+) bytes( in the documented form)?$/);
  if (text) {
    const [min, max, form] = [Number(text[0]), Number(text[1]), text[2] !== undefined];
    const taken = (sample: string) => !complaint(codec, place(sample))?.startsWith(lead);
    const sample = taken(filler(min)) ? undefined : SAMPLES.find(taken);
    return { is: "text", nullable, min, max, form, ...(sample !== undefined && { sample }) };
  }
  const number = found(/^a whole number from (\d+) to (\d+)$/);
  if (number) return { is: "number", nullable, min: Number(number[0]), max: Number(number[1]) };
  const words = found(/^one of (.+)$/);
  if (words) return { is: "word", nullable, words: (words[0] ?? "").split(", ") };
  const list = found(/^a list of (\d+) to (\d+) items$/);
  if (list) {
    const few = Math.max(1, Number(list[0]));
    const item = explore(codec, (value) => place(new Array(few).fill(value)), `${path}[0]`);
    return { is: "list", nullable, min: Number(list[0]), max: Number(list[1]), item };
  }
  if (what !== "an object") throw new Error(`an unknown description: ${what}`);

  const fields: Record<string, Shape> = {};
  const sample: Record<string, Json> = {};
  const prefix = path ? `${path}.` : "";
  for (;;) {
    const missing = complaint(codec, place({ ...sample }));
    // one of several objects: the first kind stands for all
    const [tag, kinds] = /^(\w+) must be one of (.+)$/.exec(missing?.slice(prefix.length) ?? "")?.slice(1) ?? [];
    if (missing?.startsWith(prefix) && tag !== undefined && kinds !== undefined && !(tag in sample)) {
      const [first = ""] = kinds.split(", ");
      fields[tag] = { is: "word", nullable: false, words: [first] };
      sample[tag] = first;
      continue;
    }
    if (!missing?.startsWith(prefix) || !missing.endsWith(" is missing")) break;
    const name = missing.slice(prefix.length, -" is missing".length);
    if (!/^\w+$/.test(name)) break; // a later field of what holds this object
    const shape = explore(codec, (value) => place({ ...sample, [name]: value }), `${prefix}${name}`);
    fields[name] = shape;
    sample[name] = smallest(shape);
  }
  return { is: "object", nullable, fields };
}

/** Of forms that mere letters do not have. */
const SAMPLES = [
  ...["a", "0", "00"],
  ...[6, 32, 64].map((n) => "0".repeat(n)),
  "https://a.example",
  `sha256:${"A".repeat(43)}`,
];

const filler = (length: number): string => "A".repeat(length);

/** The smallest accepted value. */
export function smallest(shape: Shape): Json {
  switch (shape.is) {
    case "bytes":
      return toBase64url(new Uint8Array(shape.min));
    case "text":
      return shape.sample ?? filler(shape.min);
    case "number":
      return shape.min;
    case "boolean":
      return false;
    case "word":
      return shape.words[0] ?? "";
    case "id":
      return "0".repeat(shape.digits);
    case "list":
      return Array.from({ length: shape.min }, () => smallest(shape.item));
    case "object":
      return Object.fromEntries(Object.entries(shape.fields).map(([name, field]) => [name, smallest(field)]));
  }
}

/** Generates accepted JSON values; long byte strings and lists stay short. */
export function jsonOf(shape: Shape): fc.Arbitrary<Json> {
  const plain = whole(shape);
  return shape.nullable ? fc.option(plain, { nil: null, freq: 3 }) : plain;
}

function whole(shape: Shape): fc.Arbitrary<Json> {
  switch (shape.is) {
    case "bytes":
      return fc
        .uint8Array({ minLength: shape.min, maxLength: Math.min(shape.max, shape.min + 48) })
        .map((bytes) => toBase64url(bytes));
    case "text": {
      if (shape.sample !== undefined) return fc.constant(shape.sample);
      const unit = shape.form
        ? fc.constantFrom(..."ABCXYZ0189-")
        : fc.constantFrom(...'ab "\\\u0000\u00e9\u4e16\u{1f511}');
      return fc
        .string({ unit, minLength: shape.min, maxLength: shape.max })
        .filter((text) => Buffer.byteLength(text) <= shape.max);
    }
    case "number":
      return fc.oneof(fc.constantFrom(shape.min, shape.max), fc.integer({ min: shape.min, max: shape.max }));
    case "boolean":
      return fc.boolean();
    case "word":
      return fc.constantFrom(...shape.words);
    case "id":
      return fc.uint8Array({ minLength: shape.digits / 2, maxLength: shape.digits / 2 }).map((bytes) => bytes.toHex());
    case "list":
      return fc.array(jsonOf(shape.item), { minLength: shape.min, maxLength: Math.min(shape.max, shape.min + 2) });
    case "object":
      return fc.record(Object.fromEntries(Object.entries(shape.fields).map(([name, field]) => [name, jsonOf(field)])));
  }
}

/** Stands in bad inputs wherever text can stand, and must never come back in an error. */
export const MARKER = "zq7-marker-Ѩ";

/** One input that must be refused. */
export interface BadInput {
  readonly why: string;
  readonly value: unknown;
}

/** For an accepted value of `shape`: every way to break one place of it. */
export function badInputs(shape: Shape, good: Json, path = "body"): BadInput[] {
  const out: BadInput[] = wrongValues(shape).map(({ why, value }) => ({ why: `${path}: ${why}`, value }));
  if (!shape.nullable) out.push({ why: `${path}: null`, value: null });
  if (shape.is === "object" && typeof good === "object" && good !== null && !Array.isArray(good)) {
    const from = good as Readonly<Record<string, Json>>;
    for (const key of [MARKER, "__proto__", "constructor", "toString", ""]) {
      const extended: Record<string, unknown> = { ...from };
      Object.defineProperty(extended, key, { value: MARKER, enumerable: true, configurable: true });
      out.push({ why: `${path}: an unknown field ${JSON.stringify(key)}`, value: extended });
    }
    for (const [name, field] of Object.entries(shape.fields)) {
      const { [name]: held, ...rest } = from;
      out.push({ why: `${path}: without ${name}`, value: rest });
      for (const bad of badInputs(field, held ?? null, `${path}.${name}`)) {
        out.push({ why: bad.why, value: { ...from, [name]: bad.value } });
      }
    }
  }
  if (shape.is === "list" && Array.isArray(good)) {
    const items: readonly Json[] = good;
    const item = items[0] ?? smallest(shape.item);
    if (shape.min > 0) out.push({ why: `${path}: too few items`, value: items.slice(0, shape.min - 1) });
    out.push({ why: `${path}: too many items`, value: new Array(shape.max + 1).fill(item) });
    for (const bad of badInputs(shape.item, item, `${path}[0]`)) {
      out.push({ why: bad.why, value: items.length === 0 ? [bad.value] : items.with(0, bad.value as Json) });
    }
  }
  return out;
}

const otherCase = (word: string): string => (word === word.toUpperCase() ? word.toLowerCase() : word.toUpperCase());

function wrongValues(shape: Shape): BadInput[] {
  const types: BadInput[] = [
    { why: "a number", value: 7 },
    { why: "a negative number", value: -1 },
    { why: "negative zero", value: -0 },
    { why: "a fraction", value: 1.5 },
    { why: "a huge number", value: 1e300 },
    { why: "a boolean", value: true },
    { why: "marked text", value: MARKER },
    { why: "a list", value: [MARKER] },
    { why: "an object", value: { [MARKER]: MARKER } },
  ];
  const except = (...whys: readonly string[]): BadInput[] => types.filter(({ why }) => !whys.includes(why));
  switch (shape.is) {
    case "bytes": {
      const short = shape.min > 0 ? [{ why: "too few bytes", value: toBase64url(new Uint8Array(shape.min - 1)) }] : [];
      const good = toBase64url(new Uint8Array(shape.min));
      return [
        ...except(),
        ...short,
        { why: "one byte too many", value: toBase64url(new Uint8Array(shape.max + 1)) },
        { why: "padding", value: `${good}=` },
        { why: "white space", value: `${good} ` },
        { why: "the other alphabet", value: `+/${good.slice(2)}` },
      ];
    }
    case "text":
      return [
        ...except("marked text"),
        { why: "long marked text", value: `${MARKER}${filler(shape.max)}` },
        ...(shape.min > 0 ? [{ why: "too short", value: filler(shape.min - 1) }] : []),
        { why: "one byte too long", value: filler(shape.max + 1) },
        { why: "too long in bytes, not in characters", value: "é".repeat(Math.floor(shape.max / 2) + 1) },
        { why: "ill-formed", value: `${filler(Math.max(0, shape.min - 1))}\ud800` },
        ...(shape.form ? [{ why: "a control character", value: `${filler(Math.max(shape.min, 2) - 1)}\n` }] : []),
      ];
    case "number":
      return [
        ...except("a number", ...(shape.min < 0 ? ["a negative number"] : [])),
        { why: "below the least", value: shape.min - 1 },
        { why: "above the most", value: shape.max + 1 },
        { why: "a number as text", value: String(shape.min) },
        { why: "not a number", value: Number.NaN },
      ];
    case "boolean":
      return [...except("a boolean"), { why: "a boolean as text", value: "true" }];
    case "word":
      return [
        ...except(),
        { why: "another case", value: otherCase(shape.words[0] ?? "") },
        { why: "no word", value: "" },
      ];
    case "id":
      return [
        ...except(),
        { why: "upper case", value: "AB".repeat(shape.digits / 2) },
        { why: "one digit too few", value: "a".repeat(shape.digits - 1) },
        { why: "one digit too many", value: "a".repeat(shape.digits + 1) },
        { why: "a line end", value: `${"a".repeat(shape.digits)}\n` },
        { why: "no digits", value: "g".repeat(shape.digits) },
      ];
    case "list":
      return except("a list");
    case "object":
      return except("an object");
  }
}
