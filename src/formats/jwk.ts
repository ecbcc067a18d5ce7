import { equalBytes, fromBase64url, toBase64url } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { RSA_JWK_PARTS, type RsaJwk, rsaFromJwk, rsaPublicKey, rsaToJwk } from "../crypto/rsa.ts";
import { Fault } from "../errors.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { EC_CURVES, EC_TYPES, type EcType, isEcType, uncompressedPoint } from "./curves.ts";
import { boundedValue, FILE_BYTES, type Format, onlyItem, singleName, unreadable, utf8Bytes } from "./item.ts";
import { parseObject } from "./jsontext.ts";
import { isJwe, sniffJwk } from "./sniff.ts";

/** Types that a JSON Web Key holds. */
export const JWK_TYPES: readonly SecretType[] = ["bytes", ...EC_TYPES, "ed25519", "x25519", "rsa"];

/**
 * One private or symmetric JSON Web Key (RFC 7517, 7518, 8037, 8812); `kid` is its thumbprint (RFC 7638).
 * A symmetric key is read and written as `bytes`.
 */
export const jwk: Format = {
  name: "jwk",
  kind: "single",
  binary: false,
  types: JWK_TYPES,
  keeps: ["type"],
  sniff: sniffJwk,
  read: (file, options) => {
    const key = parseObject(file, FILE_BYTES.single);
    refuseEncrypted("jwk", key, file);
    if (key === null) throw unreadable("jwk", "it is not one JSON object in UTF-8");
    if (Object.hasOwn(key, "keys")) throw unreadable("jwk", "it is a key set", "import it with --from jwks");
    const { type, value, kid, lost } = readJwk(key);
    const name = singleName("jwk", options.name);
    if (kid !== null) lost.push("kid");
    return {
      items: [{ name, type, value, tags: [], createdAt: null }],
      lost: lost.map((member) => ({ what: `member ${JSON.stringify(member.slice(0, 64))}` })),
    };
  },
  write: (items) => {
    const { type, value } = onlyItem(jwk, items);
    return utf8Bytes(`${JSON.stringify(writeJwk(type, value))}\n`);
  },
};

/** One key of a file or set. */
export interface JwkKey {
  readonly type: SecretType;
  /** The caller's to wipe. */
  readonly value: Uint8Array;
  /** The `kid` where it is another one than the thumbprint, which is made anew. */
  readonly kid: string | null;
  readonly thumbprint: string;
  /** Names of members that have no place in a secret. */
  readonly lost: string[];
}

/** Reads a private or symmetric key. @throws Fault bad_input */
export function readJwk(key: Record<string, unknown>): JwkKey {
  const { type, value, members } = readKey(key);
  const own = thumbprint(writeKey(type, value));
  const used = new Set(["kty", "kid", ...members]);
  const lost = Object.keys(key).filter((member) => !used.has(member));
  const { kid } = key;
  if (kid !== undefined && typeof kid !== "string") lost.push("kid");
  return { type, value, kid: typeof kid === "string" && kid !== own ? kid : null, thumbprint: own, lost };
}

/** The members of a key with its thumbprint as `kid`. @throws Fault bad_input */
export function writeJwk(type: SecretType, value: Uint8Array): JwkMembers {
  const key = writeKey(type, value);
  return { ...key, kid: thumbprint(key) };
}

/** Refuses encrypted content by name (RFC 7516). @throws Fault bad_input */
export function refuseEncrypted(format: string, members: Record<string, unknown> | null, file: Uint8Array): void {
  if (!isJwe(members, file)) return;
  throw unreadable(format, "it is encrypted (JWE), which keyhold does not open", "decrypt it where it was made");
}

/** Members of a key, all text. */
export type JwkMembers = { readonly [member: string]: string };

const THUMBPRINT_MEMBERS: { readonly [kty: string]: readonly string[] } = {
  EC: ["crv", "kty", "x", "y"],
  OKP: ["crv", "kty", "x"],
  RSA: ["e", "kty", "n"],
  oct: ["k", "kty"],
};

/**
 * SHA-256 thumbprint of a key (RFC 7638 §3, RFC 8037 §2), base64url.
 *
 * @param key Other members than the required ones do not count.
 */
