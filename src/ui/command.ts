/*
 * How to add a command
 *
 * 1. src/commands/NAME.ts (groups: src/commands/GROUP/NAME.ts or several exports in one file):
 *
 *      import { Fault } from "../errors.ts";
 *      import { defineCommand } from "../ui/command.ts";
 *      import { result } from "../ui/output.ts";
 *      import { plain } from "../ui/text.ts";
 *
 *      export default defineCommand({
 *        args: {
 *          name: { type: "positional", description: "name of the secret", ask: "Name of the secret" },
 *          bytes: { type: "integer", min: 1, max: 65_536, default: 32, description: "length in bytes" },
 *          tag: { type: "list", hint: "TAG", description: "attach a tag (repeatable)" },
 *        },
 *        examples: [["keyhold generate db/prod --type token", "a token that is stored and not shown"]],
 *        run: async (args, { term, out, flags }) => {
 *          const made = await term.step("Generating", client.generate({ name: args.name, … }));
 *          return result(made, () => `${plain(made.name)}  ${made.keyId}`, { requestId: made.requestId });
 *        },
 *      });
 *
 * 2. One line in src/commands/index.ts: name, summary, `load: () => import("./NAME.ts").then((m) => m.default)`.
 *    Help, completion, the manual page and docs follow from these two.
 *
 * Values arrive typed: absent single values are null, absent flags false, lists []; keys are camelCase and become
 * kebab-case flags (`inFile` is --in-file). A required value that is missing is asked for at the terminal, or the
 * command exits 2; `required: false` leaves it null. `rest` receives the words after `--` in `ctx.rest`.
 * Failures are thrown as Fault; nothing else is caught. Everything a command prints goes through its Result or
 * `ctx.out`; values of others are passed through `plain`.
 *
 * - Password:    src/ui/password.ts, bytes to be wiped: `givenPassword(ctx)` by flag or credential, else null; then the
 *                agent; `askPassword(ctx)` at the terminal. `needPassword(ctx)`: the first and the last in one.
 *                `choosePassword(ctx)` for register and init; `chooseNewPassword(ctx, args)` with
 *                `...NEW_PASSWORD_ARGS` (src/ui/flags.ts) for account password and vault rekey.
 * - Value:       `await readValue(ctx, args.inFile)`, with `...VALUE_ARGS` among the args.
 * - Questions:   `ctx.term.text|select|confirm`; `confirm` throws unless the answer (or --yes) is yes.
 * - Progress:    `await ctx.term.step("Deriving the key", promise)`; `ctx.term.counter("Importing", total)`.
 * - Setting:     `(await ctx.settings()).get("clearAfter", args.clearAfter)`: flag, environment, files, default.
 * - Directories: `ctx.dirs.config|data|state|runtime|server`, made by `makePrivateDirectory` (src/client).
 * - Long runs:   `ctx.onTerminate((signal) => …)` takes over SIGINT and SIGTERM (the second one still ends the
 *                process); `ctx.signal` is aborted by them otherwise. `run` returns void after printing by itself.
 */
import { parseArgs } from "node:util";
import { type ArgDef, type ArgsDef, defineCommand as cittyCommand, runCommand } from "citty";
import { Fault } from "../errors.ts";
import {
  type Arg,
  type Args,
  convert,
  type FlagArg,
  flagName,
  isFlag,
  placeholder,
  takesValue,
  type Values,
} from "./args.ts";
import type { Settings } from "./config.ts";
import { GLOBAL_ARGS, type GlobalFlags } from "./flags.ts";
import type { Output, Result } from "./output.ts";
import type { Directories } from "./paths.ts";
import type { Terminal } from "./terminal.ts";
import { nearest } from "./text.ts";

/** Who reads standard input; it can serve one purpose only. */
export interface StandardInput {
  /** @throws Fault usage if stdin already serves another purpose. */
  claim(purpose: string): void;
}

