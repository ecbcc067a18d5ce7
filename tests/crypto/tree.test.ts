import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import fc from "fast-check";
import {
  appendLeaves,
  consistencyPlan,
  EMPTY_ROOT,
  foldNodes,
  frontierOf,
  inclusionPlan,
  type ProofPlan,
  treeLeafHash,
  verifyConsistency,
  verifyInclusion,
} from "../../src/crypto/tree.ts";
import vectors from "../vectors/merkle-tree.json";

// ---- An independent slow model: the recursive definitions of RFC 9162 §2.1, over the leaves themselves ----

const H = (...parts: Uint8Array[]): Uint8Array => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
};

const k = (n: number): number => 2 ** Math.ceil(Math.log2(n) - 1);

function mth(d: readonly Uint8Array[]): Uint8Array {
  const [only] = d;
  if (!only) return H();
  if (d.length === 1) return H(Uint8Array.of(0), only);
  const cut = k(d.length);
  return H(Uint8Array.of(1), mth(d.slice(0, cut)), mth(d.slice(cut)));
}

function path(m: number, d: readonly Uint8Array[]): Uint8Array[] {
  if (d.length === 1) return [];
  const cut = k(d.length);
  return m < cut
    ? [...path(m, d.slice(0, cut)), mth(d.slice(cut))]
    : [...path(m - cut, d.slice(cut)), mth(d.slice(0, cut))];
}

function subproof(m: number, d: readonly Uint8Array[], b: boolean): Uint8Array[] {
  if (m === d.length) return b ? [] : [mth(d)];
  const cut = k(d.length);
  return m <= cut
    ? [...subproof(m, d.slice(0, cut), b), mth(d.slice(cut))]
    : [...subproof(m - cut, d.slice(cut), false), mth(d.slice(0, cut))];
}

// ---- The tree as a server stores it ----

function stored(data: readonly Uint8Array[], batches: readonly number[] = [data.length]) {
  const nodes = new Map<string, Uint8Array>();
  let [size, frontier, root] = [0, [] as Uint8Array[], EMPTY_ROOT];
  for (const count of batches) {
    const leaves = data.slice(size, size + count).map(treeLeafHash);
    for (const [i, hash] of leaves.entries()) nodes.set(`0/${size + i}`, hash);
    const next = appendLeaves(size, frontier, leaves);
    for (const { level, index, hash } of next.nodes) nodes.set(`${level}/${index}`, hash);
    ({ size, frontier, root } = next);
  }
  const node = ({ level, index }: { level: number; index: number }): Uint8Array => {
    const hash = nodes.get(`${level}/${index}`);
    if (!hash) throw new Error(`no node ${level}/${index}`);
    return hash;
  };
  return {
    root,
    nodes,
    rootAt: (at: number) => foldNodes(frontierOf(at).map(node)),
    proof: (plan: ProofPlan) => plan.map((ids) => foldNodes(ids.map(node))),
  };
}

const hex = (bytes: Uint8Array): string => bytes.toHex();
const data = vectors.leaves.map((text) => Uint8Array.fromHex(text));
const rootOf = (size: number): Uint8Array => Uint8Array.fromHex(vectors.roots[size] ?? "");

describe("the certificate-transparency vectors", () => {
  test("roots of every size and hashes of every complete subtree", () => {
    const tree = stored(data);
    expect(vectors.roots.map((_, size) => hex(tree.rootAt(size)))).toEqual(vectors.roots);
    expect(hex(EMPTY_ROOT)).toBe(vectors.roots[0] ?? "");
    for (const [level, hashes] of vectors.nodes.entries()) {
      expect(hashes.map((_, index) => hex(tree.nodes.get(`${level}/${index}`) ?? H()))).toEqual(hashes);
    }
    expect(tree.nodes.size).toBe(vectors.nodes.flat().length);
  });

  test.each(vectors.inclusion)("inclusion of leaf $index in $size", ({ index, size, proof }) => {
    const made = stored(data).proof(inclusionPlan(index, size));
    expect(made.map(hex)).toEqual(proof);
    const leaf = treeLeafHash(data[index] ?? H());
    expect(verifyInclusion(leaf, index, size, made, rootOf(size))).toBe(true);
  });

  test.each(vectors.consistency)("consistency of $from with $to", ({ from, to, proof }) => {
    const made = stored(data).proof(consistencyPlan(from, to));
    expect(made.map(hex)).toEqual(proof);
    expect(verifyConsistency(from, rootOf(from), to, rootOf(to), made)).toBe(true);
  });
});

const leaves = fc.array(fc.uint8Array({ maxLength: 12 }), { minLength: 1, maxLength: 70 });

