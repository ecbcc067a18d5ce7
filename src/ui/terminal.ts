import { openSync } from "node:fs";
import { ReadStream, WriteStream } from "node:tty";
import { Fault } from "../errors.ts";
import type { Output } from "./output.ts";
import { atExit, closeQuietly, writeAll } from "./process.ts";
import { plain } from "./text.ts";

/** How a failure to ask is reported: what is missing and which flag gives it without a prompt. */
export interface Otherwise {
  readonly code?: "input_needed" | "password_needed";
  /** Completes "… is needed": "the name of the secret". */
  readonly needed: string;
  /** The command line or flag that gives it. */
  readonly fix: string;
}

/** Questions at the controlling terminal, never through stdin or stdout, and progress on stderr. */
export interface Terminal {
  /** True if a question can reach somebody: a terminal, no `--no-input`, no CI. */
  readonly canPrompt: boolean;
  /** @throws Fault input_needed, interrupted */
  text(message: string, otherwise: Otherwise, check?: (text: string) => string | null): Promise<string>;
  /** Not echoed, not even as dots. @throws Fault password_needed (or as `otherwise` says), interrupted */
  password(message: string, otherwise: Otherwise): Promise<string>;
  /** Returns only if the answer is yes; `--yes` answers. @throws Fault input_needed (naming --yes), interrupted */
  confirm(message: string): Promise<void>;
  /** @throws Fault input_needed, interrupted */
  select<T extends string>(
    message: string,
    options: readonly { value: T; label: string; hint?: string }[],
    otherwise: Otherwise,
  ): Promise<T>;
  /** Shows that `work` goes on; silent without a terminal on stderr, with `--quiet` and `--json`. */
  step<T>(label: string, work: Promise<T>): Promise<T>;
  /** Like `step` with a count; call `done` in `finally`. */
  counter(label: string, total: number): { advance(by?: number): void; done(): void };
}

export interface TerminalOptions {
  readonly out: Output;
  readonly noInput: boolean;
  readonly yes: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
  /** The terminal device; tests name another. */
  readonly device?: string;
}

const SHOW_CURSOR = "\u001b[?25h";
const FRAME_MS = 80;
/** Work that ends sooner shows nothing. */
const DELAY_MS = 150;
const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"] as const;

/** Makes the terminal of this process; opens nothing before the first question. */
export function createTerminal(options: TerminalOptions): Terminal {
  const { out, env, signal } = options;
  const device = options.device ?? "/dev/tty";
  const forbidden = forbiddenBy(options);
  const open = opener(device);

  const ask = async <T>(
    otherwise: Otherwise,
    question: (clack: Clack, streams: Streams) => Promise<T | symbol>,
  ): Promise<T> => {
    const why = forbidden ?? (canOpen(device) ? null : "there is no terminal to ask at");
    if (why !== null) {
      const code = otherwise.code ?? "input_needed";
      throw new Fault(code, `${otherwise.needed} is needed`, { why, hint: otherwise.fix });
    }
    const clack = await import("@clack/prompts");
    const opened = open();
    return await withTerminal(opened, async () => {
      const answer = await question(clack, { input: opened.input, output: opened.output, signal });
      if (clack.isCancel(answer)) throw new Fault("interrupted", "cancelled", { hint: "nothing was done" });
      return answer as T;
    });
  };

  return {
    get canPrompt() {
      return forbidden === null && canOpen(device);
    },
    text: (message, otherwise, check) =>
      ask<string>(otherwise, (clack, streams) =>
        clack.text({
          message: plain(message),
          validate: (text) => (text ? (check?.(text) ?? undefined) : "an answer is needed"),
          ...streams,
        }),
      ),
    password: async (message, otherwise) =>
      (await ask<string | undefined>({ code: "password_needed", ...otherwise }, (clack, streams) =>
        clack.password({ message: plain(message), mask: "", ...streams }),
      )) ?? "",
    async confirm(message) {
      if (options.yes) return;
      const otherwise = { needed: "a confirmation", fix: "--yes" };
      const yes = await ask<boolean>(otherwise, (clack, streams) =>
        clack.confirm({ message: plain(message), initialValue: false, ...streams }),
      );
      if (!yes) throw new Fault("interrupted", "not confirmed", { hint: "nothing was done" });
    },
    async select(message, choices, otherwise) {
      const picked = await ask<string>(otherwise, (clack, streams) =>
        clack.select<string>({ message: plain(message), options: [...choices], ...streams }),
      );
      const choice = choices.find(({ value }) => value === picked);
      if (choice === undefined) throw new Fault("internal", "the answer is none of the choices");
      return choice.value;
    },
    async step(label, work) {
      const stop = animate(out, env, () => label);
      try {
        return await work;
      } finally {
        stop();
      }
    },
    counter(label, total) {
      let count = 0;
      const done = animate(out, env, () => `${label} ${count}/${total}`);
      return {
        advance(by = 1) {
          count += by;
        },
        done,
      };
    },
  };
}

type Clack = typeof import("@clack/prompts");
interface Streams {
  readonly input: ReadStream;
  readonly output: WriteStream;
  readonly signal: AbortSignal;
}
interface Opened extends Omit<Streams, "signal"> {
  readonly outputFd: number;
}

function forbiddenBy({ noInput, env }: TerminalOptions): string | null {
  if (noInput) return "--no-input forbids questions";
  if (env["KEYHOLD_NO_INPUT"]) return "KEYHOLD_NO_INPUT forbids questions";
  if (env["CI"]) return "CI is set, so nobody is asked";
  return null;
}

function canOpen(device: string): boolean {
  try {
    closeQuietly(openSync(device, "r+"));
    return true;
  } catch {
    return false;
  }
}

/** Opens the terminal once: under Bun a second stream on it gets no input, since the first one's read is pending. */
function opener(device: string): () => Opened {
  let opened: Opened | null = null;
  return () => {
    if (opened === null) {
      const outputFd = openSync(device, "w");
      opened = { input: new ReadStream(openSync(device, "r")), output: new WriteStream(outputFd), outputFd };
    }
    return opened;
  };
}

/** Leaves the terminal as it was after one question, whatever happens. */
async function withTerminal<T>(opened: Opened, work: () => Promise<T>): Promise<T> {
  const restore = () => {
    opened.input.setRawMode(false);
    writeAll(opened.outputFd, new TextEncoder().encode(SHOW_CURSOR));
  };
  const forget = atExit(restore);
  try {
    return await work();
  } finally {
    forget();
    restore();
    opened.input.pause();
  }
}

/** Draws a line on stderr until the returned function is called. Signals are not touched. */
function animate(out: Output, env: TerminalOptions["env"], text: () => string): () => void {
  if (!out.animated) return () => undefined;
  const unicode = process.platform !== "win32" && /utf-?8/i.test(env["LC_ALL"] || env["LC_CTYPE"] || env["LANG"] || "");
  let frame = 0;
  const draw = () => {
    const mark = unicode ? FRAMES[frame % FRAMES.length] : "|/-\\"[frame % 4];
    frame++;
    out.draw(`\r\u001b[K${mark} ${plain(text())}`);
  };
  let timer: ReturnType<typeof setInterval> | null = null;
  const delay = setTimeout(() => {
    draw();
    timer = setInterval(draw, FRAME_MS);
    timer.unref();
  }, DELAY_MS);
  const clear = () => {
    if (frame > 0) out.draw("\r\u001b[K");
    frame = 0;
  };
  const forget = atExit(clear);
  return () => {
    clearTimeout(delay);
    if (timer !== null) clearInterval(timer);
    forget();
    clear();
  };
}
