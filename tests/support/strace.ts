import { readFileSync } from "node:fs";
import { dirname } from "node:path";

/** One thing that a traced process did to the files below a directory, or said on its standard output. */
export type DiskStep =
  | { readonly kind: "create"; readonly path: string; readonly inode: number }
  | { readonly kind: "write"; readonly inode: number; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly inode: number; readonly size: number }
  | { readonly kind: "sync"; readonly inode: number }
  | { readonly kind: "sync-directory"; readonly path: string }
  | { readonly kind: "link"; readonly inode: number; readonly to: string }
  | { readonly kind: "rename"; readonly inode: number; readonly from: string; readonly to: string }
  | { readonly kind: "unlink"; readonly path: string }
  | { readonly kind: "say"; readonly text: string };

/** Calls that can change a file or its name, and those that make changes durable. */
const CALLS = [
  ...["open", "openat", "creat", "close", "dup", "dup2", "dup3", "fcntl"],
  ...["write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice"],
  ...["fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync", "mmap"],
  ...["truncate", "ftruncate", "fallocate", "rename", "renameat", "renameat2"],
  ...["link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "io_uring_setup"],
];

export interface TraceOptions {
  readonly command: readonly string[];
  /** Where strace writes its log. */
  readonly log: string;
  /** The directory whose files matter; absolute, without symbolic links. */
  readonly directory: string;
  /** Makes fsync and fdatasync do nothing, and say that they did: a disk that lies. */
  readonly withoutSyncs?: boolean;
  readonly env?: Record<string, string>;
}

/**
 * Runs a command under strace to its end.
 *
 * @returns what it did below the directory, in order; its standard output among it.
 * @throws Error when it fails, or uses a call that the reading does not understand.
 */
export async function traceDisk(options: TraceOptions): Promise<readonly DiskStep[]> {
  const { command, log, directory, withoutSyncs = false, env } = options;
  const inject = withoutSyncs ? ["-e", "inject=fsync,fdatasync:retval=0"] : [];
  const strace = ["strace", "-f", "-xx", "-s", "16777216", "-e", `trace=${CALLS.join(",")}`, "-e", "signal=none"];
  const child = Bun.spawn([...strace, ...inject, "-o", log, ...command], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    ...(env ? { env: { ...process.env, ...env } } : {}),
  });
  const [, errors] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) throw new Error(`the traced process failed: ${errors}`);
  return readTrace(readFileSync(log, "latin1"), directory);
}

const LINE = /^(\d+) +(.*)$/;
const CALL = /^(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)(?: .*)?$/s;

