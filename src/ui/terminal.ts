import { openSync } from "node:fs";
import type { ReadStream, WriteStream } from "node:tty";
import { Fault } from "../errors.ts";
import { libc } from "../wire/libc.ts";
import type { Output } from "./output.ts";
import { atExit, closeQuietly, writeAll } from "./process.ts";
import { plain, safeLines } from "./text.ts";
import { clipped, wrapped } from "./wrap.ts";

/** How a failure to ask is reported: what is missing and which flag gives it without a prompt. */
export interface Otherwise {
  readonly code?: "input_needed" | "password_needed" | "factor_required";
  /** Completes "… is needed": "the name of the secret". */
  readonly needed: string;
  /** The command line or flag that gives it. */
  readonly fix: string;
}

/** The answer of somebody who pressed Esc: one step back. */
export const BACK: unique symbol = Symbol("back");
export type Back = typeof BACK;

/** Questions of which one may follow another: Esc gives {@link BACK}; Ctrl-C ends the command as everywhere. */
export interface Steps {
  /** Columns of the terminal. */
  readonly columns: number;
  /** Lines above the next question, wrapped to the terminal; `mark` says how they are meant. */
  say(text: string, mark?: "plain" | "good" | "warn"): Promise<void>;
  /** An empty answer gives "". @throws Fault input_needed, interrupted */
  text(
    message: string,
    options?: { readonly initial?: string; readonly check?: (text: string) => string | null },
  ): Promise<string | Back>;
  /** Not echoed, not even as dots; an empty answer gives "". @throws Fault password_needed, interrupted */
  password(message: string, otherwise?: Otherwise): Promise<string | Back>;
  /** @throws Fault input_needed, interrupted */
  select<T extends string>(
    message: string,
    options: readonly { value: T; label: string; hint?: string }[],
  ): Promise<T | Back>;
  /** Work between two secret questions: what is typed meanwhile is not echoed. */
  unseen<T>(work: Promise<T>): Promise<T>;
  /** Shows text on a screen of its own until Enter; on most terminals nothing of it stays behind. */
  reveal(text: string, message: string): Promise<Back | null>;
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
  readonly steps: Steps;
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
const OWN_SCREEN = "\u001b[?1049h\u001b[2J\u001b[H";
const LEAVE_SCREEN = "\u001b[?1049l";
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

  const askOrBack = async <T>(
    otherwise: Otherwise,
    question: (clack: Clack, streams: Streams) => Promise<T | symbol>,
  ): Promise<T | Back> => {
    const why = forbidden ?? (canOpen(device) ? null : "there is no terminal to ask at");
    if (why !== null) {
      const code = otherwise.code ?? "input_needed";
      throw new Fault(code, `${otherwise.needed} is needed`, { why, hint: otherwise.fix });
    }
    const clack = await import("@clack/prompts");
    const opened = open();
    if (out.animated) out.draw("\r\u001b[K");
    questions += 1;
    return await withTerminal(opened, async () => {
      let key: string | undefined;
      // readline ends at Ctrl-D without a word to clack, which would wait on with the echo switched on again
      const end = new AbortController();
      const listen = (_text: string | undefined, pressed?: { readonly name?: string; readonly ctrl?: boolean }) => {
        key = pressed?.name;
        if (key === "d" && pressed?.ctrl) end.abort();
      };
      opened.input.on("keypress", listen);
      try {
        const answer = await question(clack, {
          input: opened.input,
          output: opened.output,
          signal: AbortSignal.any([signal, end.signal]),
        });
        if (!clack.isCancel(answer)) return answer as T;
        // clack cancels by Esc and by Ctrl-C alike
        return key === "escape" && !signal.aborted ? BACK : cancelled();
      } finally {
        questions -= 1;
        opened.input.off("keypress", listen);
      }
    });
  };
  const ask = async <T>(...of: Parameters<typeof askOrBack<T>>): Promise<T> => {
    const answer = await askOrBack<T>(...of);
    return answer === BACK ? cancelled() : (answer as T);
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
    steps: stepsOf(askOrBack, open, env["TERM"] !== "dumb"),
  };
}

function cancelled(): never {
  throw new Fault("interrupted", "cancelled", { hint: "nothing was done" });
}

const UNASKED: Otherwise = { needed: "an answer", fix: "a terminal, or the command's flags" };

