import { argon2, createDecipheriv, createHash, createHmac } from "node:crypto";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { chacha20 } from "@noble/ciphers/chacha.js";
import {
  BinaryStream,
  Consts,
  Credentials,
  Int64,
  Kdbx,
  KdbxContext,
  KdbxHeader,
  KeyEncryptorAes,
  ProtectedValue,
} from "kdbxweb";
import { concat, equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Asks } from "./foreign.ts";
import { unreadable } from "./item.ts";

const FORMAT = "kdbx";

/** What a database may ask for: KeePass's own choices with much room, and no more than this machine bears. */
const MOST = {
  memoryKib: 1_048_576,
  /** Memory in KiB times passes: about a minute. */
  work: 1 << 27,
  lanes: 64,
  aesRounds: 200_000_000,
  bytes: 256 * 1_024 * 1_024,
  /** Programs write blocks of a mebibyte. */
  blocks: 10_000,
} as const;

/** A database after its outer layer. */
export interface Opened {
  /** The XML document in UTF-8, the caller's to wipe. */
  readonly xml: Uint8Array;
  /** Attachments of version 4; those of version 3 stand in the XML. */
  readonly binaries: readonly Uint8Array[];
  /** Key of the stream that protects values, and its cipher: 2 is Salsa20, 3 ChaCha20. */
  readonly streamKey: Uint8Array;
  readonly streamCipher: number;
  /** SHA-256 of the header in base64, which the XML of version 3.1 repeats; null where the header has its own MAC. */
  readonly headerHash: string | null;
}

/**
 * Opens the outer layer of a database. The cost of key derivation is bounded before the password is asked for. A
 * password that does not fit alone is tried with each key file that `asks.identities` gives.
 *
 * @throws Fault bad_input, too_large, unsupported, wrong_password
 */
export async function openKdbx(file: Uint8Array, asks: Asks): Promise<Opened> {
  const stream = new BinaryStream(file.slice().buffer);
  const header = readHeader(stream);
  const kdf = kdfOf(header);
  const password = await asks.password();
  try {
    for await (const keyFile of keyFiles(asks)) {
      const key = await compositeKey(password, keyFile);
      const transformed = await derive(kdf, key).finally(() => wipe(key));
      try {
        const opened =
          header.versionMajor === 4 ? openFour(file, header, transformed) : openThree(file, header, transformed);
        if (opened) return opened;
      } finally {
        wipe(transformed);
      }
    }
  } finally {
    wipe(password);
  }
  throw new Fault("wrong_password", "cannot open this database: the password is wrong, or a key file is missing", {
    hint: "check the password; a key file is given with --identity FILE",
  });
}

async function* keyFiles(asks: Asks): AsyncGenerator<Uint8Array | null> {
  yield null;
  let given: readonly Uint8Array[] = [];
  try {
    given = await asks.identities();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  }
  yield* given;
}

function readHeader(stream: BinaryStream): KdbxHeader {
  const damaged = () => unreadable(FORMAT, "its header is damaged, or it is cut short");
  const view = stream.readBytesNoAdvance(0, Math.min(12, stream.byteLength));
  if (view.byteLength < 12) throw damaged();
  const major = new DataView(view).getUint16(10, true);
  if (major !== 3 && major !== 4) {
    throw new Fault("unsupported", "cannot read this file as kdbx: it is of another version than 3.1 and 4", {
      hint: "open it in KeePassXC and save it again",
    });
  }
  try {
    return KdbxHeader.read(stream, new KdbxContext({ kdbx: new Kdbx() }));
  } catch {
    throw damaged();
  }
}

type Kdf =
  | { readonly kind: "aes"; readonly seed: Uint8Array; readonly rounds: number }
  | {
      readonly kind: "argon2d" | "argon2id";
      readonly salt: Uint8Array;
      readonly memoryKib: number;
      readonly passes: number;
      readonly lanes: number;
    };