/** Lines of strace with what other threads interrupted put together again, at the place where it ended. */
function* wholeCalls(text: string): Generator<string> {
  const begun = new Map<string, string>();
  for (const line of text.split("\n")) {
    const [, pid = "", rest = ""] = LINE.exec(line) ?? [];
    if (rest === "" || rest.startsWith("+++") || rest.startsWith("---")) continue;
    if (rest.endsWith("<unfinished ...>")) {
      begun.set(pid, rest.slice(0, -"<unfinished ...>".length).trimEnd());
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/s.exec(rest);
    if (resumed) {
      yield `${begun.get(pid) ?? ""}${resumed[1] ?? ""}`;
      begun.delete(pid);
    } else yield rest;
  }
}

const bytesOf = (quoted: string): Uint8Array => Uint8Array.fromHex(quoted.replaceAll("\\x", "").replaceAll('"', ""));
const textOf = (quoted: string): string => new TextDecoder().decode(bytesOf(quoted));

interface OpenFile {
  readonly path: string;
  /** null for a directory. */
  readonly inode: number | null;
  readonly append: boolean;
  position: number;
}

/** Reads a log that `strace -f -xx` wrote. */
export function readTrace(text: string, directory: string): readonly DiskStep[] {
  const steps: DiskStep[] = [];
  const open = new Map<number, OpenFile>();
  const names = new Map<string, number>();
  const sizes = new Map<number, number>();
  let inodes = 0;
  const below = (path: string) => path === directory || path.startsWith(`${directory}/`);

  function opened(path: string, flags: string, fd: number): void {
    open.delete(fd);
    if (!below(path)) return;
    if (flags.includes("O_DIRECTORY") || path === directory) {
      open.set(fd, { path, inode: null, append: false, position: 0 });
      return;
    }
    let inode = names.get(path);
    if (inode === undefined) {
      if (!flags.includes("O_CREAT")) return;
      inode = inodes++;
      names.set(path, inode);
      sizes.set(inode, 0);
      steps.push({ kind: "create", path, inode });
    } else if (flags.includes("O_TRUNC")) resize(inode, 0);
    open.set(fd, { path, inode, append: flags.includes("O_APPEND"), position: 0 });
  }

  function resize(inode: number, size: number): void {
    sizes.set(inode, size);
    steps.push({ kind: "truncate", inode, size });
  }

  function wrote(file: OpenFile, bytes: Uint8Array, at: number | null): void {
    const { inode } = file;
    if (inode === null) return;
    const size = sizes.get(inode) ?? 0;
    const offset = file.append ? size : (at ?? file.position);
    if (at === null) file.position = offset + bytes.length;
    sizes.set(inode, Math.max(size, offset + bytes.length));
    steps.push({ kind: "write", inode, offset, bytes });
  }

  function named(path: string): number {
    const inode = names.get(path);
    if (inode === undefined) throw new Error(`the trace names a file that was never made: ${path}`);
    return inode;
  }

  function moved(from: string, to: string, keep: boolean): void {
    if (!below(from) && !below(to)) return;
    const inode = named(from);
    // rename(2) does nothing when both names are of one file
    if (!keep && names.get(to) === inode) return;
    names.set(to, inode);
    if (!keep) names.delete(from);
    steps.push(keep ? { kind: "link", inode, to } : { kind: "rename", inode, from, to });
  }

  for (const line of wholeCalls(text)) {
    const call = CALL.exec(line);
    if (!call) continue;
    const [, name = "", args = "", result = ""] = call;
    const value = Number(result);
    if (!(value >= 0)) continue;
    const strings = args.match(/"[^"]*"/g) ?? [];
    const fields = args.split(", ");
    const file = open.get(Number.parseInt(fields[0] ?? "", 10));
    const path = strings[0] === undefined ? "" : textOf(strings[0]);
    switch (name) {
      case "open":
      case "openat":
        opened(path, args, value);
        break;
      case "close":
        open.delete(Number(args));
        break;
      case "write":
      case "pwrite64":
        if (fields[0] === "1" && name === "write") steps.push({ kind: "say", text: path });
        else if (file) {
          const at = name === "write" ? null : Number(fields.at(-1));
          wrote(file, bytesOf(strings[0] ?? "").subarray(0, value), at);
        }
        break;
      case "fsync":
      case "fdatasync":
        if (!file || line.endsWith("(INJECTED)")) break;
        if (file.inode === null) steps.push({ kind: "sync-directory", path: file.path });
        else steps.push({ kind: "sync", inode: file.inode });
        break;
      case "ftruncate":
        if (file?.inode != null) resize(file.inode, Number(fields[1]));
        break;
      case "rename":
      case "renameat":
      case "renameat2":
        moved(path, textOf(strings[1] ?? ""), false);
        break;
      case "link":
      case "linkat":
        moved(path, textOf(strings[1] ?? ""), true);
        break;
      case "unlink":
      case "unlinkat":
        if (!below(path)) break;
        names.delete(path);
        steps.push({ kind: "unlink", path });
        break;
      case "mkdir":
      case "mkdirat":
        if (below(path) && dirname(path) !== directory && path !== directory) throw new Error("directories too deep");
        break;
      case "dup":
      case "dup2":
      case "dup3":
      case "fcntl":
        if (file && (name !== "fcntl" || args.includes("F_DUPFD"))) throw new Error(`a file was opened twice: ${line}`);
        break;
      case "mmap": {
        const mapped = open.get(Number(fields[4]));
        const shared = args.includes("MAP_SHARED") && args.includes("PROT_WRITE");
        // the index of the WAL is made anew after a crash
        if (mapped && shared && !mapped.path.endsWith("-shm"))
          throw new Error(`a file is written through memory: ${mapped.path}`);
        break;
      }
      default:
        if (file || (path !== "" && below(path)))
          throw new Error(`the trace holds a call that is not read: ${line.slice(0, 200)}`);
    }
  }
  return steps;
}
