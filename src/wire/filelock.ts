import {
  closeSync,
  constants,
  fstatSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { setTimeout } from "node:timers/promises";
import { Fault } from "../errors.ts";
import { libc } from "./libc.ts";

/** A held lock; the operating system releases it when the process ends in whatever way. */
export interface FileLock {
  /** Releases; safe to call twice. */
  release(): void;
}

/** How a lock is held: `flock`, or a file naming its owner where the system has no flock. */
export type LockMethod = "flock" | "owner-file";

const LOCK = { exclusive: 2, nonBlocking: 4 } as const;
const POLL_MS = 15;

/**
 * Takes an exclusive lock on `path` (created 0600, never removed) if it is free, between processes and within one.
 *
 * @returns null when another holder has it.
 * @throws Fault denied for a symbolic link in the way, storage when the file cannot be made.
 */
export function tryFileLock(path: string, method: LockMethod = defaultMethod()): FileLock | null {
  return method === "flock" ? tryFlock(path) : tryOwnerFile(`${path}.owner`);
}

/**
 * Waits for {@link tryFileLock}.
 *
 * @throws Fault timed_out after `timeoutMs`.
 */
export async function takeFileLock(
  path: string,
  options: { readonly timeoutMs: number; readonly method?: LockMethod },
): Promise<FileLock> {
  const method = options.method ?? defaultMethod();
  const deadline = performance.now() + options.timeoutMs;
  for (;;) {
    const lock = tryFileLock(path, method);
    if (lock) return lock;
    if (performance.now() >= deadline) {
      throw new Fault("timed_out", "another keyhold process holds the lock", {
        why: "it is still writing",
        hint: "wait for it to end, then try again",
      });
    }
    // jitter, so that waiting processes do not march in step
    await setTimeout(POLL_MS * (0.5 + Math.random()));
  }
}

function defaultMethod(): LockMethod {
  return libc() ? "flock" : "owner-file";
}

function tryFlock(path: string): FileLock | null {
  const c = libc();
  if (!c) return null;
  // the file at the path may be replaced between open and lock: then lock the new one
  for (let attempt = 0; attempt < 10; attempt++) {
    const fd = openLockFile(path);
    let keep = false;
    try {
      if (c.flock(fd, LOCK.exclusive | LOCK.nonBlocking) !== 0) {
        if (UNSUPPORTED.has(c.errno())) {
          throw new Fault("storage", "cannot lock a file here", { why: "the file system has no locks" });
        }
        return null;
      }
      if (sameFile(fd, path)) {
        keep = true;
        return held(() => closeSync(fd));
      }
    } finally {
      if (!keep) closeSync(fd);
    }
  }
  return null;
}

/** EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP; anything else counts as busy and is tried again. */
const UNSUPPORTED: ReadonlySet<number> = new Set(process.platform === "darwin" ? [22, 77, 78, 102] : [22, 37, 38, 95]);

function openLockFile(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    const code = errorCode(error);
    if (code === "ELOOP") {
      throw new Fault("denied", `cannot lock "${path}": a symbolic link is in the way`, { hint: "remove the link" });
    }
    throw new Fault("storage", `cannot make the lock file "${path}"`, { why: code });
  }
}

function sameFile(fd: number, path: string): boolean {
  try {
    const there = statSync(path);
    const here = fstatSync(fd);
    return there.ino === here.ino && there.dev === here.dev;
  } catch {
    return false;
  }
}

/**
 * The fallback: a file naming process and start time, put in place whole by link(2). A dead owner's file is moved
 * aside under a name of our own, so that only one process takes it over, and put back if it changed meanwhile.
 */
function tryOwnerFile(path: string): FileLock | null {
  const mine = `${path}.${process.pid}-${crypto.randomUUID()}`;
  const claim = `${process.pid} ${startTime(process.pid) ?? "-"} ${crypto.randomUUID()}`;
  try {
    writeFileSync(mine, claim, { flag: "wx", mode: 0o600 });
  } catch (error) {
    throw new Fault("storage", `cannot make the lock file "${path}"`, { why: errorCode(error) });
  }
  try {
    for (let attempt = 0; attempt < 2; attempt++) {
      if (tryLink(mine, path)) {
        return held(() => {
          if (readText(path) === claim) rmSync(path, { force: true });
        });
      }
      const owner = readText(path);
      if (owner === undefined) continue;
      if (alive(owner)) return null;
      const aside = `${mine}.dead`;
      try {
        renameSync(path, aside);
      } catch {
        return null;
      }
      if (readText(aside) !== owner) tryLink(aside, path);
      rmSync(aside, { force: true });
    }
    return null;
  } finally {
    rmSync(mine, { force: true });
  }
}

function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false;
    throw new Fault("storage", `cannot make the lock file "${to}"`, { why: errorCode(error) });
  }
}

function alive(owner: string): boolean {
  const [pidText, started] = owner.split(" ");
  const pid = Number(pidText);
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errorCode(error) === "ESRCH") return false;
  }
  const now = startTime(pid);
  return started === "-" || now === undefined || now === started;
}

/** Start of a process in clock ticks since boot (proc_pid_stat(5), field 22); tells a reused pid. */
function startTime(pid: number): string | undefined {
  const stat = readText(`/proc/${pid}/stat`);
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function held(end: () => void): FileLock {
  let open = true;
  return {
    release: () => {
      if (open) end();
      open = false;
    },
  };
}

function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}
