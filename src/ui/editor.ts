import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, isAbsolute, join } from "node:path";
import { makePrivateDirectory } from "../client/privatefile.ts";
import { Fault } from "../errors.ts";
import type { Context } from "./command.ts";
import { EndedBySignal } from "./endedbysignal.ts";
import { readSecretFile } from "./password.ts";
import { atExit, closeQuietly, errnoOf } from "./process.ts";
import { childEnvironment, findCommand } from "./run.ts";
import { releaseInput } from "./terminal.ts";

/** What opening an editor needs of the context. */
export type EditorContext = Pick<Context, "env" | "inherited" | "dirs" | "onTerminate" | "out">;

/** A private file while it is edited. */
export interface Draft {
  /**
   * Opens the editor on it and waits for its end.
   *
   * @returns What the file holds then, UTF-8.
   * @throws Fault interrupted when the editor fails, bad_input, too_large; {@link EndedBySignal}
   */
  edit(): Promise<string>;
}

const PREFIX = "keyhold-edit-";
const FILE = "record.txt";
const MAX_BYTES = 1_048_576;
const GRACE_MS = 1_000;

/**
 * Runs `work` with a file that holds `content`, 0600 in a directory of its own, 0700, in memory where the system has
 * such a place. Whatever ends it (return, failure, signal), every file in there, those of the editor too, is
 * overwritten and removed.
 *
 * @throws Fault storage, denied
 */
export async function withDraft<T>(
  ctx: EditorContext,
  content: string,
  work: (draft: Draft) => Promise<T>,
): Promise<T> {
  const base = privateBase(ctx);
  sweepStale(base);
  const directory = makeDirectory(base);
  const clean = () => wipeDirectory(directory);
  const forget = atExit(clean);
  try {
    writeDraft(join(directory, FILE), content);
    return await work({ edit: () => runEditor(ctx, directory) });
  } finally {
    clean();
    forget();
  }
}

/** Where plain text may lie for a moment: in memory, else in keyhold's own state. */
function privateBase({ env, dirs }: EditorContext): string {
  for (const path of [env["XDG_RUNTIME_DIR"], "/dev/shm"]) {
    if (path !== undefined && isAbsolute(path) && isUsable(path)) return path;
  }
  makePrivateDirectory(dirs.state);
  return dirs.state;
}

function isUsable(path: string): boolean {
  try {
    const stat = statSync(path);
    // others may make files beside ours where the directory is sticky, and touch none of ours
    const closed = (stat.mode & 0o022) === 0 ? stat.uid === process.geteuid?.() : (stat.mode & 0o1000) !== 0;
    return stat.isDirectory() && closed;
  } catch {
    return false;
  }
}

function makeDirectory(base: string): string {
  try {
    return mkdtempSync(join(base, `${PREFIX}${process.pid}-`));
  } catch (error) {
    throw new Fault("storage", "cannot make a private directory to edit in", { why: errnoOf(error) ?? "unknown" });
  }
}

/** What a killed process left: no other way out leaves anything. */
function sweepStale(base: string): void {
  for (const name of readdirSync(base)) {
    const pid = Number(new RegExp(`^${PREFIX}(\\d{1,10})-`).exec(name)?.[1] ?? Number.NaN);
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    const path = join(base, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat?.isDirectory() === true && stat.uid === process.geteuid?.()) wipeDirectory(path);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errnoOf(error) !== "ESRCH";
  }
}

function writeDraft(path: string, content: string): void {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0 } = constants;
  try {
    const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      const bytes = new TextEncoder().encode(content);
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new Fault("storage", "cannot write the file to edit", { why: errnoOf(error) ?? "unknown" });
  }
}

/** Overwrites, flushes and removes all that lies in a directory, and the directory. */
function wipeDirectory(directory: string): void {
  let names: readonly string[] = [];
  try {
    names = readdirSync(directory);
  } catch {
    return;
  }
  for (const name of names) {
    const path = join(directory, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat?.isDirectory()) wipeDirectory(path);
    else if (stat?.isFile()) overwrite(path);
  }
  try {
    rmSync(directory, { recursive: true, force: true });
  } catch {
    // something in it cannot be removed; what lay in the files is gone
  }
}

