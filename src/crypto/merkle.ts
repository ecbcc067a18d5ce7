import { ZERO_HASH_BYTES } from "./bytes.ts";
import { hashCanon } from "./kdf.ts";

/**
 * Sparse Merkle map from 16-byte keys to 32-byte values (docs/protocol.md §5.5), immutable. A subtree with one
 * entry is that entry's leaf, so that depth grows with the logarithm of the number of entries; the root does not
 * depend on the order of insertion.
 */
export interface MerkleMap {
  /** Number of entries. */
  readonly size: number;
  /** A map with one entry put or replaced, sharing all other nodes: O(log n). */
  with(key: Uint8Array, value: Uint8Array): MerkleMap;
  get(key: Uint8Array): Uint8Array | undefined;
  /** 32 bytes; zeros when empty. Not to be written to. */
  root(): Uint8Array;
}

type Node = Leaf | Inner;
interface Leaf {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  hash: Uint8Array | null;
}
interface Inner {
  readonly left: Node | null;
  readonly right: Node | null;
  hash: Uint8Array | null;
}

const KEY_BYTES = 16;
const VALUE_BYTES = 32;

const isLeaf = (node: Node): node is Leaf => "key" in node;
const bit = (key: Uint8Array, depth: number): number => ((key[depth >>> 3] ?? 0) >>> (7 - (depth & 7))) & 1;
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

function insert(node: Node | null, leaf: Leaf, depth: number): { node: Node; added: boolean } {
  if (node === null) return { node: leaf, added: true };
  if (isLeaf(node)) {
    if (same(node.key, leaf.key)) return { node: leaf, added: false };
    const side = bit(node.key, depth);
    return insert({ left: side ? null : node, right: side ? node : null, hash: null }, leaf, depth);
  }
  const right = bit(leaf.key, depth) === 1;
  const below = insert(right ? node.right : node.left, leaf, depth + 1);
  const made = right
    ? { left: node.left, right: below.node, hash: null }
    : { left: below.node, right: node.right, hash: null };
  return { node: made, added: below.added };
}

function hashOf(node: Node | null): Uint8Array {
  if (node === null) return ZERO_HASH_BYTES;
  if (node.hash === null) {
    node.hash = isLeaf(node)
      ? hashCanon("keyhold/v1/map-leaf", node.key, node.value)
      : hashCanon("keyhold/v1/map-node", hashOf(node.left), hashOf(node.right));
  }
  return node.hash;
}

function mapOf(top: Node | null, size: number): MerkleMap {
  return {
    size,
    with(key, value) {
      if (key.length !== KEY_BYTES || value.length !== VALUE_BYTES) throw new RangeError("merkle map: wrong size");
      const done = insert(top, { key: key.slice(), value: value.slice(), hash: null }, 0);
      return mapOf(done.node, done.added ? size + 1 : size);
    },
    get(key) {
      let node = top;
      for (let depth = 0; node !== null; depth++) {
        if (isLeaf(node)) return same(node.key, key) ? node.value : undefined;
        node = bit(key, depth) ? node.right : node.left;
      }
      return undefined;
    },
    root: () => hashOf(top),
  };
}

/** The map without entries. */
export const EMPTY_MAP: MerkleMap = mapOf(null, 0);
