import { concat, equalBytes, toBase64url, wipe } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { type RsaJwk, rsaFromJwk, rsaPublicKey, rsaToJwk } from "../crypto/rsa.ts";
import { Fault } from "../errors.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import { EC_CURVES, uncompressedPoint } from "./curves.ts";
import { utf8Bytes, utf8Text } from "./item.ts";
import { badSshKey, readSshContainer, type SshReader, sshReader } from "./openssh.ts";
import { sshMpint as mpint, sshString as string, sshUint32 as uint32 } from "./sshwire.ts";

/** Types of keys that ssh has names for. */
export const SSH_KEY_TYPES = ["ed25519", "p256", "p384", "rsa"] as const;
export type SshKeyType = (typeof SSH_KEY_TYPES)[number];

/** The key in an OpenSSH private key file. */
export interface SshPrivateKey {
  readonly type: SshKeyType;
  /** As a secret of that type is kept: seed, scalar, or PKCS#8 DER; the caller's to wipe. */
  readonly key: Uint8Array;
  /** As ssh sends it (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4). */
  readonly publicBlob: Uint8Array;
  readonly comment: string;
}

const NAMES: { readonly [T in SshKeyType]: string } = {
  ed25519: "ssh-ed25519",
  p256: "ecdsa-sha2-nistp256",
  p384: "ecdsa-sha2-nistp384",
  rsa: "ssh-rsa",
};

/** Name of the curve of an ECDSA key (RFC 5656 §10.1). */
const CURVE_NAMES = { p256: "nistp256", p384: "nistp384" } as const;

const DECRYPT = 'take the passphrase off a copy: ssh-keygen -p -N "" -f COPY   (on a file system in memory)';

/**
 * Reads the value of a secret of type `ssh`, or an OpenSSH private key file without passphrase, and checks that its
 * private and public parts belong together.
 *
 * @param value Not retained.
 * @throws Fault bad_input
 */
export function parseSshPrivate(value: Uint8Array): SshPrivateKey {
  const { bytes, cipher, kdf, publicKey, privateKeys } = readSshContainer(value);
  try {
    if (cipher !== "none" || kdf !== "none") throw badSshKey("it is encrypted with a passphrase", DECRYPT);
    if (privateKeys.length % 8 !== 0) throw badSshKey("its padding is wrong");
    const reader = sshReader(privateKeys);
    const [check, again] = [reader.uint32(), reader.uint32()];
    if (check !== again) throw badSshKey("its check numbers differ");
    const name = reader.ascii();
    const type = SSH_KEY_TYPES.find((one) => NAMES[one] === name);
    if (type === undefined) throw badSshKey(unknownKey(name));
    const key = READERS[type](reader);
    try {
      const comment = utf8Text(reader.string())?.normalize("NFC") ?? "";
      if (!reader.rest().every((byte, i) => byte === i + 1) || reader.rest().length > 7) {
        throw badSshKey("its padding is wrong");
      }
      const publicBlob = sshPublicBlob(type, key);
      if (!equalBytes(publicBlob, publicKey)) throw badSshKey("its private and public parts contradict each other");
      return { type, key, publicBlob, comment };
    } catch (error) {
      wipe(key);
      throw error;
    }
  } finally {
    wipe(bytes);
  }
}

function unknownKey(name: string): string {
  if (/^(sk-|webauthn-)/.test(name)) return "its key lies in a security key, which alone can use it";
  return "its key is none of Ed25519, ECDSA on P-256 or P-384, and RSA";
}

const READERS: { readonly [T in SshKeyType]: (reader: SshReader) => Uint8Array } = {
  ed25519: (reader) => {
    const stated = reader.string();
    const pair = reader.string();
    if (pair.length !== 64 || !equalBytes(pair.subarray(32), stated)) throw badSshKey("its key is malformed");
    return pair.slice(0, 32);
  },
  p256: (reader) => readEcdsa("p256", reader),
  p384: (reader) => readEcdsa("p384", reader),
  rsa: (reader) => {
    const [n, e, d] = [reader.mpint(), reader.mpint(), reader.mpint()];
    const [qi, p, q] = [reader.mpint(), reader.mpint(), reader.mpint()];
    const number = (bytes: Uint8Array) => BigInt(`0x${Buffer.from(bytes).toString("hex") || "0"}`);
    const below = (prime: Uint8Array) => {
      const order = number(prime) - 1n;
      if (order < 2n) throw badSshKey("its numbers are no RSA key");
      const hex = (number(d) % order).toString(16);
      return Uint8Array.fromHex(hex.padStart(hex.length + (hex.length % 2), "0"));
    };
    const parts = { n, e, d, p, q, dp: below(p), dq: below(q), qi };
    const jwk = Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, toBase64url(part)]));
    return ofKey(() => {
      const pkcs8 = rsaFromJwk(jwk as unknown as RsaJwk);
      rsaPublicKey(pkcs8);
      return pkcs8;
    });
  },
};

function readEcdsa(type: "p256" | "p384", reader: SshReader): Uint8Array {
  if (reader.ascii() !== CURVE_NAMES[type]) throw badSshKey("it names two different curves");
  const stated = reader.string();
  const scalar = reader.mpint();
  const { bytes } = EC_CURVES[type];
  if (scalar.length > bytes) throw badSshKey("its number is too large for its curve");
  const key = new Uint8Array(bytes);
  key.set(scalar, bytes - scalar.length);
  if (
    !equalBytes(
      ofKey(() => uncompressedPoint(type, key)),
      stated,
    )
  ) {
    wipe(key);
    throw badSshKey("its private and public parts contradict each other");
  }
  return key;
}

