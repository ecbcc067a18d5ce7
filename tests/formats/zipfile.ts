import { crc32, deflateRawSync } from "node:zlib";

/** One file of an archive; what is left out follows from the bytes. */
export interface ZipEntry {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly stored?: boolean;
  readonly flags?: number;
  readonly method?: number;
  /** Lies in the directory. */
  readonly crc?: number;
  readonly size?: number;
  readonly packed?: number;
  readonly offset?: number;
}

/** A zip archive (APPNOTE.TXT §4.3), with every lie that is asked for. */
export function zipOf(
  entries: readonly ZipEntry[],
  end: { count?: number; start?: number; size?: number } = {},
): Uint8Array {
  const locals: Buffer[] = [];
  const central: Buffer[] = [];
  let at = 0;
  for (const entry of entries) {
    const data = entry.stored ? Buffer.from(entry.bytes) : deflateRawSync(entry.bytes);
    const name = Buffer.from(entry.name);
    const facts = Buffer.alloc(16);
    facts.writeUInt16LE(entry.method ?? (entry.stored ? 0 : 8), 0);
    facts.writeUInt32LE(0, 2);
    facts.writeUInt32LE((entry.crc ?? crc32(entry.bytes)) >>> 0, 6);
    const sizes = Buffer.alloc(8);
    sizes.writeUInt32LE(entry.packed ?? data.length, 0);
    sizes.writeUInt32LE(entry.size ?? entry.bytes.length, 4);
    const common = Buffer.concat([facts.subarray(0, 10), sizes]);
    const lengths = Buffer.alloc(4);
    lengths.writeUInt16LE(name.length, 0);
    const version = Buffer.alloc(4);
    version.writeUInt16LE(20, 0);
    version.writeUInt16LE(entry.flags ?? 0, 2);
    locals.push(Buffer.from("PK\x03\x04", "latin1"), version, common, lengths, name, data);
    const offset = Buffer.alloc(4);
    offset.writeUInt32LE(entry.offset ?? at, 0);
    const made = Buffer.from([20, 0]);
    central.push(Buffer.from("PK\x01\x02", "latin1"), made, version, common, lengths, Buffer.alloc(10), offset, name);
    at += 30 + name.length + data.length;
  }
  const directory = Buffer.concat(central);
  const tail = Buffer.alloc(22);
  tail.write("PK\x05\x06", 0, "latin1");
  tail.writeUInt16LE(end.count ?? entries.length, 8);
  tail.writeUInt16LE(end.count ?? entries.length, 10);
  tail.writeUInt32LE(end.size ?? directory.length, 12);
  tail.writeUInt32LE(end.start ?? at, 16);
  return new Uint8Array(Buffer.concat([...locals, directory, tail]));
}
