import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import { p256, p384 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { shake256 } from "@noble/hashes/sha3.js";
import { toBase64url, wipe } from "../crypto/bytes.ts";
import { deriveKey } from "../crypto/kdf.ts";
import { RSA_BITS, rsaPublicKey } from "../crypto/rsa.ts";
import { EFF_WORDS } from "../crypto/wordlist.ts";
import { Fault } from "../errors.ts";
import type { KeyId, UserId } from "../ids.ts";
import { DEFAULTS } from "./defaults.ts";
import { isGenerated, type SecretType, type WrittenType } from "./secrettype.ts";

/** Types that `generate` makes (docs/protocol.md §5). */
export type GeneratedType = Exclude<SecretType, WrittenType>;

/** Generated types whose value is a pure function of 32 random bytes; `rsa` comes from {@link "../crypto/rsa.ts"}. */
export type SeededType = Exclude<GeneratedType, "rsa">;

/** Bytes of a seed key and of each of the two random inputs behind it. */
export const SEED_BYTES = 32;

/** A freshly made secret; `value` is the caller's to wipe. */
export interface GeneratedValue {
  readonly value: Uint8Array;
  /**
   * Compressed point (33 bytes for `secp256k1` and `p256`, 49 for `p384`), 32 bytes for `ed25519` and `x25519`, else
   * null.
   */
  readonly publicKey: Uint8Array | null;
}

interface LengthRule {
  readonly preset: number;
  readonly min: number;
  readonly max: number;
  readonly unit: string;
}

const LENGTHS: { readonly [T in SecretType]?: LengthRule } = {
  bytes: { preset: DEFAULTS.generateBytes, min: 1, max: DEFAULTS.secretBytes, unit: "bytes" },
  password: { preset: 24, min: 8, max: 1_024, unit: "characters" },
  passphrase: { preset: 6, min: 4, max: 64, unit: "words" },
  pin: { preset: 6, min: 4, max: 64, unit: "digits" },
  token: { preset: 32, min: 16, max: 1_024, unit: "bytes" },
  login: { preset: 24, min: 8, max: 1_024, unit: "characters" },
  bip39: { preset: 24, min: 12, max: 24, unit: "words, a multiple of three" },
};

/**
 * The length that a generated secret gets: the type's default for null; null where a type has one size only.
 *
 * @param length Bytes (`bytes`, `token`), characters (`password`, `login`), digits (`pin`), words
 * (`passphrase`, `bip39`), bits (`rsa`).
 * @throws Fault bad_input for a type that cannot be generated and for a length out of bounds.
 */
export function resolveLength(type: SecretType, length: number | null): number | null {
  if (!isGenerated(type)) {
    throw new Fault("bad_input", `cannot generate: type "${type}" is written by people`, {
      hint: "choose another --type, or keep your text with `keyhold store`",
    });
  }
  if (type === "rsa") {
    const bits = RSA_BITS.find((choice) => choice === (length ?? DEFAULT_RSA_BITS));
    if (bits === undefined) {
      throw new Fault("bad_input", `cannot generate: an rsa key has ${RSA_BITS.join(", ")} bits`);
    }
    return bits;
  }
  const rule = LENGTHS[type];
  if (!rule) {
    if (length === null) return null;
    throw new Fault("bad_input", `cannot generate: type "${type}" has one size`, { hint: "leave the length out" });
  }
  const wanted = length ?? rule.preset;
  if (!Number.isInteger(wanted) || wanted < rule.min || wanted > rule.max || (type === "bip39" && wanted % 3 !== 0)) {
    throw new Fault("bad_input", `cannot generate: type "${type}" takes ${rule.min} to ${rule.max} ${rule.unit}`);
  }
  return wanted;
}

const DEFAULT_RSA_BITS = 3_072;

/**
 * The seed key k of a generated secret (docs/protocol.md §5): uniform if either random input is.
 *
 * @param rS The server's 32 random bytes, the salt. @param rC The client's 32 random bytes, the input keying material.
 * Neither is retained.
 * @param length As given by the user; the type's default is filled in before it is bound.
 * @returns 32 bytes, the caller's to wipe.
 * @throws Fault bad_input
 */
export function deriveGenerated(
  rS: Uint8Array,
  rC: Uint8Array,
  userId: UserId,
  keyId: KeyId,
  type: SeededType,
  length: number | null,
): Uint8Array {
  if (rS.length !== SEED_BYTES || rC.length !== SEED_BYTES) {
    throw new Fault("bad_input", "cannot generate: both random inputs have 32 bytes");
  }
  return deriveKey(rC, SEED_BYTES, rS, "keyhold/v1/generate", userId, keyId, type, resolveLength(type, length));
}

/** Bytes of a one-time password's key: the size of its hash, SHA-1 (RFC 4226 §4). */
const OTP_KEY_BYTES = 20;

/**
 * Makes the value of a type from the seed key alone (docs/protocol.md §5). For `ssh` that is the Ed25519 seed, for
 * `totp` and `hotp` the key, for `bip39` the entropy: the caller gives them their text.
 *
 * 32 bytes are the seed key itself; everything else is read from SHAKE256(seed key), choices by rejection so that
 * each is equally likely, curve scalars by wide reduction (FIPS 186-5 A.2.1).
 *
 * @param seedKey 32 bytes from {@link deriveGenerated}; not retained, not wiped.
 * @throws Fault bad_input
 */
export function generateValue(type: SeededType, seedKey: Uint8Array, length: number | null): GeneratedValue {
  if (seedKey.length !== SEED_BYTES) throw new Fault("bad_input", "cannot generate: the seed key has 32 bytes");
  const size = resolveLength(type, length) ?? 0;
  const stream = shake256.create({}).update(seedKey);
  try {
    const value = draw(type, seedKey, size, (count) => stream.xof(count));
    return { value, publicKey: publicKeyOf(type, value) };
  } finally {
    stream.destroy();
  }
}

/** Reads the next bytes of an endless stream; each call gives a new array. */
type Stream = (count: number) => Uint8Array;

function draw(type: SeededType, seedKey: Uint8Array, size: number, read: Stream): Uint8Array {
  switch (type) {
    case "bytes":
      return size === SEED_BYTES ? seedKey.slice() : read(size);
    case "password":
    case "login":
      return password(size, read);
    case "totp":
    case "hotp":
      return read(OTP_KEY_BYTES);
    case "bip39":
      return read((size / 3) * 4);
    case "passphrase":
      return passphrase(size, read);
    case "pin":
      return pick(DIGITS, size, read);
    case "token": {
      const bytes = size === SEED_BYTES ? seedKey.slice() : read(size);
      try {
        return utf8(toBase64url(bytes));
      } finally {
        wipe(bytes);
      }
    }
    case "uuid":
      return uuid(read);
    case "ed25519":
    case "x25519":
    case "ssh":
      return seedKey.slice();
    case "secp256k1":
      return scalar(secp256k1.utils.randomSecretKey, 48, read);
    case "p256":
      return scalar(p256.utils.randomSecretKey, 48, read);
    case "p384":
      return scalar(p384.utils.randomSecretKey, 72, read);
    default:
      return type satisfies never;
  }
}

const encoder = new TextEncoder();
const utf8 = (text: string): Uint8Array => encoder.encode(text);

const LOWER = utf8("abcdefghijklmnopqrstuvwxyz");
const UPPER = utf8("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
const DIGITS = utf8("0123456789");
/** No quotes, spaces, backslashes or `$`. */
const SYMBOLS = utf8("-_.!@#%+");
const PASSWORD_CLASSES = [LOWER, UPPER, DIGITS, SYMBOLS];
const PASSWORD_ALPHABET = Uint8Array.from(PASSWORD_CLASSES.flatMap((c) => [...c]));

/** `count` symbols of an alphabet of at most 256; bytes beyond its largest multiple are thrown away. */
function pick(alphabet: Uint8Array, count: number, read: Stream): Uint8Array {
  const limit = 256 - (256 % alphabet.length);
  const out = new Uint8Array(count);
  for (let at = 0; at < count; ) {
    const bytes = read(count - at);
    for (const byte of bytes) {
      if (byte < limit) out[at++] = alphabet[byte % alphabet.length] ?? 0;
    }
    wipe(bytes);
  }
  return out;
}

/** A draw that misses a class is thrown away whole, so that all passwords with every class are equally likely. */
function password(length: number, read: Stream): Uint8Array {
  for (;;) {
    const drawn = pick(PASSWORD_ALPHABET, length, read);
    if (PASSWORD_CLASSES.every((symbols) => drawn.some((byte) => symbols.includes(byte)))) return drawn;
    wipe(drawn);
  }
}

function passphrase(count: number, read: Stream): Uint8Array {
  const limit = 65_536 - (65_536 % EFF_WORDS.length);
  const words: string[] = [];
  while (words.length < count) {
    const pair = read(2);
    const number = ((pair[0] ?? 0) << 8) | (pair[1] ?? 0);
    wipe(pair);
    if (number < limit) words.push(EFF_WORDS[number % EFF_WORDS.length] ?? "");
  }
  return utf8(words.join("-"));
}

/** Version 4 (RFC 9562 §5.4). */
function uuid(read: Stream): Uint8Array {
  const bytes = read(16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = bytes.toHex();
  wipe(bytes);
  return utf8(`${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`);
}

/** Half as many bytes c again as the order n has give the scalar (c mod (n-1)) + 1: a bias below 2^-128. */
function scalar(reduce: (seed: Uint8Array) => Uint8Array, count: number, read: Stream): Uint8Array {
  const seed = read(count);
  try {
    return reduce(seed);
  } finally {
    wipe(seed);
  }
}

/**
 * Checks a private key and derives its public component.
 *
 * @param value Private scalar, big-endian, 1 to n-1, 32 bytes (`secp256k1`, `p256`) or 48 (`p384`); seed of 32 bytes (`ed25519`);
 * 32 bytes (`x25519`); PKCS#8 DER (`rsa`). Not retained.
 * @returns As in {@link GeneratedValue}, SubjectPublicKeyInfo DER for `rsa`; null for types that are no keys.
 * @throws Fault bad_input for an invalid key.
 */
export function publicKeyOf(type: SecretType, value: Uint8Array): Uint8Array | null {
  switch (type) {
    case "secp256k1":
    case "p256":
    case "p384": {
      const curve = type === "p256" ? p256 : type === "p384" ? p384 : secp256k1;
      const size = type === "p384" ? 48 : 32;
      if (value.length !== size || !curve.utils.isValidSecretKey(value)) {
        throw invalid(type, `it must be ${size} bytes, a number from 1 to the group order minus 1`);
      }
      return curve.getPublicKey(value, true);
    }
    case "ed25519":
    case "x25519":
      if (value.length !== 32) throw invalid(type, "it must be 32 bytes");
      return type === "ed25519" ? ed25519.getPublicKey(value) : x25519.getPublicKey(value);
    case "rsa":
      return rsaPublicKey(value);
    default:
      return null;
  }
}

function invalid(type: SecretType, why: string): Fault {
  return new Fault("bad_input", `cannot use this value: not a valid ${type} private key`, {
    why,
    hint: "give the right --type, or import the key from its file format (jwk, pem)",
  });
}
