import { argon2Sync, createCipheriv, createHash, createHmac } from "node:crypto";
import { gzipSync } from "node:zlib";
import { chacha20 } from "@noble/ciphers/chacha.js";

/** How a database is built; left out: KeePassXC's own choices at the least cost. */
export interface KdbxOptions {
  readonly password?: string;
  readonly keyFile?: Uint8Array;
  readonly cipher?: "aes" | "chacha20" | "twofish";
  readonly gzip?: boolean;
  readonly kdf?: "argon2d" | "argon2id" | "aes" | "unknown";
  /** Replaces parameters of the key derivation in the header alone: key, type and bytes. */
  readonly parameters?: readonly (readonly [key: string, type: number, bytes: Uint8Array])[];
  readonly binaries?: readonly Uint8Array[];
  readonly streamCipher?: number;
  readonly version?: number;
  /** The content after decryption, in place of the one that is made. */
  readonly content?: Uint8Array;
}

const u16 = (n: number) => new Uint8Array(Uint16Array.of(n).buffer);
export const u32 = (n: number) => new Uint8Array(Uint32Array.of(n).buffer);
export const u64 = (n: bigint) => new Uint8Array(BigUint64Array.of(n).buffer);
const sha256 = (...parts: Uint8Array[]) => createHash("sha256").update(Buffer.concat(parts)).digest();
const sha512 = (...parts: Uint8Array[]) => createHash("sha512").update(Buffer.concat(parts)).digest();

const STREAM_KEY = new Uint8Array(64).fill(9);
const SEED = new Uint8Array(32).fill(3);
const SALT = new Uint8Array(32).fill(4);

const CIPHERS = {
  aes: "31c1f2e6bf714350be5805216afc5aff",
  chacha20: "d6038a2b8b6f4cb5a524339a31dbb59a",
  twofish: "ad68f29f576f4bb9a36ad47af965346c",
};
const KDFS = {
  argon2d: "ef636ddf8c29444b91f7a9a403e30a0c",
  argon2id: "9e298b1956db4773b23dfc3ec6f0a1e6",
  aes: "c9d9f39a628a4460bf740d08c18a4fea",
  unknown: "00000000000000000000000000000000",
};

/** Masks protected values; they must be asked for in the order in which they stand in the XML. */
export function masking(): (value: string | Uint8Array) => string {
  const hash = sha512(STREAM_KEY);
  let used = 0;
  return (value) => {
    const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
    const before = new Uint8Array(used);
    const all = chacha20(hash.subarray(0, 32), hash.subarray(32, 44), Buffer.concat([before, bytes]));
    used += bytes.length;
    return Buffer.from(all.subarray(before.length)).toString("base64");
  };
}

const entry = (type: number, key: string, bytes: Uint8Array) =>
  Buffer.concat([Uint8Array.of(type), u32(key.length), Buffer.from(key), u32(bytes.length), bytes]);
const headerField = (id: number, bytes: Uint8Array) => Buffer.concat([Uint8Array.of(id), u32(bytes.length), bytes]);

