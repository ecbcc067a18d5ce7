import { createHash } from "node:crypto";
import { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { checkOtpKey, type OtpKey, otpUri, parseOtpUri } from "../protocol/otp.ts";
import type { OtpAlgorithm } from "../protocol/otpalgorithm.ts";
import type { PlainItem, Written } from "./foreign.ts";
import { type Gathering, gather } from "./gathering.ts";
import { type ReadResult, unreadable, utf8Bytes, utf8Text } from "./item.ts";
import { otpLines, otpPath, otpUris } from "./otplines.ts";

const FORMAT = "otpauth-migration";

/** How many keys one code holds when we write it: such codes can still be scanned. */
const BATCH = 10;

/** Values of the enumerations of MigrationPayload; 0 is the default that old exports leave out. */
const ALGORITHMS: readonly (OtpAlgorithm | null)[] = ["SHA1", "SHA1", "SHA256", "SHA512", null];
const DIGITS: readonly number[] = [6, 6, 8];
const KINDS: readonly ("totp" | "hotp")[] = ["totp", "hotp", "totp"];

interface Batch {
  readonly keys: readonly OtpKey[];
  readonly size: number;
  readonly index: number;
  readonly id: number;
}

/** Reads the codes of one export, which must be complete. @throws Fault bad_input, too_large */
export function readMigration(source: Uint8Array | string): Promise<ReadResult> {
  const lines = otpLines(FORMAT, source);
  return gather(FORMAT, (gathering) => {
    const batches: Batch[] = [];
    try {
      for (const line of lines) batches.push(readBatch(line));
      checkComplete(batches);
      for (const { keys } of batches.sort((a, b) => a.id - b.id || a.index - b.index)) addKeys(gathering, keys);
    } finally {
      for (const { keys } of batches) wipe(...keys.map(({ secret }) => secret));
    }
  });
}

function addKeys(gathering: Gathering, keys: readonly OtpKey[]): void {
  for (const key of keys) {
    gathering.add({ path: otpPath(key.issuer, key.label), type: key.kind, value: otpUri(key) });
  }
}

/** Refuses an export of which a code is missing, or stands there twice. */
function checkComplete(batches: readonly Batch[]): void {
  for (const { id, size } of batches) {
    const same = batches.filter((one) => one.id === id);
    const indexes = new Set(same.map(({ index }) => index));
    if (same.length !== size || indexes.size !== size || same.some((one) => one.size !== size || one.index >= size)) {
      throw unreadable(
        FORMAT,
        `of the ${size} codes of one export it holds ${same.length}`,
        "put one code on each line",
      );
    }
  }
}

function readBatch(line: string): Batch {
  let payload: Uint8Array;
  try {
    const data = /^otpauth-migration:\/\/offline\/?\?(?:[^#]*&)?data=([^&#]+)/i.exec(line)?.[1] ?? "";
    const text = decodeURIComponent(data).replaceAll(" ", "+").replaceAll("-", "+").replaceAll("_", "/");
    payload = Uint8Array.fromBase64(text);
  } catch {
    throw unreadable(FORMAT, "a line is no otpauth-migration:// URI, or damaged");
  }
  try {
    return readPayload(payload);
  } finally {
    wipe(payload);
  }
}

function readPayload(payload: Uint8Array): Batch {
  const reader = new BinaryReader(payload);
  const keys: OtpKey[] = [];
  const head = { size: 1, index: 0, id: 0 };
  while (reader.pos < reader.len) {
    const [tag, wireType] = reader.tag();
    if (tag === 1 && wireType === 2) {
      const parameters = reader.bytes();
      keys.push(readKey(parameters));
    } else if (tag === 3 && wireType === 0) head.size = reader.int32();
    else if (tag === 4 && wireType === 0) head.index = reader.int32();
    else if (tag === 5 && wireType === 0) head.id = reader.int32();
    else reader.skip(wireType, tag);
  }
  if (keys.length === 0) throw unreadable(FORMAT, "a code holds no keys");
  if (head.size < 1 || head.size > 1_000 || head.index < 0) throw unreadable(FORMAT, "its number of codes is absurd");
  return { keys, ...head };
}

function readKey(parameters: Uint8Array): OtpKey {
  const reader = new BinaryReader(parameters);
  let secret: Uint8Array = new Uint8Array();
  let label = "";
  let issuer = "";
  let counter = 0;
  const numbers = { algorithm: 0, digits: 0, kind: 0 };
  while (reader.pos < reader.len) {
    const [tag, wireType] = reader.tag();
    const isText = wireType === 2;
    if (tag === 1 && isText) secret = reader.bytes().slice();
    else if (tag === 2 && isText) label = textOf(reader.bytes());
    else if (tag === 3 && isText) issuer = textOf(reader.bytes());
    else if (tag === 4 && wireType === 0) numbers.algorithm = reader.int32();
    else if (tag === 5 && wireType === 0) numbers.digits = reader.int32();
    else if (tag === 6 && wireType === 0) numbers.kind = reader.int32();
    else if (tag === 7 && wireType === 0) counter = Number(reader.int64());
    else reader.skip(wireType, tag);
  }
  const algorithm = ALGORITHMS[numbers.algorithm];
  const digits = DIGITS[numbers.digits];
  const kind = KINDS[numbers.kind];
  if (!algorithm || digits === undefined || kind === undefined) {
    throw unreadable(FORMAT, "a key is of a kind that no code is made with");
  }
  const bare = label.startsWith(`${issuer}:`) ? label.slice(issuer.length + 1).trim() : label;
  return checkOtpKey({ kind, issuer, label: bare, secret, algorithm, digits, period: 30, counter });
}

function textOf(bytes: Uint8Array): string {
  const text = utf8Text(bytes);
  if (text === null) throw unreadable(FORMAT, "a name is not text in UTF-8");
  return text;
}

/** Writes as many codes as the keys need, deterministically. @throws Fault bad_input */
export function writeMigration(items: readonly PlainItem[]): Written {
  const { uris, lost } = otpUris(FORMAT, items);
  const keys = uris.map(({ name, uri }) => writableKey(name, uri));
  try {
    const size = Math.ceil(keys.length / BATCH);
    const digest = createHash("sha256");
    for (const { uri } of uris) digest.update(uri).update("\n");
    const id = digest.digest().readUInt32BE(0) >>> 1;
    const lines = Array.from({ length: size }, (_, index) => {
      const payload = writePayload(keys.slice(index * BATCH, (index + 1) * BATCH), size, index, id);
      const data = encodeURIComponent(Buffer.from(payload).toString("base64"));
      wipe(payload);
      return `otpauth-migration://offline?data=${data}\n`;
    });
    return { file: utf8Bytes(lines.join("")), lost };
  } finally {
    wipe(...keys.map(({ secret }) => secret));
  }
}

/** The key of a URI, if the form can hold it: six or eight digits, 30 seconds. */
function writableKey(name: string, uri: string): OtpKey {
  const refused = (why: string) =>
    new Fault("bad_input", `cannot write "${name}" as ${FORMAT}: ${why}`, { hint: "use --to otpauth" });
  let key: OtpKey;
  try {
    key = parseOtpUri(uri);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw refused("its value is no otpauth:// URI");
  }
  if (key.digits !== 6 && key.digits !== 8) throw refused("the form knows codes of 6 and 8 digits alone");
  if (key.kind === "totp" && key.period !== 30) throw refused("the form knows periods of 30 seconds alone");
  return key;
}

function writePayload(keys: readonly OtpKey[], size: number, index: number, id: number): Uint8Array {
  const writer = new BinaryWriter();
  for (const key of keys) {
    writer.tag(1, 2).fork();
    writer.tag(1, 2).bytes(key.secret);
    writer.tag(2, 2).string(key.label);
    writer.tag(3, 2).string(key.issuer);
    writer.tag(4, 0).int32(ALGORITHMS.indexOf(key.algorithm, 1));
    writer.tag(5, 0).int32(key.digits === 8 ? 2 : 1);
    writer.tag(6, 0).int32(key.kind === "hotp" ? 1 : 2);
    if (key.kind === "hotp") writer.tag(7, 0).int64(BigInt(key.counter));
    writer.join();
  }
  writer.tag(2, 0).int32(1);
  writer.tag(3, 0).int32(size);
  writer.tag(4, 0).int32(index);
  writer.tag(5, 0).int32(id);
  return writer.finish();
}