export function thumbprint(key: JwkMembers): string {
  const members = THUMBPRINT_MEMBERS[key["kty"] ?? ""] ?? [];
  const required = Object.fromEntries(members.map((member) => [member, key[member]]));
  return toBase64url(sha256(utf8Bytes(JSON.stringify(required))));
}

interface ReadKey {
  readonly type: SecretType;
  readonly value: Uint8Array;
  /** Members that were understood, `kty` aside. */
  readonly members: readonly string[];
}

function readKey(key: Record<string, unknown>): ReadKey {
  switch (key["kty"]) {
    case "oct":
      return { type: "bytes", value: boundedValue("jwk", member(key, "k")), members: ["k"] };
    case "EC":
      return readPair(key, EC_TYPES.find((type) => EC_CURVES[type].crv === key["crv"]) ?? null);
    case "OKP":
      return readPair(key, key["crv"] === "Ed25519" ? "ed25519" : key["crv"] === "X25519" ? "x25519" : null);
    case "RSA":
      return readRsa(key);
    default:
      throw unreadable("jwk", "its kty is none of oct, EC, OKP and RSA");
  }
}

function readPair(key: Record<string, unknown>, type: EcType | "ed25519" | "x25519" | null): ReadKey {
  if (type === null) {
    throw unreadable("jwk", "its curve is none of P-256, P-384 and secp256k1 (EC), Ed25519 and X25519 (OKP)");
  }
  refusePublic(key);
  const value = member(key, "d");
  const written = keepsFormat(() => writeKey(type, value));
  const coordinates = isEcType(type) ? ["x", "y"] : ["x"];
  for (const name of coordinates) {
    if (!equalBytes(member(key, name), fromBase64url(written[name] ?? ""))) {
      throw unreadable("jwk", "its private and public members contradict each other");
    }
  }
  return { type, value, members: ["crv", "d", ...coordinates] };
}

function readRsa(key: Record<string, unknown>): ReadKey {
  refusePublic(key);
  if (Object.hasOwn(key, "oth")) throw unreadable("jwk", "it has more than two primes");
  const parts: Record<string, string> = {};
  for (const name of RSA_JWK_PARTS) parts[name] = toBase64url(member(key, name));
  const value = keepsFormat(() => {
    const pkcs8 = rsaFromJwk(parts as RsaJwk);
    rsaPublicKey(pkcs8);
    return pkcs8;
  });
  return { type: "rsa", value, members: RSA_JWK_PARTS };
}

function refusePublic(key: Record<string, unknown>): void {
  if (!Object.hasOwn(key, "d")) {
    throw unreadable("jwk", "it is a public key", "keep public keys with `keyhold store`, or import the private key");
  }
}

function member(key: Record<string, unknown>, name: string): Uint8Array {
  const text = Object.hasOwn(key, name) ? key[name] : undefined;
  if (typeof text !== "string") throw unreadable("jwk", `its member ${name} is missing or no text`);
  try {
    return fromBase64url(text);
  } catch {
    throw unreadable("jwk", `its member ${name} is not base64url without padding`);
  }
}

/** Faults of the key itself, told as faults of this file. */
function keepsFormat<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw unreadable("jwk", error.why ?? error.message);
  }
}

function writeKey(type: SecretType, value: Uint8Array): JwkMembers {
  switch (type) {
    case "bytes":
      return { kty: "oct", k: toBase64url(value) };
    case "p256":
    case "p384":
    case "secp256k1": {
      const { crv, bytes } = EC_CURVES[type];
      const point = uncompressedPoint(type, value);
      const [x, y] = [point.subarray(1, 1 + bytes), point.subarray(1 + bytes)];
      return { kty: "EC", crv, x: toBase64url(x), y: toBase64url(y), d: toBase64url(value) };
    }
    case "ed25519":
    case "x25519": {
      const x = publicKeyOf(type, value) ?? new Uint8Array();
      return { kty: "OKP", crv: type === "ed25519" ? "Ed25519" : "X25519", x: toBase64url(x), d: toBase64url(value) };
    }
    case "rsa":
      rsaPublicKey(value);
      return { kty: "RSA", ...rsaToJwk(value) };
    default:
      throw new Fault("bad_input", `cannot write type "${type}" as jwk`, { hint: "use --to json" });
  }
}
