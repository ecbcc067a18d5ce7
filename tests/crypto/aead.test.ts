import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { aadBytes, open, SEAL_OVERHEAD, SUITE_XAES, seal } from "../../src/crypto/aead.ts";
import type { RandomSource } from "../../src/crypto/bytes.ts";
import { Fault } from "../../src/errors.ts";
import { CONTEXTS, EXAMPLES, kindsInSource } from "../support/contexts.ts";

const key = new Uint8Array(32).fill(9);
const counter = (): RandomSource => {
  let n = 0;
  return (length) => new Uint8Array(length).fill(n++ % 251);
};
const text = new TextEncoder().encode("a plaintext");

function refusal(run: () => unknown): Fault {
  try {
    run();
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

describe("contexts", () => {
  test("of every kind are tried", () => {
    expect(Object.keys(EXAMPLES).sort()).toEqual([...kindsInSource()].sort());
    for (const [kind, example] of Object.entries(EXAMPLES)) expect(example.kind as string).toBe(kind);
  });

  test("there are many, and no two have the same associated data", () => {
    expect(CONTEXTS.length).toBeGreaterThan(5 * Object.keys(EXAMPLES).length);
    expect(new Set(CONTEXTS.map((context) => aadBytes(context).toHex())).size).toBe(CONTEXTS.length);
  });

  test("every pair refuses each other's ciphertexts", () => {
    const random = counter();
    const sealed = CONTEXTS.map((context) => seal(key, context, text, random));
    let pairs = 0;
    CONTEXTS.forEach((context, i) => {
      sealed.forEach((box, j) => {
        if (i === j) {
          expect(open(key, context, box)).toEqual(text);
          return;
        }
        const fault = refusal(() => open(key, context, box));
        if (fault.code !== "integrity") throw new Error(`${context.kind} gave ${fault.code}`);
        pairs++;
      });
    });
    expect(pairs).toBe(CONTEXTS.length * (CONTEXTS.length - 1));
  }, 30_000);
});

describe("a sealed value", () => {
  const context = EXAMPLES.secret;

  test("is suite ‖ nonce ‖ ciphertext ‖ tag, 41 bytes longer", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (plaintext) => {
        const nonce = new Uint8Array(24).fill(0x5a);
        const sealed = seal(key, context, plaintext, (length) => nonce.slice(0, length));
        expect(sealed.length).toBe(plaintext.length + SEAL_OVERHEAD);
        expect(SEAL_OVERHEAD).toBe(41);
        expect(sealed[0]).toBe(SUITE_XAES);
        expect(sealed.subarray(1, 25)).toEqual(nonce);
        expect(open(key, context, sealed)).toEqual(plaintext);
      }),
    );
  });

  test("takes 24 fresh bytes for each nonce", () => {
    const asked: number[] = [];
    const source = counter();
    const random: RandomSource = (length) => {
      asked.push(length);
      return source(length);
    };
    const a = seal(key, context, text, random);
    const b = seal(key, context, text, random);
    expect(asked).toEqual([24, 24]);
    expect(a).not.toEqual(b);
  });

  test("is refused with any single bit flipped", () => {
    const sealed = seal(key, context, text, counter());
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const changed = sealed.slice();
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(refusal(() => open(key, context, changed)).code).toBe("integrity");
    }
  });

  test("is refused cut at either end, extended, or empty", () => {
    const sealed = seal(key, context, text, counter());
    for (let length = 0; length < sealed.length; length++) {
      expect(refusal(() => open(key, context, sealed.subarray(0, length))).code).toBe("integrity");
      if (length > 0) expect(refusal(() => open(key, context, sealed.subarray(length))).code).toBe("integrity");
    }
    expect(refusal(() => open(key, context, Uint8Array.of(...sealed, 0))).code).toBe("integrity");
    expect(refusal(() => open(key, context, Uint8Array.of(0, ...sealed))).code).toBe("integrity");
  });

  test("is refused under another key", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (other) => {
        fc.pre(Buffer.compare(other, key) !== 0);
        const sealed = seal(key, context, text, counter());
        expect(refusal(() => open(other, context, sealed)).code).toBe("integrity");
      }),
    );
  });

  test("the refusal names the kind and nothing of key, context or content", () => {
    const sealed = seal(key, context, text, counter());
    const fault = refusal(() => open(new Uint8Array(32), context, sealed));
    const { userId, keyId } = context;
    const said = JSON.stringify([fault.message, fault.why, fault.hint]);
    expect(said).toContain("(secret)");
    for (const private_ of [userId, keyId, sealed.toHex(), "a plaintext"]) expect(said).not.toContain(private_);
  });
});
