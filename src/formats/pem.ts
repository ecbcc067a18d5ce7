import { wipe } from "../crypto/bytes.ts";
import { decodeBase64 } from "./base64.ts";
import type { ForeignFormat } from "./foreign.ts";
import { type Format, onlyItem, type ReadResult, singleName, unreadable, utf8Bytes, utf8Text } from "./item.ts";
import { type DerKey, PKCS8_TYPES, readPkcs1, readPkcs8, readSec1, writePkcs8 } from "./pkcs8.ts";
import { sniffPem } from "./sniff.ts";

const FACTS = { name: "pem", kind: "single", binary: false, types: PKCS8_TYPES, keeps: ["type"] } as const;

/** One unencrypted private key in PEM (RFC 7468): PKCS#8, and for reading SEC 1 and PKCS#1. */
export const clearPem: Format = {
  ...FACTS,
  sniff: sniffPem,
  read: (file, options) => {
    const { label, der } = readBlock(file);
    try {
      if (label === "ENCRYPTED PRIVATE KEY") throw unreadable("pem", "it is encrypted");
      return named(options.name, readers[label](der));
    } finally {
      wipe(der);
    }
  },
  write: (items) => {
    const { type, value } = onlyItem(FACTS, items);
    const der = writePkcs8(type, value);
    try {
      return block("PRIVATE KEY", der);
    } finally {
      wipe(der);
    }
  },
};

/** {@link clearPem}, which also reads encrypted PKCS#8. */
export const pem: ForeignFormat = {
  ...FACTS,
  encrypted: false,
  sniff: sniffPem,
  read: async (file, { name, asks }) => {
    if (typeof file === "string") throw unreadable("pem", "it is a directory");
    const { label, der } = readBlock(file);
    if (label !== "ENCRYPTED PRIVATE KEY") {
      wipe(der);
      return clearPem.read(file, { name });
    }
    const { openPkcs8, wrongPassword } = await import("./pbes2.ts");
    const opened = await openPkcs8(der, asks.password);
    try {
      // an outermost SEQUENCE of the right length is nothing that a wrong password gives by chance
      if (opened[0] !== 0x30 || !fillsAll(opened)) throw wrongPassword();
      return named(name, readPkcs8(opened));
    } finally {
      wipe(opened);
    }
  },
  write: async (items) => ({ file: clearPem.write(items), lost: [] }),
};

/** {@link pem}, written as encrypted PKCS#8. */
export const pemProtected: ForeignFormat = {
  ...pem,
  encrypted: true,
  write: async (items, { asks }) => {
    const { type, value } = onlyItem(FACTS, items);
    const der = writePkcs8(type, value);
    const password = await asks.password();
    try {
      const { sealPkcs8 } = await import("./pbes2.ts");
      return { file: block("ENCRYPTED PRIVATE KEY", await sealPkcs8(der, password)), lost: [] };
    } finally {
      wipe(der, password);
    }
  },
};

/** The longest file that a key of 8,192 bits needs, with room to spare. */
const MAX_FILE_BYTES = 16_384;

const readers = {
  "PRIVATE KEY": readPkcs8,
  "EC PRIVATE KEY": readSec1,
  "RSA PRIVATE KEY": readPkcs1,
} as const satisfies Readonly<Record<string, (der: Uint8Array) => DerKey>>;

type Label = keyof typeof readers | "ENCRYPTED PRIVATE KEY";

/** What other labels mean, for people who hold the wrong file. */
const OTHER_LABELS: { readonly [label: string]: readonly [why: string, hint: string] } = {
  "DSA PRIVATE KEY": ["it is a DSA key, which nothing should use any more", "make a new key"],
  "OPENSSH PRIVATE KEY": ["it is OpenSSH's own format", "use --from openssh"],
  "AGE ENCRYPTED FILE": ["it is an age file", "use --from age"],
  "PUBLIC KEY": ["it is a public key", "import the private key"],
  "RSA PUBLIC KEY": ["it is a public key", "import the private key"],
  CERTIFICATE: ["it is a certificate", "import the private key"],
};

const OLD_ENCRYPTION = "encrypt it anew: openssl pkcs8 -topk8 -v2 aes-256-cbc -in FILE -out NEW.pem";

function readBlock(file: Uint8Array): { label: Label; der: Uint8Array } {
  if (file.length > MAX_FILE_BYTES) throw unreadable("pem", `it has more than ${MAX_FILE_BYTES} bytes`);
  const text = withoutParameters((utf8Text(file) ?? "").trim());
  const label = /^-----BEGIN ([A-Z0-9 ]{1,64})-----\r?\n/.exec(text)?.[1];
  if (label === undefined) throw unreadable("pem", "it does not start with a BEGIN line");
  const other = Object.hasOwn(OTHER_LABELS, label) ? OTHER_LABELS[label] : undefined;
  if (other) throw unreadable("pem", other[0], other[1]);
  if (label !== "ENCRYPTED PRIVATE KEY" && !isLabel(label)) throw unreadable("pem", "it is not a private key");
  if (text.split("-----BEGIN ").length > 2) throw unreadable("pem", "it holds several blocks", "split the file");
  if (/\nProc-Type: *4,ENCRYPTED\r?\n/.test(text)) {
    throw unreadable("pem", "it is encrypted by OpenSSL's old scheme, which is weak", OLD_ENCRYPTION);
  }
  const body = new RegExp(`^-----BEGIN ${label}-----\\r?\\n([^-]*)\\r?\\n-----END ${label}-----$`).exec(text)?.[1];
  if (body === undefined || !/^[A-Za-z0-9+/=\r\n]*$/.test(body)) {
    throw unreadable("pem", "its END line is missing, or something stands beside the key");
  }
  const digits = body.trimEnd().replace(/\r?\n/g, "");
  if (digits.length % 4 !== 0) throw unreadable("pem", "its base64 is cut off");
  return { label, der: decodeBase64("pem", digits) };
}

const isLabel = (label: string): label is keyof typeof readers => Object.hasOwn(readers, label);

/** `openssl ecparam -genkey` puts the curve's name before the key, which names it again. */
const withoutParameters = (text: string): string =>
  text.replace(
    /^-----BEGIN EC PARAMETERS-----\r?\n[A-Za-z0-9+/=\r\n]{1,64}-----END EC PARAMETERS-----\s+(?=-----BEGIN EC PRIVATE KEY-----)/,
    "",
  );

function named(given: string | null, { type, value, lost }: DerKey): ReadResult {
  try {
    const name = singleName("pem", given);
    return { items: [{ name, type, value, tags: [], createdAt: null }], lost };
  } catch (error) {
    wipe(value);
    throw error;
  }
}

/** True where the length of the outermost DER structure is that of the whole. */
function fillsAll(der: Uint8Array): boolean {
  const [, first = 0] = der;
  if (first < 0x80) return der.length === 2 + first;
  const count = first & 0x7f;
  if (count < 1 || count > 3) return false;
  const length = der.subarray(2, 2 + count).reduce((sum, byte) => sum * 256 + byte, 0);
  return der.length === 2 + count + length;
}

function block(label: string, der: Uint8Array): Uint8Array {
  const lines = der.toBase64().match(/.{1,64}/g) ?? [];
  return utf8Bytes(`-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`);
}
