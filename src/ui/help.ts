import { Fault } from "../errors.ts";
import { nearest } from "../protocol/nearest.ts";
import { type Arg, type Args, flagName, isFlag, isRequired, placeholder, takesValue } from "./args.ts";
import { type Command, type Entry, type Group, isGroup, visibleNames } from "./command.ts";
import { argsOf, GLOBAL_ARGS } from "./flags.ts";
import { paint } from "./text.ts";
import { textWidth, wrapped } from "./wrap.ts";

/** One flag or word of a command, as help, completion and manual show it. */
export interface ArgHelp {
  /** `--in-file FILE`, `-q, --quiet`, `NAME`. */
  readonly usage: string;
  readonly description: string;
}

/** Everything that is said about one command. */
export interface CommandHelp {
  readonly command: string;
  readonly summary: string;
  readonly usage: string;
  readonly details: string | null;
  readonly words: readonly ArgHelp[];
  readonly flags: readonly ArgHelp[];
  /** What `--json` shows as `data`. */
  readonly data: string | null;
  readonly examples: readonly { readonly line: string; readonly meaning: string }[];
}

/** Everything that is said about a group. */
export interface GroupHelp {
  readonly command: string;
  readonly summary: string;
  readonly usage: string;
  readonly commands: readonly { readonly name: string; readonly summary: string; readonly section: string | null }[];
  /** What is explained beside commands; of the root alone. */
  readonly topics: readonly { readonly name: string; readonly summary: string }[];
}

/**
 * Finds a node by its words.
 *
 * @throws Fault not_found naming the nearest command.
 */
export function findNode(root: Group, path: readonly string[]): Entry | Group {
  let node: Entry | Group = root;
  for (const [index, word] of path.entries()) {
    const next: Entry | Group | undefined =
      isGroup(node) && Object.hasOwn(node.commands, word) ? node.commands[word] : undefined;
    if (next === undefined) {
      const near = isGroup(node) ? nearest(word, [...visibleNames(node), ...Object.keys(node.topics ?? {})]) : null;
      const guess = near === null ? "" : `; did you mean "${[...path.slice(0, index), near].join(" ")}"?`;
      throw new Fault("usage", `there is no command "${path.slice(0, index + 1).join(" ")}"${guess}`, {
        hint: "keyhold help",
      });
    }
    node = next;
  }
  return node;
}

/** Describes a group without loading its commands. */
export function describeGroup(path: readonly string[], group: Group): GroupHelp {
  const command = ["keyhold", ...path].join(" ");
  return {
    command,
    summary: group.summary,
    usage: `${command} <command> [flags]`,
    commands: Object.entries(group.commands)
      .filter(([, node]) => node.hidden !== true)
      .map(([name, node]) => ({ name, summary: node.summary, section: node.section ?? null })),
    topics: Object.entries(group.topics ?? {}).map(([name, summary]) => ({ name, summary })),
  };
}

/** Describes a loaded command. */
export function describeCommand(path: readonly string[], entry: Entry, command: Command): CommandHelp {
  const name = ["keyhold", ...path].join(" ");
  const args = argsOf(command);
  const shown = Object.entries(args).filter(([, arg]) => arg.hidden !== true);
  const words = shown.filter(([, arg]) => !isFlag(arg));
  const flags = shown.filter(([, arg]) => isFlag(arg));
  const needed = flags
    .filter(([, arg]) => isRequired(arg))
    .map(([key, arg]) => ` --${flagName(key)} ${placeholder(key, arg)}`);
  const optional = flags.length > needed.length ? " [flags]" : "";
  const after =
    command.rest === undefined ? "" : command.rest.required ? ` -- ${command.rest.hint}` : ` [-- ${command.rest.hint}]`;
  const wordList = words.map(([key, arg]) => ({ usage: wordUsage(key, arg), description: arg.description }));
  if (command.rest !== undefined)
    wordList.push({ usage: `-- ${command.rest.hint}`, description: command.rest.description });
  return {
    command: name,
    summary: entry.summary,
    usage: `${name}${words.map(([key, arg]) => ` ${wordUsage(key, arg)}`).join("")}${needed.join("")}${optional}${after}`,
    details: command.details ?? null,
    words: wordList,
    flags: flagHelp(args),
    data: command.data ?? null,
    examples: (command.examples ?? []).map(([line, meaning]) => ({ line, meaning })),
  };
}

/** Describes the flags in a table of arguments. */
export function flagHelp(args: Args): readonly ArgHelp[] {
  return Object.entries(args)
    .filter(([, arg]) => isFlag(arg) && arg.hidden !== true)
    .map(([key, arg]) => {
      const short = isFlag(arg) && arg.short !== undefined ? `-${arg.short}, ` : "";
      const value = takesValue(arg) ? ` ${placeholder(key, arg)}` : "";
      return { usage: `${short}--${flagName(key)}${value}`, description: `${arg.description}${defaultText(arg)}` };
    });
}

