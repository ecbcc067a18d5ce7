import { Fault } from "../errors.ts";
import { wipe } from "./bytes.ts";
import { deriveKey } from "./kdf.ts";

/** Bytes of a hedge at least, and of the fresh random bytes beside it. */
export const HEDGE_BYTES = 32;

/** Randomness that is mixed into one ECDSA signature (docs/protocol.md §10.6); both are the holder's to wipe. */
export interface Hedge {
  /** 32 bytes or more. */
  readonly secret: Uint8Array;
  /** 32 random bytes that are used once. */
  readonly fresh: Uint8Array;
}

/**
 * Signs with additional data of a nonce by RFC 6979 §3.6: never the nonce itself, which needs the private key too.
 *
 * @param hedge Null: no additional data, so that one message always has the same signature. Not retained.
 * @param digest What is signed.
 * @param sign Gets 32 bytes, which are wiped when it returns.
 * @throws Fault bad_input
 */
export function withHedge<T>(
  hedge: Hedge | null,
  curve: "secp256k1" | "p256" | "p384",
  digest: () => Uint8Array,
  sign: (extraEntropy: Uint8Array | false) => T,
): T {
  if (hedge === null) return sign(false);
  const { secret, fresh } = hedge;
  if (secret.length < HEDGE_BYTES) throw new Fault("bad_input", `a hedge has ${HEDGE_BYTES} bytes or more`);
  if (fresh.length !== HEDGE_BYTES) throw new Fault("internal", "a hedge comes with fresh random bytes");
  const data = deriveKey(secret, 32, fresh, "keyhold/v1/signature-hedge", curve, digest());
  try {
    return sign(data);
  } finally {
    wipe(data);
  }
}
