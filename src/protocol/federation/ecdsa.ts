import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { Fault } from "../../errors.ts";

/** Types whose keys sign in their owner's client, of released shares (docs/protocol.md §8.6). */
export type EcdsaType = "secp256k1" | "p256";

/** A signature in both common forms. */
export interface EcdsaSignature {
  /** r ‖ s, 64 bytes. */
  readonly compact: Uint8Array;
  /** SEQUENCE of two INTEGERs, 70 to 72 bytes as a rule. */
  readonly der: Uint8Array;
}

/**
 * Signs the SHA-256 of a message by ECDSA: nonce of RFC 6979, s in the lower half of the order.
 *
 * @param scalar 32 bytes, big-endian; stays the caller's to wipe.
 * @throws Fault bad_input for a scalar that is no private key
 */
export function signEcdsa(type: EcdsaType, scalar: Uint8Array, message: Uint8Array): EcdsaSignature {
  const curve = type === "p256" ? p256 : secp256k1;
  if (!curve.utils.isValidSecretKey(scalar)) throw new Fault("bad_input", `this is no ${type} private key`);
  const compact = curve.sign(message, scalar, { prehash: true, lowS: true, format: "compact" });
  return { compact, der: curve.Signature.fromBytes(compact, "compact").toBytes("der") };
}
