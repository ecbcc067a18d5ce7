import { toBase64url } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { BrokenPipe, isTerminal, writeAll } from "./process.ts";
import { table } from "./table.ts";
import { type ColorMode, paint, plain, safeLines, wantsColor } from "./text.ts";
import { folded } from "./wrap.ts";

/** A list: what table, `--plain` and `--null` are made of. */
export interface Rows {
  /** Heads of the columns, for people. */
  readonly heads: readonly string[];
  readonly cells: readonly (readonly string[])[];
  /** Index of the cell that names its row, for `--null` (default: the first). */
  readonly name?: number;
}

/** How a list is written: a table, tab-separated cells without heads, or names that end in NUL. */
export type ListForm = "table" | "plain" | "null";

/** What a command hands back: data for `--json`, and the same for people. */
export interface Result {
  /** Plain data; `Uint8Array` becomes base64url, `Date` RFC 3339, `bigint` text. */
  readonly data: unknown;
  /** Lines for people without the last newline; "" prints nothing. Not called under `--json`. */
  readonly human: (width: number | null) => string;
  /** The rows of a list, else null. */
  readonly rows: Rows | null;
  /** True for lists and help, which a pager may show; never for values. */
  readonly paged: boolean;
  readonly requestId: string | null;
  /** True where the lines are a secret's value: into anything but a terminal they go as they are. */
  readonly bare: boolean;
  /** Exit code: 0, 9 (pending) or 10 (partly done). */
  readonly exit: number;
}

/** Builds a {@link Result}. */
export function result(
  data: unknown,
  human: (width: number | null) => string,
  extra: { readonly requestId?: string | null; readonly bare?: boolean; readonly exit?: 0 | 9 | 10 } = {},
): Result {
  const { requestId = null, bare = false, exit = 0 } = extra;
  return { data, human, rows: null, paged: false, requestId, bare, exit };
}

/** A {@link Result} that is a list: a table that fits the terminal, `--plain`, `--null` and the pager follow from it. */
export function listing(
  data: unknown,
  rows: Rows,
  extra: { readonly requestId?: string | null; readonly exit?: 0 | 9 | 10 } = {},
): Result {
  return { ...result(data, (width) => table(rows.heads, rows.cells, width), extra), rows, paged: true };
}

/** The streams of one command (docs/cli.md §1): data on stdout, everything else on stderr. */
export interface Output {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  /** Columns of the terminal on stdout; null where stdout is no terminal. */
  readonly width: number | null;
  /** Columns of the terminal on stderr, to which notices and faults are broken; null where it is no terminal. */
  readonly columns: number | null;
  /** True where stderr is a terminal that may be animated. */
  readonly animated: boolean;
  /** Prints a result in the form asked for. The frame calls it with what `run` returns. */
  result(result: Result): void;
  /** The lines that a pager may show, safe and coloured; null where they go to stdout as they are. */
  pageable(result: Result): string | null;
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
  /** How lists are written (default: as a table). */
  readonly form?: ListForm;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Takes the place of the two streams in tests. */
  readonly write?: (fd: 1 | 2, bytes: Uint8Array) => void;
  /** Takes the place of the width of the terminal on stderr in tests. */
  readonly columns?: () => number | null;
}

