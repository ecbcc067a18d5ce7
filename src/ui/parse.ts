import { parseArgs } from "node:util";
import { type ArgDef, type ArgsDef, defineCommand as cittyCommand, runCommand } from "citty";
import { Fault } from "../errors.ts";
import { nearest } from "../protocol/nearest.ts";
import { type Args, convert, type FlagArg, flagName, isFlag, isRequired, placeholder, takesValue } from "./args.ts";
import { type Command, type Entry, type Group, isGroup, visibleNames } from "./command.ts";
import { argsOf, GLOBAL_ARGS, type GlobalFlags } from "./flags.ts";
import type { ListForm } from "./output.ts";

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
  /** How a list is to be written. */
  readonly form: ListForm;
  readonly rest: readonly string[];
  readonly missing: readonly string[];
}

/**
 * Parses the arguments of a resolved command.
 *
 * @throws Fault usage for unknown flags, missing values, values of a wrong form, too many words.
 */
export async function parse(command: Command, found: Resolved & { kind: "run" }, nowMs: number): Promise<Parsed> {
  const all: Args = { ...GLOBAL_ARGS, ...argsOf(command) };
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
    // the surplus word itself is not shown: it may be a secret that was typed by mistake
    const most = `${single.length} ${single.length === 1 ? "word" : "words"}`;
    throw new Fault("usage", `"${found.path.join(" ")}" takes ${most}, but ${words.length} were given`, {
      hint: helpHint(found.path),
    });
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
  const form = command.list === true ? listForm(values, found.path) : "table";
  return { values: own, flags, form, rest: command.rest === undefined ? [] : (found.rest ?? []), missing };
}

function listForm(values: Readonly<Record<string, unknown>>, path: readonly string[]): ListForm {
  const chosen = ["json", "plain", "null"].filter((name) => values[name] === true);
  if (chosen.length > 1) {
    throw new Fault("usage", `--${chosen.join(" and --")} exclude each other`, { hint: helpHint(path) });
  }
  return values["plain"] === true ? "plain" : values["null"] === true ? "null" : "table";
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
