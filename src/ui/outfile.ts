import {
  closeSync,
  constants,
  fchmodSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  openSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { Fault } from "../errors.ts";
import type { Args } from "./args.ts";
import { atExit, errnoOf } from "./process.ts";

/** Flags of commands that write a value into a file. */
export const OUT_FILE_ARGS = {
  out: { type: "string", hint: "FILE", description: "write to a new file instead of stdout (- is stdout)" },
  mode: { type: "string", hint: "MODE", description: "permissions of that file, octal (default 0600)" },
  force: { type: "boolean", description: "replace that file if it exists" },
} as const satisfies Args;

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0 } = constants;

function openNewFile(path: string): number {
  try {
    return openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  } catch (error) {
    throw cannotWrite(path, error);
  }
}

function cannotWrite(path: string, error: unknown): Fault {
  if (error instanceof Fault) return error;
  const code = errnoOf(error);
  if (code === "EEXIST") return existsAlready(path);
  if (code === "ENOENT" || code === "ENOTDIR") return noDirectory(path);
  const why = code === "ENOSPC" || code === "EDQUOT" ? "the disk is full" : (code ?? "unknown");
  return new Fault("storage", `cannot write ${JSON.stringify(path)}`, { why });
}

function existsAlready(path: string, hint = "choose another file"): Fault {
  return new Fault("exists", `${JSON.stringify(path)} exists`, { hint });
}

const takenHint = (force: boolean | null): string =>
  force === null ? "choose another file" : "choose another file, or --force";

function noDirectory(path: string): Fault {
  return new Fault("not_found", `there is no directory for ${JSON.stringify(path)}`, { hint: "choose another file" });
}

/** A new file whose content is known later. */
export interface ReservedFile {
  write(bytes: Uint8Array): void;
  /** Closes it; one that was never written is removed. */
  end(): void;
}

/**
 * Makes a new file, 0600, and fills `room` bytes of it, so that a full disk shows before the content is made.
 *
 * @throws Fault exists, not_found (no directory), storage
 */
export function reserveNewFile(path: string, room: number): ReservedFile {
  const fd = openNewFile(path);
  let written = false;
  const file: ReservedFile = {
    write(bytes) {
      try {
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, at);
        ftruncateSync(fd, bytes.length);
        fsyncSync(fd);
      } catch (error) {
        throw cannotWrite(path, error);
      }
      written = true;
    },
    end() {
      closeSync(fd);
      if (!written) rmSync(path, { force: true });
    },
  };
  try {
    file.write(new Uint8Array(room));
    written = false;
    return file;
  } catch (error) {
    file.end();
    throw error;
  }
}

/** Writes a new file, 0600; an existing one is refused. @throws Fault exists, not_found (no directory), storage */
export function writeNewFile(path: string, bytes: Uint8Array): void {
  const file = reserveNewFile(path, 0);
  try {
    file.write(bytes);
  } finally {
    file.end();
  }
}

/** Where a value goes: a file to be made or replaced whole. */
export interface OutFile {
  readonly path: string;
  /** Permission bits, whatever the umask is. */
  readonly mode: number;
  /** Null: the command offers no such flag. */
  readonly force: boolean | null;
}

/**
 * The file that `--out`, `--mode` and `--force` name, checked before anything is opened; null for stdout.
 *
 * @throws Fault usage, exists, denied (a link or no regular file in the way), not_found (no directory)
 */
export function outFile(args: { out: string | null; mode: string | null; force: boolean | null }): OutFile | null {
  if (args.out === null || args.out === "-") {
    if (args.mode !== null || args.force) {
      throw new Fault("usage", `${args.force ? "--force" : "--mode"} needs --out`, { hint: "--out FILE" });
    }
    return null;
  }
  if (args.out === "") throw new Fault("usage", "--out takes the name of a file");
  const file = { path: args.out, mode: args.mode === null ? 0o600 : permissions(args.mode), force: args.force };
  checkTarget(file);
  return file;
}

