import {
  type Argon2Algorithm,
  argon2,
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  pbkdf2,
  randomBytes,
} from "node:crypto";
import { promisify } from "node:util";
import { concat, equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Asks } from "./foreign.ts";
import { type JsonObject, member, textIn, wholeIn } from "./foreignjson.ts";
import { unreadable, utf8Bytes } from "./item.ts";

const FORMAT = "bitwarden";

/** What Bitwarden itself lets people choose, so that a file cannot ask for more. */
const MOST = { pbkdf2: 2_000_000, passes: 10, memoryMib: 1_024, lanes: 16 } as const;

/** Bitwarden's own default for Argon2id. */
const WRITTEN = { kdfType: 1, kdfIterations: 3, kdfMemory: 64, kdfParallelism: 4 } as const;

type Kdf =
  | { readonly kind: "pbkdf2"; readonly iterations: number }
  | { readonly kind: "argon2id"; readonly passes: number; readonly memoryMib: number; readonly lanes: number };

interface Keys {
  readonly enc: Uint8Array;
  readonly mac: Uint8Array;
}

/**
 * Opens a password-protected export: KDF of the account, HKDF-Expand into two keys, AES-256-CBC with HMAC-SHA-256
 * (Bitwarden's EncString of type 2). The cost is checked before the password is asked for.
 *
 * @returns The plain export, the caller's to wipe.
 * @throws Fault bad_input, too_large, unsupported, wrong_password
 */
export async function unprotect(file: JsonObject, asks: Asks): Promise<Uint8Array> {
  const salt = textIn(FORMAT, file, "salt");
  if (salt === "" || salt.length > 1_024) throw unreadable(FORMAT, "its salt is missing or damaged");
  const kdf = kdfOf(file);
  const check = encString(textIn(FORMAT, file, "encKeyValidation_DO_NOT_EDIT"));
  const data = encString(textIn(FORMAT, file, "data"));
  const password = await asks.password();
  const keys = await deriveKeys(password, salt, kdf).finally(() => wipe(password));
  try {
    if (!authentic(check, keys)) throw new Fault("wrong_password", "cannot open this file: the password is wrong");
    if (!authentic(data, keys)) throw unreadable(FORMAT, "it is damaged");
    const decipher = createDecipheriv("aes-256-cbc", keys.enc, data.iv);
    return concat(decipher.update(data.ciphertext), decipher.final());
  } finally {
    wipe(keys.enc, keys.mac);
  }
}

/** Protects a plain export by a password, with Argon2id at Bitwarden's default cost. @throws Fault usage */
export async function protect(plain: Uint8Array, asks: Asks): Promise<Uint8Array> {
  const password = await asks.password();
  const salt = randomBytes(16).toString("base64");
  const kdf = kdfOf(WRITTEN);
  const keys = await deriveKeys(password, salt, kdf).finally(() => wipe(password));
  try {
    const file = {
      encrypted: true,
      passwordProtected: true,
      salt,
      kdfType: WRITTEN.kdfType,
      kdfIterations: WRITTEN.kdfIterations,
      kdfMemory: WRITTEN.kdfMemory,
      kdfParallelism: WRITTEN.kdfParallelism,
      encKeyValidation_DO_NOT_EDIT: sealed(utf8Bytes(crypto.randomUUID()), keys),
      data: sealed(plain, keys),
    };
    return utf8Bytes(`${JSON.stringify(file, null, 2)}\n`);
  } finally {
    wipe(keys.enc, keys.mac);
  }
}

function kdfOf(file: JsonObject): Kdf {
  const type = member(file, "kdfType");
  const iterations = bounded(file, "kdfIterations", type === 0 ? MOST.pbkdf2 : MOST.passes);
  if (type === 0) return { kind: "pbkdf2", iterations };
  if (type !== 1) {
    throw new Fault("unsupported", "cannot read this file as bitwarden: its key derivation is of a later kind");
  }
  const lanes = bounded(file, "kdfParallelism", MOST.lanes);
  const memoryMib = bounded(file, "kdfMemory", MOST.memoryMib);
  return { kind: "argon2id", passes: iterations, memoryMib, lanes };
}

function bounded(file: JsonObject, key: string, most: number): number {
  const value = wholeIn(file, key);
  if (value !== null && value >= 1 && value <= most) return value;
  throw unreadable(FORMAT, "the cost of its key derivation is missing, or more than Bitwarden allows");
}

const slowHash = promisify(pbkdf2);
const memoryHash = promisify(
  (algorithm: Argon2Algorithm, given: Parameters<typeof argon2>[1], done: (e: Error | null, key: Buffer) => void) =>
    argon2(algorithm, given, done),
);

/** Wipes everything on the way but the password. */
async function deriveKeys(password: Uint8Array, salt: string, kdf: Kdf): Promise<Keys> {
  const material =
    kdf.kind === "pbkdf2"
      ? await slowHash(password, salt, kdf.iterations, 32, "sha256")
      : await memoryHash("argon2id", {
          message: password,
          nonce: createHash("sha256").update(salt).digest(),
          parallelism: kdf.lanes,
          tagLength: 32,
          memory: kdf.memoryMib * 1_024,
          passes: kdf.passes,
        });
  try {
    // one block of HKDF-Expand (RFC 5869 §2.3): the derived key takes the place of the extracted one
    const expand = (info: string) =>
      new Uint8Array(createHmac("sha256", material).update(info).update(Uint8Array.of(1)).digest());
    return { enc: expand("enc"), mac: expand("mac") };
  } finally {
    wipe(material);
  }
}

interface EncString {
  readonly iv: Uint8Array;
  readonly ciphertext: Uint8Array;
  readonly mac: Uint8Array;
}

function encString(text: string): EncString {
  const [, kind, rest] = /^(\d{1,3})\.([\s\S]*)$/.exec(text) ?? [];
  if (kind === undefined || rest === undefined) throw unreadable(FORMAT, "its encrypted part is missing or damaged");
  if (kind !== "2") {
    throw new Fault("unsupported", "cannot read this file as bitwarden: it is encrypted in a way of a later version");
  }
  const parts = rest.split("|");
  try {
    const [iv, ciphertext, mac] = parts.map((part) => Uint8Array.fromBase64(part));
    if (parts.length === 3 && iv?.length === 16 && mac?.length === 32 && ciphertext) {
      if (ciphertext.length > 0 && ciphertext.length % 16 === 0) return { iv, ciphertext, mac };
    }
  } catch {
    // falls through to the one refusal
  }
  throw unreadable(FORMAT, "its encrypted part is damaged");
}

function tag({ iv, ciphertext }: Omit<EncString, "mac">, keys: Keys): Uint8Array {
  return createHmac("sha256", keys.mac).update(iv).update(ciphertext).digest();
}

function authentic(sealedText: EncString, keys: Keys): boolean {
  return equalBytes(tag(sealedText, keys), sealedText.mac);
}

function sealed(plain: Uint8Array, keys: Keys): string {
  const iv = randomBytes(16);
  const cipher = createCipheriv("aes-256-cbc", keys.enc, iv);
  const ciphertext = concat(cipher.update(plain), cipher.final());
  const mac = tag({ iv, ciphertext }, keys);
  return `2.${[iv, ciphertext, mac].map((part) => Buffer.from(part).toString("base64")).join("|")}`;
}
