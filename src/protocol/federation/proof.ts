import { concat, type RandomSource, wipe } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { deriveKey } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { type Group, type GroupPoint, SCALAR_BYTES, WIDE_BYTES } from "./groups.ts";

const NO_SALT = new Uint8Array(0);

/** The challenge binds type, point, commitment and context. */
function challenge(group: Group, point: Uint8Array, commitment: Uint8Array, context: Uint8Array): bigint {
  const input = canon("keyhold/v1/federation-proof", group.type, point, commitment, context);
  return group.reduceScalar(deriveKey(input, WIDE_BYTES, NO_SALT, "keyhold/v1/federation-proof-challenge"));
}

/** A nonce that neither a weak generator alone nor two contexts repeat. */
function nonce(group: Group, scalar: Uint8Array, context: Uint8Array, random: RandomSource): bigint {
  const fresh = random(32);
  const ikm = concat(fresh, scalar, canon("keyhold/v1/federation-proof-context", group.type, context));
  const wide = deriveKey(ikm, WIDE_BYTES, NO_SALT, "keyhold/v1/federation-proof-nonce");
  try {
    return group.reduceScalar(wide);
  } finally {
    wipe(fresh, ikm, wide);
  }
}

/**
 * Proves knowledge of a scalar x behind X = x·G in one context (Schnorr, Fiat–Shamir; docs/protocol.md §8.5).
 *
 * @param scalar 32 bytes in the suite's byte order, not zero; stays the caller's.
 * @param context From `canon`; of any length.
 * @returns R ‖ z: a point and 32 bytes.
 * @throws Fault bad_input
 */
export function proveScalar(group: Group, scalar: Uint8Array, context: Uint8Array, random: RandomSource): Uint8Array {
  const x = group.parseScalar(scalar);
  if (x === 0n) throw new Fault("bad_input", "zero proves nothing");
  const point = group.encodePoint(group.base.multiply(x));
  const k = nonce(group, scalar, context, random);
  const commitment = group.encodePoint(group.base.multiply(k));
  const c = challenge(group, point, commitment, context);
  return concat(commitment, group.encodeScalar(group.add(k, group.multiply(c, x))));
}

/** True when {@link proveScalar} made the proof for this point and context; false for any malformed input. */
export function verifyProof(group: Group, point: Uint8Array, context: Uint8Array, proof: Uint8Array): boolean {
  if (proof.length !== group.pointBytes + SCALAR_BYTES) return false;
  try {
    const encoded = proof.subarray(0, group.pointBytes);
    const z = group.parseScalar(proof.subarray(group.pointBytes));
    const right: GroupPoint = group
      .parsePoint(encoded)
      .add(group.parsePoint(point).multiplyUnsafe(challenge(group, point, encoded, context)));
    return group.base.multiplyUnsafe(z).equals(right);
  } catch {
    return false;
  }
}