function permissions(text: string): number {
  const mode = /^0?[0-7]{3}$/.test(text) ? Number.parseInt(text, 8) : null;
  if (mode === null) {
    throw new Fault("usage", "--mode takes permissions in octal, such as 0600 or 0640", { hint: "--mode 0600" });
  }
  if ((mode & 0o400) === 0) throw new Fault("usage", "--mode must let the owner read", { hint: "--mode 0600" });
  if ((mode & 0o002) !== 0) throw new Fault("usage", "--mode must not let everybody write", { hint: "--mode 0600" });
  return mode;
}

function checkTarget({ path, force }: OutFile): void {
  const stat = inTheWay(path);
  if (stat === undefined) {
    if (!isDirectory(dirname(path)) || path.endsWith("/")) throw noDirectory(path);
    return;
  }
  if (!stat.isFile()) {
    const what = stat.isSymbolicLink() ? "a symbolic link" : "something that is no regular file";
    throw new Fault("denied", `cannot write ${JSON.stringify(path)}: ${what} is in the way`, {
      hint: "choose another file; --out - is stdout",
    });
  }
  if (!force) throw existsAlready(path, takenHint(force));
}

function inTheWay(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw cannotWrite(path, error);
  }
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** A file that gets its name once all of it is written. */
interface GrowingFile {
  write(bytes: Uint8Array): void;
  /** Gives it its name, durably. */
  commit(): void;
  /** Leaves no trace of one that was not committed. */
  end(): void;
}

function growingFile(file: OutFile): GrowingFile {
  const { path, mode, force } = file;
  const random = crypto.getRandomValues(new Uint8Array(8)).toHex();
  // of a fixed length: one made of a long name could be too long for the system
  const temp = join(dirname(path), `.keyhold-${random}.tmp`);
  const fd = openNewFile(temp);
  let open = true;
  const close = () => {
    if (open) closeSync(fd);
    open = false;
  };
  const remove = () => rmSync(temp, { force: true });
  const forget = atExit(remove);
  const orFault = (work: () => void) => {
    try {
      work();
    } catch (error) {
      throw cannotWrite(path, error);
    }
  };
  return {
    write: (bytes) =>
      orFault(() => {
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
      }),
    commit: () =>
      orFault(() => {
        fchmodSync(fd, mode);
        fsyncSync(fd);
        close();
        checkTarget(file);
        if (force) renameSync(temp, path);
        else giveName(temp, file);
        syncDirectory(dirname(path));
      }),
    end() {
      close();
      remove();
      forget();
    },
  };
}

/**
 * Puts a file in place whole and durably: a temporary file beside it, fsync, and its final name in one step. Whatever
 * fails or ends the process before that leaves no trace; an old file stays as it was.
 *
 * @throws Fault exists, denied, not_found (no directory), storage
 */
export function putFile(file: OutFile, bytes: Uint8Array): void {
  const growing = growingFile(file);
  try {
    growing.write(bytes);
    growing.commit();
  } finally {
    growing.end();
  }
}

/** Like {@link putFile} for content that comes in pieces: the file is there once `fill` has returned. */
export async function putFileFrom<T>(
  file: OutFile,
  fill: (write: (piece: Uint8Array) => void) => Promise<T>,
): Promise<T> {
  const growing = growingFile(file);
  try {
    const done = await fill(growing.write);
    growing.commit();
    return done;
  } finally {
    growing.end();
  }
}

/** Unlike rename, link refuses a name that somebody took meanwhile. */
function giveName(temp: string, file: OutFile): void {
  try {
    linkSync(temp, file.path);
  } catch (error) {
    if (errnoOf(error) === "EEXIST") throw existsAlready(file.path, takenHint(file.force));
    // a file system without hard links
    checkTarget(file);
    renameSync(temp, file.path);
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
