import { constants, createHash, createPrivateKey, type KeyObject, privateEncrypt } from "node:crypto";
import { Fault } from "../errors.ts";
import { concat, wipe } from "./bytes.ts";
import { type Hedge, withHedge } from "./hedge.ts";
import { curveOf, hashOfScheme, isEcdsa, type SignatureScheme } from "./schemes.ts";
import { ECDSA_CURVES } from "./signature.ts";

/** Bytes of each hash. */
const HASH_BYTES = { sha256: 32, sha384: 48, sha512: 64 } as const;

/** DigestInfo without the hash (RFC 8017 §9.2, note 1). */
const DIGEST_INFO = {
  sha256: Uint8Array.fromHex("3031300d060960864801650304020105000420"),
  sha512: Uint8Array.fromHex("3051300d060960864801650304020305000440"),
} as const;

/** Bytes of the salt of RSASSA-PSS: as long as SHA-256. */
export const PSS_SALT_BYTES = 32;

/**
 * Signs as `signMessage` does, from the message's hash alone: for files that are not sent whole.
 *
 * @param key As for `signMessage`. Not retained.
 * @param digest By the hash of the scheme: 32, 48 or 64 bytes.
 * @param salt 32 random bytes, used by RSASSA-PSS alone.
 * @param hedge As for `signMessage`.
 * @throws Fault bad_input for a digest of another length, a key that cannot be used, and Ed25519, which needs the message
 */
export function signDigest(
  scheme: SignatureScheme,
  key: Uint8Array,
  digest: Uint8Array,
  salt: Uint8Array,
  hedge: Hedge | null = null,
): Uint8Array {
  if (hedge !== null && !isEcdsa(scheme)) throw new Fault("bad_input", "a hedge goes with ECDSA alone");
  const hash = hashOfScheme(scheme);
  if (scheme === "ed25519" || hash === null) {
    throw new Fault("bad_input", "Ed25519 signs whole messages, not their hash");
  }
  if (digest.length !== HASH_BYTES[hash]) {
    throw new Fault("bad_input", `the hash for ${scheme} has ${HASH_BYTES[hash]} bytes`);
  }
  try {
    switch (scheme) {
      case "ecdsa-p256-sha256":
      case "ecdsa-p384-sha384":
      case "ecdsa-secp256k1-sha256":
        return withHedge(
          hedge,
          curveOf(scheme),
          () => digest,
          (extraEntropy) =>
            ECDSA_CURVES[scheme].sign(digest, key, {
              prehash: false,
              format: "compact",
              lowS: scheme === "ecdsa-secp256k1-sha256",
              extraEntropy,
            }),
        );
      case "rsa-pkcs1-sha256":
        return withRsa(key, (rsa) => privateEncrypt(padded(rsa), concat(DIGEST_INFO.sha256, digest)));
      case "rsa-pkcs1-sha512":
        return withRsa(key, (rsa) => privateEncrypt(padded(rsa), concat(DIGEST_INFO.sha512, digest)));
      case "rsa-pss-sha256":
        return withRsa(key, (rsa) => {
          const bits = rsa.asymmetricKeyDetails?.modulusLength ?? 0;
          return privateEncrypt({ key: rsa, padding: constants.RSA_NO_PADDING }, encodePss(digest, salt, bits));
        });
      default:
        return scheme satisfies never;
    }
  } catch {
    throw new Fault("bad_input", "cannot sign: the key cannot be used");
  }
}

const padded = (key: KeyObject) => ({ key, padding: constants.RSA_PKCS1_PADDING });

function withRsa(pkcs8: Uint8Array, work: (key: KeyObject) => Uint8Array): Uint8Array {
  const der = Buffer.from(pkcs8);
  try {
    return new Uint8Array(work(createPrivateKey({ key: der, format: "der", type: "pkcs8" })));
  } finally {
    wipe(der);
  }
}

const sha256 = (...parts: readonly Uint8Array[]): Uint8Array =>
  new Uint8Array(
    createHash("sha256")
      .update(concat(...parts))
      .digest(),
  );

/** EMSA-PSS with SHA-256 and MGF1 (RFC 8017 §9.1.1), as many bytes as the modulus. */
function encodePss(digest: Uint8Array, salt: Uint8Array, modulusBits: number): Uint8Array {
  const bits = modulusBits - 1;
  const length = Math.ceil(bits / 8);
  const hash = sha256(new Uint8Array(8), digest, salt);
  const block = new Uint8Array(length - hash.length - 1);
  block[block.length - salt.length - 1] = 1;
  block.set(salt, block.length - salt.length);
  const mask = mgf1(hash, block.length);
  for (const [i, byte] of mask.entries()) block[i] = (block[i] ?? 0) ^ byte;
  block[0] = (block[0] ?? 0) & (0xff >>> (8 * length - bits));
  const encoded = concat(block, hash, Uint8Array.of(0xbc));
  // a modulus of 8n+1 bits has one byte more
  return concat(new Uint8Array(Math.ceil(modulusBits / 8) - length), encoded);
}

/** RFC 8017 §B.2.1 with SHA-256. */
function mgf1(seed: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length);
  const counter = new Uint8Array(4);
  for (let at = 0, i = 0; at < length; at += 32, i++) {
    new DataView(counter.buffer).setUint32(0, i);
    out.set(sha256(seed, counter).subarray(0, length - at), at);
  }
  return out;
}
