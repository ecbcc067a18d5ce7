import { createCipheriv, createDecipheriv } from "node:crypto";
import { AsnConvert, AsnProp, AsnPropTypes, AsnType, AsnTypeTypes, OctetString } from "@peculiar/asn1-schema";
import { AlgorithmIdentifier } from "@peculiar/asn1-x509";
import { wipe } from "../crypto/bytes.ts";
import { type Pbkdf2Hash, pbkdf2Key, scryptKey } from "../crypto/passwordkey.ts";
import { Fault } from "../errors.ts";
import { unreadable } from "./item.ts";
import { strictDer } from "./pkcs8.ts";

/** Iterations of PBKDF2-HMAC-SHA256 that are written. */
const PBKDF2_ITERATIONS = 600_000;
/** Most that is done for a file that somebody else wrote: seconds, and 512 MiB. */
const MOST = { iterations: 10_000_000, scryptBytes: 512 * 1_024 * 1_024, scryptLanes: 16 };

/** PBES2 (RFC 8018 §A.4): key derivation and cipher. */
class Pbes2Parameters {
  kdf = new AlgorithmIdentifier();
  cipher = new AlgorithmIdentifier();
}

class Pbkdf2Parameters {
  salt = new OctetString();
  iterations = 0;
  keyLength?: number;
  prf?: AlgorithmIdentifier;
}

/** RFC 7914 §7. */
class ScryptParameters {
  salt = new OctetString();
  n = 0;
  r = 0;
  p = 0;
  keyLength?: number;
}

/** RFC 5958 §3. */
class EncryptedPrivateKeyInfo {
  algorithm = new AlgorithmIdentifier();
  data = new OctetString();
}

type Member = readonly [name: string, type: Parameters<typeof AsnProp>[0]["type"], optional?: "optional"];

function sequence(schema: new () => object, ...members: readonly Member[]): void {
  AsnType({ type: AsnTypeTypes.Sequence })(schema);
  for (const [name, type, optional] of members) AsnProp({ type, optional: !!optional })(schema.prototype, name);
}

sequence(Pbes2Parameters, ["kdf", AlgorithmIdentifier], ["cipher", AlgorithmIdentifier]);
sequence(
  Pbkdf2Parameters,
  ["salt", OctetString],
  ["iterations", AsnPropTypes.Integer],
  ["keyLength", AsnPropTypes.Integer, "optional"],
  ["prf", AlgorithmIdentifier, "optional"],
);
sequence(
  ScryptParameters,
  ["salt", OctetString],
  ["n", AsnPropTypes.Integer],
  ["r", AsnPropTypes.Integer],
  ["p", AsnPropTypes.Integer],
  ["keyLength", AsnPropTypes.Integer, "optional"],
);
sequence(EncryptedPrivateKeyInfo, ["algorithm", AlgorithmIdentifier], ["data", OctetString]);

const PBES2 = "1.2.840.113549.1.5.13";
const PBKDF2 = "1.2.840.113549.1.5.12";
const SCRYPT = "1.3.6.1.4.1.11591.4.11";
const HMAC_SHA256 = "1.2.840.113549.2.9";
const HMACS: Readonly<Record<string, Pbkdf2Hash>> = {
  "1.2.840.113549.2.7": "sha1",
  "1.2.840.113549.2.8": "sha224",
  [HMAC_SHA256]: "sha256",
  "1.2.840.113549.2.10": "sha384",
  "1.2.840.113549.2.11": "sha512",
};
const AES_256_CBC = "2.16.840.1.101.3.4.1.42";

type Decipher = (key: Uint8Array, iv: Uint8Array) => ReturnType<typeof createDecipheriv>;
const CIPHERS: Readonly<Record<string, readonly [keyBytes: number, Decipher]>> = {
  "2.16.840.1.101.3.4.1.2": [16, (key, iv) => createDecipheriv("aes-128-cbc", key, iv)],
  "2.16.840.1.101.3.4.1.22": [24, (key, iv) => createDecipheriv("aes-192-cbc", key, iv)],
  [AES_256_CBC]: [32, (key, iv) => createDecipheriv("aes-256-cbc", key, iv)],
};

const OLD = "openssl pkcs8 -topk8 -v2 aes-256-cbc -in FILE -out NEW.pem";

/**
 * Opens an EncryptedPrivateKeyInfo: PBES2 with PBKDF2 or scrypt and AES-CBC; older schemes and absurd costs are refused
 * before any work.
 *
 * @param password Asked for once the file is known to be readable; wiped here.
 * @returns What it holds, hopefully PKCS#8 DER: AES-CBC has no tag. The caller's to wipe.
 * @throws Fault bad_input, wrong_password
 */
export async function openPkcs8(der: Uint8Array, password: () => Promise<Uint8Array>): Promise<Uint8Array> {
  const { algorithm, data } = strictDer(der, EncryptedPrivateKeyInfo);
  if (algorithm.algorithm !== PBES2) {
    throw unreadable("pem", "it is encrypted by an older scheme than PBES2", `encrypt it anew: ${OLD}`);
  }
  const { kdf, cipher } = strictDer(bytesOf(algorithm.parameters), Pbes2Parameters);
  const [keyBytes, decipher] = (Object.hasOwn(CIPHERS, cipher.algorithm) && CIPHERS[cipher.algorithm]) || [];
  if (keyBytes === undefined || decipher === undefined) {
    throw unreadable(
      "pem",
      "its cipher is none of AES-128, AES-192 and AES-256 in CBC mode",
      `encrypt it anew: ${OLD}`,
    );
  }
  const iv = ivOf(cipher.parameters);
  const derive = derivation(kdf, keyBytes);
  const secret = await password();
  let key: Uint8Array | undefined;
  try {
    key = await derive(secret);
    const opened = decipher(key, iv);
    const [first, last] = [opened.update(bytesOf(data.buffer)), finalOf(opened)];
    try {
      return new Uint8Array([...first, ...last]);
    } finally {
      wipe(first, last);
    }
  } finally {
    wipe(secret, key);
  }
}

