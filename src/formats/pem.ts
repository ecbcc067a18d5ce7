import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { OneAsymmetricKey } from "@peculiar/asn1-asym-key";
import { ECParameters, ECPrivateKey, id_ecPublicKey, id_secp256r1 } from "@peculiar/asn1-ecc";
import { AsnConvert, OctetString } from "@peculiar/asn1-schema";
import { AlgorithmIdentifier } from "@peculiar/asn1-x509";
import { concat, equalBytes, wipe } from "../crypto/bytes.ts";
import { rsaPublicKey } from "../crypto/rsa.ts";
import { Fault } from "../errors.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { decodeBase64 } from "./base64.ts";
import { type Format, onlyItem, type ReadResult, singleName, unreadable, utf8Bytes, utf8Text } from "./item.ts";

/** One unencrypted PKCS#8 private key (RFC 5208, 5958, 5915, 8410) in PEM (RFC 7468). */
export const pem: Format = {
  name: "pem",
  kind: "single",
  binary: false,
  types: ["p256", "secp256k1", "ed25519", "x25519", "rsa"],
  keeps: ["type"],
  sniff: (file) => utf8Text(file.subarray(0, 11)) === "-----BEGIN ",
  read: (file, options) => {
    const der = readBlock(file);
    try {
      const { type, value, lost } = readPkcs8(der);
      const name = singleName("pem", options.name);
      return { items: [{ name, type, value, tags: [], createdAt: null }], lost };
    } finally {
      wipe(der);
    }
  },
  write: (items) => {
    const { type, value } = onlyItem(pem, items);
    publicKeyOf(type, value);
    const der = type === "rsa" ? value.slice() : writePkcs8(type, value);
    try {
      const lines = der.toBase64().match(/.{1,64}/g) ?? [];
      return utf8Bytes(`-----BEGIN PRIVATE KEY-----\n${lines.join("\n")}\n-----END PRIVATE KEY-----\n`);
    } finally {
      wipe(der);
    }
  },
};

/** The longest file that a key of 8,192 bits needs, with room to spare. */
const MAX_FILE_BYTES = 16_384;

const OID = {
  secp256k1: "1.3.132.0.10",
  x25519: "1.3.101.110",
  ed25519: "1.3.101.112",
  rsa: "1.2.840.113549.1.1.1",
} as const;

const CONVERT = "convert it: openssl pkey -in FILE -out NEW.pem";

/** What other labels mean, for people who hold the wrong file. */
const OTHER_LABELS: { readonly [label: string]: readonly [why: string, hint: string] } = {
  "ENCRYPTED PRIVATE KEY": [
    "encrypted PEM is not supported yet",
    `decrypt it first: openssl pkey -in FILE -out NEW.pem`,
  ],
  "EC PRIVATE KEY": ["it is SEC 1, not PKCS#8", CONVERT],
  "EC PARAMETERS": ["it is SEC 1, not PKCS#8", CONVERT],
  "RSA PRIVATE KEY": ["it is PKCS#1, not PKCS#8", CONVERT],
  "OPENSSH PRIVATE KEY": ["it is OpenSSH's own format", "convert a copy: ssh-keygen -p -m PKCS8 -f COPY"],
  "PUBLIC KEY": ["it is a public key", "import the private key"],
  "RSA PUBLIC KEY": ["it is a public key", "import the private key"],
  CERTIFICATE: ["it is a certificate", "import the private key"],
};

