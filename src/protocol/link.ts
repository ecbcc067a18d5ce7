import { open, seal } from "../crypto/aead.ts";
import { type RandomSource, wipe } from "../crypto/bytes.ts";
import { deriveKey, hashCanon } from "../crypto/kdf.ts";

/** Bytes of the secret inside a device link's code. */
export const LINK_SECRET_BYTES = 16;

/** Under what a server keeps the parcel of a link: tells nothing of the secret that opens it. 32 bytes. */
export function linkId(secret: Uint8Array): Uint8Array {
  return hashCanon("keyhold/v1/device-link-id", secret);
}

function linkKey(secret: Uint8Array): Uint8Array {
  return deriveKey(secret, 32, new Uint8Array(0), "keyhold/v1/device-link-key", linkId(secret));
}

/** Seals what a new device needs to know (docs/protocol.md §5.9). */
export function sealParcel(secret: Uint8Array, parcel: Uint8Array, random: RandomSource): Uint8Array {
  const key = linkKey(secret);
  try {
    return seal(key, { kind: "device-link", linkId: linkId(secret) }, parcel, random);
  } finally {
    wipe(key);
  }
}

/** Opens what {@link sealParcel} made. @throws Fault integrity */
export function openParcel(secret: Uint8Array, sealed: Uint8Array): Uint8Array {
  const key = linkKey(secret);
  try {
    return open(key, { kind: "device-link", linkId: linkId(secret) }, sealed);
  } finally {
    wipe(key);
  }
}
