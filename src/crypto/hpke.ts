import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";
import { Fault } from "../errors.ts";
import { type RandomSource, wipe } from "./bytes.ts";
import { sealBase } from "./hpkeseal.ts";

/** Size of an X25519 public key and of an encapsulated key, in bytes. */
export const HPKE_KEY_BYTES = 32;

/** Bytes that sealing adds: encapsulated key (32) and tag (16). */
export const HPKE_OVERHEAD = HPKE_KEY_BYTES + 16;

/** Randomness of one sealing. */
const EKM_BYTES = 32;

const suite = new CipherSuite({
  kem: new DhkemX25519HkdfSha256(),
  kdf: new HkdfSha256(),
  aead: new Aes256Gcm(),
});

/** An X25519 key pair for HPKE; the private half is held by the platform. */
export interface HpkeKeyPair {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly privateKey: CryptoKey;
}

const plain = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes);

/** The key pair of a seed: DeriveKeyPair (RFC 9180 §7.1.3). The seed has at least 32 bytes and stays the caller's. */
export async function hpkeKeyPair(seed: Uint8Array): Promise<HpkeKeyPair> {
  const pair = await suite.kem.deriveKeyPair(plain(seed).buffer);
  const publicKey = new Uint8Array(await suite.kem.serializePublicKey(pair.publicKey));
  return { publicKey, privateKey: pair.privateKey };
}

/** Every u-coordinate of small order, those below 2^255 that are not reduced among them (RFC 7748 §6.1). */
const SMALL_ORDER: ReadonlySet<string> = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

/** False for what is no X25519 key, and for the few whose every shared secret is zero (RFC 7748 §6.1). */
export function canSealTo(publicKey: Uint8Array): boolean {
  if (publicKey.length !== HPKE_KEY_BYTES) return false;
  // the highest bit counts for nothing (RFC 7748 §5)
  return !SMALL_ORDER.has(publicKey.with(31, (publicKey[31] ?? 0) & 0x7f).toHex());
}

/**
 * Seals to a public key: HPKE base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (RFC 9180).
 *
 * @param info What the ciphertext is, from `canon`.
 * @returns encapsulated key (32) ‖ ciphertext ‖ tag.
 * @throws Fault bad_input for a public key that is none
 */
export async function hpkeSeal(
  publicKey: Uint8Array,
  info: Uint8Array,
  plaintext: Uint8Array,
  random: RandomSource,
): Promise<Uint8Array> {
  const ekm = random(EKM_BYTES);
  try {
    return sealBase(publicKey, info, plaintext, ekm);
  } catch {
    throw new Fault("bad_input", "cannot seal to this public key");
  } finally {
    wipe(ekm);
  }
}

/** Opens what {@link hpkeSeal} made. @throws Fault integrity */
export async function hpkeOpen(pair: HpkeKeyPair, info: Uint8Array, sealed: Uint8Array): Promise<Uint8Array> {
  try {
    const enc = plain(sealed.subarray(0, HPKE_KEY_BYTES)).buffer;
    const recipient = await suite.createRecipientContext({
      recipientKey: pair.privateKey,
      enc,
      info: plain(info).buffer,
    });
    return new Uint8Array(await recipient.open(plain(sealed.subarray(HPKE_KEY_BYTES)).buffer));
  } catch {
    throw new Fault("integrity", "this was not sealed to this key, or was changed");
  }
}