/** What a command gets beside its arguments. */
export interface Context {
  readonly out: Output;
  readonly term: Terminal;
  readonly flags: GlobalFlags;
  /** The words after `--`. */
  readonly rest: readonly string[];
  /** This process's environment after clean-up. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The environment as it was inherited, for `run`'s child only. */
  readonly inherited: Readonly<Record<string, string | undefined>>;
  readonly dirs: Directories;
  readonly stdin: StandardInput;
  /** Aborted by SIGINT, SIGTERM and SIGHUP. */
  readonly signal: AbortSignal;
  /** The whole command tree, for help, completion and the manual page. */
  readonly root: Group;
  settings(): Promise<Settings>;
  onTerminate(handler: (signal: NodeJS.Signals) => void): void;
}

/** A command as a value. */
export interface Command<T extends Args = Args> {
  readonly args: T;
  /** Paragraphs below the summary in the help text. */
  readonly details?: string;
  /** Pairs of command line and explanation. */
  readonly examples?: readonly (readonly [line: string, meaning: string])[];
  /** Present if words after `--` belong to somebody else (`run`). */
  readonly rest?: { readonly hint: string; readonly description: string; readonly required: boolean };
  /** Gives the result to print; or, having printed by itself, nothing or an exit code. */
  run(args: Values<T>, context: Context): Promise<Result | number | void>;
}

/** A leaf of the command tree; `load` imports the command when it is run or described. */
export interface Entry {
  readonly summary: string;
  readonly hidden?: boolean;
  readonly section?: string;
  readonly load: () => Promise<Command>;
}

/** A node of the command tree; it does nothing itself. */
export interface Group {
  readonly summary: string;
  readonly hidden?: boolean;
  readonly section?: string;
  readonly commands: Readonly<Record<string, Entry | Group>>;
}

/** True for nodes with commands of their own. */
export function isGroup(node: Entry | Group): node is Group {
  return "commands" in node;
}

/** Declares a command; its argument types follow from `args`. */
export function defineCommand<const T extends Args>(command: Command<T>): Command<T> {
  return command;
}

/** What the words of a command line lead to. */
export type Resolved =
  | { readonly kind: "help"; readonly path: readonly string[] }
  | {
      readonly kind: "run";
      readonly path: readonly string[];
      readonly entry: Entry;
      readonly args: readonly string[];
      readonly rest: readonly string[] | null;
    };

const GLOBAL_FLAGS = flagTable(GLOBAL_ARGS);

function flagTable(args: Args): Map<string, FlagArg> {
  const table = new Map<string, FlagArg>();
  for (const [key, arg] of Object.entries(args)) if (isFlag(arg)) table.set(flagName(key), arg);
  return table;
}

/**
 * Finds the command that an argument list means, without loading it. Global flags may stand anywhere.
 *
 * @throws Fault usage naming the nearest command or flag.
 */
export function resolve(root: Group, argv: readonly string[]): Resolved {
  const end = argv.indexOf("--");
  const words = end === -1 ? argv : argv.slice(0, end);
  const rest = end === -1 ? null : argv.slice(end + 1);
  const path: string[] = [];
  const early: string[] = [];
  let node: Entry | Group = root;
  let at = 0;
  let help = false;
  while (isGroup(node)) {
    const word = words[at];
    if (word === undefined) break;
    at++;
    if (word.startsWith("-") && word !== "-") {
      if (word === "--help" || word === "-h") {
        help = true;
        continue;
      }
      if (node === root && (word === "--version" || word === "-V")) {
        const version: Entry | Group | undefined = root.commands["version"];
        if (version !== undefined) node = version;
        path.push("version");
        continue;
      }
      early.push(word);
      const flag = globalFlag(word, path);
      const value = words[at];
      if (takesValue(flag) && word.startsWith("--") && !word.includes("=") && value !== undefined) {
        early.push(value);
        at++;
      }
      continue;
    }
    const next: Entry | Group | undefined = Object.hasOwn(node.commands, word) ? node.commands[word] : undefined;
    if (next === undefined) throw unknownCommand(node, path, word);
    path.push(word);
    node = next;
  }
  const remaining = words.slice(at);
  help ||= remaining.includes("--help") || remaining.includes("-h");
  if (help || (path.length === 0 && argv.length === 0)) return { kind: "help", path };
  if (isGroup(node)) {
    const known = visibleNames(node).join(", ");
    throw new Fault("usage", path.length === 0 ? "no command given" : `"${path.join(" ")}" needs a command: ${known}`, {
      hint: helpHint(path),
    });
  }
  return { kind: "run", path, entry: node, args: [...early, ...remaining], rest };
}

