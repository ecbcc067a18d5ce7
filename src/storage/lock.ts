import { closeSync, constants, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../errors.ts";
import { type LockMethod, tryFileLock } from "../wire/filelock.ts";

/** A held directory; `release` may be called twice. */
export interface DirectoryLock {
  release(): Promise<void>;
}

/** The pid that the holder wrote, as far as it can be read. */
function holder(path: string): string {
  try {
    const pid = /^[1-9][0-9]{0,9}$/.exec(readFileSync(path, "utf8").trim())?.[0];
    return pid === undefined ? "" : ` (pid ${pid})`;
  } catch {
    return "";
  }
}

function writePid(path: string): void {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
  const file = openSync(path, O_WRONLY | O_CREAT | O_TRUNC | (O_NOFOLLOW ?? 0), 0o600);
  try {
    writeSync(file, `${process.pid}\n`);
  } finally {
    closeSync(file);
  }
}

/**
 * Takes `DIR/lock` for this process. The lock ends with its holder however that dies; the file stays, since removing
 * it would let two processes lock two files of one name.
 *
 * @param method How to lock; by default as the system can.
 * @throws Fault conflict when another process, or this one, holds it; storage when the file cannot be made; denied
 *   when a symbolic link stands in its place.
 */
export async function lockDirectory(directory: string, method?: LockMethod): Promise<DirectoryLock> {
  const path = join(directory, "lock");
  const lock = tryFileLock(path, method);
  if (!lock) {
    throw new Fault("conflict", `cannot use "${directory}": another keyhold${holder(path)} holds it`, {
      hint: "stop it first, or name another directory",
    });
  }
  try {
    writePid(path);
  } catch {
    lock.release();
    throw new Fault("storage", `cannot lock "${directory}": its lock file cannot be written`);
  }
  return { release: async () => lock.release() };
}
