import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { EMPTY_MAP, type MerkleMap } from "../../src/crypto/merkle.ts";
import { bytesOf } from "../support/arbitraries.ts";

/** The map as docs/protocol.md §5.5 says it, from scratch over a sorted list: no tree, no sharing, own encoding. */
interface Entry {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

const item = (tag: number, bytes: Uint8Array): Buffer => {
  const head = Buffer.alloc(5);
  head[0] = tag;
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
};

function slowHash(label: string, a: Uint8Array, b: Uint8Array): Uint8Array {
  const list = Buffer.from([6, 0, 0, 0, 3]);
  const body = Buffer.concat([list, item(4, Buffer.from(label)), item(5, a), item(5, b)]);
  return new Uint8Array(createHash("sha256").update(body).digest());
}

const bits = (key: Uint8Array): string => Array.from(key, (byte) => byte.toString(2).padStart(8, "0")).join("");

function slowRoot(entries: readonly Entry[], depth = 0): Uint8Array {
  const [only] = entries;
  if (!only) return new Uint8Array(32);
  if (entries.length === 1) return slowHash("keyhold/v1/map-leaf", only.key, only.value);
  const side = (bit: string) => entries.filter(({ key }) => bits(key)[depth] === bit);
  return slowHash("keyhold/v1/map-node", slowRoot(side("0"), depth + 1), slowRoot(side("1"), depth + 1));
}

const build = (entries: readonly Entry[]): MerkleMap =>
  entries.reduce((map, { key, value }) => map.with(key, value), EMPTY_MAP);

/** Keys that often share long prefixes, so that deep trees occur. */
const key = fc.oneof(
  bytesOf(16),
  fc.tuple(fc.constantFrom(0, 0x80, 0xff), fc.nat(15), fc.nat(255)).map(([fill, at, byte]) => {
    const out = new Uint8Array(16).fill(fill);
    out[at] = byte;
    return out;
  }),
);
const entries = fc.uniqueArray(fc.record({ key, value: bytesOf(32) }), {
  maxLength: 24,
  selector: (e) => e.key.toHex(),
});

describe("sparse Merkle map", () => {
  test("gives the root of the slow model", () => {
    fc.assert(
      fc.property(entries, (list) => {
        const map = build(list);
        expect(map.root().toHex()).toBe(slowRoot(list).toHex());
        expect(map.size).toBe(list.length);
        for (const { key: k, value } of list) expect(map.get(k)?.toHex()).toBe(value.toHex());
      }),
    );
  });

  test("does not depend on the order of insertion or on values that were replaced", () => {
    const shuffled = entries.chain((list) =>
      fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length, maxLength: list.length })),
    );
    fc.assert(
      fc.property(shuffled, bytesOf(32), ([list, other], old) => {
        const replaced = build([...other.map((one) => ({ key: one.key, value: old })), ...other]);
        expect(replaced.root().toHex()).toBe(build(list).root().toHex());
        expect(replaced.size).toBe(list.length);
      }),
    );
  });

  test("distinct maps have distinct roots: another value, another key, one entry more or less", () => {
    const nonEmpty = entries.filter((list) => list.length > 0);
    fc.assert(
      fc.property(nonEmpty, fc.nat(), bytesOf(32), key, (list, pick, value, otherKey) => {
        const at = pick % list.length;
        const root = build(list).root().toHex();
        const one = list[at] as Entry;
        fc.pre(one.value.toHex() !== value.toHex() && list.every((e) => e.key.toHex() !== otherKey.toHex()));
        const others = [
          list.with(at, { key: one.key, value }),
          list.with(at, { key: otherKey, value: one.value }),
          list.toSpliced(at, 1),
          [...list, { key: otherKey, value }],
        ];
        for (const other of others) expect(build(other).root().toHex()).not.toBe(root);
      }),
    );
  });

  test("swapping the values of two keys changes the root", () => {
    const two = entries.filter(([a, b]) => a !== undefined && b !== undefined && a.value.toHex() !== b.value.toHex());
    fc.assert(
      fc.property(two, (list) => {
        const [a, b] = list as [Entry, Entry];
        const swapped = [{ key: a.key, value: b.value }, { key: b.key, value: a.value }, ...list.slice(2)];
        expect(build(swapped).root().toHex()).not.toBe(build(list).root().toHex());
      }),
    );
  });

  test("an older map stays as it was", () => {
    fc.assert(
      fc.property(entries, entries, (before, after) => {
        const old = build(before);
        const root = old.root().toHex();
        const newer = after.reduce((map, { key: k, value }) => map.with(k, value), old);
        newer.root();
        expect(old.root().toHex()).toBe(root);
        expect(old.size).toBe(before.length);
        for (const { key: k, value } of before) expect(old.get(k)?.toHex()).toBe(value.toHex());
        for (const { key: k } of after) {
          const had = before.find((one) => one.key.toHex() === k.toHex());
          expect(old.get(k)?.toHex()).toBe(had?.value.toHex());
        }
      }),
    );
  });

  test("keeps copies: what the caller does to its arrays later changes nothing", () => {
    const k = new Uint8Array(16).fill(1);
    const v = new Uint8Array(32).fill(2);
    const map = EMPTY_MAP.with(k, v);
    k.fill(9);
    v.fill(9);
    const want = slowRoot([{ key: new Uint8Array(16).fill(1), value: new Uint8Array(32).fill(2) }]);
    expect(map.root().toHex()).toBe(want.toHex());
  });

  test("an empty map has the root of zeros; keys and values of another size are refused", () => {
    expect(EMPTY_MAP.root().toHex()).toBe("00".repeat(32));
    expect(EMPTY_MAP.get(new Uint8Array(16))).toBeUndefined();
    for (const [keyLength, valueLength] of [
      [15, 32],
      [17, 32],
      [0, 32],
      [16, 31],
      [16, 33],
    ] as const) {
      expect(() => EMPTY_MAP.with(new Uint8Array(keyLength), new Uint8Array(valueLength))).toThrow(RangeError);
    }
  });

  test("keys that differ in the last bit alone are told apart", () => {
    const a = new Uint8Array(16);
    const b = new Uint8Array(16);
    b[15] = 1;
    const list = [a, b].map((k, i) => ({ key: k, value: new Uint8Array(32).fill(i + 1) }));
    expect(build(list).root().toHex()).toBe(slowRoot(list).toHex());
    expect(build(list).get(b)?.[0]).toBe(2);
  });
});
