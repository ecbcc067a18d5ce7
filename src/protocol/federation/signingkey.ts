import type { FrostPublic } from "@noble/curves/abstract/frost.js";
import { schnorr } from "@noble/curves/secp256k1.js";
import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { Certificate } from "./certificate.ts";
import { evaluatePoints, type Group, groupOf, identifier } from "./groups.ts";
import { OWNER_IDENTIFIER_NUMBER, pointOf } from "./owner.ts";

/**
 * A key as one roster signs with it (docs/protocol.md §8.6).
 *
 * The owner of a self-custodial key signs as one more participant, o = 256. Servers multiply their shares by (o − i)/o,
 * which cancels what o adds to their Lagrange coefficients; the owner divides c by its own. So the shares of the roster
 * still add up to d, and with the owner's to d + c.
 */
export interface SigningKey {
  readonly group: Group;
  readonly self: boolean;
  /** noble's package: `commitments[0]` is the key that signatures verify under. */
  readonly pub: FrostPublic;
  /** The owner's name among the signers. */
  readonly owner: string;
}

/** As the library's types want bytes. */
const plain = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes);

const OWNER = BigInt(OWNER_IDENTIFIER_NUMBER);

/** What a server's share is multiplied by: 1 where nobody signs beside the servers. */
function factor({ frost }: Group, self: boolean, index: number): bigint {
  const { Fn } = frost.utils;
  return self ? Fn.div(Fn.create(OWNER - BigInt(index)), Fn.create(OWNER)) : Fn.ONE;
}

/** The inverse of the owner's Lagrange coefficient at 0 among the roster and itself. */
function ownerFactor({ frost }: Group, roster: readonly number[]): bigint {
  const { Fn } = frost.utils;
  return roster.reduce((product, index) => {
    const i = BigInt(index);
    return Fn.mul(product, Fn.div(Fn.create(i - OWNER), Fn.create(i)));
  }, Fn.ONE);
}

/** What BIP-341 makes of an internal key without scripts: even y, and the tweak that says that there are none. */
function tweaked({ parsePoint, base, parseScalar, encodePoint }: Group, internal: Uint8Array): Uint8Array {
  const point = parsePoint(internal);
  const tweak = parseScalar(schnorr.utils.taggedHash("TapTweak", internal.subarray(1)));
  return encodePoint((internal[0] === 2 ? point : point.negate()).add(base.multiplyUnsafe(tweak)));
}

/**
 * Checks that the certificate's key is the sum of its parts, and that a generated `schnorr` key hides no script.
 *
 * @throws Fault integrity, bad_input
 */
export function checkPublicKey(c: Certificate): void {
  const group = groupOf(c.type);
  const [first] = c.commitments;
  if (!first || (c.custody === "self") !== (c.ownerPoint !== null))
    throw new Fault("integrity", "this certificate does not say whose key it is");
  const servers = group.parsePoint(first);
  const whole = c.ownerPoint ? servers.add(group.parsePoint(c.ownerPoint)) : servers;
  if (!equalBytes(group.encodePoint(whole), c.publicKey))
    throw new Fault("integrity", "the public key of this certificate is not the sum of its parts");
  if (c.untweaked && !equalBytes(tweaked(group, c.untweaked), first))
    throw new Fault("integrity", "the key of this certificate is not the tweak of what the servers generated");
}

/** The key for one roster of holders. @throws Fault integrity, bad_input */
export function signingKey(c: Certificate, roster: readonly number[]): SigningKey {
  if (c.type !== "ed25519" && c.type !== "schnorr")
    throw new Fault("bad_input", `keys of type ${c.type} make no threshold signatures`);
  checkPublicKey(c);
  const group = groupOf(c.type);
  const self = c.ownerPoint !== null;
  const owner = group.frost.Identifier.fromNumber(OWNER_IDENTIFIER_NUMBER);
  const points = c.commitments.map((point) => group.parsePoint(point));
  const verifyingShares: Record<string, Uint8Array<ArrayBuffer>> = {};
  for (const index of roster) {
    const share = evaluatePoints(points, index).multiplyUnsafe(factor(group, self, index));
    verifyingShares[identifier(group, index)] = plain(group.encodePoint(share));
  }
  if (c.ownerPoint) {
    const point = group.parsePoint(c.ownerPoint).multiplyUnsafe(ownerFactor(group, roster));
    verifyingShares[owner] = plain(group.encodePoint(point));
  }
  const more = self ? 1 : 0;
  const signers = { min: c.threshold + more, max: c.holders.length + more };
  return { group, self, owner, pub: { signers, commitments: [plain(c.publicKey)], verifyingShares } };
}

/** A server's share as it signs: 32 bytes, the caller's to wipe. */
export function serverSecret({ group, self }: SigningKey, index: number, share: Uint8Array): Uint8Array {
  return group.encodeScalar(group.multiply(group.parseScalar(share), factor(group, self, index)));
}

/** True when a server's share is the committed one: as {@link serverSecret} makes it, without parsing the key again. */
export function shareFits(key: SigningKey, index: number, share: Uint8Array): boolean {
  try {
    const secret = serverSecret(key, index, share);
    const wanted = key.pub.verifyingShares[identifier(key.group, index)];
    try {
      return wanted !== undefined && equalBytes(pointOf(key.group.type, secret), wanted);
    } finally {
      wipe(secret);
    }
  } catch {
    return false;
  }
}

/** The owner's part as it signs beside a roster: 32 bytes, the caller's to wipe. */
export function ownerSecret({ group }: SigningKey, roster: readonly number[], scalar: Uint8Array): Uint8Array {
  return group.encodeScalar(group.multiply(group.parseScalar(scalar), ownerFactor(group, roster)));
}
