import { OneAsymmetricKey } from "@peculiar/asn1-asym-key";
import { ECParameters, ECPrivateKey, id_ecPublicKey } from "@peculiar/asn1-ecc";
import { AsnConvert, OctetString } from "@peculiar/asn1-schema";
import { AlgorithmIdentifier } from "@peculiar/asn1-x509";
import { concat, equalBytes } from "../crypto/bytes.ts";
import { rsaPublicKey } from "../crypto/rsa.ts";
import { Fault } from "../errors.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { EC_CURVES, EC_TYPES, type EcType, isEcType, uncompressedPoint } from "./curves.ts";
import { type ReadResult, unreadable } from "./item.ts";

const OID = { x25519: "1.3.101.110", ed25519: "1.3.101.112", rsa: "1.2.840.113549.1.1.1" } as const;

/** Types of keys that PKCS#8 holds here. */
export const PKCS8_TYPES: readonly SecretType[] = [...EC_TYPES, "ed25519", "x25519", "rsa"];

/** A private key of a file. */
export interface DerKey {
  readonly type: SecretType;
  /** The caller's to wipe. */
  readonly value: Uint8Array;
  readonly lost: ReadResult["lost"];
}

/** Reads one PKCS#8 structure (RFC 5208, 5958, 5915, 8410) in strict DER. @throws Fault bad_input */
export function readPkcs8(der: Uint8Array): DerKey {
  const info = strictDer(der, OneAsymmetricKey);
  const { algorithm, parameters } = info.privateKeyAlgorithm;
  if (info.version !== (info.publicKey ? 1 : 0)) throw unreadable("pem", "its version does not fit its content");
  const inner = new Uint8Array(info.privateKey);
  const lost = info.attributes ? [{ what: "attributes" }] : [];
  const stated = info.publicKey && new Uint8Array(info.publicKey);
  switch (algorithm) {
    case id_ecPublicKey: {
      const type = curveOf(parameters);
      return { type, value: checkPair(type, readEc(type, inner), stated), lost };
    }
    case OID.ed25519:
    case OID.x25519: {
      const type = algorithm === OID.ed25519 ? "ed25519" : "x25519";
      if (parameters !== undefined) throw unreadable("pem", "its algorithm has parameters that do not belong there");
      if (inner.length !== 34 || inner[0] !== 0x04 || inner[1] !== 32) throw unreadable("pem", "its key is malformed");
      return { type, value: checkPair(type, inner.slice(2), stated), lost };
    }
    case OID.rsa: {
      if (stated) lost.push({ what: "public key" });
      return { ...checkedRsa(encodePkcs8(info.privateKeyAlgorithm, inner)), lost };
    }
    default:
      throw unreadable("pem", "its algorithm is none of P-256, P-384, secp256k1, Ed25519, X25519 and RSA");
  }
}

/** Reads one ECPrivateKey that names its curve (SEC 1 §C.4, RFC 5915), in strict DER. @throws Fault bad_input */
export function readSec1(der: Uint8Array): DerKey {
  const key = strictDer(der, ECPrivateKey);
  if (!key.parameters) throw unreadable("pem", "it does not name its curve");
  const type = curveOf(AsnConvert.serialize(key.parameters));
  return { type, value: readEc(type, der), lost: [] };
}

/** Reads one RSAPrivateKey (RFC 8017 §A.1.2) in strict DER. @throws Fault bad_input */
export function readPkcs1(der: Uint8Array): DerKey {
  const algorithm = new AlgorithmIdentifier({ algorithm: OID.rsa, parameters: Uint8Array.of(5, 0).buffer });
  return { ...checkedRsa(encodePkcs8(algorithm, der)), lost: [] };
}

/** The PKCS#8 structure of a key; EC keys with their public key. @throws Fault bad_input */
export function writePkcs8(type: SecretType, value: Uint8Array): Uint8Array {
  publicKeyOf(type, value);
  if (isEcType(type)) {
    const key = new ECPrivateKey({
      version: 1,
      privateKey: new OctetString(value),
      publicKey: uncompressedPoint(type, value).slice().buffer,
    });
    const algorithm = new AlgorithmIdentifier({ algorithm: id_ecPublicKey, parameters: curveParameters(type) });
    return encodePkcs8(algorithm, new Uint8Array(AsnConvert.serialize(key)));
  }
  if (type === "ed25519" || type === "x25519") {
    return encodePkcs8(new AlgorithmIdentifier({ algorithm: OID[type] }), concat(Uint8Array.of(0x04, 32), value));
  }
  if (type === "rsa") return value.slice();
  throw new Fault("bad_input", `cannot write type "${type}" as pem`, { hint: "use --to json" });
}

/** Parses one structure and insists that writing it gives the same bytes: DER, and nothing behind it. @throws Fault bad_input */
export function strictDer<T>(der: Uint8Array, schema: new () => T): T {
  try {
    const value = AsnConvert.parse(der, schema);
    if (equalBytes(new Uint8Array(AsnConvert.serialize(value)), der)) return value;
  } catch {
    // the library's errors are untyped: falls through to the one error
  }
  throw unreadable("pem", "it is not one private key structure in DER");
}

function checkedRsa(value: Uint8Array): { type: "rsa"; value: Uint8Array } {
  asFileFault(() => rsaPublicKey(value));
  return { type: "rsa", value };
}

function curveParameters(type: EcType): ArrayBuffer {
  return AsnConvert.serialize(new ECParameters({ namedCurve: EC_CURVES[type].oid }));
}

function curveOf(parameters: ArrayBuffer | null | undefined): EcType {
  const given = new Uint8Array(parameters ?? new ArrayBuffer(0));
  const found = EC_TYPES.find((type) => equalBytes(given, new Uint8Array(curveParameters(type))));
  if (found) return found;
  throw unreadable("pem", "its curve is none of P-256, P-384 and secp256k1");
}

function readEc(type: EcType, inner: Uint8Array): Uint8Array {
  const key = strictDer(inner, ECPrivateKey);
  if (key.version !== 1) throw unreadable("pem", "its EC key has an unknown version");
  if (key.parameters && curveOf(AsnConvert.serialize(key.parameters)) !== type) {
    throw unreadable("pem", "it names two different curves");
  }
  const value = new Uint8Array(key.privateKey.buffer);
  return checkPair(type, value, key.publicKey === undefined ? undefined : new Uint8Array(key.publicKey));
}

/** The value, once it is a valid key and agrees with the public key that stands beside it, if one does. */
function checkPair(type: SecretType, value: Uint8Array, stated: Uint8Array | undefined): Uint8Array {
  const short = asFileFault(() => publicKeyOf(type, value));
  if (stated === undefined) return value;
  const long = isEcType(type) ? uncompressedPoint(type, value) : short;
  if (![short, long].some((key) => key !== null && equalBytes(key, stated))) {
    throw unreadable("pem", "its private and public parts contradict each other");
  }
  return value;
}

function asFileFault<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw unreadable("pem", error.why ?? error.message);
  }
}

function encodePkcs8(algorithm: AlgorithmIdentifier, inner: Uint8Array): Uint8Array {
  const info = new OneAsymmetricKey();
  info.privateKeyAlgorithm = algorithm;
  info.privateKey = inner.slice().buffer;
  return new Uint8Array(AsnConvert.serialize(info));
}
