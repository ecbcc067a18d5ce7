import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { type Hedge, withHedge } from "../../crypto/hedge.ts";
import { sha256 } from "../../crypto/kdf.ts";
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
 * Signs by ECDSA: nonce of RFC 6979, s in the lower half of the order.
 *
 * @param scalar 32 bytes, big-endian; stays the caller's to wipe.
 * @param prehashed False: the SHA-256 of the message is signed; true: the message, 32 bytes, as it is.
 * @param hedge Null: the signature of one message is always the same. Otherwise mixed into the nonce (docs/protocol.md
 * §10.6). Not retained.
 * @throws Fault bad_input for a scalar that is no private key
 */
export function signEcdsa(
  type: EcdsaType,
  scalar: Uint8Array,
  message: Uint8Array,
  prehashed = false,
  hedge: Hedge | null = null,
): EcdsaSignature {
  const curve = type === "p256" ? p256 : secp256k1;
  if (!curve.utils.isValidSecretKey(scalar)) throw new Fault("bad_input", `this is no ${type} private key`);
  const compact = withHedge(
    hedge,
    type,
    () => (prehashed ? message : sha256(message)),
    (extraEntropy) => curve.sign(message, scalar, { prehash: !prehashed, lowS: true, format: "compact", extraEntropy }),
  );
  return { compact, der: curve.Signature.fromBytes(compact, "compact").toBytes("der") };
}

/** True for r ‖ s, 64 bytes, with s in the lower half, as {@link signEcdsa} makes it. */
export function ecdsaHolds(
  type: EcdsaType,
  publicKey: Uint8Array,
  { message, prehashed }: { readonly message: Uint8Array; readonly prehashed: boolean },
  signature: Uint8Array,
): boolean {
  const curve = type === "p256" ? p256 : secp256k1;
  try {
    return curve.verify(signature, message, publicKey, { prehash: !prehashed, lowS: true, format: "compact" });
  } catch {
    return false;
  }
}