/** A KDBX 4 file with that XML, made here a second time from the description of the form. */
export function kdbx4(xml: string | Uint8Array, options: KdbxOptions = {}): Uint8Array {
  const { cipher = "aes", gzip = true, kdf = "argon2d", binaries = [], parameters = [] } = options;
  const given: [string, number, Uint8Array][] = [["$UUID", 0x42, Buffer.from(KDFS[kdf], "hex")]];
  if (kdf === "aes") given.push(["R", 0x05, u64(50n)], ["S", 0x42, SALT]);
  else {
    given.push(["S", 0x42, SALT], ["P", 0x04, u32(1)], ["M", 0x05, u64(65_536n)]);
    given.push(["I", 0x05, u64(1n)], ["V", 0x04, u32(0x13)]);
  }
  const replaced = given.map((one) => parameters.find(([key]) => key === one[0]) ?? one);
  const added = parameters.filter(([key]) => !given.some((one) => one[0] === key));
  const dictionary = Buffer.concat([
    u16(0x100),
    ...[...replaced, ...added].map(([key, type, bytes]) => entry(type, key, bytes)),
    Uint8Array.of(0),
  ]);
  const iv = new Uint8Array(cipher === "chacha20" ? 12 : 16).fill(5);
  const header = Buffer.concat([
    u32(0x9aa2d903),
    u32(0xb54bfb67),
    u16(0),
    u16(options.version ?? 4),
    headerField(2, Buffer.from(CIPHERS[cipher], "hex")),
    headerField(3, u32(gzip ? 1 : 0)),
    headerField(4, SEED),
    headerField(7, iv),
    headerField(11, dictionary),
    headerField(0, Buffer.from("\r\n\r\n")),
  ]);
  const passwordHash = sha256(Buffer.from(options.password ?? "pw"));
  const composite = sha256(Buffer.concat([passwordHash, options.keyFile ?? new Uint8Array()]));
  const transformed = kdf === "aes" ? aesKdf(composite) : argon(kdf, composite);
  const hmacKey = sha512(SEED, transformed, Uint8Array.of(1));
  const blockKey = (index: bigint) => sha512(u64(index), hmacKey);
  const inner = Buffer.concat([
    headerField(1, u32(options.streamCipher ?? 3)),
    headerField(2, STREAM_KEY),
    ...binaries.map((one) => headerField(3, Buffer.concat([Uint8Array.of(0), one]))),
    headerField(0, new Uint8Array()),
    typeof xml === "string" ? Buffer.from(xml) : xml,
  ]);
  const content = options.content ?? (gzip ? gzipSync(inner) : inner);
  const key = sha256(SEED, transformed);
  const sealed = cipher === "chacha20" ? Buffer.from(chacha20(key, iv, content)) : aes(key, iv, content);
  const block = (index: bigint, data: Uint8Array) => {
    const mac = createHmac("sha256", blockKey(index)).update(u64(index)).update(u32(data.length)).update(data).digest();
    return Buffer.concat([mac, u32(data.length), data]);
  };
  const mac = createHmac("sha256", blockKey(0xffff_ffff_ffff_ffffn)).update(header).digest();
  return new Uint8Array(Buffer.concat([header, sha256(header), mac, block(0n, sealed), block(1n, new Uint8Array())]));
}

function aes(key: Uint8Array, iv: Uint8Array, data: Uint8Array): Buffer {
  const cipher = createCipheriv("aes-256-cbc", key, iv);
  return Buffer.concat([cipher.update(data), cipher.final()]);
}

function argon(kdf: "argon2d" | "argon2id" | "unknown", composite: Uint8Array): Uint8Array {
  const algorithm = kdf === "argon2id" ? "argon2id" : "argon2d";
  return argon2Sync(algorithm, {
    message: composite,
    nonce: SALT,
    parallelism: 1,
    memory: 64,
    passes: 1,
    tagLength: 32,
  });
}

function aesKdf(composite: Uint8Array): Uint8Array {
  let block = Buffer.from(composite);
  for (let i = 0; i < 50; i++) {
    const cipher = createCipheriv("aes-256-ecb", SALT, null).setAutoPadding(false);
    block = Buffer.concat([cipher.update(block), cipher.final()]);
  }
  return sha256(block);
}

/** A database of those entries in the root group; each a list of keys and values, or XML of its own. */
export function kdbxXml(entries: readonly (string | Readonly<Record<string, string>>)[], meta = ""): string {
  const all = entries.map((one, i) => {
    if (typeof one === "string") return one;
    const strings = Object.entries(one).map(([key, value]) => kdbxString(key, value));
    return `<Entry><UUID>${entryId(i)}</UUID>${strings.join("")}</Entry>`;
  });
  const group = `<Group><UUID>AAAAAAAAAAAAAAAAAAAAAQ==</UUID><Name>Root</Name>${all.join("")}</Group>`;
  return `<?xml version="1.0" encoding="UTF-8"?><KeePassFile><Meta>${meta}</Meta><Root>${group}</Root></KeePassFile>`;
}

export const entryId = (i: number) => Buffer.from([...new Uint8Array(15), i + 1]).toString("base64");
export const entryHex = (i: number) => Buffer.from(entryId(i), "base64").toString("hex").toUpperCase();

export function kdbxString(key: string, value: string): string {
  const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<String><Key>${escaped(key)}</Key><Value>${escaped(value)}</Value></String>`;
}