function stepsOf(
  ask: <T>(of: Otherwise, question: (clack: Clack, to: Streams) => Promise<T | symbol>) => Promise<T | Back>,
  open: () => Opened,
  screens: boolean,
): Steps {
  const lines = (text: string, output: WriteStream) => wrapped(safeLines(text, false), (output.columns || 80) - 4);
  const steps: Steps = {
    get columns() {
      return open().output.columns || 80;
    },
    async say(text, mark = "plain") {
      const { log } = await import("@clack/prompts");
      const { output } = open();
      const how = { plain: log.message, good: log.success, warn: log.warn }[mark];
      how(lines(text, output).join("\n"), { output });
    },
    async text(message, options = {}) {
      const answer = await ask<string | undefined>(UNASKED, (clack, streams) =>
        clack.text({
          message: plain(message),
          ...(options.initial !== undefined && { initialValue: options.initial }),
          validate: (text) => options.check?.(text ?? "") ?? undefined,
          ...streams,
        }),
      );
      return answer ?? "";
    },
    async password(message, otherwise = UNASKED) {
      const answer = await ask<string | undefined>({ code: "password_needed", ...otherwise }, (clack, streams) =>
        clack.password({ message: plain(message), mask: "", ...streams }),
      );
      return answer ?? "";
    },
    async select<T extends string>(message: string, choices: readonly { value: T; label: string; hint?: string }[]) {
      const picked = await ask<string>(UNASKED, (clack, streams) =>
        clack.select<string>({ message: plain(message), options: [...choices], ...streams }),
      );
      if (picked === BACK) return BACK;
      const choice = choices.find(({ value }) => value === picked);
      if (choice === undefined) throw new Fault("internal", "the answer is none of the choices");
      return choice.value;
    },
    unseen(work) {
      const { input } = open();
      input.setRawMode(true);
      const show = () => input.setRawMode(false);
      const forget = atExit(show);
      return work.finally(() => {
        forget();
        show();
      });
    },
    async reveal(text, message) {
      const { output, outputFd } = open();
      const put = (codes: string) => writeAll(outputFd, new TextEncoder().encode(codes));
      if (screens) put(OWN_SCREEN);
      const leave = () => {
        if (screens) put(LEAVE_SCREEN);
      };
      const forget = atExit(leave);
      try {
        put(`${lines(text, output).join("\n")}\n`);
        return (await steps.text(message)) === BACK ? BACK : null;
      } finally {
        forget();
        leave();
      }
    },
  };
  return steps;
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

let asked: ReadStream | null = null;
let askedFd: number | null = null;

/** The stream by which questions were asked; null before the first one. Others on the terminal get no keys after it. */
export function askedInput(): ReadStream | null {
  return asked;
}

/** Opens the terminal once: under Bun a second stream on it gets no input, since the first one's read is pending. */
function opener(device: string): () => Opened {
  let opened: Opened | null = null;
  return () => {
    if (opened === null || opened.input.destroyed) {
      const [inputFd, outputFd] = [openSync(device, "r"), openSync(device, "w")];
      // loaded for questions alone: it takes milliseconds
      const tty = process.getBuiltinModule("node:tty");
      opened = { input: new tty.ReadStream(inputFd), output: new tty.WriteStream(outputFd), outputFd };
      asked = opened.input;
      askedFd = inputFd;
    }
    return opened;
  };
}

/**
 * Gives the terminal's keys to another program (pager, editor): a read of ours that is pending since a question would
 * take the next one from it. A question that follows opens the terminal anew.
 */
export function releaseInput(): void {
  const input = asked;
  if (input === null || askedFd === null) return;
  asked = null;
  input.on("error", () => undefined);
  // the change of modes wakes the read, which then fails
  libc()?.nonblocking(askedFd);
  input.setRawMode(true);
  input.setRawMode(false);
  input.destroy();
  askedFd = null;
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

/** Questions that wait for an answer: work that asks one shows nothing beside it. */
let questions = 0;

/** Draws a line on stderr until the returned function is called. Signals are not touched. */
function animate(out: Output, env: TerminalOptions["env"], text: () => string): () => void {
  if (!out.animated) return () => undefined;
  const unicode = process.platform !== "win32" && /utf-?8/i.test(env["LC_ALL"] || env["LC_CTYPE"] || env["LANG"] || "");
  let frame = 0;
  const draw = () => {
    if (questions > 0) return;
    const mark = unicode ? FRAMES[frame % FRAMES.length] : "|/-\\"[frame % 4];
    frame++;
    out.draw(`\r\u001b[K${clipped(`${mark} ${plain(text())}`, out.columns ?? 80)}`);
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
