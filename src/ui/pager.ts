import { openSync } from "node:fs";
import { constants } from "node:os";
import { delimiter, isAbsolute } from "node:path";
import { closeQuietly } from "./process.ts";
import { findCommand } from "./run.ts";
import { releaseInput } from "./terminal.ts";

/** What the pager's process needs of this one. */
export interface PagerOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  onTerminate(handler: ((signal: NodeJS.Signals) => void) | null): void;
}

/** How paging ended; `signal` is one that ended this process meanwhile, with the exit code for it. */
export type Paged = "shown" | "not shown" | { readonly signal: NodeJS.Signals; readonly exit: number };

const DEFAULT = "less -FRX";

/** What a pager may need to know of the environment; nothing else of it, such as secrets and `KEYHOLD_*`, reaches it. */
const PASSED =
  /^(HOME|USER|LOGNAME|LANG|LANGUAGE|LC_[A-Z]+|TERM|TERM_PROGRAM|TERMINFO|TERMINFO_DIRS|COLORTERM|LINES|COLUMNS|LESS|LESS[A-Z_]*|MORE|LV|TZ|TMPDIR|WSLENV)$/;

/**
 * Shows text in `$KEYHOLD_PAGER`, else `$PAGER`, else `less -FRX` (docs/cli.md §2). An empty variable or `cat`, a text
 * that fits, TERM=dumb and Windows want none. Only for a terminal on stdout.
 *
 * @returns "not shown" where the caller prints it plainly: no pager is wanted or there, or it failed.
 */
export async function page(text: string, options: PagerOptions): Promise<Paged> {
  const { env } = options;
  const command = (env["KEYHOLD_PAGER"] ?? env["PAGER"] ?? DEFAULT).trim();
  if (command === "" || command === "cat" || env["TERM"] === "dumb" || process.platform === "win32") return "not shown";
  if (fits(text)) return "not shown";
  const own = pagerEnvironment(env);
  if (command === DEFAULT && typeof findCommand("less", own["PATH"]) !== "string") return "not shown";
  return await through(command, text, own, options);
}

function fits(text: string): boolean {
  const { columns, rows } = process.stdout;
  const width = columns || 80;
  let lines = 0;
  for (const line of text.split("\n").slice(0, -1)) {
    lines += Math.max(1, Math.ceil(Bun.stringWidth(line) / width));
    // the prompt of the shell needs a line
    if (lines >= (rows || 24)) return false;
  }
  return true;
}

/** The environment of a pager: no secrets, no program from the working directory, no history file with names in it. */
export function pagerEnvironment(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const kept = Object.entries(env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && PASSED.test(entry[0]),
  );
  const path = (env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(delimiter).filter((folder) => isAbsolute(folder));
  return { LESS: "FRX", ...Object.fromEntries(kept), LESSHISTFILE: "-", PATH: path.join(delimiter) };
}

async function through(
  command: string,
  text: string,
  env: Record<string, string>,
  { onTerminate }: PagerOptions,
): Promise<Paged> {
  releaseInput();
  const terminal = terminalModes();
  let child: Bun.Subprocess;
  try {
    child = Bun.spawn(["/bin/sh", "-c", command], {
      env,
      stdin: new TextEncoder().encode(text),
      stdout: "inherit",
      stderr: "inherit",
    });
  } catch {
    return "not shown";
  }
  let interrupted = false;
  let ended: NodeJS.Signals | null = null;
  const onSignal = (signal: NodeJS.Signals) => {
    onTerminate(onSignal);
    // the pager has Ctrl-C from the terminal itself and decides what it means
    interrupted = true;
    if (signal === "SIGINT") return;
    ended = signal;
    child.kill(signal);
  };
  onTerminate(onSignal);
  try {
    await child.exited;
  } finally {
    onTerminate(null);
  }
  if (child.signalCode !== null || ended !== null) terminal.restore();
  if (ended !== null) return { signal: ended, exit: 128 + constants.signals[ended] };
  return child.exitCode === 0 || interrupted || child.signalCode !== null ? "shown" : "not shown";
}

/** The modes of the terminal as `stty` gives them, for a pager that could not restore them itself. */
function terminalModes(): { restore(): void } {
  const stty = (...words: readonly string[]): string => {
    let fd: number | null = null;
    try {
      fd = openSync("/dev/tty", "r");
      const ran = Bun.spawnSync(["stty", ...words], {
        stdin: fd,
        stdout: "pipe",
        stderr: "ignore",
        env: { PATH: "/usr/bin:/bin" },
      });
      return ran.exitCode === 0 ? ran.stdout.toString().trim() : "";
    } catch {
      return "";
    } finally {
      if (fd !== null) closeQuietly(fd);
    }
  };
  const modes = stty("-g");
  return {
    restore() {
      if (modes !== "") stty(modes);
    },
  };
}
