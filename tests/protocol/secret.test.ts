import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { SEAL_OVERHEAD } from "../../src/crypto/aead.ts";
import { concat } from "../../src/crypto/bytes.ts";
import { Fault } from "../../src/errors.ts";
import {
  openMeta,
  openValue,
  pad,
  paddedLength,
  rewrap,
  sealedHash,
  sealMeta,
  sealValue,
  unpad,
  type ValueContext,
  WRAPPED_BYTES,
} from "../../src/protocol/secret.ts";
import { SECRET_TYPES } from "../../src/protocol/secrettype.ts";
import { anyId, bentFields, bytesOf } from "../support/arbitraries.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

function expectIntegrity(work: () => unknown): void {
  let caught: unknown;
  try {
    work();
  } catch (error) {
    caught = error;
  }
  expect(caught).toBeInstanceOf(Fault);
  expect((caught as Fault).code).toBe("integrity");
}

/** PADMÉ by its definition: the next number whose last E-S bits are zero. */
function slowPadded(length: number): number {
  if (length <= 64) return 64;
  const e = length.toString(2).length - 1;
  const s = e.toString(2).length;
  for (let at = length; ; at++) if (at % 2 ** (e - s) === 0) return at;
}

describe("padding", () => {
  test("pads to the PADMÉ length, never under 64 and at most 12% over", () => {
    for (let length = 0; length <= 70_000; length += length < 5_000 ? 1 : 37) {
      const padded = paddedLength(length);
      expect(padded).toBe(slowPadded(length));
      expect(padded).toBeGreaterThanOrEqual(length);
      expect(padded).toBeLessThanOrEqual(Math.max(64, Math.ceil(length * 1.12)));
      expect(paddedLength(padded)).toBe(padded);
    }
  });

  test("up to 64 KiB there are few distinct lengths to see", () => {
    const seen = new Set<number>();
    for (let length = 1; length <= 65_540; length++) seen.add(paddedLength(length));
    expect(seen.size).toBeLessThan(250);
    expect(paddedLength(1)).toBe(paddedLength(60));
  });

  test("unpad gives back what was padded, also from inside a larger buffer", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3_000 }), fc.nat(9), (content, shift) => {
        const padded = pad(content);
        expect(unpad(padded).toHex()).toBe(content.toHex());
        const around = new Uint8Array(padded.length + shift).fill(0xee);
        around.set(padded, shift);
        expect(unpad(around.subarray(shift)).toHex()).toBe(content.toHex());
      }),
    );
  });

  test("unpad refuses every other shape", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2_000 }), fc.nat(), fc.integer({ min: 1, max: 255 }), (content, at, x) => {
        const good = pad(content);
        const spare = good.length - 4 - content.length;
        expectIntegrity(() => unpad(good.subarray(0, -1)));
        expectIntegrity(() => unpad(Uint8Array.of(...good, 0)));
        expectIntegrity(() => unpad(good.subarray(1)));
        if (spare > 0) {
          const dirty = good.slice();
          const place = 4 + content.length + (at % spare);
          dirty[place] = x;
          expectIntegrity(() => unpad(dirty));
        }
        const longer = good.slice();
        new DataView(longer.buffer).setUint32(0, good.length - 3);
        expectIntegrity(() => unpad(longer));
        const absurd = good.slice();
        new DataView(absurd.buffer).setUint32(0, 0xffff_ffff);
        expectIntegrity(() => unpad(absurd));
      }),
    );
    for (const length of [0, 1, 3, 4, 63, 65]) expectIntegrity(() => unpad(new Uint8Array(length)));
  });

  test("unpad refuses a shorter content in a longer padding", () => {
    const roomy = new Uint8Array(paddedLength(500));
    new DataView(roomy.buffer).setUint32(0, 10);
    expectIntegrity(() => unpad(roomy));
  });
});

const contextArbitrary: fc.Arbitrary<ValueContext> = fc.record({
  userId: anyId<ValueContext["userId"]>(),
  keyId: anyId<ValueContext["keyId"]>(),
  version: fc.integer({ min: 1, max: 1_000 }),
  type: fc.constantFrom(...SECRET_TYPES),
});
const value = fc.uint8Array({ minLength: 1, maxLength: 300 });