function kdfOf(header: KdbxHeader): Kdf {
  const absurd = () =>
    new Fault("too_large", "cannot read this file as kdbx: its key derivation costs more than this version allows", {
      hint: "lower it in the database's security settings in KeePassXC",
    });
  const damaged = () => unreadable(FORMAT, "its key derivation is damaged");
  if (header.versionMajor === 3) {
    const { transformSeed, keyEncryptionRounds: rounds } = header;
    if (transformSeed?.byteLength !== 32 || rounds === undefined) throw damaged();
    if (rounds > MOST.aesRounds) throw absurd();
    return { kind: "aes", seed: new Uint8Array(transformSeed), rounds };
  }
  const parameters = header.kdfParameters;
  const bytes = (key: string) => {
    const value = parameters?.get(key);
    return value instanceof ArrayBuffer ? new Uint8Array(value) : null;
  };
  const number = (key: string) => {
    const value = parameters?.get(key);
    if (value instanceof Int64) return value.hi >= 0x20_0000 ? Number.MAX_SAFE_INTEGER : value.value;
    return typeof value === "number" ? value : -1;
  };
  const id = Buffer.from(bytes("$UUID") ?? []).toString("base64");
  const salt = bytes("S");
  if (salt === null || salt.length < 8 || salt.length > 64) throw damaged();
  if (id === Consts.KdfId.Aes) {
    const rounds = number("R");
    if (rounds < 1 || salt.length !== 32) throw damaged();
    if (rounds > MOST.aesRounds) throw absurd();
    return { kind: "aes", seed: salt, rounds };
  }
  const kind = id === Consts.KdfId.Argon2d ? "argon2d" : id === Consts.KdfId.Argon2id ? "argon2id" : null;
  if (kind === null || number("V") !== 0x13 || parameters?.get("K") || parameters?.get("A")) {
    throw new Fault("unsupported", "cannot read this file as kdbx: its key derivation is of an unknown kind");
  }
  const [memory, passes, lanes] = [number("M"), number("I"), number("P")];
  const memoryKib = memory / 1_024;
  if (!Number.isInteger(memoryKib) || passes < 1 || lanes < 1 || memoryKib < 8 * lanes) throw damaged();
  if (memoryKib > MOST.memoryKib || lanes > MOST.lanes || memoryKib * passes > MOST.work) throw absurd();
  return { kind, salt, memoryKib, passes, lanes };
}

async function compositeKey(password: Uint8Array, keyFile: Uint8Array | null): Promise<Uint8Array> {
  // hashed at once, so that the copy that kdbxweb keeps is masked
  const credentials = new Credentials(ProtectedValue.fromBinary(password.slice().buffer), keyFile);
  return new Uint8Array(await credentials.getHash());
}

async function derive(kdf: Kdf, key: Uint8Array): Promise<Uint8Array> {
  if (kdf.kind === "aes") {
    const encrypted = await KeyEncryptorAes.encrypt(key, kdf.seed, kdf.rounds);
    return createHash("sha256").update(encrypted).digest();
  }
  const { kind, salt, memoryKib, passes, lanes } = kdf;
  const given = { message: key, nonce: salt, parallelism: lanes, tagLength: 32, memory: memoryKib, passes };
  return promisify((done: (error: Error | null, key: Buffer) => void) => argon2(kind, given, done))();
}

const sha = (algorithm: "sha256" | "sha512", ...parts: readonly Uint8Array[]): Uint8Array => {
  const hash = createHash(algorithm);
  for (const part of parts) hash.update(part);
  return hash.digest();
};

const damagedContent = () => unreadable(FORMAT, "it is damaged, or cut short");

function needed(buffer: ArrayBuffer | undefined, size?: number): Uint8Array {
  if (buffer === undefined || (size !== undefined && buffer.byteLength !== size)) {
    throw unreadable(FORMAT, "its header is damaged, or it is cut short");
  }
  return new Uint8Array(buffer);
}

/** Version 4: null when the header's HMAC shows another key. */
function openFour(file: Uint8Array, header: KdbxHeader, transformed: Uint8Array): Opened | null {
  const end = header.endPos ?? 0;
  const head = file.subarray(0, end);
  if (file.length < end + 64) throw damagedContent();
  if (!equalBytes(sha("sha256", head), file.subarray(end, end + 32))) {
    throw unreadable(FORMAT, "its header is damaged");
  }
  const masterSeed = needed(header.masterSeed, 32);
  const hmacKey = sha("sha512", masterSeed, transformed, Uint8Array.of(1));
  const cipherKey = sha("sha256", masterSeed, transformed);
  try {
    const mac = createHmac("sha256", blockKey(hmacKey, 0xffff_ffff_ffff_ffffn)).update(head).digest();
    if (!equalBytes(mac, file.subarray(end + 32, end + 64))) return null;
    const encrypted = hmacBlocks(file.subarray(end + 64), hmacKey);
    return innerHeader(unpacked(header, unpadded(header, decrypted(header, cipherKey, encrypted))));
  } finally {
    wipe(hmacKey, cipherKey);
  }
}

function blockKey(hmacKey: Uint8Array, index: bigint): Uint8Array {
  const counter = new Uint8Array(8);
  new DataView(counter.buffer).setBigUint64(0, index, true);
  return sha("sha512", counter, hmacKey);
}

/** The blocks after the header, each with an HMAC of its own; an empty one ends them. */
function hmacBlocks(data: Uint8Array, hmacKey: Uint8Array): Uint8Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const blocks: Uint8Array[] = [];
  for (let at = 0, index = 0n; ; index++) {
    if (at + 36 > data.length) throw damagedContent();
    const size = view.getUint32(at + 32, true);
    const block = data.subarray(at + 36, at + 36 + size);
    const frame = new Uint8Array(12);
    const frameView = new DataView(frame.buffer);
    frameView.setBigUint64(0, index, true);
    frameView.setUint32(8, size, true);
    const mac = createHmac("sha256", blockKey(hmacKey, index)).update(frame).update(block).digest();
    if (block.length !== size || !equalBytes(mac, data.subarray(at, at + 32))) throw damagedContent();
    if (size === 0) return concat(...blocks);
    if (blocks.push(block) > MOST.blocks) throw damagedContent();
    at += 36 + size;
  }
}

