import { constants } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";

/** False on Windows, which has no permission bits. */
const HAS_MODES = process.platform !== "win32";

/** Quotes a path for an error message. */
export function shown(path: string): string {
  return JSON.stringify(path);
}

/** The error code of a failed system call, or "". */
export function errno(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "";
  return typeof error.code === "string" ? error.code : "";
}

/** The fault for a failed system call on `path`; Faults pass through. */
export function fileFault(error: unknown, doing: string, path: string): Fault {
  if (error instanceof Fault) return error;
  const code = errno(error);
  if (code === "ENOENT") return new Fault("not_found", `cannot ${doing} ${shown(path)}: it does not exist`);
  if (code === "ELOOP" || code === "EMLINK") {
    return new Fault("denied", `cannot ${doing} ${shown(path)}: it is a symbolic link`, {
      hint: "put the file itself in its place",
    });
  }
  if (code === "EACCES" || code === "EPERM") {
    return new Fault("denied", `cannot ${doing} ${shown(path)}: permission denied`, {
      hint: "run keyhold as the owner of the server directory",
    });
  }
  return new Fault("storage", `cannot ${doing} ${shown(path)}`, code ? { why: code } : {});
}

/** Makes a rename or a new file in a directory durable. */
export async function syncDirectory(dir: string): Promise<void> {
  if (!HAS_MODES) return;
  const handle = await open(dir, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a new file of mode 0600 to disk; refuses one that exists. @throws Fault exists, denied, storage */
export async function createPrivateFile(path: string, content: Uint8Array): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, "wx", 0o600);
    await handle.writeFile(content);
    await handle.sync();
  } catch (error) {
    if (errno(error) === "EEXIST") throw new Fault("exists", `${shown(path)} exists and is not overwritten`);
    throw fileFault(error, "write", path);
  } finally {
    await handle?.close();
  }
}

/** Replaces a file in one step (temp, fsync, rename, fsync of the directory), mode 0600. @throws Fault storage */
export async function replacePrivateFile(path: string, content: Uint8Array, suffix: string): Promise<void> {
  const temp = `${path}.${suffix}`;
  try {
    await createPrivateFile(temp, content);
    await rename(temp, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await rm(temp, { force: true });
    throw fileFault(error, "write", path);
  }
}

/**
 * Makes a directory with all its files in one step: it appears complete or not at all, and never replaces one.
 *
 * @param suffix Of the temporary name beside it.
 * @throws Fault exists, storage
 */
export async function createPrivateDirectory(
  path: string,
  files: ReadonlyMap<string, Uint8Array>,
  suffix: string,
): Promise<void> {
  const parent = dirname(path);
  const temp = join(parent, `.${suffix}`);
  try {
    await mkdir(temp, { mode: 0o700 });
    for (const [name, content] of files) await createPrivateFile(join(temp, name), content);
    await syncDirectory(temp);
    await rename(temp, path);
    await syncDirectory(parent);
  } catch (error) {
    await rm(temp, { recursive: true, force: true });
    if (["ENOTEMPTY", "EEXIST", "ENOTDIR"].includes(errno(error))) {
      throw new Fault("exists", `${shown(path)} exists and is not overwritten`);
    }
    throw fileFault(error, "make", path);
  }
}

/**
 * Reads a private file: a plain file (no symbolic link) that nobody but its owner may read or write.
 *
 * @param bounds Size in bytes, inclusive.
 * @returns Owned by the caller, who wipes it.
 * @throws Fault not_found, denied, corrupt naming the file and the way to mend it.
 */
export async function readPrivateFile(path: string, bounds: { min: number; max: number }): Promise<Uint8Array> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = await handle.stat();
    if (!stat.isFile()) throw new Fault("denied", `cannot read ${shown(path)}: it is not a plain file`);
    if (HAS_MODES && (stat.mode & 0o077) !== 0) {
      throw new Fault("denied", `cannot use ${shown(path)}: others may read or write it`, {
        why: `its mode is 0${(stat.mode & 0o777).toString(8)}`,
        hint: `chmod 600 ${path}   (and consider the key known to whoever could read it)`,
      });
    }
    if (stat.size < bounds.min || stat.size > bounds.max) throw wrongSize(path, stat.size, bounds);
    const out = new Uint8Array(stat.size);
    const { bytesRead } = await handle.read(out, 0, out.length, 0);
    if (bytesRead !== out.length) {
      wipe(out);
      throw wrongSize(path, bytesRead, bounds);
    }
    return out;
  } catch (error) {
    throw fileFault(error, "read", path);
  } finally {
    await handle?.close();
  }
}

function wrongSize(path: string, size: number, { min, max }: { min: number; max: number }): Fault {
  const wanted = min === max ? `${min}` : `${min} to ${max}`;
  return new Fault("corrupt", `cannot use ${shown(path)}: it has the wrong size`, {
    why: `${size} bytes instead of ${wanted}`,
    hint: "restore it from the backup of the keys",
  });
}