describe("sealed values", () => {
  test("open under the same key and context and under no other: user, id, version, type", () => {
    fc.assert(
      fc.property(bytesOf(32), contextArbitrary, value, (key, context, content) => {
        const sealed = sealValue(key, context, content, random);
        expect(openValue([key], context, sealed).toHex()).toBe(content.toHex());
        expect(sealed.length).toBe(32 + 2 * SEAL_OVERHEAD + paddedLength(content.length + 4));
        for (const { value: other } of bentFields(context)) expectIntegrity(() => openValue([key], other, sealed));
        for (const { value: other } of bentFields({ key })) {
          if (other.key.length === 32) expectIntegrity(() => openValue([other.key], context, sealed));
        }
      }),
      { numRuns: 40 },
    );
  });

  test("no bit of a sealed value can be changed, none added or dropped", () => {
    const key = random(32);
    const context = fc.sample(contextArbitrary, 1)[0] as ValueContext;
    const sealed = sealValue(key, context, Uint8Array.of(1, 2, 3), random);
    for (let at = 0; at < sealed.length; at++) {
      const bent = sealed.slice();
      bent[at] = (bent[at] ?? 0) ^ 0x01;
      expectIntegrity(() => openValue([key], context, bent));
    }
    for (let length = 0; length < sealed.length; length++) {
      expectIntegrity(() => openValue([key], context, sealed.subarray(0, length)));
    }
    expectIntegrity(() => openValue([key], context, Uint8Array.of(...sealed, 0)));
  });

  test("data key of one value and ciphertext of another do not combine", () => {
    const key = random(32);
    const context = fc.sample(contextArbitrary, 1)[0] as ValueContext;
    const one = sealValue(key, context, Uint8Array.of(1), random);
    const two = sealValue(key, context, Uint8Array.of(2), random);
    const cut = 32 + SEAL_OVERHEAD;
    expectIntegrity(() => openValue([key], context, Uint8Array.of(...one.subarray(0, cut), ...two.subarray(cut))));
  });

  test("each sealing draws a fresh data key and nonces: equal values look unlike", () => {
    const key = random(32);
    const context = fc.sample(contextArbitrary, 1)[0] as ValueContext;
    const seen = new Set(Array.from({ length: 50 }, () => sealValue(key, context, Uint8Array.of(7), random).toHex()));
    expect(seen.size).toBe(50);
  });

  test("1 byte and 64 KiB are sealed, 0 bytes and one more are refused", () => {
    const key = random(32);
    const context = fc.sample(contextArbitrary, 1)[0] as ValueContext;
    for (const length of [1, 65_536]) {
      const content = random(length);
      expect(openValue([key], context, sealValue(key, context, content, random))).toEqual(content);
    }
    for (const length of [0, 65_537]) {
      expect(() => sealValue(key, context, new Uint8Array(length), random)).toThrow(
        expect.objectContaining({ code: "bad_input" }),
      );
    }
  });
});

describe("sealed metadata", () => {
  test("opens for the same user, id and serial alone, and never as a value", () => {
    const arbitrary = fc.record({
      userId: anyId<ValueContext["userId"]>(),
      keyId: anyId<ValueContext["keyId"]>(),
      serial: fc.integer({ min: 1, max: 1_000 }),
    });
    fc.assert(
      fc.property(bytesOf(32), arbitrary, value, (key, at, content) => {
        const sealed = sealMeta(key, at.userId, at.keyId, at.serial, content, random);
        expect(openMeta([key], at.userId, at.keyId, at.serial, sealed).toHex()).toBe(content.toHex());
        for (const { value: other } of bentFields(at)) {
          expectIntegrity(() => openMeta([key], other.userId, other.keyId, other.serial, sealed));
        }
        const context = { userId: at.userId, keyId: at.keyId, version: at.serial, type: "note" };
        expectIntegrity(() => openValue([key], context, sealed));
      }),
      { numRuns: 40 },
    );
  });
});

describe("re-wrapping", () => {
  const [old, current, stranger] = [random(32), random(32), random(32)];
  const context: ValueContext = { ...(fc.sample(contextArbitrary, 1)[0] as ValueContext), version: 3, type: "note" };
  const wrap = { kind: "data-key", userId: context.userId, keyId: context.keyId, version: 3 } as const;
  const content = Uint8Array.of(1, 2, 3);

  test("the new key opens what the old one sealed, the old one no longer does, and the hash stays", () => {
    const before = sealValue(old, context, content, random);
    const wrapped = rewrap([current, old], wrap, before.subarray(0, WRAPPED_BYTES), random);
    const after = concat(wrapped as Uint8Array, before.subarray(WRAPPED_BYTES));
    expect(openValue([current], context, after)).toEqual(content);
    expectIntegrity(() => openValue([old], context, after));
    expect(sealedHash(after)).toEqual(sealedHash(before));
    expect(rewrap([current, old], wrap, after.subarray(0, WRAPPED_BYTES), random)).toBeNull();
  });

  test("a key that nobody has, or of another place, is not wrapped anew", () => {
    const wrapped = sealValue(old, context, content, random).subarray(0, WRAPPED_BYTES);
    expectIntegrity(() => rewrap([current, stranger], wrap, wrapped, random));
    expectIntegrity(() => rewrap([current], wrap, wrapped, random));
    const { kind, ...at } = wrap;
    for (const { value: other } of bentFields(at)) {
      expectIntegrity(() => rewrap([current, old], { kind, ...other }, wrapped, random));
    }
    expectIntegrity(() => rewrap([current, old], { ...wrap, kind: "meta-key", serial: 3 }, wrapped, random));
  });

  test("while both keys are known, either opens; the context decides, not the key", () => {
    const sealed = sealValue(old, context, content, random);
    expect(openValue([current, old], context, sealed)).toEqual(content);
    expectIntegrity(() => openValue([current, old], { ...context, version: 4 }, sealed));
    expectIntegrity(() => openValue([], context, sealed));
  });
});