/** Faults of the key itself, told as faults of this file. */
function ofKey<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw badSshKey(error.why ?? error.message);
  }
}

/** The public key of a stored key, as ssh sends it. @throws Fault bad_input for a value that is no key of its type */
export function sshPublicBlob(type: SshKeyType, key: Uint8Array): Uint8Array {
  switch (type) {
    case "ed25519":
      return sshBlob({ type, point: publicKeyOf(type, key) ?? new Uint8Array(0) });
    case "p256":
    case "p384":
      return sshBlob({ type, point: uncompressedPoint(type, key) });
    case "rsa": {
      const { n, e } = rsaToJwk(key);
      return sshBlob({ type, n: numberOf(n), e: numberOf(e) });
    }
    default:
      return type satisfies never;
  }
}

/** The numbers of a public key: 32 bytes of Ed25519, an uncompressed point (SEC 1 §2.3.3), modulus and exponent. */
export type SshPublicParts =
  | { readonly type: "ed25519" | "p256" | "p384"; readonly point: Uint8Array }
  | { readonly type: "rsa"; readonly n: Uint8Array; readonly e: Uint8Array };

/** A public key as ssh sends it. */
export function sshBlob(parts: SshPublicParts): Uint8Array {
  const name = string(utf8Bytes(NAMES[parts.type]));
  if (parts.type === "rsa") return concat(name, mpint(parts.e), mpint(parts.n));
  if (parts.type === "ed25519") return concat(name, string(parts.point));
  return concat(name, string(utf8Bytes(CURVE_NAMES[parts.type])), string(parts.point));
}

/** The numbers in a public key as ssh sends it. @throws Fault bad_input */
export function readSshBlob(blob: Uint8Array): SshPublicParts {
  const reader = sshReader(blob);
  const name = reader.ascii();
  const type = SSH_KEY_TYPES.find((one) => NAMES[one] === name);
  if (type === undefined) throw badSshKey(unknownKey(name));
  if (type === "rsa") {
    const e = reader.mpint();
    return { type, e, n: reader.mpint() };
  }
  if (type !== "ed25519" && reader.ascii() !== CURVE_NAMES[type]) throw badSshKey("it names two different curves");
  return { type, point: reader.string() };
}

/**
 * Writes an OpenSSH private key file without passphrase. The same key and comment give the same file: the check number,
 * which guards a passphrase alone, is made of the public key.
 *
 * @param comment One line.
 * @returns The caller's to wipe.
 * @throws Fault bad_input
 */
export function writeSshPrivate(type: SshKeyType, key: Uint8Array, comment: string): Uint8Array {
  const publicBlob = sshPublicBlob(type, key);
  const check = sha256(publicBlob).subarray(0, 4);
  const inner = privateFields(type, key, publicBlob);
  const unpadded = concat(check, check, inner, string(utf8Bytes(oneLine(comment))));
  const padding = Uint8Array.from({ length: (8 - (unpadded.length % 8)) % 8 }, (_, i) => i + 1);
  const secret = string(unpadded, padding);
  const none = string(utf8Bytes("none"));
  const whole = concat(utf8Bytes("openssh-key-v1\0"), none, none, uint32(0), uint32(1), string(publicBlob), secret);
  try {
    const lines = whole.toBase64().match(/.{1,70}/g) ?? [];
    return utf8Bytes(`-----BEGIN OPENSSH PRIVATE KEY-----\n${lines.join("\n")}\n-----END OPENSSH PRIVATE KEY-----\n`);
  } finally {
    wipe(inner, unpadded, secret, whole);
  }
}

/** Name and numbers of the private part. */
function privateFields(type: SshKeyType, key: Uint8Array, publicBlob: Uint8Array): Uint8Array {
  const name = string(utf8Bytes(NAMES[type]));
  switch (type) {
    case "ed25519": {
      const point = publicBlob.subarray(-32);
      return concat(name, string(point), string(key, point));
    }
    case "p256":
    case "p384":
      return concat(publicBlob, mpint(key));
    case "rsa": {
      const { n, e, d, qi, p, q } = rsaToJwk(key);
      return concat(name, ...[n, e, d, qi, p, q].map((part) => mpint(numberOf(part))));
    }
    default:
      return type satisfies never;
  }
}

const numberOf = (base64url: string): Uint8Array => new Uint8Array(Buffer.from(base64url, "base64url"));

const oneLine = (comment: string): string => comment.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, " ").trim();

/** The public key in one line, as `authorized_keys` takes it. */
export function sshPublicLine(publicBlob: Uint8Array, comment: string): string {
  const name = sshReader(publicBlob).ascii();
  const note = oneLine(comment);
  return `${name} ${publicBlob.toBase64()}${note === "" ? "" : ` ${note}`}`;
}

/** The fingerprint that `ssh-keygen -l` and `ssh-add -l` show. */
export function sshFingerprint(publicBlob: Uint8Array): string {
  return `SHA256:${sha256(publicBlob).toBase64({ omitPadding: true })}`;
}