describe("against the recursive definitions", () => {
  test("roots and proofs are the same, whatever the batches", () => {
    fc.assert(
      fc.property(leaves, fc.array(fc.integer({ min: 1, max: 20 })), fc.nat(), fc.nat(), (d, sizes, a, b) => {
        const batches: number[] = [];
        for (const size of [...sizes, d.length]) {
          const left = d.length - batches.reduce((sum, one) => sum + one, 0);
          if (left > 0) batches.push(Math.min(size, left));
        }
        const tree = stored(d, batches);
        const size = (a % d.length) + 1;
        const part = d.slice(0, size);
        const root = mth(part);
        expect(hex(tree.root)).toBe(hex(mth(d)));
        expect(hex(tree.rootAt(size))).toBe(hex(root));
        const index = b % size;
        const inclusion = tree.proof(inclusionPlan(index, size));
        expect(inclusion.map(hex)).toEqual(path(index, part).map(hex));
        expect(verifyInclusion(treeLeafHash(d[index] ?? H()), index, size, inclusion, root)).toBe(true);
        const from = (b % size) + 1;
        const consistency = tree.proof(consistencyPlan(from, size));
        expect(consistency.map(hex)).toEqual(subproof(from, part, true).map(hex));
        expect(verifyConsistency(from, mth(d.slice(0, from)), size, root, consistency)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  test("no proof of anything else verifies", () => {
    fc.assert(
      fc.property(leaves, fc.nat(), fc.nat(), fc.nat(), fc.nat(), (d, a, b, where, how) => {
        const size = (a % d.length) + 1;
        const tree = stored(d);
        const root = tree.rootAt(size);
        const index = b % size;
        const proof = tree.proof(inclusionPlan(index, size));
        const leaf = treeLeafHash(d[index] ?? H());
        const other = H(leaf);
        const holds = (l: Uint8Array, i: number, s: number, p: Uint8Array[], r: Uint8Array) =>
          verifyInclusion(l, i, s, p, r);
        expect(holds(other, index, size, proof, root)).toBe(false);
        expect(holds(leaf, index, size, proof, other)).toBe(false);
        expect(holds(leaf, index, size, [...proof, other], root)).toBe(false);
        expect(holds(leaf, size, size, proof, root)).toBe(false);
        expect(holds(leaf, -1, size, proof, root)).toBe(false);
        if (proof.length > 0) {
          expect(holds(leaf, index, size, proof.slice(1), root)).toBe(false);
          const bent = proof.map((hash, i) => (i === where % proof.length ? flip(hash, how) : hash));
          expect(holds(leaf, index, size, bent, root)).toBe(false);
        }
        const from = (b % size) + 1;
        const before = tree.rootAt(from);
        const chain = tree.proof(consistencyPlan(from, size));
        expect(verifyConsistency(from, before, size, other, chain)).toBe(false);
        expect(verifyConsistency(from, other, size, root, chain)).toBe(false);
        expect(verifyConsistency(from, before, size, root, [...chain, other])).toBe(false);
        expect(verifyConsistency(size + 1, before, size, root, chain)).toBe(false);
        if (chain.length > 0) {
          expect(verifyConsistency(from, before, size, root, chain.slice(1))).toBe(false);
          const bent = chain.map((hash, i) => (i === where % chain.length ? flip(hash, how) : hash));
          expect(verifyConsistency(from, before, size, root, bent)).toBe(false);
        }
      }),
      { numRuns: 300 },
    );
  });
});

function flip(hash: Uint8Array, how: number): Uint8Array {
  const out = hash.slice();
  out[how % 32] = (out[how % 32] ?? 0) ^ (1 << (how % 8));
  return out;
}

describe("the edges", () => {
  test("nothing is a prefix of everything, with the empty root and no proof", () => {
    expect(verifyConsistency(0, EMPTY_ROOT, 8, rootOf(8), [])).toBe(true);
    expect(verifyConsistency(0, rootOf(1), 8, rootOf(8), [])).toBe(false);
    expect(verifyConsistency(0, EMPTY_ROOT, 8, rootOf(8), [rootOf(1)])).toBe(false);
    expect(verifyConsistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])).toBe(true);
    expect(verifyConsistency(8, rootOf(8), 8, rootOf(7), [])).toBe(false);
    expect(verifyConsistency(4, rootOf(4), 8, rootOf(8), [])).toBe(false);
  });

  test("proofs of a million leaves have at most 20 hashes from 40 subtrees", () => {
    for (const index of [0, 1, 524_287, 999_998, 999_999]) {
      const plan = inclusionPlan(index, 1_000_000);
      expect(plan.length).toBeLessThanOrEqual(20);
      expect(plan.flat().length).toBeLessThanOrEqual(40);
    }
    expect(consistencyPlan(777_777, 1_000_000).flat().length).toBeLessThanOrEqual(60);
  });

  test("sizes above 2^32 are exact", () => {
    const size = 2 ** 40 + 3;
    expect(frontierOf(size)).toEqual([
      { level: 40, index: 0 },
      { level: 1, index: 2 ** 39 },
      { level: 0, index: 2 ** 40 + 2 },
    ]);
    expect(inclusionPlan(2 ** 40 + 2, size)).toHaveLength(2);
  });

  test("what is not there is refused", () => {
    expect(() => inclusionPlan(3, 3)).toThrow(RangeError);
    expect(() => inclusionPlan(-1, 3)).toThrow(RangeError);
    expect(() => consistencyPlan(4, 3)).toThrow(RangeError);
    expect(() => appendLeaves(3, [EMPTY_ROOT], [])).toThrow(RangeError);
    expect(() => appendLeaves(1, [EMPTY_ROOT, EMPTY_ROOT], [])).toThrow(RangeError);
  });
});
