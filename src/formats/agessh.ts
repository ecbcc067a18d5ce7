import {
  constants,
  createHash,
  createPrivateKey,
  createPublicKey,
  hkdfSync,
  privateDecrypt,
  publicEncrypt,
} from "node:crypto";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import { type Identity, type Recipient, Stanza } from "age-encryption";
import { concat, toBase64url, wipe } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { utf8Bytes } from "./item.ts";
import { sshReader } from "./openssh.ts";
import { type SshPrivateKey, sshPublicBlob } from "./sshkey.ts";

const ED25519 = "ssh-ed25519";
const RSA = "ssh-rsa";
const ED25519_LABEL = utf8Bytes("age-encryption.org/v1/ssh-ed25519");
const RSA_LABEL = utf8Bytes("age-encryption.org/v1/ssh-rsa");
const FILE_KEY_BYTES = 16;
const RSA_BITS = { min: 2_048, max: 8_192 };

const unpadded = (bytes: Uint8Array): string => bytes.toBase64({ omitPadding: true });

/** Marks the stanzas of a key, so that others need not be tried. */
const tagOf = (blob: Uint8Array): string => unpadded(sha256(blob).subarray(0, 4));

function notRecipient(why: string): Fault {
  return new Fault("bad_input", "this is not an SSH public key that age can encrypt to", {
    why,
    hint: "give a line that begins with ssh-ed25519 or ssh-rsa",
  });
}

/** The public key in a line of `authorized_keys` or of a `.pub` file. */
function readLine(line: string): { name: string; blob: Uint8Array } {
  const [name = "", base64 = ""] = line.trim().split(/\s+/);
  try {
    const blob = Uint8Array.fromBase64(base64);
    if (sshReader(blob).ascii() === name) return { name, blob };
  } catch {
    // falls through to the one error
  }
  throw notRecipient("its base64 is damaged, or names another type");
}

/** Encrypts to `ssh-ed25519 …` or `ssh-rsa …`, as age does (its package agessh). @throws Fault bad_input */
export function sshRecipient(line: string): Recipient {
  const { name, blob } = readLine(line);
  const reader = sshReader(blob);
  reader.ascii();
  try {
    if (name === ED25519) {
      const point = reader.string().slice();
      const montgomery = ed25519.utils.toMontgomery(point);
      return { wrapFileKey: (fileKey) => [wrapEd25519(fileKey, blob, montgomery)] };
    }
    if (name === RSA) {
      const [e, n] = [reader.mpint(), reader.mpint()];
      const key = createPublicKey({ key: { kty: "RSA", n: toBase64url(n), e: toBase64url(e) }, format: "jwk" });
      const bits = key.asymmetricKeyDetails?.modulusLength ?? 0;
      if (bits < RSA_BITS.min || bits > RSA_BITS.max) throw notRecipient("RSA keys have 2048 to 8192 bits");
      return {
        wrapFileKey: (fileKey) => [
          new Stanza([RSA, tagOf(blob)], new Uint8Array(publicEncrypt({ key, ...OAEP }, fileKey))),
        ],
      };
    }
  } catch (error) {
    throw error instanceof Fault && error.message.startsWith("this is not")
      ? error
      : notRecipient("the key is damaged");
  }
  throw notRecipient("its type cannot encrypt: ECDSA keys and those of security keys only sign");
}

const OAEP = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256", oaepLabel: RSA_LABEL } as const;

/** The stanza's key from the shared point, bound to both shares and tweaked by the SSH key. */
function ed25519Key(shared: Uint8Array, blob: Uint8Array, share: Uint8Array, montgomery: Uint8Array): Uint8Array {
  const tweak = new Uint8Array(hkdfSync("sha256", new Uint8Array(0), blob, ED25519_LABEL, 32));
  const tweaked = x25519.getSharedSecret(tweak, shared);
  try {
    return new Uint8Array(hkdfSync("sha256", tweaked, concat(share, montgomery), ED25519_LABEL, 32));
  } finally {
    wipe(tweak, tweaked);
  }
}

function wrapEd25519(fileKey: Uint8Array, blob: Uint8Array, montgomery: Uint8Array): Stanza {
  const ephemeral = crypto.getRandomValues(new Uint8Array(32));
  const share = x25519.getPublicKey(ephemeral);
  const shared = x25519.getSharedSecret(ephemeral, montgomery);
  const key = ed25519Key(shared, blob, share, montgomery);
  try {
    const body = chacha20poly1305(key, new Uint8Array(12)).encrypt(fileKey);
    return new Stanza([ED25519, tagOf(blob), unpadded(share)], body);
  } finally {
    wipe(ephemeral, shared, key);
  }
}

/**
 * Decrypts what {@link sshRecipient} and age made for this key.
 *
 * @param key Retained: wiped by the caller when the identity is of no more use.
 * @throws Fault bad_input for ECDSA keys
 */
export function sshIdentity({ type, key }: Pick<SshPrivateKey, "type" | "key">): Identity {
  if (type === "p256" || type === "p384") {
    throw new Fault("bad_input", "an ECDSA key opens no age file", { hint: "use an Ed25519 or RSA key" });
  }
  const blob = sshPublicBlob(type, key);
  const [name, unwrap] = type === "ed25519" ? ([ED25519, unwrapEd25519] as const) : ([RSA, unwrapRsa] as const);
  return {
    unwrapFileKey: (stanzas) => {
      for (const stanza of stanzas) {
        if (stanza.args[0] !== name || stanza.args[1] !== tagOf(blob)) continue;
        const fileKey = unwrap(stanza, key, blob);
        if (fileKey !== null) return fileKey;
      }
      return null;
    },
  };
}

function unwrapEd25519({ args, body }: Stanza, seed: Uint8Array, blob: Uint8Array): Uint8Array | null {
  const share = args.length === 3 ? decodeShare(args[2] ?? "") : null;
  if (share === null || body.length !== FILE_KEY_BYTES + 16) throw new Error("malformed stanza");
  // RFC 8032 §5.1.5: the clamped first half is the scalar
  const hash = new Uint8Array(createHash("sha512").update(seed).digest());
  const scalar = hash.subarray(0, 32);
  const parts: Uint8Array[] = [hash];
  try {
    const shared = x25519.getSharedSecret(scalar, share);
    parts.push(shared);
    const key = ed25519Key(shared, blob, share, x25519.getPublicKey(scalar));
    parts.push(key);
    return chacha20poly1305(key, new Uint8Array(12)).decrypt(body);
  } catch {
    return null;
  } finally {
    wipe(...parts);
  }
}

/** 32 bytes in base64 without padding, in the one form that age takes. */
function decodeShare(text: string): Uint8Array | null {
  try {
    const share = Uint8Array.fromBase64(text);
    return share.length === 32 && unpadded(share) === text ? share : null;
  } catch {
    return null;
  }
}

function unwrapRsa({ args, body }: Stanza, pkcs8: Uint8Array): Uint8Array | null {
  if (args.length !== 2) throw new Error("malformed stanza");
  const der = Buffer.from(pkcs8);
  try {
    const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const fileKey = new Uint8Array(privateDecrypt({ key, ...OAEP }, body));
    return fileKey.length === FILE_KEY_BYTES ? fileKey : null;
  } catch {
    return null;
  } finally {
    wipe(der);
  }
}
