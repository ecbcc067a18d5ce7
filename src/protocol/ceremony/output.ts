import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { entropyToMnemonic } from "@scure/bip39";
import { wordlist } from "@scure/bip39/wordlists/english.js";
import { wipe } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { deriveKey } from "../../crypto/kdf.ts";
import { RSA_BITS } from "../../crypto/rsa.ts";
import { rsaFromSeed } from "../../crypto/rsaprime.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId } from "../../ids.ts";
import { publicKeyOf } from "../keygen.ts";
import { checkOtpKey, type OtpKey, otpUri } from "../otp.ts";
import type { OtpAlgorithm } from "../otpalgorithm.ts";
import type { SecretType } from "../secrettype.ts";
import { CEREMONY_KEY_BYTES } from "./combine.ts";
import type { OutputSpec, PublicOutput } from "./model.ts";
import { makeWallet, WALLET_PARTICIPANTS, type WalletJoin, type WalletPart } from "./outputwallet.ts";

export { type WalletJoin, type WalletPart, walletDescriptor, walletKeyOf } from "./outputwallet.ts";

const NO_SALT = new Uint8Array(0);
/** Bytes of a one-time password's key: as many as its hash gives (RFC 4226 §4, RFC 6238 §5.1). */
export const OTP_KEY_BYTES: { readonly [A in OtpAlgorithm]: number } = { SHA1: 20, SHA256: 32, SHA512: 64 };
/** Half as many bytes again as a curve's order has: a bias below 2^-128 (FIPS 186-5 A.2.1). */
const WIDE_BYTES = 48;
const MAX_BYTES = 1_024;

/** What a ceremony made. */
export interface CeremonyOutput {
  /** What the key store keeps, the caller's to wipe; null of a multisig wallet. */
  readonly value: Uint8Array | null;
  readonly public: PublicOutput;
  /** Of a multisig wallet, one a participant; otherwise none. */
  readonly parts: readonly WalletPart[];
}

/**
 * Makes of a ceremony's key what its manifest says: a pure function (docs/protocol.md §10.6).
 *
 * The value is raw key material: key of a `totp` or `hotp`, entropy of a `bip39`, big-endian scalar of 32 bytes, Ed25519
 * seed, PKCS#8 DER of an `rsa`. {@link secretOf} gives it the form that vaults keep.
 *
 * @param key K, 64 bytes. Not retained. @param run Joins of all participants, in any order; their shares matter for a
 * wallet alone.
 * @throws Fault bad_input for an output that cannot be made; internal where the search for primes fails
 */
export async function makeOutput(
  spec: OutputSpec,
  key: Uint8Array,
  run: { readonly ceremonyId: CeremonyId; readonly joins: readonly { readonly join: WalletJoin }[] },
): Promise<CeremonyOutput> {
  checkOutput(spec, run.joins.length);
  if (key.length !== CEREMONY_KEY_BYTES) throw new Fault("bad_input", "the key of a ceremony has 64 bytes");
  const { ceremonyId } = run;
  if (spec.kind === "multisig") {
    const joins = run.joins.map(({ join }) => join);
    return { value: null, ...makeWallet(spec, key, ceremonyId, joins) };
  }
  if (spec.kind === "rsa") return rsa(bitsOf(spec.bits), key, ceremonyId);
  const value = draw(spec, (length) => material(key, ceremonyId, spec.kind, length));
  try {
    return { value, public: publicOnly(keyPairOf(spec.kind, value)), parts: [] };
  } catch (error) {
    wipe(value);
    throw error;
  }
}

/**
 * Refuses outputs out of bounds (docs/protocol.md §10.6).
 *
 * @param participants As few as may take part. @throws Fault bad_input
 */
export function checkOutput(spec: OutputSpec, participants: number): void {
  const refuse = (why: string) => new Fault("bad_input", `cannot make this of a ceremony: ${why}`);
  switch (spec.kind) {
    case "totp":
    case "hotp":
      if (!Object.hasOwn(OTP_KEY_BYTES, spec.algorithm)) throw refuse("no such hash for one-time passwords");
      checkOtpKey(otpKeyOf(spec, new Uint8Array(OTP_KEY_BYTES[spec.algorithm])));
      return;
    case "bytes":
      if (Number.isInteger(spec.length) && spec.length >= 1 && spec.length <= MAX_BYTES) return;
      throw refuse(`it has 1 to ${MAX_BYTES} bytes`);
    case "rsa":
      bitsOf(spec.bits);
      return;
    case "bip39":
      if (spec.words === 12 || spec.words === 24) return;
      throw refuse("a mnemonic has 12 or 24 words");
    case "multisig":
      if (participants > WALLET_PARTICIPANTS) throw refuse(`a wallet has at most ${WALLET_PARTICIPANTS} participants`);
      if (Number.isInteger(spec.threshold) && spec.threshold >= 1 && spec.threshold <= participants) return;
      throw refuse("a wallet needs 1 signature to as many as there are participants");
    default:
      return;
  }
}

