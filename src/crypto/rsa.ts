import {
  createPrivateKey,
  createPublicKey,
  // biome-ignore lint/style/noRestrictedImports: RSA keys come from the platform's generator, see generateRsa
  generateKeyPair,
  type KeyObject,
  sign as nodeSign,
  verify as nodeVerify,
} from "node:crypto";
import { Fault } from "../errors.ts";
import { equalBytes, wipe } from "./bytes.ts";

/** Sizes of the modulus that `generate` offers, in bits. */
export const RSA_BITS = [2_048, 3_072, 4_096] as const;
export type RsaBits = (typeof RSA_BITS)[number];

/** Moduli in bits that are read: below is broken, above stalls the reader. */
const READ_BITS = { min: 2_048, max: 8_192 };

/** Longest PKCS#8 text of a modulus of 8,192 bits, with room to spare. */
const MAX_DER_BYTES = 8_192;

/**
 * Makes an RSA key, public exponent 65,537, with the platform's generator.
 *
 * An exception to the purity of this layer: the library draws its own randomness and accepts no seed, so that
 * neither server nor caller contributes to it (docs/protocol.md §5).
 *
 * @returns PKCS#8 DER, the caller's to wipe, and SubjectPublicKeyInfo DER.
 */
export function generateRsa(bits: RsaBits = 3_072): Promise<{ value: Uint8Array; publicKey: Uint8Array }> {
  return new Promise((resolve, reject) => {
    generateKeyPair("rsa", { modulusLength: bits, publicExponent: 65_537 }, (error, publicKey, privateKey) => {
      if (error) reject(new Fault("internal", "RSA key generation failed"));
      else resolve({ value: toPkcs8(privateKey), publicKey: toSpki(publicKey) });
    });
  });
}

/**
 * Checks an RSA private key and gives its public half.
 *
 * The platform's reader takes keys whose parts contradict each other, so the equations of RFC 8017 §3.2 are
 * checked here and a signature is made and verified.
 *
 * @param pkcs8 PKCS#8 DER (RFC 5208), two primes, 2,048 to 8,192 bits, nothing before or after. Not retained.
 * @returns SubjectPublicKeyInfo DER.
 * @throws Fault bad_input
 */
export function rsaPublicKey(pkcs8: Uint8Array): Uint8Array {
  if (pkcs8.length > MAX_DER_BYTES) throw invalid("it is longer than any key of 8,192 bits");
  const key = read(() => createPrivateKey({ key: Buffer.from(pkcs8), format: "der", type: "pkcs8" }));
  const canonical = toPkcs8(key);
  try {
    if (!equalBytes(canonical, pkcs8)) throw invalid("it is not one PKCS#8 structure in DER without attributes");
  } finally {
    wipe(canonical);
  }
  check(key);
  return toSpki(createPublicKey(key));
}

/**
 * Converts the private key in a JWK's members (RFC 7518 §6.3) to PKCS#8 DER, without judging it: see
 * {@link rsaPublicKey}.
 *
 * @throws Fault bad_input
 */
export function rsaFromJwk(jwk: RsaJwk): Uint8Array {
  return toPkcs8(read(() => createPrivateKey({ key: { kty: "RSA", ...jwk }, format: "jwk" })));
}

/**
 * The members n, e, d, p, q, dp, dq and qi of a JWK (RFC 7518 §6.3), base64url.
 *
 * @throws Fault bad_input
 */
export function rsaToJwk(pkcs8: Uint8Array): RsaJwk {
  return parts(read(() => createPrivateKey({ key: Buffer.from(pkcs8), format: "der", type: "pkcs8" })));
}

/** Names of the members of {@link RsaJwk}. */
export const RSA_JWK_PARTS = ["n", "e", "d", "p", "q", "dp", "dq", "qi"] as const;
/** Parts of an RSA private key as base64url numbers. */
export type RsaJwk = { readonly [K in (typeof RSA_JWK_PARTS)[number]]: string };

function parts(key: KeyObject): RsaJwk {
  const jwk: Record<string, unknown> = { ...key.export({ format: "jwk" }) };
  const out: Record<string, string> = {};
  for (const name of RSA_JWK_PARTS) {
    const part = jwk[name];
    if (typeof part !== "string") throw invalid("it lacks the two primes");
    out[name] = part;
  }
  return out as RsaJwk;
}

function read(work: () => KeyObject): KeyObject {
  let key: KeyObject;
  try {
    key = work();
  } catch {
    throw invalid("it cannot be read");
  }
  if (key.type !== "private" || key.asymmetricKeyType !== "rsa") throw invalid("it is a key of another type");
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0;
  if (bits < READ_BITS.min || bits > READ_BITS.max) {
    throw invalid(`its modulus must have ${READ_BITS.min} to ${READ_BITS.max} bits`);
  }
  return key;
}

function check(key: KeyObject): void {
  const jwk = parts(key);
  const number = (name: keyof RsaJwk) => BigInt(`0x0${Buffer.from(jwk[name], "base64url").toString("hex")}`);
  const [n, e, d, p, q] = [number("n"), number("e"), number("d"), number("p"), number("q")];
  const consistent =
    p > 1n &&
    q > 1n &&
    p !== q &&
    p * q === n &&
    e >= 3n &&
    e % 2n === 1n &&
    d < n &&
    (e * d) % (p - 1n) === 1n &&
    (e * d) % (q - 1n) === 1n &&
    number("dp") === d % (p - 1n) &&
    number("dq") === d % (q - 1n) &&
    number("qi") < p &&
    (number("qi") * q) % p === 1n;
  if (!consistent || !signs(key)) throw invalid("its parts contradict each other");
}

function signs(key: KeyObject): boolean {
  const message = Buffer.from("keyhold");
  try {
    return nodeVerify("sha256", message, createPublicKey(key), nodeSign("sha256", message, key));
  } catch {
    return false;
  }
}

function toPkcs8(key: KeyObject): Uint8Array {
  return new Uint8Array(key.export({ format: "der", type: "pkcs8" }));
}

function toSpki(key: KeyObject): Uint8Array {
  return new Uint8Array(key.export({ format: "der", type: "spki" }));
}

function invalid(why: string): Fault {
  return new Fault("bad_input", "cannot use this value: not a valid rsa private key", {
    why,
    hint: "an rsa key is PKCS#8 DER; import other files with --from pem or jwk",
  });
}
