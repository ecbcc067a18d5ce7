import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import { type KeyId, newId } from "../../src/ids.ts";
import type { Field } from "../../src/protocol/content.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { decodeFile, encodeFile } from "../../src/wire/content.ts";
import { random } from "../support/harness.ts";

const ids = (count: number): KeyId[] => Array.from({ length: count }, () => newId<KeyId>(random));
const FIELDS: readonly Field[] = [{ name: "notes", kind: "text", value: "of the office" }];
const bytes = (json: unknown) => new TextEncoder().encode(JSON.stringify(json));

function code(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof Fault) return error.code;
    throw error;
  }
  return "no fault";
}

describe("the record of a file in parts", () => {
  test("comes back as it was", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: DEFAULTS.fileBytes }), fc.integer({ min: 1, max: 512 }), (size, count) => {
        const file = { size, sha256: random(32), parts: ids(count) };
        expect(decodeFile(encodeFile(file, FIELDS))).toEqual({ value: new Uint8Array(0), fields: FIELDS, file });
      }),
      { numRuns: 50 },
    );
  });

  test("is refused in any other shape", () => {
    const [one = ""] = ids(1);
    const good = {
      v: 1,
      size: 5,
      sha256: "A".repeat(43),
      parts: Buffer.from(one, "hex").toString("base64url"),
      fields: [],
    };
    expect(decodeFile(bytes(good)).file?.parts).toEqual([one as KeyId]);
    const twice = Buffer.from(one + one, "hex").toString("base64url");
    for (const bad of [
      { ...good, v: 2 },
      { ...good, size: 0 },
      { ...good, size: DEFAULTS.fileBytes + 1 },
      { ...good, sha256: "AAAA" },
      { ...good, parts: "" },
      { ...good, parts: "AAAA" },
      { ...good, parts: Buffer.alloc(24).toString("base64url") },
      { ...good, parts: twice },
      { ...good, parts: Buffer.from(ids(513).join(""), "hex").toString("base64url") },
      { ...good, fields: [...FIELDS, ...FIELDS] },
      { ...good, more: 1 },
      [],
      null,
    ]) {
      expect([bad, code(() => decodeFile(bytes(bad)))]).toEqual([bad, "integrity"]);
    }
    expect(code(() => decodeFile(new Uint8Array([0xff])))).toBe("integrity");
  });

  test("is not made too long to be sealed", () => {
    const fields: Field[] = [{ name: "notes", kind: "text", value: "x".repeat(60_000) }];
    expect(code(() => encodeFile({ size: 1, sha256: random(32), parts: ids(500) }, fields))).toBe("too_large");
  });
});