function globalFlag(word: string, path: readonly string[]): FlagArg {
  const name = word.startsWith("--") ? (word.slice(2).split("=")[0] ?? "") : null;
  for (const [flag, arg] of GLOBAL_FLAGS) if (name === null ? arg.short === word.slice(1) : flag === name) return arg;
  throw unknownFlag(word, GLOBAL_FLAGS, path);
}

/** The names in a group that help shows. */
export function visibleNames(group: Group): readonly string[] {
  return Object.entries(group.commands)
    .filter(([, node]) => node.hidden !== true)
    .map(([name]) => name);
}

function helpHint(path: readonly string[]): string {
  return ["keyhold help", ...path].join(" ");
}

function unknownCommand(group: Group, path: readonly string[], word: string): Fault {
  const near = nearest(word, visibleNames(group));
  const guess = near === null ? "" : `; did you mean "${["keyhold", ...path, near].join(" ")}"?`;
  return new Fault("usage", `unknown command "${[...path, word].join(" ")}"${guess}`, { hint: helpHint(path) });
}

function unknownFlag(raw: string, known: ReadonlyMap<string, FlagArg>, path: readonly string[]): Fault {
  const name = raw.replace(/^-+/, "").split("=")[0] ?? "";
  const visible = [...known].filter(([, arg]) => arg.hidden !== true).map(([flag]) => flag);
  const near = nearest(name, [...visible, "help"]);
  const shown = raw.startsWith("--") ? `--${name}` : raw;
  const guess = near === null ? "" : `; did you mean "--${near}"?`;
  return new Fault("usage", `unknown flag "${shown}"${guess}`, { hint: helpHint(path) });
}

/** Arguments of one run, converted and checked. `missing` are required values that were not given. */
export interface Parsed {
  readonly values: Readonly<Record<string, unknown>>;
  readonly flags: GlobalFlags;
  readonly rest: readonly string[];
  readonly missing: readonly string[];
}

/**
 * Parses the arguments of a resolved command.
 *
 * @throws Fault usage for unknown flags, missing values, values of a wrong form, too many words.
 */
export async function parse(command: Command, found: Resolved & { kind: "run" }, nowMs: number): Promise<Parsed> {
  const all: Args = { ...GLOBAL_ARGS, ...command.args };
  const table = flagTable(all);
  const { given, words } = readTokens(table, found);
  if (found.rest !== null && command.rest === undefined) words.push(...found.rest);
  const { rest: restArg } = command;
  if (restArg?.required === true && (found.rest === null || found.rest.length === 0)) {
    throw new Fault("usage", `give ${restArg.hint} after "--"`, { hint: helpHint(found.path) });
  }

  const positionals = Object.entries(command.args).filter(([, arg]) => !isFlag(arg));
  const tail = positionals.find(([, arg]) => arg.type === "positionals");
  const single = positionals.filter(([, arg]) => arg.type === "positional");
  if (tail === undefined && words.length > single.length) {
    throw new Fault("usage", `unexpected argument "${words[single.length]}"`, { hint: helpHint(found.path) });
  }

  const raw = await throughCitty(all, given, words);
  const values: Record<string, unknown> = {};
  const missing: string[] = [];
  for (const [key, arg] of Object.entries(all)) {
    const name = flagName(key);
    const texts = given.get(name);
    if (arg.type === "boolean") values[key] = texts?.at(-1) === "true";
    else if (arg.type === "list") values[key] = texts ?? [];
    else if (arg.type === "positionals") {
      const many = words.slice(single.length);
      if (arg.required === true && many.length === 0) {
        throw new Fault("input_needed", `${placeholder(key, arg)} is missing`, { hint: helpHint(found.path) });
      }
      values[key] = many;
    } else {
      const text = raw[name];
      if (typeof text === "string") values[key] = isFlag(arg) ? convert(`--${name}`, arg, text, nowMs) : text;
      else if ("default" in arg && arg.default !== undefined) values[key] = arg.default;
      else {
        values[key] = null;
        if (isRequired(arg)) missing.push(key);
      }
    }
  }
  const flags = Object.fromEntries(Object.keys(GLOBAL_ARGS).map((key) => [key, values[key]])) as GlobalFlags;
  const own = Object.fromEntries(Object.keys(command.args).map((key) => [key, values[key]]));
  return { values: own, flags, rest: command.rest === undefined ? [] : (found.rest ?? []), missing };
}

