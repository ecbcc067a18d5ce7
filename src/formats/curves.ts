import { p256, p384 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { publicKeyOf } from "../protocol/keygen.ts";
import type { SecretType } from "../protocol/secrettype.ts";

/** The curves of ECDSA keys: name in a JWK (RFC 7518 §6.2.1.1, RFC 8812 §3.1), object identifier, bytes of a scalar. */
export const EC_CURVES = {
  p256: { curve: p256, crv: "P-256", oid: "1.2.840.10045.3.1.7", bytes: 32 },
  p384: { curve: p384, crv: "P-384", oid: "1.3.132.0.34", bytes: 48 },
  secp256k1: { curve: secp256k1, crv: "secp256k1", oid: "1.3.132.0.10", bytes: 32 },
} as const;
export type EcType = keyof typeof EC_CURVES;

/** True for a type whose value is a scalar on one of {@link EC_CURVES}. */
export function isEcType(type: SecretType): type is EcType {
  return Object.hasOwn(EC_CURVES, type);
}

/** The types of {@link EC_CURVES}. */
export const EC_TYPES: readonly EcType[] = ["p256", "p384", "secp256k1"];

/** The uncompressed public point of a scalar: 4, x, y (SEC 1 §2.3.3). @throws Fault bad_input for a scalar out of range */
export function uncompressedPoint(type: EcType, scalar: Uint8Array): Uint8Array {
  publicKeyOf(type, scalar);
  return EC_CURVES[type].curve.getPublicKey(scalar, false);
}
