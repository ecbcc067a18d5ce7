import { crc32, inflateRawSync } from "node:zlib";
import { Fault } from "../errors.ts";
import { unreadable } from "./item.ts";

/** What an archive may hold at most, stated and inflated. */
const MOST = { entries: 20_000, name: 1_024, bytes: 256 * 1_024 * 1_024 } as const;

interface Entry {
  readonly method: number;
  readonly crc: number;
  readonly packed: number;
  readonly size: number;
  readonly offset: number;
}

/** The files of a zip archive; nothing of it is ever written to a path. */
export interface Zip {
  readonly names: readonly string[];
  /** Size that a file is said to have, or null where there is none of that name. */
  size(name: string): number | null;
  /** A file's bytes, the caller's to wipe. @throws Fault bad_input */
  file(name: string): Uint8Array;
}

/**
 * Reads the directory of a zip archive (APPNOTE.TXT §4.3), without inflating anything: names are unique, files do not
 * overlap, sizes are bounded. Encrypted, split and ZIP64 archives are refused.
 *
 * @throws Fault bad_input, too_large
 */
export function openZip(format: string, archive: Uint8Array): Zip {
  const view = new DataView(archive.buffer, archive.byteOffset, archive.byteLength);
  const entries = directory(format, archive, view);
  return {
    names: [...entries.keys()],
    size: (name) => entries.get(name)?.size ?? null,
    file: (name) => {
      const entry = entries.get(name);
      if (!entry) throw unreadable(format, "a file is missing in it");
      return inflate(format, archive, view, entry);
    },
  };
}

const END = 0x06054b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;

function directory(format: string, archive: Uint8Array, view: DataView): ReadonlyMap<string, Entry> {
  const damaged = (why = "its directory is damaged, or it is cut short") => unreadable(format, why);
  const end = endOf(archive, view);
  if (end < 0) throw damaged();
  const count = view.getUint16(end + 10, true);
  const size = view.getUint32(end + 12, true);
  const start = view.getUint32(end + 16, true);
  if (count === 0xffff || size === 0xffffffff || start === 0xffffffff) throw damaged("it is a ZIP64 archive");
  const isWhole = view.getUint32(end + 4, true) === 0 && view.getUint16(end + 8, true) === count;
  if (!isWhole || start + size !== end) throw damaged();
  if (count > MOST.entries) {
    throw new Fault("too_large", `cannot read this file as ${format}: it holds more than ${MOST.entries} files`);
  }
  const entries = new Map<string, Entry>();
  const spans: { from: number; to: number }[] = [];
  let total = 0;
  let at = start;
  for (let i = 0; i < count; i++) {
    if (at + 46 > end || view.getUint32(at, true) !== CENTRAL) throw damaged();
    const nameLength = view.getUint16(at + 28, true);
    const next = at + 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    if (next > end || nameLength > MOST.name) throw damaged();
    if ((view.getUint16(at + 8, true) & 1) !== 0) throw damaged("it is an encrypted archive");
    const entry: Entry = {
      method: view.getUint16(at + 10, true),
      crc: view.getUint32(at + 16, true),
      packed: view.getUint32(at + 20, true),
      size: view.getUint32(at + 24, true),
      offset: view.getUint32(at + 42, true),
    };
    const name = new TextDecoder().decode(archive.subarray(at + 46, at + 46 + nameLength));
    if (entries.has(name)) throw damaged("two of its files have the same name");
    total += entry.size;
    if (total > MOST.bytes) {
      throw new Fault("too_large", `cannot read this file as ${format}: it unpacks to more than ${MOST.bytes} bytes`);
    }
    const to = entry.offset + 30 + nameLength + entry.packed;
    if (to > start) throw damaged();
    spans.push({ from: entry.offset, to });
    entries.set(name, entry);
    at = next;
  }
  if (at !== end) throw damaged();
  spans.sort((a, b) => a.from - b.from);
  if (spans.some(({ from }, i) => i > 0 && from < (spans[i - 1]?.to ?? 0))) throw damaged("its files overlap");
  return entries;
}

/** Where the end record stands: a comment of at most 65,535 bytes follows it. */
function endOf(archive: Uint8Array, view: DataView): number {
  for (let at = archive.length - 22; at >= 0 && at >= archive.length - 22 - 0xffff; at--) {
    if (view.getUint32(at, true) === END && at + 22 + view.getUint16(at + 20, true) === archive.length) return at;
  }
  return -1;
}

function inflate(format: string, archive: Uint8Array, view: DataView, entry: Entry): Uint8Array {
  const { offset, packed, size, method, crc } = entry;
  const damaged = () => unreadable(format, "a file in it is damaged");
  if (offset + 30 > archive.length || view.getUint32(offset, true) !== LOCAL) throw damaged();
  const from = offset + 30 + view.getUint16(offset + 26, true) + view.getUint16(offset + 28, true);
  if (from + packed > archive.length) throw damaged();
  const data = archive.subarray(from, from + packed);
  let bytes: Uint8Array;
  try {
    if (method === 0) bytes = data.slice();
    else if (method === 8 && size === 0) bytes = new Uint8Array();
    else if (method === 8) bytes = new Uint8Array(inflateRawSync(data, { maxOutputLength: size }));
    else throw damaged();
  } catch {
    throw damaged();
  }
  if (bytes.length !== size || crc32(bytes) !== crc) throw damaged();
  return bytes;
}
