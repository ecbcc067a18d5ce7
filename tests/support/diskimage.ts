import type { Seeded } from "./seeded.ts";
import type { DiskStep } from "./strace.ts";

const SECTOR = 512;
const PAGE = 4_096;

type Change =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly size: number };

interface File {
  bytes: Uint8Array;
  size: number;
  /** Since the last sync: any of it may be on the disk, or not. */
  pending: Change[];
}

type NameChange = { readonly put?: readonly [string, number]; readonly gone?: string };

/**
 * A disk that loses power. Of a file everything up to its last sync is there; of what came after any part may be:
 * nothing, all, a beginning, single writes, single pages or single sectors. Names are as of the last sync of their
 * directory, with any part of what changed since. That is more than file systems do, and all that they promise.
 */
export interface Disk {
  apply(step: DiskStep): void;
  /** What a crash now may leave: files by path. */
  image(random: Seeded): Map<string, Uint8Array>;
  /** Everything said so far. */
  readonly said: readonly string[];
}

export function emptyDisk(): Disk {
  const files = new Map<number, File>();
  let names = new Map<string, number>();
  let renamed: NameChange[] = [];
  const said: string[] = [];

  const fileOf = (inode: number): File => {
    const file = files.get(inode);
    if (!file) throw new Error(`no file ${inode}`);
    return file;
  };

  return {
    said,
    apply(step) {
      switch (step.kind) {
        case "create":
          files.set(step.inode, { bytes: new Uint8Array(0), size: 0, pending: [] });
          renamed.push({ put: [step.path, step.inode] });
          break;
        case "write":
          fileOf(step.inode).pending.push({ kind: "write", offset: step.offset, bytes: step.bytes });
          break;
        case "truncate":
          fileOf(step.inode).pending.push({ kind: "truncate", size: step.size });
          break;
        case "sync": {
          const file = fileOf(step.inode);
          for (const change of file.pending) changeFile(file, change);
          file.pending = [];
          break;
        }
        case "sync-directory":
          names = named(names, renamed);
          renamed = [];
          break;
        case "link":
          renamed.push({ put: [step.to, step.inode] });
          break;
        case "rename":
          renamed.push({ put: [step.to, step.inode], gone: step.from });
          break;
        case "unlink":
          renamed.push({ gone: step.path });
          break;
        case "say":
          said.push(...step.text.split("\n").filter((line) => line !== ""));
          break;
      }
    },
    image(random) {
      const kept = named(names, subset(renamed, random));
      const out = new Map<string, Uint8Array>();
      for (const [path, inode] of kept) out.set(path, contentOf(fileOf(inode), random));
      return out;
    },
  };
}

function named(before: ReadonlyMap<string, number>, changes: readonly NameChange[]): Map<string, number> {
  const after = new Map(before);
  for (const { put, gone } of changes) {
    if (gone !== undefined) after.delete(gone);
    if (put) after.set(put[0], put[1]);
  }
  return after;
}

/** Names of a journalling file system change in order more often than not; both are tried. */
function subset<T>(all: readonly T[], random: Seeded): readonly T[] {
  if (random.chance(0.5)) return all.slice(0, random.int(all.length + 1));
  const probability = random.pick([0, 0.2, 0.5, 0.8, 1]);
  return all.filter(() => random.chance(probability));
}

function changeFile(file: Pick<File, "bytes" | "size">, change: Change): void {
  if (change.kind === "truncate") {
    grow(file, change.size);
    file.bytes.fill(0, change.size, file.size);
    file.size = change.size;
    return;
  }
  const end = change.offset + change.bytes.length;
  grow(file, end);
  file.bytes.set(change.bytes, change.offset);
  file.size = Math.max(file.size, end);
}

function grow(file: Pick<File, "bytes" | "size">, size: number): void {
  if (size <= file.bytes.length) return;
  const bytes = new Uint8Array(Math.max(size, file.bytes.length * 2, PAGE));
  bytes.set(file.bytes.subarray(0, file.size));
  file.bytes = bytes;
}

function contentOf(file: File, random: Seeded): Uint8Array {
  const copy = { bytes: file.bytes.slice(0, file.size), size: file.size };
  for (const change of survivors(file.pending, random)) changeFile(copy, change);
  return copy.bytes.subarray(0, copy.size);
}

/** A possible rest of what was never synced. */
function survivors(pending: readonly Change[], random: Seeded): readonly Change[] {
  if (pending.length === 0) return [];
  switch (random.int(6)) {
    case 0:
      return [];
    case 1:
      return pending;
    case 2: {
      // in order, and the last one torn
      const count = random.int(pending.length);
      const last = pending[count];
      return [...pending.slice(0, count), ...(last ? torn(last, SECTOR, random) : [])];
    }
    case 3: {
      const probability = random.next();
      return pending.filter(() => random.chance(probability));
    }
    case 4:
      return pending.flatMap((change) => torn(change, PAGE, random));
    default:
      return pending.flatMap((change) => torn(change, SECTOR, random));
  }
}

/** Single blocks of a write, on the disk's own boundaries. */
function torn(change: Change, block: number, random: Seeded): readonly Change[] {
  if (change.kind === "truncate") return random.chance(0.5) ? [change] : [];
  const { offset, bytes } = change;
  const probability = random.next();
  const pieces: Change[] = [];
  for (let at = 0; at < bytes.length; ) {
    const next = Math.min(bytes.length, block - ((offset + at) % block) + at);
    if (random.chance(probability))
      pieces.push({ kind: "write", offset: offset + at, bytes: bytes.subarray(at, next) });
    at = next;
  }
  return pieces;
}
