import { concat, equalBytes } from "./bytes.ts";
import { sha256 } from "./kdf.ts";

/**
 * Append-only Merkle tree (RFC 9162 §2.1, the same as RFC 6962 §2.1) over SHA-256. Hashes have 32 bytes, sizes and
 * indexes are whole numbers below 2^53. Complete subtrees never change: who stores them proves in O(log n).
 */

const LEAF_PREFIX = Uint8Array.of(0);
const NODE_PREFIX = Uint8Array.of(1);

/** Root of the tree without leaves: SHA-256 of nothing. */
export const EMPTY_ROOT: Uint8Array = sha256(new Uint8Array(0));

/** A complete subtree: it covers the leaves from index·2^level to (index+1)·2^level. */
export interface NodeId {
  readonly level: number;
  readonly index: number;
}

/** A complete subtree with its hash. */
export interface TreeNode extends NodeId {
  readonly hash: Uint8Array;
}

/** Hash of a leaf: SHA-256(0x00 ‖ data). */
export function treeLeafHash(data: Uint8Array): Uint8Array {
  return sha256(concat(LEAF_PREFIX, data));
}

/** Hash of an inner node: SHA-256(0x01 ‖ left ‖ right). */
export function treeNodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return sha256(concat(NODE_PREFIX, left, right));
}

/** The largest power of two below `n`, for n > 1. */
function split(n: number): number {
  let k = 1;
  while (k * 2 < n) k *= 2;
  return k;
}

type Range = readonly [from: number, to: number];

/** The complete subtrees that make up a range of the tree, left to right. */
function nodesOf([from, to]: Range): NodeId[] {
  const nodes: NodeId[] = [];
  for (let at = from; at < to; ) {
    let level = 0;
    let width = 1;
    while (at % (width * 2) === 0 && at + width * 2 <= to) {
      width *= 2;
      level += 1;
    }
    nodes.push({ level, index: at / width });
    at += width;
  }
  return nodes;
}

/** The complete subtrees whose hashes {@link foldNodes} joins to the root of a tree of `size` leaves. */
export function frontierOf(size: number): readonly NodeId[] {
  return nodesOf([0, size]);
}

/** Root over neighbouring complete subtrees, given left to right. */
export function foldNodes(hashes: readonly Uint8Array[]): Uint8Array {
  const last = hashes.at(-1);
  if (!last) return EMPTY_ROOT;
  return hashes.slice(0, -1).reduceRight((right, left) => treeNodeHash(left, right), last);
}

/** Appends leaf hashes to a tree whose frontier is known; gives the complete subtrees above level 0 that came to be. */
export function appendLeaves(
  size: number,
  frontier: readonly Uint8Array[],
  leaves: readonly Uint8Array[],
): { readonly size: number; readonly root: Uint8Array; readonly frontier: Uint8Array[]; readonly nodes: TreeNode[] } {
  const stack: TreeNode[] = frontierOf(size).map((id, i) => {
    const hash = frontier[i];
    if (!hash) throw new RangeError("tree: the frontier is too short");
    return { ...id, hash };
  });
  if (stack.length !== frontier.length) throw new RangeError("tree: the frontier is too long");
  const nodes: TreeNode[] = [];
  leaves.forEach((hash, i) => {
    let right: TreeNode = { level: 0, index: size + i, hash };
    for (let left = stack.at(-1); left?.level === right.level; left = stack.at(-1)) {
      stack.pop();
      right = { level: right.level + 1, index: left.index / 2, hash: treeNodeHash(left.hash, right.hash) };
      nodes.push(right);
    }
    stack.push(right);
  });
  const hashes = stack.map(({ hash }) => hash);
  return { size: size + leaves.length, root: foldNodes(hashes), frontier: hashes, nodes };
}

/** What a proof is made of: each list of subtrees, folded, is one of its hashes, in order. */
export type ProofPlan = readonly (readonly NodeId[])[];

/** The proof of a plan, from the hashes of all its subtrees in order. */
export function foldProof(plan: ProofPlan, hashes: readonly Uint8Array[]): Uint8Array[] {
  let at = 0;
  return plan.map((ids) => {
    const part = hashes.slice(at, at + ids.length);
    at += ids.length;
    return foldNodes(part);
  });
}

/** Plan of the inclusion proof PATH(index, D[size]) (RFC 9162 §2.1.3.1). @throws RangeError outside the tree */
export function inclusionPlan(index: number, size: number): ProofPlan {
  if (index < 0 || index >= size) throw new RangeError("tree: no such leaf");
  const ranges: Range[] = [];
  for (let from = 0, to = size; to - from > 1; ) {
    const middle = from + split(to - from);
    ranges.push(index < middle ? [middle, to] : [from, middle]);
    if (index < middle) to = middle;
    else from = middle;
  }
  return ranges.reverse().map(nodesOf);
}

/** Plan of the consistency proof PROOF(from, D[to]) (RFC 9162 §2.1.4.1); empty from 0. @throws RangeError */
export function consistencyPlan(from: number, to: number): ProofPlan {
  if (from < 0 || from > to) throw new RangeError("tree: not an earlier size");
  if (from === 0 || from === to) return [];
  const ranges: Range[] = [];
  let [low, high, whole] = [0, to, true];
  while (high !== from) {
    const middle = low + split(high - low);
    ranges.push(from <= middle ? [middle, high] : [low, middle]);
    if (from <= middle) high = middle;
    else [low, whole] = [middle, false];
  }
  if (!whole) ranges.push([low, high]);
  return ranges.reverse().map(nodesOf);
}

const odd = (n: number): boolean => n % 2 === 1;
const half = (n: number): number => Math.floor(n / 2);

/** True when `leaf` (a leaf's hash) stands at `index` of the tree of `size` leaves with `root` (RFC 9162 §2.1.3.2). */
export function verifyInclusion(
  leaf: Uint8Array,
  index: number,
  size: number,
  proof: readonly Uint8Array[],
  root: Uint8Array,
): boolean {
  if (index < 0 || index >= size) return false;
  let [at, last, hash] = [index, size - 1, leaf];
  for (const other of proof) {
    if (last === 0) return false;
    if (odd(at) || at === last) {
      hash = treeNodeHash(other, hash);
      while (!odd(at) && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      hash = treeNodeHash(hash, other);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && equalBytes(hash, root);
}

/** True when the tree (`from`, `fromRoot`) is a prefix of the tree (`to`, `toRoot`) (RFC 9162 §2.1.4.2). */
export function verifyConsistency(
  from: number,
  fromRoot: Uint8Array,
  to: number,
  toRoot: Uint8Array,
  proof: readonly Uint8Array[],
): boolean {
  if (from < 0 || from > to) return false;
  if (from === to) return proof.length === 0 && equalBytes(fromRoot, toRoot);
  if (from === 0) return proof.length === 0 && equalBytes(fromRoot, EMPTY_ROOT);
  let [at, last] = [from - 1, to - 1];
  while (odd(at)) [at, last] = [half(at), half(last)];
  // a power of two is itself a node of the larger tree
  const path = at === 0 ? [fromRoot, ...proof] : proof;
  const first = path[0];
  if (!first || proof.length === 0) return false;
  let [before, after] = [first, first];
  for (const other of path.slice(1)) {
    if (last === 0) return false;
    if (odd(at) || at === last) {
      before = treeNodeHash(other, before);
      after = treeNodeHash(other, after);
      while (!odd(at) && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      after = treeNodeHash(after, other);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && equalBytes(before, fromRoot) && equalBytes(after, toRoot);
}