function wordUsage(key: string, arg: Arg): string {
  const name = placeholder(key, arg);
  const many = arg.type === "positionals" ? "…" : "";
  const required = arg.type === "positionals" ? arg.required === true : isRequired(arg);
  return required ? `${name}${many}` : `[${name}${many}]`;
}

function defaultText(arg: Arg): string {
  if (!("default" in arg) || arg.default === undefined) return "";
  return ` (default: ${arg.type === "duration" ? durationText(Number(arg.default)) : arg.default})`;
}

/** `30000` → `30s`; the largest unit that divides evenly. */
export function durationText(milliseconds: number): string {
  for (const [unit, size] of [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1_000],
  ] as const) {
    if (milliseconds >= size && milliseconds % size === 0) return `${milliseconds / size}${unit}`;
  }
  return `${milliseconds}ms`;
}

/** The help text of a command, fitted to the columns of a terminal (null: lines are not broken). */
export function commandText(help: CommandHelp, width: number | null): string {
  const block = (title: string, rows: readonly ArgHelp[]) => rowsUnder(title, rows, width);
  const fold = (text: string) => wrapped(text, textWidth(width)).join("\n");
  return [
    fold(help.summary),
    `${paint.bold("Usage")}\n  ${help.usage}`,
    ...(help.details === null ? [] : [fold(help.details)]),
    ...block("Arguments", help.words),
    ...block("Flags", help.flags),
    ...block("Flags of every command", flagHelp(GLOBAL_ARGS)),
    ...(help.data === null ? [] : [`${paint.bold("Data (--json)")}\n${fold(`  ${help.data}`)}`]),
    ...(help.examples.length === 0
      ? []
      : [
          `${paint.bold("Examples")}\n${help.examples.map(({ line, meaning }) => `  ${line}\n${fold(`      ${meaning}`)}`).join("\n")}`,
        ]),
  ].join("\n\n");
}

/** The help text of a group; the root's commands stand in sections, its topics below them. */
export function groupText(help: GroupHelp, width: number | null): string {
  const block = (title: string, rows: readonly ArgHelp[]) => rowsUnder(title, rows, width);
  const fold = (text: string) => wrapped(text, textWidth(width)).join("\n");
  const sections = new Map<string, ArgHelp[]>();
  for (const { name, summary, section } of help.commands) {
    const title = section ?? "Commands";
    sections.set(title, [...(sections.get(title) ?? []), { usage: name, description: summary }]);
  }
  return [
    fold(help.summary),
    `${paint.bold("Usage")}\n  ${help.usage}`,
    ...[...sections].flatMap(([title, rows]) => block(title, rows)),
    ...block(
      "Topics",
      help.topics.map(({ name, summary }) => ({ usage: name, description: summary })),
    ),
    `More: ${help.command.replace("keyhold", "keyhold help")} <command>`,
  ].join("\n\n");
}

/** A terminal that is narrower has the description below the flag. */
const TWO_COLUMNS = 60;

function rowsUnder(title: string, rows: readonly ArgHelp[], width: number | null): readonly string[] {
  if (rows.length === 0) return [];
  const room = textWidth(width);
  const left = Math.min(30, Math.max(...rows.map(({ usage }) => usage.length)));
  const indent = " ".repeat(room < TWO_COLUMNS ? 6 : left + 4);
  const lines = rows.map(({ usage, description }) => {
    const right = wrapped(indent + description, room).join("\n");
    const apart = room < TWO_COLUMNS || usage.length > left;
    return apart ? `  ${usage}\n${right}` : `  ${usage.padEnd(left)}  ${right.slice(indent.length)}`;
  });
  return [`${paint.bold(title)}\n${lines.join("\n")}`];
}

/** Every visible command with its words, loaded, in the order of the tree; for completion, manual and docs. */
export async function allCommands(
  root: Group,
): Promise<readonly { readonly path: readonly string[]; readonly entry: Entry; readonly command: Command }[]> {
  const found: { path: readonly string[]; entry: Entry; command: Command }[] = [];
  const walk = async (group: Group, path: readonly string[]): Promise<void> => {
    for (const [name, node] of Object.entries(group.commands)) {
      if (node.hidden === true) continue;
      if (isGroup(node)) await walk(node, [...path, name]);
      else found.push({ path: [...path, name], entry: node, command: await node.load() });
    }
  };
  await walk(root, []);
  return found;
}
