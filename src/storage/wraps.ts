import { concat } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { idBytes, type KeyId } from "../ids.ts";
import { WRAPPED_BYTES } from "../protocol/secret.ts";
import type { WrapPlace, WrapRow } from "./store.ts";

/** Above every version and serial. */
const LAST = 0xffff_ffff;

/** Where to go on in one of the two tables: with (key, number) above this. */
export interface WrapBound {
  /** 16 bytes; empty for the beginning. */
  readonly key: Uint8Array;
  readonly number: number;
}

/** Where the rows of a kind go on after a place in the common order: metadata stands before values. */
export function wrapBound(kind: WrapPlace["kind"], after: WrapPlace | null): WrapBound {
  if (after === null) return { key: new Uint8Array(0), number: 0 };
  const key = idBytes(after.keyId);
  if (kind === after.kind) return { key, number: after.number };
  return { key, number: kind === "value" ? 0 : LAST };
}

const before = (a: KeyId, b: KeyId): number => (a < b ? -1 : a > b ? 1 : 0);

/** The first `limit` of two ordered lists in the common order: key id, metadata before values, number. */
export function mergeWraps(metas: readonly WrapRow[], values: readonly WrapRow[], limit: number): readonly WrapRow[] {
  // stable: both are ordered by number already
  return [...metas, ...values].sort((a, b) => before(a.keyId, b.keyId)).slice(0, limit);
}

/** Sealed bytes with another wrapped key in front. @throws Fault internal for one of another length */
export function withWrap(sealed: Uint8Array, wrapped: Uint8Array): Uint8Array {
  if (wrapped.length !== WRAPPED_BYTES) throw new Fault("internal", "a wrapped key of another length");
  return concat(wrapped, sealed.subarray(WRAPPED_BYTES));
}
