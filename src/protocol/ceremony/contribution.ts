import { wipe } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { hmacDrbg } from "../../crypto/drbg.ts";
import { argon2id, deriveKey, deriveKeySha256, hashCanon } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { KDF } from "../defaults.ts";
import type { CeremonyFunction, CeremonyJoin } from "./model.ts";

/** Bytes of what the system draws, of a contribution, of the server's seed, and of a participant's value. */
export const CONTRIBUTION_BYTES = 32;

/** @throws Fault internal */
export function wantBytes(value: Uint8Array, what: string): void {
  if (value.length !== CONTRIBUTION_BYTES) throw new Fault("internal", `${what} has ${CONTRIBUTION_BYTES} bytes`);
}

/**
 * A participant's contribution r_i: what its system drew, and everything that it typed, rolled or took from a file, none
 * of which can make it worse (docs/protocol.md §10.3).
 *
 * @param os 32 bytes of the operating system, always. @param mixed In the order in which they were given; may be none.
 * @returns 32 bytes, secret; all three are the caller's to wipe. @throws Fault internal without the 32 bytes
 */
export function contributionOf(os: Uint8Array, mixed: readonly Uint8Array[]): Uint8Array {
  wantBytes(os, "what the operating system draws");
  const ikm = canon("keyhold/v1/ceremony-mixed", os, [...mixed]);
  try {
    return deriveKey(ikm, CONTRIBUTION_BYTES, os, "keyhold/v1/ceremony-contribution");
  } finally {
    wipe(ikm);
  }
}

/** What a participant commits to its contribution with: bound to its seat, its key and its function. 32 bytes. */
export function commitmentOf(
  join: Pick<CeremonyJoin, "ceremonyId" | "index" | "key" | "function">,
  opening: Uint8Array,
): Uint8Array {
  wantBytes(opening, "an opening");
  const { ceremonyId, index, key } = join;
  return hashCanon("keyhold/v1/ceremony-commitment", ceremonyId, index, key, join.function, opening);
}

/**
 * A participant's value y_i = F_i(r_i, s0, ceremony, i) by the function that it chose (docs/protocol.md §10.3).
 *
 * @returns 32 bytes, secret, the caller's to wipe. @throws Fault internal
 */
export async function ownValue(
  fn: CeremonyFunction,
  opening: Uint8Array,
  seed: Uint8Array,
  ceremonyId: string,
  index: number,
): Promise<Uint8Array> {
  wantBytes(opening, "an opening");
  wantBytes(seed, "the server's seed");
  const place = [ceremonyId, index] as const;
  switch (fn) {
    case "hkdf-sha256":
      return deriveKeySha256(opening, CONTRIBUTION_BYTES, seed, "keyhold/v1/ceremony-hkdf-sha256", ...place);
    case "hkdf-sha512":
      return deriveKey(opening, CONTRIBUTION_BYTES, seed, "keyhold/v1/ceremony-hkdf-sha512", ...place);
    case "hmac-drbg": {
      const drbg = hmacDrbg("sha256", opening, seed, canon("keyhold/v1/ceremony-hmac-drbg", ...place));
      try {
        return drbg.read(CONTRIBUTION_BYTES);
      } finally {
        drbg.wipe();
      }
    }
    case "argon2id": {
      const message = canon("keyhold/v1/ceremony-argon2id", ...place, opening);
      try {
        return await argon2id(message, seed, KDF.opaque, CONTRIBUTION_BYTES);
      } finally {
        wipe(message);
      }
    }
  }
}
