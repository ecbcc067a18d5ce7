import fc from "fast-check";
import type { Json } from "../../src/wire/codec.ts";
import type { Schema } from "../../src/wire/schema.ts";

/** Generates values that a schema of src/wire/schema.ts allows, every branch of it; long lists and texts stay short. */
export function valuesOf(schema: Schema): fc.Arbitrary<Json> {
  const known = made.get(schema);
  if (known) return known;
  const values = make(schema);
  made.set(schema, values);
  return values;
}

/** Types that contain themselves share their parts. */
const made = new WeakMap<Schema, fc.Arbitrary<Json>>();
const possible = new WeakMap<Schema, boolean>();

function make(schema: Schema): fc.Arbitrary<Json> {
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  const branches = (schema.oneOf ?? schema.anyOf)?.filter(isPossible);
  // the first branch holds nothing more of its kind
  if (branches)
    return fc.oneof({ maxDepth: 4, depthIdentifier: BRANCHES }, ...branches.toSorted(simplest).map(valuesOf));
  switch (schema.type) {
    case "null":
      return fc.constant(null);
    case "boolean":
      return fc.boolean();
    case "integer": {
      const [min, max] = [schema.minimum ?? 0, schema.maximum ?? 0];
      return fc.oneof(fc.constantFrom(min, max), fc.integer({ min, max }));
    }
    case "array": {
      const min = schema.minItems ?? 0;
      const items = schema.items ?? {};
      if (!isPossible(items)) return fc.constant([]);
      return fc.array(valuesOf(items), { minLength: min, maxLength: Math.min(schema.maxItems ?? 0, min + 1) });
    }
    case "object":
      return fc.record(
        Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, field]) => [name, valuesOf(field)])),
      );
    case "string":
      return textOf(schema);
    default:
      throw new Error(`no values of ${JSON.stringify(schema)}`);
  }
}

const BRANCHES = "branches";

const simplest = (one: Schema, other: Schema): number => weight(one) - weight(other);

/** How much it holds, as far as that matters: null, then what holds no more of its kind. */
const weight = ({ type, properties }: Schema): number =>
  type === "null" ? 0 : 1 + Object.values(properties ?? {}).filter((field) => field.type === "array").length;

/** False for what allows nothing: the deepest level of a type that contains itself. */
function isPossible(schema: Schema): boolean {
  const known = possible.get(schema);
  if (known !== undefined) return known;
  const needed = [
    ...Object.values(schema.properties ?? {}),
    ...((schema.minItems ?? 0) > 0 ? [schema.items ?? {}] : []),
  ];
  const is = schema.not === undefined && needed.every(isPossible);
  possible.set(schema, is);
  return is;
}

function textOf(schema: Schema): fc.Arbitrary<string> {
  const [min, max] = [schema.minLength ?? 0, schema.maxLength ?? 1_000];
  if (schema.contentEncoding === "base64url") {
    const least = Math.floor((min * 3) / 4);
    const most = Math.min(Math.floor((max * 3) / 4), least + 3);
    return fc
      .uint8Array({ minLength: least, maxLength: most })
      .map((bytes) => bytes.toBase64({ alphabet: "base64url", omitPadding: true }));
  }
  const { pattern } = schema;
  if (pattern === undefined || pattern.includes("\\p{")) {
    // in ASCII bytes and code points are one
    return fc.string({
      unit: "grapheme-ascii",
      minLength: Math.min(4 * min, max),
      maxLength: Math.min(max, 4 * min + 8),
    });
  }
  return fc
    .stringMatching(new RegExp(pattern), { size: "small" })
    .filter((text) => [...text].length >= min && text.length <= max);
}
