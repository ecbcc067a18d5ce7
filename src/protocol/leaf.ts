import { hashCanon } from "../crypto/kdf.ts";
import type { KeyId } from "../ids.ts";
import { sealedHash } from "./secret.ts";

/** `removed` keeps the versions, `purged` has erased them; both stay as tombstones. */
export type LeafStatus = "live" | "removed" | "purged";
export const LEAF_STATUSES = ["live", "removed", "purged"] as const satisfies readonly LeafStatus[];

/**
 * One change of one secret: what the sparse Merkle map commits to (docs/protocol.md §5.4).
 * `serial` counts changes of this key from 1, `version` counts values from 1.
 */
export interface LeafRecord {
  readonly keyId: KeyId;
  readonly serial: number;
  readonly version: number;
  /** {@link sealedHash} of the value of this version (32 bytes). */
  readonly sealedHash: Uint8Array;
  /** {@link sealedHash} of the metadata (32 bytes). */
  readonly metaHash: Uint8Array;
  /** Sealed metadata; null once purged. */
  readonly meta: Uint8Array | null;
  /** The public component in clear, where the owner wants the server to know it. */
  readonly publicKey: Uint8Array | null;
  readonly status: LeafStatus;
  /** Hash of the leaf with serial-1; 32 zero bytes for the first. */
  readonly previous: Uint8Array;
}

/** Hash of a leaf (32 bytes); the metadata enters by its hash, so that purging keeps the chain verifiable. */
export function leafHash(leaf: LeafRecord): Uint8Array {
  return hashCanon(
    "keyhold/v1/leaf",
    leaf.keyId,
    leaf.serial,
    leaf.version,
    leaf.sealedHash,
    leaf.metaHash,
    leaf.publicKey,
    leaf.status,
    leaf.previous,
  );
}

/** True when the metadata carried beside the leaf is the one it commits to (or was purged). */
export function leafMetaFits(leaf: LeafRecord): boolean {
  if (leaf.meta === null) return leaf.status === "purged";
  return Buffer.compare(sealedHash(leaf.meta), leaf.metaHash) === 0;
}
