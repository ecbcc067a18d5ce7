import { describe, expect, test } from "bun:test";
import { ED25519_TORSION_SUBGROUP, ed25519 } from "@noble/curves/ed25519.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import fc from "fast-check";
import { canon } from "../../../src/crypto/canon.ts";
import {
  evaluateCommitments,
  groupOf,
  identifier,
  interpolate,
  lagrangeAtZero,
} from "../../../src/protocol/federation/groups.ts";
import { FEDERATED_TYPES, type FederatedType } from "../../../src/protocol/federation/kinds.ts";
import { proveScalar, verifyProof } from "../../../src/protocol/federation/proof.ts";
import { shareSecret } from "../../../src/protocol/federation/sharing.ts";
import { seeded } from "../../support/seeded.ts";

const random = (seed: number) => {
  const stream = seeded(seed);
  return (n: number) => stream.bytes(n);
};
const refused = expect.objectContaining({ code: "bad_input" });

describe("points and scalars", () => {
  for (const type of FEDERATED_TYPES) {
    const group = groupOf(type);
    test(`${type}: only canonical points of prime order, without the identity`, () => {
      const good = group.encodePoint(group.base);
      expect(group.parsePoint(good).equals(group.base)).toBe(true);
      expect(good.length).toBe(group.pointBytes);
      const bad = [
        new Uint8Array(0),
        new Uint8Array(group.pointBytes),
        new Uint8Array(group.pointBytes).fill(255),
        good.subarray(1),
        new Uint8Array([...good, 0]),
      ];
      for (const bytes of bad) expect(() => group.parsePoint(bytes)).toThrow(refused);
      expect(() => group.encodePoint(group.base.subtract(group.base))).toThrow(refused);
    });

    test(`${type}: only canonical scalars of 32 bytes, in one byte order`, () => {
      expect(group.parseScalar(group.encodeScalar(group.order - 1n))).toBe(group.order - 1n);
      for (const bytes of [new Uint8Array(31), new Uint8Array(33), new Uint8Array(32).fill(255)])
        expect(() => group.parseScalar(bytes)).toThrow(refused);
      expect(() => group.reduceScalar(new Uint8Array(63))).toThrow(RangeError);
      fc.assert(
        fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), (wide) => {
          const scalar = group.reduceScalar(wide);
          expect(scalar > 0n && scalar < group.order).toBe(true);
        }),
      );
    });
  }

  test("ed25519: none of the points of small order, nor a point with one of them added", () => {
    const group = groupOf("ed25519");
    for (const hex of ED25519_TORSION_SUBGROUP) {
      expect(() => group.parsePoint(Uint8Array.fromHex(hex))).toThrow(refused);
      const torsion = ed25519.Point.fromHex(hex);
      if (torsion.is0()) continue;
      expect(() => group.parsePoint(ed25519.Point.BASE.add(torsion).toBytes())).toThrow(refused);
    }
  });

  test("secp256k1: no uncompressed point", () => {
    expect(() => groupOf("secp256k1").parsePoint(secp256k1.Point.BASE.toBytes(false))).toThrow(refused);
  });

  test("indices are 1 to 255", () => {
    for (const index of [0, -1, 256, 1.5, Number.NaN])
      expect(() => identifier(groupOf("p256"), index)).toThrow(refused);
    expect(() => evaluateCommitments(groupOf("p256"), [], 0)).toThrow(refused);
    expect(() => lagrangeAtZero(groupOf("p256"), [0, 1], 1)).toThrow(refused);
    expect(() => lagrangeAtZero(groupOf("p256"), [1, 2], 3)).toThrow(refused);
    expect(() => lagrangeAtZero(groupOf("p256"), [1, 1], 1)).toThrow(refused);
  });
});

describe("sharing", () => {
  test("commitments, shares and secret belong together, and any t shares restore it", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...FEDERATED_TYPES),
        fc.uniqueArray(fc.integer({ min: 1, max: 255 }), { minLength: 2, maxLength: 6 }),
        fc.nat(),
        (type: FederatedType, holders, seed) => {
          const group = groupOf(type);
          const draw = random(seed);
          const threshold = Math.floor(holders.length / 2) + 1;
          const secret = group.reduceScalar(draw(64));
          const { commitments, shares } = shareSecret(group, group.encodeScalar(secret), threshold, holders, draw);
          expect(commitments.length).toBe(threshold);
          for (const [index, share] of shares)
            expect(group.encodePoint(group.base.multiply(group.parseScalar(share)))).toEqual(
              evaluateCommitments(group, commitments, index),
            );
          const some = [...shares].slice(-threshold).map(([index, share]) => ({ index, share }));
          expect(interpolate(group, some)).toBe(secret);
          if (threshold > 2) expect(interpolate(group, some.slice(1))).not.toBe(secret);
        },
      ),
      { numRuns: 30 },
    );
  });

  test("refuses zero, too few or too many holders, one twice, and index 0", () => {
    const group = groupOf("p256");
    const secret = group.encodeScalar(5n);
    for (const [value, threshold, holders] of [
      [new Uint8Array(32), 2, [1, 2]],
      [secret, 1, [1, 2]],
      [secret, 3, [1, 2]],
      [secret, 2, [1, 1]],
      [secret, 2, [0, 1]],
    ] as const)
      expect(() => shareSecret(group, value, threshold, holders, random(1))).toThrow(refused);
  });
});

describe("proof of a scalar", () => {
  test("holds for its point, type and context alone, and no bit of it can change", () => {
    for (const type of FEDERATED_TYPES) {
      const group = groupOf(type);
      const draw = random(3);
      const x = group.reduceScalar(draw(64));
      const scalar = group.encodeScalar(x);
      const point = group.encodePoint(group.base.multiply(x));
      const context = canon("test", "a".repeat(2_000));
      const proof = proveScalar(group, scalar, context, draw);
      expect(proof.length).toBe(group.pointBytes + 32);
      expect(verifyProof(group, point, context, proof)).toBe(true);
      expect(verifyProof(group, point, canon("test", "b"), proof)).toBe(false);
      expect(verifyProof(group, group.encodePoint(group.base), context, proof)).toBe(false);
      expect(verifyProof(group, point.subarray(1), context, proof)).toBe(false);
      for (const sibling of FEDERATED_TYPES.filter((one) => one !== type))
        expect(verifyProof(groupOf(sibling), point, context, proof)).toBe(false);
      for (const at of [0, 1, 20, group.pointBytes - 1, group.pointBytes, proof.length - 1]) {
        const bad = proof.slice();
        bad[at] = (bad[at] ?? 0) ^ 1;
        expect(verifyProof(group, point, context, bad)).toBe(false);
      }
      for (const bad of [new Uint8Array(0), proof.subarray(1), new Uint8Array(proof.length)])
        expect(verifyProof(group, point, context, bad)).toBe(false);
    }
  });

  test("a generator that repeats itself repeats no nonce for another context or scalar", () => {
    const group = groupOf("secp256k1");
    const same = () => new Uint8Array(32);
    const nonceOf = (scalar: bigint, context: string) =>
      proveScalar(group, group.encodeScalar(scalar), canon(context), same).subarray(0, 33).toHex();
    const all = [nonceOf(5n, "a"), nonceOf(5n, "b"), nonceOf(6n, "a")];
    expect(new Set(all).size).toBe(3);
    expect(() => proveScalar(group, new Uint8Array(32), canon("a"), same)).toThrow(refused);
  });
});
