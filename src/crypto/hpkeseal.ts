import { createCipheriv, createHmac, createPrivateKey, createPublicKey, diffieHellman } from "node:crypto";
import { concat, wipe } from "./bytes.ts";

/**
 * The sending side of HPKE base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM (RFC 9180), for one
 * message. The library does the same through WebCrypto, whose calls each go through another thread: five times as long,
 * which the distribution of one-time codes cannot afford. It opens what this makes.
 */

const encoder = new TextEncoder();
const ascii = (text: string) => encoder.encode(text);
const NONE = new Uint8Array(0);
const VERSION = ascii("HPKE-v1");
/** suite_id of §4.1: KEM 0x0020. */
const KEM = concat(ascii("KEM"), Uint8Array.of(0x00, 0x20));
/** suite_id of §5.1: KEM 0x0020, KDF 0x0001, AEAD 0x0002. */
const SUITE = concat(ascii("HPKE"), Uint8Array.of(0x00, 0x20, 0x00, 0x01, 0x00, 0x02));
const PKCS8_PREFIX = Uint8Array.fromHex("302e020100300506032b656e04220420");
const SPKI_PREFIX = Uint8Array.fromHex("302a300506032b656e032100");
const HASH_BYTES = 32;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const MODE_BASE = Uint8Array.of(0);

const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
  new Uint8Array(createHmac("sha256", key).update(data).digest());

/** LabeledExtract (§4). */
function extract(suite: Uint8Array, salt: Uint8Array, label: string, ikm: Uint8Array): Uint8Array {
  const input = concat(VERSION, suite, ascii(label), ikm);
  const prk = hmac(salt, input);
  wipe(input);
  return prk;
}

/** LabeledExpand (§4) of one block: at most 32 bytes. */
function expand(suite: Uint8Array, prk: Uint8Array, label: string, info: Uint8Array, length: number): Uint8Array {
  const block = hmac(prk, concat(Uint8Array.of(0, length), VERSION, suite, ascii(label), info, Uint8Array.of(1)));
  if (length === HASH_BYTES) return block;
  const out = block.slice(0, length);
  wipe(block);
  return out;
}

const PSK_ID_HASH = extract(SUITE, NONE, "psk_id_hash", NONE);

function privateKeyOf(secret: Uint8Array) {
  const der = concat(PKCS8_PREFIX, secret);
  try {
    return createPrivateKey({ key: Buffer.from(der.buffer), format: "der", type: "pkcs8" });
  } finally {
    wipe(der);
  }
}

/** Encap (§4.1) with the key pair of `ekm`: the encapsulated key, and the shared secret, the caller's to wipe. */
function encapsulate(publicKey: Uint8Array, ekm: Uint8Array): { enc: Uint8Array; shared: Uint8Array } {
  const secrets: Uint8Array[] = [];
  const kept = (secret: Uint8Array) => {
    secrets.push(secret);
    return secret;
  };
  try {
    const seed = kept(extract(KEM, NONE, "dkp_prk", ekm));
    const privateKey = privateKeyOf(kept(expand(KEM, seed, "sk", NONE, KEY_BYTES)));
    const enc = createPublicKey(privateKey).export({ format: "der", type: "spki" }).subarray(-KEY_BYTES);
    const recipient = createPublicKey({
      key: Buffer.from(concat(SPKI_PREFIX, publicKey)),
      format: "der",
      type: "spki",
    });
    const dh = kept(diffieHellman({ privateKey, publicKey: recipient }));
    // a point of small order (RFC 7748 §6.1)
    if (dh.every((byte) => byte === 0)) throw new RangeError("hpke: a point of small order");
    const prk = kept(extract(KEM, NONE, "eae_prk", dh));
    return { enc, shared: expand(KEM, prk, "shared_secret", concat(enc, publicKey), HASH_BYTES) };
  } finally {
    wipe(...secrets);
  }
}

/**
 * Seals one message in base mode.
 *
 * @param publicKey X25519, 32 bytes. @param ekm 32 random bytes of which the ephemeral key is derived (§7.1.3).
 * @returns encapsulated key (32) ‖ ciphertext ‖ tag (16).
 * @throws RangeError or the platform's errors for a public key that is none
 */
export function sealBase(publicKey: Uint8Array, info: Uint8Array, plaintext: Uint8Array, ekm: Uint8Array): Uint8Array {
  if (publicKey.length !== KEY_BYTES) throw new RangeError("hpke: a public key has 32 bytes");
  const { enc, shared } = encapsulate(publicKey, ekm);
  const context = concat(MODE_BASE, PSK_ID_HASH, extract(SUITE, NONE, "info_hash", info));
  const secret = extract(SUITE, shared, "secret", NONE);
  const key = expand(SUITE, secret, "key", context, KEY_BYTES);
  const nonce = expand(SUITE, secret, "base_nonce", context, NONCE_BYTES);
  try {
    const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
    const sealed = cipher.update(plaintext);
    cipher.final();
    return concat(enc, sealed, cipher.getAuthTag());
  } finally {
    wipe(shared, secret, key, nonce);
  }
}