function finalOf(opened: ReturnType<typeof createDecipheriv>): Uint8Array {
  try {
    return opened.final();
  } catch {
    throw wrongPassword();
  }
}

/** What one sees where the password was another one: CBC cannot tell it from damage. */
export function wrongPassword(): Fault {
  return new Fault("wrong_password", "cannot open the key file: the password is another one, or the file was changed");
}

/** The work that turns the password into the key, once it is known to be bearable. */
function derivation(
  { algorithm, parameters }: AlgorithmIdentifier,
  keyBytes: number,
): (password: Uint8Array) => Promise<Uint8Array> {
  if (algorithm === PBKDF2) {
    const { salt, iterations, keyLength, prf } = strictDer(bytesOf(parameters), Pbkdf2Parameters);
    const name = prf?.algorithm ?? "1.2.840.113549.2.7";
    const hash = Object.hasOwn(HMACS, name) ? HMACS[name] : undefined;
    if (hash === undefined) throw unreadable("pem", "its key derivation uses an unknown hash");
    if (!isCost(iterations, MOST.iterations)) {
      throw unreadable("pem", `its key derivation asks for more than ${MOST.iterations} iterations, or for none`);
    }
    checkLengths(salt, keyLength, keyBytes);
    return (password) => pbkdf2Key(password, bytesOf(salt.buffer), iterations, hash, keyBytes);
  }
  if (algorithm === SCRYPT) {
    const { salt, n, r, p, keyLength } = strictDer(bytesOf(parameters), ScryptParameters);
    const bearable = isCost(n, 2 ** 24) && isCost(r, 2 ** 16) && isCost(p, MOST.scryptLanes);
    if (!bearable || n < 2 || (n & (n - 1)) !== 0 || 128 * n * r > MOST.scryptBytes) {
      throw unreadable("pem", "its key derivation asks for more than 512 MiB of memory, or is malformed");
    }
    checkLengths(salt, keyLength, keyBytes);
    return (password) => scryptKey(password, bytesOf(salt.buffer), { n, r, p }, keyBytes);
  }
  throw unreadable("pem", "its key derivation is neither PBKDF2 nor scrypt");
}

const isCost = (value: unknown, most: number): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 1 && value <= most;

function checkLengths(salt: OctetString, keyLength: number | undefined, keyBytes: number): void {
  const { byteLength } = salt.buffer;
  if (byteLength < 1 || byteLength > 1_024) throw unreadable("pem", "its salt has no usable size");
  if (keyLength !== undefined && keyLength !== keyBytes)
    throw unreadable("pem", "its key length contradicts its cipher");
}

function ivOf(parameters: ArrayBuffer | null | undefined): Uint8Array {
  const iv = strictDer(bytesOf(parameters), OctetString);
  if (iv.buffer.byteLength !== 16) throw unreadable("pem", "its initialisation vector is malformed");
  return bytesOf(iv.buffer);
}

const bytesOf = (buffer: ArrayBuffer | null | undefined): Uint8Array => new Uint8Array(buffer ?? new ArrayBuffer(0));

/**
 * Encrypts PKCS#8 DER: PBES2 with PBKDF2-HMAC-SHA256, 600,000 iterations, and AES-256-CBC, which every OpenSSL reads.
 *
 * @param password Not retained.
 */
export async function sealPkcs8(der: Uint8Array, password: Uint8Array): Promise<Uint8Array> {
  const [salt, iv] = [crypto.getRandomValues(new Uint8Array(16)), crypto.getRandomValues(new Uint8Array(16))];
  const key = await pbkdf2Key(password, salt, PBKDF2_ITERATIONS, "sha256", 32);
  try {
    const cipher = createCipheriv("aes-256-cbc", key, iv);
    const parameters = Object.assign(new Pbkdf2Parameters(), {
      salt: new OctetString(salt),
      iterations: PBKDF2_ITERATIONS,
      prf: new AlgorithmIdentifier({ algorithm: HMAC_SHA256, parameters: Uint8Array.of(5, 0).buffer }),
    });
    const pbes2 = Object.assign(new Pbes2Parameters(), {
      kdf: new AlgorithmIdentifier({ algorithm: PBKDF2, parameters: AsnConvert.serialize(parameters) }),
      cipher: new AlgorithmIdentifier({
        algorithm: AES_256_CBC,
        parameters: AsnConvert.serialize(new OctetString(iv)),
      }),
    });
    const sealed = Object.assign(new EncryptedPrivateKeyInfo(), {
      algorithm: new AlgorithmIdentifier({ algorithm: PBES2, parameters: AsnConvert.serialize(pbes2) }),
      data: new OctetString(Buffer.concat([cipher.update(der), cipher.final()])),
    });
    return new Uint8Array(AsnConvert.serialize(sealed));
  } finally {
    wipe(key);
  }
}