function overwrite(path: string): void {
  const { O_WRONLY, O_NOFOLLOW = 0 } = constants;
  try {
    const fd = openSync(path, O_WRONLY | O_NOFOLLOW);
    try {
      const zeros = new Uint8Array(fstatSync(fd).size);
      for (let at = 0; at < zeros.length; ) at += writeSync(fd, zeros, at, zeros.length - at, at);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch {
    // not ours to write; it is removed all the same
  }
}

/** Flags that make an editor of windows wait for the file to be closed. */
const WAIT: Readonly<Record<string, string>> = {
  code: "--wait",
  "code-insiders": "--wait",
  codium: "--wait",
  cursor: "--wait",
  zed: "--wait",
  subl: "--wait",
  atom: "--wait",
  mate: "--wait",
  gvim: "--nofork",
  kate: "--block",
  gedit: "--wait",
};

/** No copy of the text elsewhere: swap, backup, undo, history. */
const VIM = [
  "-n",
  "-i",
  "NONE",
  "-c",
  "silent! set nobackup nowritebackup noswapfile viminfo=",
  "-c",
  "silent! set noundofile",
];

/** The command line for the shell, and words between it and the file. */
function editorOf(ctx: EditorContext): { command: string; words: readonly string[] } {
  const command = ctx.env["VISUAL"] || ctx.env["EDITOR"] || "vi";
  const given = command.trim().split(/\s+/);
  const program = basename(given[0] ?? "");
  const wait = WAIT[program];
  if (wait !== undefined) return { command, words: given.includes(wait) || given.includes("-w") ? [] : [wait] };
  return { command, words: isVim(given[0] ?? "", ctx.env["PATH"]) ? VIM : [] };
}

function isVim(program: string, path: string | undefined): boolean {
  if (/^n?vim?(\.[a-z]+)?$|^(view|vimx)$/.test(basename(program)) === false) return false;
  const found = findCommand(program, path);
  if (typeof found !== "string") return false;
  try {
    return /vim/.test(basename(realpathSync(found)));
  } catch {
    return false;
  }
}

async function runEditor(ctx: EditorContext, directory: string): Promise<string> {
  const path = join(directory, FILE);
  const { command, words } = editorOf(ctx);
  // a question before, such as that for the password, would take the editor's first key
  releaseInput();
  const terminal = openTerminal();
  let ended: NodeJS.Signals | null = null;
  try {
    const child = Bun.spawn(
      ["/bin/sh", "-c", `exec ${/^\w+=/.test(command) ? "env " : ""}${command} "$@"`, command, ...words, path],
      {
        // what the editor writes elsewhere goes the way of the file
        env: childEnvironment(ctx.inherited, { TMPDIR: directory }),
        stdin: terminal ?? "ignore",
        stdout: terminal ?? 2,
        stderr: terminal ?? 2,
      },
    );
    const onSignal = (signal: NodeJS.Signals) => {
      ctx.onTerminate(onSignal);
      // at a terminal the editor has Ctrl-C too, and decides what it means
      if (signal === "SIGINT" && terminal !== null) return;
      ended = signal;
      child.kill(signal);
      setTimeout(() => child.kill("SIGKILL"), GRACE_MS).unref();
    };
    ctx.onTerminate(onSignal);
    await child.exited;
    ctx.onTerminate(null);
    if (ended !== null) throw new EndedBySignal(ended);
    if (child.exitCode === 0) return read(path);
    const why = child.exitCode === 127 ? `there is no command ${JSON.stringify(command)}` : "it did not end well";
    throw new Fault("interrupted", "the editor failed; nothing was stored", {
      why,
      hint: "set VISUAL or EDITOR, or use --set",
    });
  } finally {
    if (terminal !== null) closeQuietly(terminal);
  }
}

function openTerminal(): number | null {
  try {
    return openSync("/dev/tty", "r+");
  } catch {
    return null;
  }
}

function read(path: string): string {
  const bytes = readSecretFile(path, MAX_BYTES + 1, "accept");
  try {
    if (bytes.length > MAX_BYTES) throw new Fault("too_large", "the edited text is too long");
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault("bad_input", "the edited text is not UTF-8");
  } finally {
    bytes.fill(0);
  }
}
