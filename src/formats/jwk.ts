import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { equalBytes, fromBase64url, toBase64url } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { RSA_JWK_PARTS, type RsaJwk, rsaFromJwk, rsaPublicKey, rsaToJwk } from "../crypto/rsa.ts";
import { Fault } from "../errors.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { boundedValue, FILE_BYTES, type Format, onlyItem, singleName, unreadable, utf8Bytes } from "./item.ts";
import { parseObject } from "./json.ts";

/**
 * One private or symmetric JSON Web Key (RFC 7517, 7518, 8037, 8812); `kid` is its thumbprint (RFC 7638).
 * A symmetric key is read and written as `bytes`.
 */
export const jwk: Format = {
  name: "jwk",
  kind: "single",
  binary: false,
  types: ["bytes", "p256", "secp256k1", "ed25519", "x25519", "rsa"],
  keeps: ["type"],
  sniff: (file) => typeof parseObject(file, FILE_BYTES.single)?.["kty"] === "string",
  read: (file, options) => {
    const key = parseObject(file, FILE_BYTES.single);
    if (key === null) throw unreadable("jwk", "it is not one JSON object in UTF-8");
    if (Object.hasOwn(key, "keys")) throw unreadable("jwk", "it is a key set", "save each of its keys as a file");
    const { type, value, members } = readKey(key);
    const name = singleName("jwk", options.name);
    const used = new Set(["kty", ...members]);
    if (key["kid"] === thumbprint(writeKey(type, value))) used.add("kid");
    const lost = Object.keys(key).filter((member) => !used.has(member));
    return {
      items: [{ name, type, value, tags: [], createdAt: null }],
      lost: lost.map((member) => ({ what: `member ${JSON.stringify(member.slice(0, 64))}` })),
    };
  },
  write: (items) => {
    const { type, value } = onlyItem(jwk, items);
    const key = writeKey(type, value);
    return utf8Bytes(`${JSON.stringify({ ...key, kid: thumbprint(key) })}\n`);
  },
};

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
      return readPair(key, key["crv"] === "P-256" ? "p256" : key["crv"] === "secp256k1" ? "secp256k1" : null);
    case "OKP":
      return readPair(key, key["crv"] === "Ed25519" ? "ed25519" : key["crv"] === "X25519" ? "x25519" : null);
    case "RSA":
      return readRsa(key);
    default:
      throw unreadable("jwk", "its kty is none of oct, EC, OKP and RSA");
  }
}

function readPair(key: Record<string, unknown>, type: "p256" | "secp256k1" | "ed25519" | "x25519" | null): ReadKey {
  if (type === null) {
    throw unreadable("jwk", "its curve is none of P-256 and secp256k1 (EC), Ed25519 and X25519 (OKP)");
  }
  refusePublic(key);
  const value = member(key, "d");
  const written = keepsFormat(() => writeKey(type, value));
  const coordinates = type === "p256" || type === "secp256k1" ? ["x", "y"] : ["x"];
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
    case "secp256k1": {
      publicKeyOf(type, value);
      const point = (type === "p256" ? p256 : secp256k1).getPublicKey(value, false);
      return {
        kty: "EC",
        crv: type === "p256" ? "P-256" : "secp256k1",
        x: toBase64url(point.subarray(1, 33)),
        y: toBase64url(point.subarray(33)),
        d: toBase64url(value),
      };
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
