import { ed25519 } from "@noble/curves/ed25519.js";
import { type RandomSource, wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { Certificate } from "./certificate.ts";
import { frostRandom, groupOf, SCALAR_BYTES } from "./groups.ts";
import type { FederatedType } from "./kinds.ts";
import { pointOf } from "./owner.ts";

import { shareSecret } from "./sharing.ts";

/**
 * The scalar of a secret that is imported (docs/protocol.md §8.6): of `ed25519` the one that a 32-byte seed stands for,
 * and the seed is lost; of `schnorr` the one with an even y; of `bytes` a fresh one, under which the value is sealed; of
 * the others the private key itself, 32 bytes.
 *
 * @param value Stays the caller's. @returns 32 bytes in the suite's byte order, the caller's to wipe.
 * @throws Fault bad_input
 */
export function importedScalar(type: FederatedType, value: Uint8Array, random: RandomSource): Uint8Array {
  const group = groupOf(type);
  if (type === "bytes") return group.frost.utils.randomScalar(frostRandom(random));
  if (value.length !== SCALAR_BYTES) throw new Fault("bad_input", `a private key of type ${type} has 32 bytes`);
  if (type === "ed25519") return group.encodeScalar(ed25519.utils.getExtendedPublicKey(value).scalar);
  const [sign] = pointOf(type, value);
  const scalar = group.parseScalar(value);
  return group.encodeScalar(type === "schnorr" && sign === 3 ? group.negate(scalar) : scalar);
}

/** A secret that its owner has shared out. */
export interface SharedOut {
  /** Of the servers' polynomial, `threshold` of them; the first one is D. */
  readonly commitments: readonly Uint8Array[];
  /** 32 bytes for each holder, the caller's to seal and to wipe. */
  readonly shares: readonly { readonly index: number; readonly share: Uint8Array }[];
  /** Compressed point of the whole key. */
  readonly publicKey: Uint8Array;
}

/**
 * Shares a scalar out among holders (RFC 9591 appendix C): the servers get d = x − c, so that they and the owner's part
 * make x.
 *
 * @param input.scalar From {@link importedScalar}; stays the caller's.
 * @param input.ownerScalar Of self-custodial keys: c, 32 bytes; stays the caller's.
 * @throws Fault bad_input
 */
export function shareOut(input: {
  readonly type: FederatedType;
  readonly threshold: number;
  readonly holders: readonly number[];
  readonly scalar: Uint8Array;
  readonly ownerScalar: Uint8Array | null;
  readonly random: RandomSource;
}): SharedOut {
  const { type, threshold, holders, scalar, ownerScalar, random } = input;
  const group = groupOf(type);
  const publicKey = pointOf(type, scalar);
  const whole = group.parseScalar(scalar);
  const servers = ownerScalar ? group.subtract(whole, group.parseScalar(ownerScalar)) : whole;
  const secret = group.encodeScalar(servers);
  try {
    const { commitments, shares } = shareSecret(group, secret, threshold, holders, random);
    return { commitments, shares: [...shares].map(([index, share]) => ({ index, share })), publicKey };
  } finally {
    wipe(secret);
  }
}

/** What is true of a key for good: how P12 names its custody (docs/protocol.md §8.6). */
export type ShownCustody = "self-custodial" | "delegated" | "released" | "custodial";

/**
 * The widest of what is true: that a server has had all of a key goes before that its owner has.
 *
 * @param released A server has let shares of it out.
 */
export function shownCustody(certificate: Pick<Certificate, "custody" | "origin">, released: boolean): ShownCustody {
  if (certificate.origin === "custodial") return "custodial";
  if (released) return "released";
  return certificate.custody === "self" ? "self-custodial" : "delegated";
}

/** Who decides over a key, as it is shown: after a release the owner alone could. */
export function shownControl(certificate: Pick<Certificate, "control">, released: boolean): string {
  return released && certificate.control === "shared" ? "unilateral in fact" : certificate.control;
}