/** Version 3: the first bytes of the content show whether the key fits. Its last block ends before the padding. */
function openThree(file: Uint8Array, header: KdbxHeader, transformed: Uint8Array): Opened | null {
  const masterKey = sha("sha256", needed(header.masterSeed, 32), transformed);
  try {
    const start = needed(header.streamStartBytes, 32);
    const content = decrypted(header, masterKey, file.subarray(header.endPos ?? 0));
    if (content.length < 32 || !equalBytes(content.subarray(0, 32), start)) return null;
    const xml = unpacked(header, hashedBlocks(content.subarray(32)));
    const headerHash = Buffer.from(sha("sha256", file.subarray(0, header.endPos ?? 0))).toString("base64");
    const streamCipher = header.crsAlgorithm ?? 0;
    return { xml, binaries: [], streamKey: needed(header.protectedStreamKey), streamCipher, headerHash };
  } finally {
    wipe(masterKey);
  }
}

function hashedBlocks(data: Uint8Array): Uint8Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const blocks: Uint8Array[] = [];
  for (let at = 0; ; ) {
    if (at + 40 > data.length) throw damagedContent();
    const size = view.getUint32(at + 36, true);
    if (size === 0) return concat(...blocks);
    const block = data.subarray(at + 40, at + 40 + size);
    if (block.length !== size || !equalBytes(sha("sha256", block), data.subarray(at + 4, at + 36)))
      throw damagedContent();
    if (blocks.push(block) > MOST.blocks) throw damagedContent();
    at += 40 + size;
  }
}

function decrypted(header: KdbxHeader, key: Uint8Array, data: Uint8Array): Uint8Array {
  const cipher = header.dataCipherUuid?.toString();
  if (cipher === Consts.CipherId.ChaCha20) return chacha20(key, needed(header.encryptionIV, 12), data);
  if (cipher !== Consts.CipherId.Aes) {
    throw new Fault(
      "unsupported",
      "cannot read this file as kdbx: it is encrypted with another cipher than AES and ChaCha20",
      {
        hint: "choose AES-256 in the database's security settings in KeePassXC",
      },
    );
  }
  if (data.length === 0 || data.length % 16 !== 0) throw damagedContent();
  const decipher = createDecipheriv("aes-256-cbc", key, needed(header.encryptionIV, 16)).setAutoPadding(false);
  return concat(decipher.update(data), decipher.final());
}

/** Without the padding of PKCS #7, which AES alone has. */
function unpadded(header: KdbxHeader, data: Uint8Array): Uint8Array {
  if (header.dataCipherUuid?.toString() !== Consts.CipherId.Aes) return data;
  const count = data.at(-1) ?? 0;
  if (count < 1 || count > 16 || data.subarray(-count).some((byte) => byte !== count)) throw damagedContent();
  return data.subarray(0, data.length - count);
}

function unpacked(header: KdbxHeader, data: Uint8Array): Uint8Array {
  if (header.compression !== Consts.CompressionAlgorithm.GZip) return data;
  try {
    return new Uint8Array(gunzipSync(data, { maxOutputLength: MOST.bytes }));
  } catch (error) {
    if (
      error instanceof RangeError ||
      (error instanceof Error && "code" in error && error.code === "ERR_BUFFER_TOO_LARGE")
    ) {
      throw new Fault("too_large", `cannot read this file as kdbx: it unpacks to more than ${MOST.bytes} bytes`);
    }
    throw damagedContent();
  } finally {
    wipe(data);
  }
}

/** The inner header of version 4: stream cipher, its key, and the attachments. */
function innerHeader(data: Uint8Array): Opened {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const binaries: Uint8Array[] = [];
  let streamKey: Uint8Array = new Uint8Array();
  let streamCipher = 0;
  for (let at = 0; ; ) {
    if (at + 5 > data.length) throw damagedContent();
    const id = data[at];
    const size = view.getUint32(at + 1, true);
    const field = data.subarray(at + 5, at + 5 + size);
    if (field.length !== size || binaries.length > 100_000) throw damagedContent();
    at += 5 + size;
    if (id === 0) return { xml: data.subarray(at), binaries, streamKey, streamCipher, headerHash: null };
    if (id === 1 && size === 4) streamCipher = view.getUint32(at - 4, true);
    else if (id === 2) streamKey = field;
    else if (id === 3 && size > 0) binaries.push(field.subarray(1));
    else throw damagedContent();
  }
}