/** True for single values that must be there. */
export function isRequired(arg: Arg): boolean {
  return arg.type === "positional" ? arg.required !== false : "required" in arg && arg.required === true;
}

/** Splits the arguments into flags with their texts and words; what citty would let pass is refused here. */
function readTokens(table: ReadonlyMap<string, FlagArg>, found: Resolved & { kind: "run" }) {
  const options = Object.fromEntries(
    [...table].map(([name, arg]) => [
      name,
      {
        type: takesValue(arg) ? ("string" as const) : ("boolean" as const),
        ...(arg.short === undefined ? {} : { short: arg.short }),
      },
    ]),
  );
  const { tokens } = parseArgs({ args: [...found.args], options, strict: false, allowPositionals: true, tokens: true });
  const given = new Map<string, string[]>();
  const words: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") words.push(token.value);
    if (token.kind !== "option") continue;
    const arg = table.get(token.name);
    if (arg === undefined) throw unknownFlag(token.rawName, table, found.path);
    const texts = given.get(token.name) ?? [];
    given.set(token.name, texts);
    if (takesValue(arg)) {
      texts.push(flagValue(token, table, found.path));
    } else {
      const text = token.value ?? "true";
      if (text !== "true" && text !== "false") {
        throw new Fault("usage", `${token.rawName} takes no value`, { hint: helpHint(found.path) });
      }
      texts.push(text);
    }
  }
  return { given, words };
}

function flagValue(
  token: { rawName: string; value: string | undefined; inlineValue: boolean | undefined },
  table: ReadonlyMap<string, FlagArg>,
  path: readonly string[],
): string {
  const { rawName, value, inlineValue } = token;
  if (value === undefined) throw new Fault("usage", `${rawName} needs a value`, { hint: helpHint(path) });
  if (inlineValue !== true && value.startsWith("--") && table.has(value.slice(2).split("=")[0] ?? "")) {
    throw new Fault("usage", `${rawName} needs a value, but the flag ${value} follows`, {
      hint: `if "${value}" is the value, write ${rawName}=${value}`,
    });
  }
  return value;
}

/** Hands citty an argument list in the one form that it reads faithfully, and takes its record of values. */
async function throughCitty(all: Args, given: ReadonlyMap<string, readonly string[]>, words: readonly string[]) {
  const definitions: ArgsDef = {};
  for (const [key, arg] of Object.entries(all)) {
    if (arg.type === "boolean" || arg.type === "list" || arg.type === "positionals") continue;
    const definition: ArgDef = arg.type === "positional" ? { type: "positional", required: false } : { type: "string" };
    definitions[flagName(key)] = definition;
  }
  const rawArgs: string[] = [];
  for (const [name, texts] of given) {
    const last = texts.at(-1);
    if (last !== undefined && Object.hasOwn(definitions, name)) rawArgs.push(`--${name}=${last}`);
  }
  let values: Readonly<Record<string, unknown>> = {};
  const leaf = cittyCommand({
    args: definitions,
    run: ({ args }) => {
      values = args;
    },
  });
  await runCommand(leaf, { rawArgs: [...rawArgs, "--", ...words] });
  return values;
}
