import { closeSync, fstatSync, writeSync } from "node:fs";
import { Fault } from "../errors.ts";
import { libc } from "../wire/libc.ts";

const cleanups = new Set<() => void>();

/** Registers synchronous work for the end of the process (signals included); returns its removal. */
export function atExit(work: () => void): () => void {
  cleanups.add(work);
  return () => cleanups.delete(work);
}

/** Runs what {@link atExit} holds, newest first, once; a failing piece does not stop the others. */
export function runCleanups(): void {
  for (const work of [...cleanups].reverse()) {
    cleanups.delete(work);
    try {
      work();
    } catch {
      // The process ends; nothing can be done about it.
    }
  }
}

/** Thrown when the reader of stdout or stderr has gone; `main` ends quietly. */
export class BrokenPipe extends Error {
  override readonly name = "BrokenPipe";
}

/**
 * Writes all bytes to a descriptor before it returns, so that exiting right afterwards loses nothing.
 *
 * @throws BrokenPipe when nobody reads any more; Fault storage where a disk is full
 */
export function writeAll(fd: number, bytes: Uint8Array): void {
  let at = 0;
  while (at < bytes.length) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      const code = errnoOf(error);
      if (code === "EAGAIN") Bun.sleepSync(2);
      else if (code === "EPIPE" || code === "EBADF" || code === "EIO") throw new BrokenPipe();
      else if (code !== "EINTR") {
        const why = code === "ENOSPC" || code === "EDQUOT" ? "the disk is full" : (code ?? "unknown");
        throw new Fault("storage", "cannot write the output", { why, hint: "make room, or send it elsewhere" });
      }
    }
  }
}

/** isatty(3); what tells it is loaded for what may be a terminal alone, since that takes milliseconds. */
export function isTerminal(fd: number): boolean {
  try {
    if (process.platform !== "win32" && !fstatSync(fd).isCharacterDevice()) return false;
  } catch {
    return false;
  }
  return process.getBuiltinModule("node:tty").isatty(fd);
}

/** Closes a descriptor, ignoring that it may be closed already. */
export function closeQuietly(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // Already closed.
  }
}

/** The system's name for an error (`ENOENT`, …), or null for other throwables. */
export function errnoOf(error: unknown): string | null {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return null;
}

/** Keeps what a long-lived process holds out of core dumps and of other processes' reach, where the system can. */
export function sealProcess(): void {
  libc()?.seal();
}

/**
 * Keeps a command that is about to hold a password or a value out of core dumps and of other processes' reach, where
 * the system can; a program that it becomes (`run`) is as free as any other.
 */
export function hideProcess(): void {
  libc()?.hide();
}

/** True when this process is the compiled executable and not Bun running the sources. */
export function isCompiled(): boolean {
  return Bun.main.startsWith("/$bunfs/") || Bun.main.includes("~BUN");
}

/** The command line that starts this very program with other arguments (agent, clipboard helper, demo). */
export function selfCommand(...args: readonly string[]): [string, ...string[]] {
  return isCompiled() ? [process.execPath, ...args] : [process.execPath, Bun.main, ...args];
}
