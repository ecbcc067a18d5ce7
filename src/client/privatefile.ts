import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { Fault } from "../errors.ts";

const TEMP = /\.tmp-\d+-[0-9a-f]{16}$/;

/**
 * Makes a directory (with its parents) that only this user can enter, 0700; tightens one of ours that is looser.
 *
 * @throws Fault denied when it belongs to someone else, is shared (sticky) or no directory; storage when it cannot be made.
 */
export function makePrivateDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const stat = statSync(path);
    if (!stat.isDirectory())
      throw new Fault("denied", `"${path}" is in the way: not a directory`, { hint: "move it away, then try again" });
    if (process.platform === "win32") return;
    if (stat.uid !== process.geteuid?.()) {
      throw new Fault("denied", `cannot use "${path}": it belongs to another user`, { hint: "choose another home" });
    }
    if ((stat.mode & 0o1000) !== 0) {
      throw new Fault("denied", `cannot use "${path}": it is shared by all users`, { hint: "choose another home" });
    }
    if ((stat.mode & 0o077) !== 0) chmodSync(path, 0o700);
  } catch (error) {
    throw storageFault(`cannot make the directory "${path}"`, error);
  }
}

/**
 * Reads a regular file of at most `maxBytes`, never through a symbolic link.
 *
 * @param options.loose What to do when others may read or write it: `refuse` it, or `tighten` it to 0600.
 * @returns null when there is none.
 * @throws Fault denied for a link, a special file or loose modes; corrupt when too long; storage.
 */
export function readPrivateFile(path: string, options: ReadOptions): Uint8Array | null {
  return withPrivateFile(path, options, readAll);
}

/** The first `length` bytes of such a file, or all of it, with the bytes that it has. Throws like {@link readPrivateFile}. */
export function readPrivateStart(
  path: string,
  length: number,
  options: ReadOptions,
): { readonly start: Uint8Array; readonly size: number } | null {
  return withPrivateFile(path, options, (fd, size) => ({ start: readAll(fd, Math.min(size, length)), size }));
}

interface ReadOptions {
  readonly maxBytes: number;
  readonly loose: "refuse" | "tighten";
}

function withPrivateFile<T>(path: string, options: ReadOptions, read: (fd: number, size: number) => T): T | null {
  let fd: number;
  try {
    // O_NONBLOCK: a FIFO in the way must not hang
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw storageFault(`cannot read "${path}"`, error);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile())
      throw new Fault("denied", `cannot read "${path}": it is not a regular file`, {
        hint: "move it away, then try again",
      });
    if (process.platform !== "win32" && (stat.mode & 0o077) !== 0) {
      if (options.loose === "refuse") {
        throw new Fault("denied", `cannot use "${path}": other users may read or write it`, {
          hint: `chmod 600 "${path}"`,
        });
      }
      fchmodSync(fd, 0o600);
    }
    if (stat.size > options.maxBytes) {
      throw new Fault("corrupt", `cannot read "${path}": it is too long`, { why: `${stat.size} bytes` });
    }
    return read(fd, stat.size);
  } catch (error) {
    throw storageFault(`cannot read "${path}"`, error);
  } finally {
    closeSync(fd);
  }
}

/**
 * Puts a file in place whole and durably: temporary file (0600), fsync, rename, fsync of the directory. On failure
 * the old file is untouched. The caller holds the lock that {@link sweepTemps} needs.
 *
 * @param options.previous Path at which the replaced file is kept.
 * @throws Fault denied for a link or a special file in the way, storage (disk full, permissions).
 */
export function replacePrivateFile(
  path: string,
  bytes: Uint8Array,
  options: { readonly previous?: string } = {},
): void {
  const temp = tempName(path);
  try {
    for (const target of [path, options.previous]) if (target) refuseStranger(target);
    writeNew(temp, bytes);
    if (options.previous) keepPrevious(path, options.previous);
    renameSync(temp, path);
    syncDirectory(dirname(path));
  } catch (error) {
    rmSync(temp, { force: true });
    throw storageFault(`cannot write "${path}"`, error);
  }
}

/** Removes a file durably; true when there was one. @throws Fault storage */
export function removePrivateFile(path: string): boolean {
  try {
    rmSync(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw storageFault(`cannot remove "${path}"`, error);
  }
  syncDirectory(dirname(path));
  return true;
}

/** Temporary files that killed writers left in a directory, of files whose name passes `mine`. */
export function strayTemps(directory: string, mine: (name: string) => boolean): string[] {
  try {
    return readdirSync(directory)
      .filter((entry) => TEMP.test(entry) && mine(entry.replace(TEMP, "")))
      .map((entry) => join(directory, entry));
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw storageFault(`cannot list "${directory}"`, error);
  }
}

/** Removes {@link strayTemps}; only under the writers' lock, where every such file is a dead writer's. */
export function sweepTemps(directory: string, mine: (name: string) => boolean): void {
  for (const path of strayTemps(directory, mine)) rmSync(path, { force: true });
}

/** Turns a system error into a Fault that names it; passes Faults on. */
export function storageFault(message: string, error: unknown): Fault {
  if (error instanceof Fault) return error;
  const code = errorCode(error);
  if (code === "ELOOP") return new Fault("denied", `${message}: a symbolic link is in the way`, { hint: "remove it" });
  const full = code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG";
  return new Fault("storage", message, { why: full ? `no space left (${code})` : code });
}

function tempName(path: string): string {
  return `${path}.tmp-${process.pid}-${crypto.getRandomValues(new Uint8Array(8)).toHex()}`;
}

function refuseStranger(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat && !stat.isFile()) {
    const what = stat.isSymbolicLink() ? "a symbolic link" : "something that is no file";
    throw new Fault("denied", `cannot write "${path}": ${what} is in the way`, { hint: "move it away" });
  }
}

function writeNew(path: string, bytes: Uint8Array): void {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A second name for the current file, so that at no instant there is none under the first. */
function keepPrevious(path: string, previous: string): void {
  const link = tempName(previous);
  try {
    linkSync(path, link);
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT") return;
    // a file system without hard links
    const bytes = readPrivateFile(path, { maxBytes: Number.MAX_SAFE_INTEGER, loose: "tighten" });
    if (bytes) writeNew(link, bytes);
  }
  try {
    renameSync(link, previous);
  } finally {
    // rename(2) leaves both names when they are already the same file
    rmSync(link, { force: true });
  }
}

function syncDirectory(path: string): void {
  if (process.platform === "win32") return;
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function readAll(fd: number, size: number): Uint8Array {
  const out = new Uint8Array(size);
  let at = 0;
  while (at < size) {
    const got = readSync(fd, out, at, size - at, null);
    if (got === 0) break;
    at += got;
  }
  return at === size ? out : out.slice(0, at);
}

function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}
