import { wipe } from "../crypto/bytes.ts";
import { isEcdsa, type SignatureScheme } from "../crypto/schemes.ts";
import { Fault } from "../errors.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { hedgeOf } from "./hedge.ts";
import type { Open } from "./opened.ts";
import { getSecret } from "./reading.ts";

/** What to sign, and with which stored key. */
export interface SignInput {
  /** Exact name, else a unique prefix of a key id. */
  name: string;
  /** null: the newest. */
  version: number | null;
  /** At most 4,194,304 bytes; hashed where the scheme says so. */
  message: Uint8Array;
  /** null: the key's own, and for `rsa` RSASSA-PSS. */
  scheme: SignatureScheme | null;
  /** True where `message` is the hash that the scheme signs; not for Ed25519. */
  prehashed?: boolean;
  /** Secret of type `bytes` that is mixed into an ECDSA signature (docs/protocol.md §10.6). */
  hedge?: string | null;
}

/** A signature and what it is checked with; the private key stays where it is. */
export interface Signed {
  /** 64 bytes (`ed25519`), r ‖ s (ECDSA; `ecdsaDer` gives DER), as long as the modulus (RSA). */
  signature: Uint8Array;
  scheme: SignatureScheme;
  /**
   * As in the secret's facts: compressed point, 32 bytes of Ed25519, SubjectPublicKeyInfo DER of RSA, for `ssh` as ssh
   * sends it.
   */
  publicKey: Uint8Array;
}

/** The most that is signed at once, in bytes: it must fit a message to the agent. */
export const SIGN_MAX_BYTES = 4 * 1_024 * 1_024;

/** Schemes of each type that signs, its own first. */
const SCHEMES: { readonly [T in SecretType]?: readonly [SignatureScheme, ...SignatureScheme[]] } = {
  ed25519: ["ed25519"],
  p256: ["ecdsa-p256-sha256"],
  p384: ["ecdsa-p384-sha384"],
  secp256k1: ["ecdsa-secp256k1-sha256"],
  rsa: ["rsa-pss-sha256", "rsa-pkcs1-sha256", "rsa-pkcs1-sha512"],
};

/**
 * The scheme that a key of this type signs with.
 *
 * @throws Fault bad_input for a type that does not sign, or not so
 */
export function schemeOf(type: SecretType, wanted: SignatureScheme | null): SignatureScheme {
  const schemes = SCHEMES[type];
  if (!schemes) {
    throw new Fault("bad_input", `a secret of type "${type}" does not sign`, {
      hint: `keys that sign: ${Object.keys(SCHEMES).join(", ")}, ssh`,
    });
  }
  if (wanted === null) return schemes[0];
  if (schemes.includes(wanted)) return wanted;
  throw new Fault("bad_input", `a key of type "${type}" does not sign by ${wanted}`, {
    hint: `it signs by ${schemes.join(", ")}`,
  });
}

/** A key as it signs: of an `ssh` secret the one in its file. Wipe `key` where it is not the value itself. */
async function signingKey(
  type: SecretType,
  value: Uint8Array,
): Promise<{ type: SecretType; key: Uint8Array; publicKey: Uint8Array | null }> {
  if (type !== "ssh") return { type, key: value, publicKey: publicKeyOf(type, value) };
  const { parseSshPrivate } = await import("../formats/sshkey.ts");
  const { type: inner, key, publicBlob } = parseSshPrivate(value);
  return { type: inner, key, publicKey: publicBlob };
}

/** Signs with a stored key (docs/agent.md); the audit log has it as a retrieval of the key. */
export async function signSecret(open: Open, input: SignInput): Promise<Signed> {
  if (input.message.length > SIGN_MAX_BYTES) {
    throw new Fault("too_large", `at most ${SIGN_MAX_BYTES} bytes are signed at once`, {
      hint: "sign its hash: prehashed, or in ssh's form",
    });
  }
  const { name, version } = input;
  const got = await getSecret(open, { name, version, reveal: true, fresh: false, save: false });
  const { value, info } = got;
  const kept: Uint8Array[] = [];
  try {
    if (!value) throw new Fault("internal", "a key came without its value");
    kept.push(value);
    // before a value that is no key is read as one
    if (info.type !== "ssh") schemeOf(info.type, input.scheme);
    const { type, key, publicKey } = await signingKey(info.type, value);
    kept.push(key);
    if (!publicKey) throw new Fault("internal", "a key came without its public half");
    const scheme = schemeOf(type, input.scheme);
    const hedge = input.hedge ? await hedgeOf(open, input.hedge, isEcdsa(scheme)) : null;
    if (hedge) kept.push(hedge.secret, hedge.fresh);
    if (input.prehashed === true) {
      const { PSS_SALT_BYTES, signDigest } = await import("../crypto/digestsignature.ts");
      const salt = open.around.random(PSS_SALT_BYTES);
      return { signature: signDigest(scheme, key, input.message, salt, hedge), scheme, publicKey };
    }
    const { signMessage } = await import("../crypto/signature.ts");
    return { signature: signMessage(scheme, key, input.message, hedge), scheme, publicKey };
  } finally {
    wipe(...kept);
  }
}
