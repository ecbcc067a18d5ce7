import { type RandomSource, wipe } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { deriveKey } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { FederationId } from "../../ids.ts";
import { frostRandom, groupOf, WIDE_BYTES } from "./groups.ts";
import type { FederatedType } from "./kinds.ts";
import { proveScalar, verifyProof } from "./proof.ts";
import type { FederatedRequest, KeyPurpose, NonceCommitments, OwnerPart } from "./request.ts";

const NO_SALT = new Uint8Array(0);

/**
 * The owner's part c of a self-custodial key (docs/protocol.md §8.6).
 *
 * @param seed 32 bytes from `ownerSeed`; stays the caller's.
 * @returns A scalar of the type's group, never zero: 32 bytes, the caller's to wipe.
 */
export function ownerScalar(type: FederatedType, seed: Uint8Array): Uint8Array {
  const group = groupOf(type);
  const wide = deriveKey(seed, WIDE_BYTES, NO_SALT, "keyhold/v1/federation-owner-scalar", type);
  try {
    return group.encodeScalar(group.reduceScalar(wide));
  } finally {
    wipe(wide);
  }
}

/** The compressed point of a scalar. @throws Fault bad_input for zero and for what is no scalar */
export function pointOf(type: FederatedType, scalar: Uint8Array): Uint8Array {
  const group = groupOf(type);
  const number = group.parseScalar(scalar);
  if (number === 0n) throw new Fault("bad_input", "zero is no private key");
  return group.encodePoint(group.base.multiply(number));
}

/** What the proof is bound to: the very request that makes the key. */
function proofContext(type: FederatedType, federationId: FederationId, nonce: Uint8Array, requester: Uint8Array) {
  return canon("keyhold/v1/federation-owner-proof", federationId, nonce, requester, type);
}

/**
 * The public half of the owner's part and the proof of possession, as they stand in the request.
 *
 * @param scalar From {@link ownerScalar}; stays the caller's.
 * @param nonce Nonce of the request, 32 bytes. @param requester Its request key, 32 bytes.
 */
export function ownerPart(
  type: FederatedType,
  scalar: Uint8Array,
  federationId: FederationId,
  nonce: Uint8Array,
  requester: Uint8Array,
  random: RandomSource,
): OwnerPart {
  const context = proofContext(type, federationId, nonce, requester);
  return { point: pointOf(type, scalar), proof: proveScalar(groupOf(type), scalar, context, random) };
}

/** True when whoever wrote this request knew the scalar of its owner's part. */
export function ownerPartHolds(
  type: FederatedType,
  owner: OwnerPart,
  { federationId, nonce, requester }: Pick<FederatedRequest, "federationId" | "nonce" | "requester">,
): boolean {
  const context = proofContext(type, federationId, nonce, requester);
  return verifyProof(groupOf(type), owner.point, context, owner.proof);
}

/**
 * Checks that exactly the self-custodial keys have an owner's part, and that its proof holds.
 *
 * @throws Fault bad_input, integrity
 */
export function verifyOwnerPart(
  purpose: KeyPurpose,
  request: Pick<FederatedRequest, "federationId" | "nonce" | "requester">,
): void {
  if ((purpose.custody === "self") !== (purpose.owner !== null))
    throw new Fault("bad_input", "self-custodial keys, and no others, have an owner's part");
  if (purpose.owner && !ownerPartHolds(purpose.type, purpose.owner, request))
    throw new Fault("integrity", "the proof of the owner's part does not hold");
}

/** The owner's own nonces of one signature: in RAM alone, used once (docs/protocol.md §8.6). */
export interface OwnerNonces {
  /** What the order of the attempt says. */
  readonly commitments: NonceCommitments;
  /** Gone before it is used. */
  secret: { readonly hiding: Uint8Array; readonly binding: Uint8Array } | null;
}

/** FROST's name of the owner: no server's index, which ends at 255. */
export const OWNER_IDENTIFIER_NUMBER = 256;

/**
 * Draws the owner's nonces for one attempt to sign.
 *
 * @param scalar The owner's part, which the nonces are hedged with; stays the caller's.
 */
export function drawOwnerNonces(type: FederatedType, scalar: Uint8Array, random: RandomSource): OwnerNonces {
  const { frost } = groupOf(type);
  const identifier = frost.Identifier.fromNumber(OWNER_IDENTIFIER_NUMBER);
  const { nonces, commitments } = frost.commit({ identifier, signingShare: scalar }, frostRandom(random));
  return { commitments: { hiding: commitments.hiding, binding: commitments.binding }, secret: nonces };
}

/** Forgets nonces that were never used. */
export function dropOwnerNonces(nonces: OwnerNonces): void {
  wipe(nonces.secret?.hiding, nonces.secret?.binding);
  nonces.secret = null;
}
