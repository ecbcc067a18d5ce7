import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { type Codec, decodeJson, encodeJson, type Json } from "../../src/wire/codec.ts";
import {
  COMMITS,
  errorBody,
  type InputOf,
  isOperation,
  loginReply,
  type OperationName,
  operations,
  replyHead,
  requestHash,
} from "../../src/wire/operations.ts";
import { badInputs, complaint, jsonOf, MARKER, type Shape, shapeOf } from "../support/codec-shape.ts";

type Any = Codec<never> | Codec<unknown>;
const names = Object.keys(operations) as OperationName[];

/** Every message on the wire. */
const messages: readonly (readonly [string, Any])[] = [
  ...names.flatMap((name): [string, Any][] => [
    [`${name} input`, operations[name].input],
    [`${name} output`, operations[name].output],
  ]),
  ["login reply", loginReply],
  ["error", errorBody],
  ["reply head", replyHead],
];

/** JSON with the fields of every object in reverse. */
function reversed(json: Json): Json {
  if (Array.isArray(json)) return (json as readonly Json[]).map(reversed);
  if (typeof json !== "object" || json === null) return json;
  return Object.fromEntries(
    Object.entries(json)
      .toReversed()
      .map(([key, value]) => [key, reversed(value)]),
  );
}

describe.each(messages)("%s", (_, message) => {
  const codec = message as Codec<unknown>;
  const shape = shapeOf(codec);

  test("goes there and back, to one JSON text", () => {
    fc.assert(
      fc.property(jsonOf(shape), (json) => {
        const value = codec.decode(json, "");
        const wire = encodeJson(codec, value);
        expect(JSON.parse(wire)).toEqual(json);
        expect(decodeJson(codec, new TextEncoder().encode(wire))).toEqual(value);
        const other = decodeJson(codec, new TextEncoder().encode(JSON.stringify(reversed(json), null, 1)));
        expect(encodeJson(codec, other)).toBe(wire);
      }),
      { numRuns: 25 },
    );
  });

  test("every broken place is refused with bad_input and no echo", () => {
    fc.assert(
      fc.property(jsonOf(shape), (json) => {
        for (const { why, value } of badInputs(shape, json)) {
          const said = complaint(codec, value);
          if (said === null) throw new Error(`accepted: ${why}`);
          if (said.includes(MARKER) || said.length > 200) throw new Error(`echoes: ${why}`);
        }
      }),
      { numRuns: 3 },
    );
  });

  test("any other JSON is refused or taken, never a crash", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (json) => {
        try {
          decodeJson(codec, new TextEncoder().encode(JSON.stringify(json)));
        } catch (error) {
          expect(error).toBeInstanceOf(Fault);
          expect((error as Fault).code).toBe("bad_input");
        }
      }),
      { numRuns: 20 },
    );
  });
});

function fieldsOf(codec: Any): Readonly<Record<string, Shape>> {
  const shape = shapeOf(codec);
  if (shape.is !== "object") throw new Error("a message is an object");
  return shape.fields;
}

describe("the table", () => {
  test.each(names)("%s: a mutation, and nothing else, carries a signed state", (name) => {
    const { mutation, input } = operations[name];
    expect("state" in fieldsOf(input)).toBe(mutation);
  });

  test.each(names.filter((name) => operations[name].mutation))(
    "%s: a request id stands in the body outside a session, in the frame within one",
    (name) => {
      const { auth, input } = operations[name];
      expect(fieldsOf(input)["requestId"]?.is).toBe(auth === "session" ? undefined : "id");
    },
  );

  test.each(names)("%s is a name that fits the audit log and a URL", (name) => {
    expect(name).toMatch(/^[a-z]+(\.[a-z]+)+$/);
    expect(name.length).toBeLessThanOrEqual(64);
  });

  test("the commits have one input and one output", () => {
    for (const name of COMMITS) {
      expect(operations[name].input).toBe(operations["secret.store"].input as never);
      expect(operations[name].output).toBe(operations["secret.store"].output as never);
      expect(operations[name]).toMatchObject({ auth: "session", mutation: true });
    }
  });

  test("one secret of the largest size fits one request", () => {
    const largest = (shape: Shape, list: number): number => {
      switch (shape.is) {
        case "bytes":
          return Math.ceil((shape.max * 4) / 3) + 2;
        case "text":
          return shape.max * 6 + 2;
        case "number":
          return String(shape.max).length;
        case "boolean":
          return 5;
        case "word":
          return Math.max(...shape.words.map((word) => word.length)) + 2;
        case "id":
          return 34;
        case "list":
          return 2 + list * (largest(shape.item, list) + 1);
        case "object":
          return Object.entries(shape.fields).reduce(
            (sum, [name, field]) => sum + name.length + 4 + largest(field, list),
            2,
          );
      }
    };
    const bytes = largest(shapeOf(operations["secret.store"].input), 1);
    expect(bytes).toBeGreaterThan(DEFAULTS.secretBytes);
    expect(bytes).toBeLessThan(DEFAULTS.bodyBytes - 1_024);
  });

  test("isOperation knows the table's names and no inherited ones", () => {
    for (const name of names) expect(isOperation(name)).toBe(true);
    for (const name of ["", "toString", "__proto__", "constructor", "secret", "secret.Get", "secret.get "]) {
      expect(isOperation(name)).toBe(false);
    }
  });
});

describe("requestHash", () => {
  const mutations = names.filter((name) => operations[name].mutation);

  test.each(mutations)("%s: leaves out state and request id, and nothing else", (name) => {
    const codec = operations[name].input as Codec<unknown>;
    const fields = fieldsOf(codec);
    const arbitrary = jsonOf(shapeOf(codec));
    const hashOf = (json: Json): string => requestHash(name, codec.decode(json, "") as InputOf<typeof name>).toHex();
    fc.assert(
      fc.property(arbitrary, arbitrary, (json, other) => {
        const from = json as Readonly<Record<string, Json>>;
        const to = other as Readonly<Record<string, Json>>;
        const hash = hashOf(json);
        expect(hash.length).toBe(64);
        for (const field of Object.keys(fields)) {
          const changed = { ...from, [field]: to[field] ?? null };
          const free = field === "state" || field === "requestId";
          const same = free || Bun.deepEquals(from[field], to[field]);
          expect({ field, same: hashOf(changed) === hash }).toEqual({ field, same });
        }
      }),
      { numRuns: 20 },
    );
  });

  test("another operation with the same body has another hash", () => {
    const codec = operations["secret.store"].input;
    fc.assert(
      fc.property(jsonOf(shapeOf(codec)), (json) => {
        const input = codec.decode(json, "");
        const hashes = COMMITS.map((name) => requestHash(name, input).toHex());
        expect(new Set(hashes).size).toBe(COMMITS.length);
      }),
      { numRuns: 10 },
    );
  });
});