function readBlock(file: Uint8Array): Uint8Array {
  if (file.length > MAX_FILE_BYTES) throw unreadable("pem", `it has more than ${MAX_FILE_BYTES} bytes`);
  const text = (utf8Text(file) ?? "").trim();
  const label = /^-----BEGIN ([A-Z0-9 ]{1,64})-----\r?\n/.exec(text)?.[1];
  if (label === undefined) throw unreadable("pem", "it does not start with a BEGIN line");
  const other = Object.hasOwn(OTHER_LABELS, label) ? OTHER_LABELS[label] : undefined;
  if (other) throw unreadable("pem", other[0], other[1]);
  if (label !== "PRIVATE KEY") throw unreadable("pem", "it is not a private key");
  if (text.split("-----BEGIN ").length > 2) throw unreadable("pem", "it holds several blocks", "split the file");
  const body = /^-----BEGIN PRIVATE KEY-----\r?\n([A-Za-z0-9+/=\r\n]*)\r?\n-----END PRIVATE KEY-----$/.exec(text)?.[1];
  if (body === undefined) throw unreadable("pem", "its END line is missing, or something stands beside the key");
  const digits = body.trimEnd().replace(/\r?\n/g, "");
  if (digits.length % 4 !== 0) throw unreadable("pem", "its base64 is cut off");
  return decodeBase64("pem", digits);
}

interface ReadKey {
  readonly type: SecretType;
  readonly value: Uint8Array;
  readonly lost: ReadResult["lost"];
}

function readPkcs8(der: Uint8Array): ReadKey {
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
      const value = pkcs8(info.privateKeyAlgorithm, inner);
      asFileFault(() => rsaPublicKey(value));
      return { type: "rsa", value, lost };
    }
    default:
      throw unreadable("pem", "its algorithm is none of P-256, secp256k1, Ed25519, X25519 and RSA");
  }
}

/** Parses one structure and insists that writing it gives the same bytes: DER, and nothing behind it. */
function strictDer<T>(der: Uint8Array, schema: new () => T): T {
  try {
    const value = AsnConvert.parse(der, schema);
    if (equalBytes(new Uint8Array(AsnConvert.serialize(value)), der)) return value;
  } catch {
    // the library's errors are untyped: falls through to the one error
  }
  throw unreadable("pem", "it is not one private key structure in DER");
}

type EcType = "p256" | "secp256k1";

function curveParameters(type: EcType): ArrayBuffer {
  return AsnConvert.serialize(new ECParameters({ namedCurve: type === "p256" ? id_secp256r1 : OID.secp256k1 }));
}

function curveOf(parameters: ArrayBuffer | null | undefined): EcType {
  const given = new Uint8Array(parameters ?? new ArrayBuffer(0));
  for (const type of ["p256", "secp256k1"] as const) {
    if (equalBytes(given, new Uint8Array(curveParameters(type)))) return type;
  }
  throw unreadable("pem", "its curve is neither P-256 nor secp256k1");
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
  const long = type === "p256" || type === "secp256k1" ? uncompressed(type, value) : short;
  if (![short, long].some((key) => key !== null && equalBytes(key, stated))) {
    throw unreadable("pem", "its private and public parts contradict each other");
  }
  return value;
}

function uncompressed(type: EcType, value: Uint8Array): Uint8Array {
  return (type === "p256" ? p256 : secp256k1).getPublicKey(value, false);
}

function asFileFault<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw unreadable("pem", error.why ?? error.message);
  }
}

function writePkcs8(type: SecretType, value: Uint8Array): Uint8Array {
  switch (type) {
    case "p256":
    case "secp256k1": {
      const key = new ECPrivateKey({
        version: 1,
        privateKey: new OctetString(value),
        publicKey: uncompressed(type, value).slice().buffer,
      });
      const algorithm = new AlgorithmIdentifier({ algorithm: id_ecPublicKey, parameters: curveParameters(type) });
      return pkcs8(algorithm, new Uint8Array(AsnConvert.serialize(key)));
    }
    case "ed25519":
    case "x25519":
      return pkcs8(new AlgorithmIdentifier({ algorithm: OID[type] }), concat(Uint8Array.of(0x04, 32), value));
    default:
      throw new Fault("bad_input", `cannot write type "${type}" as pem`, { hint: "use --to json" });
  }
}

function pkcs8(algorithm: AlgorithmIdentifier, inner: Uint8Array): Uint8Array {
  const info = new OneAsymmetricKey();
  info.privateKeyAlgorithm = algorithm;
  info.privateKey = inner.slice().buffer;
  return new Uint8Array(AsnConvert.serialize(info));
}