/** Makes the output of this process. */
export function createOutput(options: OutputOptions): Output {
  const { json, quiet, verbose, color, env, form = "table" } = options;
  const write = options.write ?? writeAll;
  const colorOf = (fd: 1 | 2) => wantsColor(color, env, isTerminal(fd));
  const put = (fd: 1 | 2, text: string) => write(fd, new TextEncoder().encode(text));
  const putLines = (fd: 1 | 2, text: string) => {
    if (text !== "") put(fd, `${safeLines(text, colorOf(fd))}\n`);
  };
  const columnsNow = options.columns ?? (() => (isTerminal(2) ? process.stderr.columns || 80 : null));
  /** Lines of stderr for people, the first one with a mark before it, and one at the end that stays whole. */
  const say = (text: string, { mark = "", ending = "" } = {}) => {
    if (text === "") return;
    const [color, columns] = [colorOf(2), columnsNow() ?? Number.POSITIVE_INFINITY];
    const [before, width] = [safeLines(mark, color), Bun.stringWidth(mark)];
    const lines = folded(safeLines(text, color), columns - width);
    const shown = lines.map((line, at) => (at === 0 ? before : " ".repeat(width)) + line);
    const last = ending === "" ? [] : [safeLines(ending, color)];
    put(2, `${[...shown, ...last].join("\n")}\n`);
  };
  const widthNow = () => (isTerminal(1) ? process.stdout.columns || 80 : null);
  return {
    json,
    quiet,
    verbose,
    get width() {
      return widthNow();
    },
    get columns() {
      return columnsNow();
    },
    get animated() {
      return !quiet && !json && env["TERM"] !== "dumb" && isTerminal(2);
    },
    result(done) {
      const requestId = done.requestId ?? undefined;
      if (json) put(1, `${jsonText({ v: 1, data: done.data, requestId })}\n`);
      else if (done.rows !== null && form !== "table") put(1, listText(done.rows, form, isTerminal(1)));
      else if (done.bare && !isTerminal(1)) put(1, `${done.human(null)}\n`);
      else putLines(1, done.human(widthNow()));
    },
    pageable(done) {
      const fits = json || form !== "table" || !done.paged || done.bare || !isTerminal(1);
      return fits ? null : `${safeLines(done.human(widthNow()), colorOf(1))}\n`;
    },
    jsonLine: (value) => put(1, `${jsonText(value)}\n`),
    lines: (text) => putLines(1, text),
    bytes: (bytes) => write(1, typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes),
    notice(text) {
      if (!quiet) say(text);
    },
    warn: (text) => say(text, { mark: `${paint.yellow("!")} ` }),
    detail(text) {
      if (verbose) say(paint.dim(text));
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
          const [text, ending] = humanError(fault, code, columnsNow());
          // the code is looked for as it stands, by people and by programs
          say(text, { ending });
        }
      } catch (writeError) {
        if (!(writeError instanceof BrokenPipe)) throw writeError;
      }
      return code;
    },
  };
}

/** The rows for programs: tab-separated and safe, or the names alone, as they are where no terminal shows them. */
function listText({ cells, name = 0 }: Rows, form: Exclude<ListForm, "table">, shown: boolean): string {
  if (form === "plain") return cells.map((row) => `${row.map(plain).join("\t")}\n`).join("");
  return cells.map((row) => `${shown ? plain(row[name] ?? "") : (row[name] ?? "")}\0`).join("");
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
    ...(fault.data === undefined ? {} : { data: fault.data }),
  };
}

/** What, why, fix, code (docs/cli.md §1); the code apart, where it has no room on the last line. */
function humanError(fault: Fault, exit: number, columns: number | null): readonly [text: string, ending: string] {
  const lines = [`${paint.red("keyhold:")} ${sentence(fault.message)}`];
  if (fault.why !== undefined) lines.push(`  Why: ${sentence(fault.why)}`);
  if (fault.culprits.length > 0) lines.push(`  Who: ${fault.culprits.map(plain).join(", ")}`);
  if (fault.retryAfterMs !== undefined) lines.push(`  When: in ${Math.ceil(fault.retryAfterMs / 1_000)} s`);
  const code = paint.dim(`[${fault.code}, exit ${exit}]`);
  const fix = fault.hint === undefined ? "" : `  Fix: ${plain(fault.hint)}`;
  if (fix === "") return [lines.join("\n"), `  ${code}`];
  const whole = `${fix}     ${code}`;
  if (columns === null || Bun.stringWidth(whole) <= columns) return [lines.join("\n"), whole];
  return [[...lines, fix].join("\n"), `  ${code}`];
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
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Uint8Array) return toBase64url(value);
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return isJson(value) ? value : value.map(toJson);
  if (isJson(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, toJson(member)]));
}

/** True for what is JSON all the way down, so that long lists are not copied. */
function isJson(value: object): boolean {
  if (!Array.isArray(value) && Object.getPrototypeOf(value) !== Object.prototype) return false;
  const members: readonly unknown[] = Array.isArray(value) ? value : Object.values(value);
  for (let at = 0; at < members.length; at++) {
    const member = members[at];
    if (typeof member === "bigint") return false;
    if (typeof member === "object" && member !== null && !isJson(member)) return false;
  }
  return true;
}
