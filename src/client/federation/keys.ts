import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { type Certificate, type SignedCertificate, verifyCertificate } from "../../protocol/federation/certificate.ts";
import type { KeyView } from "../../wire/federation/operations.ts";
import { type Answer, askAll, everyone } from "./answers.ts";
import type { Ground } from "./ground.ts";
import type { HeldKey } from "./held.ts";
import { manifestAt } from "./pending.ts";

/** What all servers say of one key. */
export const viewsOf = ({ fleet }: Ground, { keyId }: Pick<HeldKey, "keyId">): Promise<readonly Answer<KeyView>[]> =>
  askAll(fleet, everyone(fleet), "federation.key", () => ({ keyId }));

/** True for two generations of one and the same key. */
function sameKey(a: Certificate, b: Certificate): boolean {
  const [first, other] = [a.commitments[0], b.commitments[0]];
  const samePoint = (x: Uint8Array | null, y: Uint8Array | null) =>
    x === null ? y === null : y !== null && equalBytes(x, y);
  return (
    a.keyId === b.keyId &&
    a.federationId === b.federationId &&
    a.type === b.type &&
    a.length === b.length &&
    a.custody === b.custody &&
    a.control === b.control &&
    a.policy === b.policy &&
    equalBytes(a.owner, b.owner) &&
    equalBytes(a.publicKey, b.publicKey) &&
    samePoint(a.ownerPoint, b.ownerPoint) &&
    first !== undefined &&
    other !== undefined &&
    equalBytes(first, other)
  );
}

/** A newer generation of a known key that its owner has accepted; null where it does not verify. */
function verified(ground: Ground, known: Certificate, signed: SignedCertificate): SignedCertificate | null {
  try {
    const certificate = verifyCertificate(signed, manifestAt(ground, signed.certificate.epoch));
    return sameKey(known, certificate) ? signed : null;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return null;
  }
}

/**
 * Takes over a newer generation that servers show, as another device of this account has accepted it.
 *
 * @returns the key's entry as it is then.
 */
export async function renewKey(
  ground: Ground,
  key: HeldKey,
  views: readonly Answer<KeyView>[] | null = null,
): Promise<HeldKey> {
  const known = key.certificate.certificate;
  let newest = key.certificate;
  let released = key.released;
  for (const { value } of views ?? (await viewsOf(ground, key))) {
    if (value === null) continue;
    const shown = value.certificate.certificate;
    if (shown.keyId === key.keyId) released ||= value.released;
    if (shown.generation <= newest.certificate.generation) continue;
    newest = verified(ground, known, value.certificate) ?? newest;
  }
  if (newest === key.certificate && released === key.released) return key;
  return ground.keeping.changeKey(key.keyId, (now) => {
    const entry = now ?? key;
    const later = newest.certificate.generation > entry.certificate.certificate.generation;
    return { ...entry, certificate: later ? newest : entry.certificate, released: entry.released || released };
  });
}
