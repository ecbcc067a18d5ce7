import { concat, type RandomSource } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { hpkeOpen, hpkeSeal } from "../../crypto/hpke.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import { type KitKeys, kitSealing } from "../kit.ts";

const SIGNATURE_BYTES = 64;

const info = (userId: UserId, kit: Uint8Array) => canon("keyhold/v1/federation-parcel-seal", userId, kit);
const signed = (userId: UserId, kit: Uint8Array, parcel: Uint8Array) =>
  canon("keyhold/v1/federation-parcel", userId, kit, parcel);

/**
 * Seals what the holder of the recovery kit is to have of federations: signed by the account identity, since anyone can
 * seal to a public key (docs/protocol.md §8.2).
 *
 * @param kit The kit's public keys as the settings hold them, 64 bytes.
 * @returns HPKE of signature (64) ‖ parcel: 112 bytes longer than the parcel.
 */
export function sealFederationParcel(
  identity: Signer,
  userId: UserId,
  kit: Uint8Array,
  parcel: Uint8Array,
  random: RandomSource,
): Promise<Uint8Array> {
  const signature = identity.sign(signed(userId, kit, parcel));
  return hpkeSeal(kitSealing(kit), info(userId, kit), concat(signature, parcel), random);
}

/**
 * Opens what {@link sealFederationParcel} made.
 *
 * @param identity The account identity as the signed settings name it, 32 bytes.
 * @throws Fault integrity
 */
export async function openFederationParcel(
  kit: KitKeys,
  userId: UserId,
  identity: Uint8Array,
  sealed: Uint8Array,
): Promise<Uint8Array> {
  const plain = await hpkeOpen(kit.hpke, info(userId, kit.publicKeys), sealed);
  const [signature, parcel] = [plain.subarray(0, SIGNATURE_BYTES), plain.subarray(SIGNATURE_BYTES)];
  if (verifySignature(identity, signed(userId, kit.publicKeys, parcel), signature)) return parcel;
  throw new Fault("integrity", "the owner did not sign what the server keeps for the recovery kit");
}
