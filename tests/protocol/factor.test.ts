import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { UserId } from "../../src/ids.ts";
import { FACTOR, recoveryCode, typedCode } from "../../src/protocol/factor.ts";
import { factorCode, factorStep, recoveryHash } from "../../src/protocol/factorcode.ts";

/** RFC 6238 appendix B, SHA-1: the last six of its eight digits. */
const RFC_KEY = new TextEncoder().encode("12345678901234567890");
const RFC: readonly [seconds: number, code: string][] = [
  [59, "287082"],
  [1_111_111_109, "081804"],
  [1_111_111_111, "050471"],
  [1_234_567_890, "005924"],
  [2_000_000_000, "279037"],
  [20_000_000_000, "353130"],
];

describe("codes", () => {
  test.each(RFC)("at %p s are those of RFC 6238", (seconds, code) => {
    const step = Math.floor(seconds / 30);
    expect(factorCode(RFC_KEY, step)).toBe(code);
    expect(factorStep(RFC_KEY, code, seconds * 1_000, -1)).toBe(step);
  });

  test("are taken of the step before, of now and of the step after, if later than the newest that was taken", () => {
    const step = fc.integer({ min: 10, max: 1_000_000 });
    const key = fc.uint8Array({ minLength: 20, maxLength: 20 });
    fc.assert(
      fc.property(
        key,
        step,
        fc.integer({ min: -4, max: 4 }),
        fc.integer({ min: -4, max: 4 }),
        (secret, now, at, last) => {
          const near = [-1, 0, 1].map((steps) => factorCode(secret, now + steps));
          const code = factorCode(secret, now + at);
          fc.pre(new Set([...near, code]).size === near.length + (Math.abs(at) > 1 ? 1 : 0));
          const expected = Math.abs(at) <= FACTOR.skewSteps && at > last ? now + at : undefined;
          expect(factorStep(secret, code, now * 30_000 + 17, now + last)).toBe(expected);
        },
      ),
    );
  });

  test("of other lengths and none are taken of no step", () => {
    for (const code of ["", "28708", "2870820", "28708a"]) {
      expect(factorStep(RFC_KEY, code, 59_000, -1)).toBeUndefined();
    }
  });
});

describe("recovery codes", () => {
  const owner = "00".repeat(16) as UserId;

  test("are read in any writing, and are told from codes", () => {
    const bytes = fc.uint8Array({ minLength: 20, maxLength: 20 });
    fc.assert(
      fc.property(bytes, (random) => {
        const code = recoveryCode(random);
        expect(code).toMatch(/^(?:[0-9A-HJKMNP-TV-Z]{4}-){4}[0-9A-HJKMNP-TV-Z]{4}$/);
        const letters = code.replaceAll("-", "");
        for (const typed of [code, code.toLowerCase(), code.replaceAll("-", " "), ` ${letters} `]) {
          expect(typedCode(typed)).toEqual({ kind: "recovery", code: letters });
        }
      }),
    );
    expect(typedCode("123 456")).toEqual({ kind: "totp", code: "123456" });
    expect(typedCode("OIL0-0000-0000-0000-0000")).toEqual({ kind: "recovery", code: "01100000000000000000" });
    for (const text of ["", "12345", "1234567", "U000-0000-0000-0000-0000", "0000-0000-0000-0000-000"]) {
      expect(typedCode(text)).toBeNull();
    }
  });

  test("take all of 100 bits from what they are made of", () => {
    const codes = Array.from({ length: 32 }, (_, i) => recoveryCode(new Uint8Array(20).fill(i)));
    expect(new Set(codes).size).toBe(32);
    expect(() => recoveryCode(new Uint8Array(19))).toThrow();
  });

  test("have another hash for another account", () => {
    const hash = recoveryHash(owner, "A".repeat(20));
    expect(hash).toHaveLength(32);
    expect(recoveryHash("11".repeat(16) as UserId, "A".repeat(20))).not.toEqual(hash);
    expect(recoveryHash(owner, `${"A".repeat(19)}B`)).not.toEqual(hash);
  });
});
