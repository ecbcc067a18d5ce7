import { isatty } from "node:tty";
import { toBase64url } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { BrokenPipe, writeAll } from "./process.ts";
import { type ColorMode, paint, plain, safeLines, wantsColor } from "./text.ts";

/** What a command hands back: data for `--json`, and the same for people. */
export interface Result {
  /** Plain data; `Uint8Array` becomes base64url, `Date` RFC 3339, `bigint` text. */
  readonly data: unknown;
  /** Lines for people without the last newline; "" prints nothing. Not called under `--json`. */
  readonly human: () => string;
  readonly requestId: string | null;
  /** True where the lines are a secret's value: into anything but a terminal they go as they are. */
  readonly bare: boolean;
  /** Exit code: 0, 9 (pending) or 10 (partly done). */
  readonly exit: number;
}

/** Builds a {@link Result}. */
export function result(
  data: unknown,
  human: () => string,
  extra: { readonly requestId?: string | null; readonly bare?: boolean; readonly exit?: 0 | 9 | 10 } = {},
): Result {
  return { data, human, requestId: extra.requestId ?? null, bare: extra.bare ?? false, exit: extra.exit ?? 0 };
}

/** The streams of one command (docs/cli.md §1): data on stdout, everything else on stderr. */
export interface Output {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  /** Columns of the terminal on stdout; null where stdout is no terminal. */
  readonly width: number | null;
  /** True where stderr is a terminal that may be animated. */
  readonly animated: boolean;
  /** Prints a result in the form asked for. The frame calls it with what `run` returns. */
  result(result: Result): void;
  /** One JSON line on stdout, as it is, for commands with lines of their own (`serve`, `demo`). */
  jsonLine(value: unknown): void;
  /** Lines for people on stdout, for commands that print as they go. */
  lines(text: string): void;
  /** Raw bytes on stdout (`read`, `--out -`, scripts, pages). */
  bytes(bytes: Uint8Array | string): void;
  /** A notice on stderr, unless `--quiet`. */
  notice(text: string): void;
  /** A warning on stderr, also with `--quiet`. */
  warn(text: string): void;
  /** A notice on stderr with `--verbose` only. */
  detail(text: string): void;
  /** Raw text on stderr for the progress display. */
  draw(text: string): void;
  /** Prints a failure as the last line (`--json`) or lines of stderr; gives the exit code, `exit` instead of its own. */
  fail(error: unknown, exit?: number): number;
}

export interface OutputOptions {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly color: ColorMode;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Takes the place of the two streams in tests. */
  readonly write?: (fd: 1 | 2, bytes: Uint8Array) => void;
}

/** Makes the output of this process. */
export function createOutput(options: OutputOptions): Output {
  const { json, quiet, verbose, color, env } = options;
  const write = options.write ?? writeAll;
  const colorOf = (fd: 1 | 2) => wantsColor(color, env, isatty(fd));
  const put = (fd: 1 | 2, text: string) => write(fd, new TextEncoder().encode(text));
  const putLines = (fd: 1 | 2, text: string) => {
    if (text !== "") put(fd, `${safeLines(text, colorOf(fd))}\n`);
  };
  return {
    json,
    quiet,
    verbose,
    get width() {
      return isatty(1) ? process.stdout.columns || 80 : null;
    },
    get animated() {
      return !quiet && !json && env["TERM"] !== "dumb" && isatty(2);
    },
    result(done) {
      const requestId = done.requestId ?? undefined;
      if (json) put(1, `${jsonText({ v: 1, data: done.data, requestId })}\n`);
      else if (done.bare && !isatty(1)) put(1, `${done.human()}\n`);
      else putLines(1, done.human());
    },
    jsonLine: (value) => put(1, `${jsonText(value)}\n`),
    lines: (text) => putLines(1, text),
    bytes: (bytes) => write(1, typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes),
    notice(text) {
      if (!quiet) putLines(2, text);
    },
    warn: (text) => putLines(2, `${paint.yellow("!")} ${text}`),
    detail(text) {
      if (verbose) putLines(2, paint.dim(text));
    },
    draw: (text) => put(2, text),
    fail(error, exit) {
      const fault = asFault(error);
      const code = exit ?? fault.exit;
      try {
        if (verbose && !(error instanceof Fault)) putLines(2, stackOf(error));
        if (json) {
          put(2, `${jsonText({ v: 1, error: errorObject(fault), requestId: fault.requestId })}\n`);
        } else {
          putLines(2, humanError(fault, code));
        }
      } catch (writeError) {
        if (!(writeError instanceof BrokenPipe)) throw writeError;
      }
      return code;
    },
  };
}

/** Any throwable as a Fault. A foreign error's own text is not shown: it may hold data. */
export function asFault(error: unknown): Fault {
  if (error instanceof Fault) return error;
  const kind = error instanceof Error ? error.name : typeof error;
  return new Fault("internal", `unexpected failure (${kind})`);
}

/** The `error` object of a failure under `--json`. */
export function errorObject(fault: Fault): Readonly<Record<string, unknown>> {
  return {
    code: fault.code,
    message: fault.message,
    hint: fault.hint ?? null,
    ...(fault.why === undefined ? {} : { why: fault.why }),
    ...(fault.retryAfterMs === undefined ? {} : { retryAfterMs: fault.retryAfterMs }),
    ...(fault.culprits.length === 0 ? {} : { culprits: fault.culprits }),
  };
}

/** What, why, fix, code (docs/cli.md §1). */
function humanError(fault: Fault, exit: number): string {
  const lines = [`${paint.red("keyhold:")} ${sentence(fault.message)}`];
  if (fault.why !== undefined) lines.push(`  Why: ${sentence(fault.why)}`);
  if (fault.culprits.length > 0) lines.push(`  Who: ${fault.culprits.map(plain).join(", ")}`);
  if (fault.retryAfterMs !== undefined) lines.push(`  When: in ${Math.ceil(fault.retryAfterMs / 1_000)} s`);
  const code = paint.dim(`[${fault.code}, exit ${exit}]`);
  lines.push(fault.hint === undefined ? `  ${code}` : `  Fix: ${plain(fault.hint)}     ${code}`);
  return lines.join("\n");
}

function sentence(text: string): string {
  const line = plain(text);
  return /[.!?]$/.test(line) ? line : `${line}.`;
}

/** Frames of the stack without the message, which may hold data. */
function stackOf(error: unknown): string {
  if (!(error instanceof Error) || error.stack === undefined) return "";
  return error.stack
    .split("\n")
    .filter((line) => /^\s+at /.test(line))
    .join("\n");
}

/** JSON text on one line; bytes as base64url without padding. */
export function jsonText(value: unknown): string {
  return JSON.stringify(toJson(value)) ?? "null";
}

function toJson(value: unknown): unknown {
  if (value instanceof Uint8Array) return toBase64url(value);
  if (value instanceof Date) return value.toISOString();
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return value.map(toJson);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, toJson(member)]));
  }
  return value;
}
