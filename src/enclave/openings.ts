import { equalBytes, wipe } from "../crypto/bytes.ts";
import { hpkeOpen } from "../crypto/hpke.ts";
import { sha256 } from "../crypto/kdf.ts";
import { rsaOaepOpen } from "../crypto/rsaoaep.ts";
import { Fault } from "../errors.ts";
import { commitmentOf } from "../protocol/ceremony/contribution.ts";
import type { CeremonyState } from "../protocol/ceremony/life.ts";
import type { CeremonyJoin, CeremonyReveal } from "../protocol/ceremony/model.ts";
import { ceremonyKeyHash, openingInfo } from "../protocol/ceremony/records.ts";
import type { KeyInUse, OpenedCeremonyKey } from "./ceremonykeys.ts";

/** Bytes of an opening. */
const OPENING_BYTES = 32;

/**
 * Openings are sealed to the key of the manifest, newer ones or not: with any other a server that made two keys of one
 * number could have an honest participant's opening fail, and name it a liar.
 *
 * @throws Fault bad_input
 */
export function demandKeyOf(state: CeremonyState, reveal: CeremonyReveal, { statement }: KeyInUse): void {
  const { key } = state.manifest.draft.key;
  if (reveal.keyNumber !== key.number || !equalBytes(ceremonyKeyHash(statement.key), ceremonyKeyHash(key))) {
    throw new Fault("bad_input", "an opening is sealed to the key that the ceremony's manifest names");
  }
}

/**
 * What a participant has sealed: 32 bytes, the caller's to wipe; null for what does not open as what it signed.
 *
 * @throws Fault integrity for other bytes than it signed
 */
export async function openOpening(
  key: OpenedCeremonyKey,
  { ceremonyId, index, t1, suite, sealedHash }: CeremonyReveal,
  sealed: Uint8Array,
): Promise<Uint8Array | null> {
  if (!equalBytes(sha256(sealed), sealedHash)) throw new Fault("integrity", "this is not the opening that was signed");
  const info = openingInfo(ceremonyId, index, t1);
  try {
    const opening = suite === "hpke" ? await hpkeOpen(key.hpke, info, sealed) : rsaOaepOpen(key.rsa, info, sealed);
    if (opening.length === OPENING_BYTES) return opening;
    wipe(opening);
    return null;
  } catch (error) {
    if (error instanceof Fault && error.code === "integrity") return null;
    throw error;
  }
}

/** True if that is what this participant committed to. */
export function isOpeningOf(join: CeremonyJoin, opening: Uint8Array): boolean {
  return equalBytes(commitmentOf(join, opening), join.commitment);
}