/**
 * Type and value with which a vault keeps what a ceremony made: `otpauth://` URI of a one-time password (a `hotp` from
 * counter 0), words of a mnemonic, otherwise the bytes themselves; a hedge is `bytes`.
 *
 * @param value As {@link makeOutput} made it. Not retained.
 * @returns `value` is the caller's to wipe.
 * @throws Fault bad_input for a multisig wallet, and for a value that is not of this kind
 */
export function secretOf(spec: OutputSpec, value: Uint8Array): { type: SecretType; value: Uint8Array } {
  switch (spec.kind) {
    case "totp":
    case "hotp":
      if (value.length !== OTP_KEY_BYTES[spec.algorithm]) throw otherKind();
      return { type: spec.kind, value: new TextEncoder().encode(otpUri(checkOtpKey(otpKeyOf(spec, value)))) };
    case "bytes":
    case "hedge":
      if (value.length !== (spec.kind === "bytes" ? spec.length : 32)) throw otherKind();
      return { type: "bytes", value: value.slice() };
    case "bip39":
      if (value.length !== (spec.words / 3) * 4) throw otherKind();
      return { type: "bip39", value: new TextEncoder().encode(entropyToMnemonic(value, wordlist)) };
    case "secp256k1":
    case "p256":
    case "ed25519":
    case "rsa":
      publicKeyOf(spec.kind, value);
      return { type: spec.kind, value: value.slice() };
    case "multisig":
      throw new Fault("bad_input", "of a multisig wallet each participant has a key of its own: nothing is stored");
  }
}

const otherKind = () => new Fault("bad_input", "this value was not made by a ceremony of this kind");

type OtpSpec = Extract<OutputSpec, { kind: "totp" | "hotp" }>;
type DrawnSpec = Exclude<OutputSpec, { kind: "rsa" | "multisig" }>;

function otpKeyOf(spec: OtpSpec, secret: Uint8Array): OtpKey {
  const { kind, issuer, label, algorithm, digits } = spec;
  return {
    kind,
    issuer,
    label,
    secret,
    algorithm,
    digits,
    period: spec.kind === "totp" ? spec.period : 30,
    counter: 0,
  };
}

const material = (key: Uint8Array, ceremonyId: CeremonyId, kind: string, length: number): Uint8Array =>
  deriveKey(key, length, NO_SALT, "keyhold/v1/ceremony-output", ceremonyId, kind, length);

function draw(spec: DrawnSpec, read: (length: number) => Uint8Array): Uint8Array {
  switch (spec.kind) {
    case "totp":
    case "hotp":
      return read(OTP_KEY_BYTES[spec.algorithm]);
    case "bytes":
      return read(spec.length);
    case "bip39":
      return read((spec.words / 3) * 4);
    case "hedge":
    case "ed25519":
      return read(32);
    case "secp256k1":
    case "p256": {
      const wide = read(WIDE_BYTES);
      try {
        return (spec.kind === "p256" ? p256 : secp256k1).utils.randomSecretKey(wide);
      } finally {
        wipe(wide);
      }
    }
    default:
      return spec satisfies never;
  }
}

function keyPairOf(kind: DrawnSpec["kind"], value: Uint8Array): Uint8Array | null {
  return kind === "secp256k1" || kind === "p256" || kind === "ed25519" ? publicKeyOf(kind, value) : null;
}

async function rsa(bits: (typeof RSA_BITS)[number], key: Uint8Array, ceremonyId: CeremonyId): Promise<CeremonyOutput> {
  const seed = material(key, ceremonyId, "rsa", 64);
  try {
    const { value, publicKey } = await rsaFromSeed(seed, canon("keyhold/v1/ceremony-rsa", ceremonyId, bits), bits);
    return { value, public: publicOnly(publicKey), parts: [] };
  } finally {
    wipe(seed);
  }
}

function bitsOf(bits: number): (typeof RSA_BITS)[number] {
  const found = RSA_BITS.find((one) => one === bits);
  if (found === undefined) throw new Fault("bad_input", `an rsa key has ${RSA_BITS.join(", ")} bits`);
  return found;
}

const publicOnly = (publicKey: Uint8Array | null): PublicOutput => ({ publicKey, descriptor: null, keys: [] });
