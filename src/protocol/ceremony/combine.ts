import { wipe } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { deriveKey, hashCanon } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { ownValue, wantBytes } from "./contribution.ts";
import type { CeremonyFunction, SignedCeremonyJoin } from "./model.ts";
import { joinBytes } from "./records.ts";

/** Bytes of a ceremony's key K. */
export const CEREMONY_KEY_BYTES = 64;

/** What someone opened, by its index. */
export interface Opening {
  readonly index: number;
  /** 32 bytes, secret until the end. */
  readonly opening: Uint8Array;
}

/** In the order of indexes, whatever the order of arrival was. @throws Fault internal if one occurs twice */
function byIndex<T>(items: readonly T[], indexOf: (item: T) => number): readonly T[] {
  const sorted = items.toSorted((a, b) => indexOf(a) - indexOf(b));
  if (new Set(sorted.map(indexOf)).size !== sorted.length) throw new Fault("internal", "a participant occurs twice");
  return sorted;
}

/** Hash of a participant's signed commitment. 32 bytes. */
function joinHash({ join, invitation, signature }: SignedCeremonyJoin): Uint8Array {
  return hashCanon("keyhold/v1/ceremony-join-hash", joinBytes(join).own, invitation, signature);
}

/** T1: over all signed commitments, in the order of indexes (docs/protocol.md §10.3). 32 bytes. */
export function t1Of(ceremonyId: string, joins: readonly SignedCeremonyJoin[]): Uint8Array {
  return hashCanon("keyhold/v1/ceremony-t1", ceremonyId, byIndex(joins, (one) => one.join.index).map(joinHash));
}

/** T2: over T1 and all openings, in the order of indexes. 32 bytes. */
export function t2Of(t1: Uint8Array, openings: readonly Opening[]): Uint8Array {
  const parts = byIndex(openings, (one) => one.index).map(({ index, opening }) => [index, opening]);
  return hashCanon("keyhold/v1/ceremony-t2", t1, parts);
}

/** What everyone may know of a ceremony's key K of 64 bytes, and openings reproduce. 32 bytes. */
export function keyHashOf(ceremonyId: string, key: Uint8Array): Uint8Array {
  return hashCanon("keyhold/v1/ceremony-key-hash", ceremonyId, key);
}

/**
 * Combines everyone's openings with the server's seed: K = HKDF-SHA-512(salt T2, s0 and y_1 … y_n, purpose)
 * (docs/protocol.md §10.3). The functions run one after another, so that memory for one Argon2id is enough.
 *
 * @param of `participants`: all who joined, in any order; whoever calls has held each opening to its commitment.
 * @returns `key` of 64 bytes, secret, the caller's to wipe. @throws Fault internal
 */
export async function ceremonyKeyOf(of: {
  readonly ceremonyId: string;
  readonly purpose: string;
  /** s0, 32 bytes. */
  readonly seed: Uint8Array;
  readonly t1: Uint8Array;
  readonly participants: readonly (Opening & { readonly function: CeremonyFunction })[];
}): Promise<{ readonly t2: Uint8Array; readonly key: Uint8Array; readonly keyHash: Uint8Array }> {
  const { ceremonyId, purpose, seed, t1 } = of;
  wantBytes(seed, "the server's seed");
  const participants = byIndex(of.participants, (one) => one.index);
  if (participants.length < 2) throw new Fault("internal", "a ceremony has two participants or more");
  const values: Uint8Array[] = [];
  let ikm: Uint8Array | undefined;
  try {
    for (const one of participants) {
      values.push(await ownValue(one.function, one.opening, seed, ceremonyId, one.index));
    }
    ikm = canon("keyhold/v1/ceremony-combined", seed, values);
    const t2 = t2Of(t1, participants);
    const key = deriveKey(ikm, CEREMONY_KEY_BYTES, t2, "keyhold/v1/ceremony-key", purpose, ceremonyId);
    return { t2, key, keyHash: keyHashOf(ceremonyId, key) };
  } finally {
    wipe(ikm, ...values);
  }
}
