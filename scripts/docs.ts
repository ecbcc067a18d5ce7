import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../src/commands/index.ts";
import { topic } from "../src/commands/topics.ts";
import { GENERATED_TYPES, VISIBLE_TYPES } from "../src/protocol/secrettype.ts";
import { type Arg, flagName, isFlag, isRequired, placeholder, takesValue } from "../src/ui/args.ts";
import type { Command, Group } from "../src/ui/command.ts";
import { GLOBAL_ARGS, LIST_ARGS } from "../src/ui/flags.ts";
import { allCommands, flagHelp } from "../src/ui/help.ts";
import { openApi } from "../src/wire/openapi.ts";

/*
 * Writes the tables of commands and flags in docs/cli.md from the command model; all else there is written by hand.
 * Writes docs/openapi.json from the operation table. `bun run docs` after a command or an operation has changed.
 */

const PAGE = join(import.meta.dir, "..", "docs", "cli.md");
const DESCRIPTION = join(import.meta.dir, "..", "docs", "openapi.json");
const BEGIN = "<!-- commands: written by scripts/docs.ts, do not edit -->";
const END = "<!-- commands: end -->";

/** What stands below the tables of a section. */
const NOTES: Readonly<Record<string, string>> = {
  Server:
    "The `server` commands talk to a running server through `DIR/control.sock` (0600), otherwise take the lock themselves. Pin: `sha256:` + base64url(SHA-256(server identity key, SPKI DER)).",
};

/** The page with the tables as they are now. @throws Error when its marks are missing. */
export async function commandPage(page: string, group: Group): Promise<string> {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin === -1 || end < begin) throw new Error(`docs/cli.md lacks "${BEGIN}" or "${END}"`);
  const tables = await commandTables(group);
  return `${page.slice(0, begin)}${BEGIN}\n\n${tables}\n\n${page.slice(end)}`;
}

async function commandTables(group: Group): Promise<string> {
  const sections = new Map<string, string[][]>();
  for (const { path, entry, command } of await allCommands(group)) {
    const title = group.commands[path[0] ?? ""]?.section ?? "The rest";
    const does = command.details === undefined ? `${entry.summary}.` : `${entry.summary}. ${command.details}`;
    const row = [code(usage(path, command)), prose(does), command.data === undefined ? "" : data(command.data)];
    sections.set(title, [...(sections.get(title) ?? []), row]);
  }
  const tables = [...sections].flatMap(([title, rows]) => [
    `### ${title}`,
    table(["command", "does", "JSON `data`"], rows),
    ...(NOTES[title] === undefined ? [] : [NOTES[title]]),
  ]);
  const flags = (args: typeof GLOBAL_ARGS | typeof LIST_ARGS) =>
    flagHelp(args).map(({ usage, description }) => [code(usage), prose(description)]);
  return [
    ...tables,
    "### Types and formats",
    await typesAndFormats(group),
    "### Flags of every command",
    table(["flag", "does"], flags(GLOBAL_ARGS)),
    "Commands that list also take:",
    table(["flag", "does"], flags(LIST_ARGS)),
  ].join("\n\n");
}

async function typesAndFormats(group: Group): Promise<string> {
  const names = (of: readonly string[]) => of.map(code).join(", ");
  const written = VISIBLE_TYPES.filter((type) => !GENERATED_TYPES.some((made) => made === type));
  const { items } = (await topic(group, "formats")).data as {
    items: readonly { format: string; meaning: string; imports: boolean; exports: boolean }[];
  };
  const rows = items.map((one) => [
    code(one.format),
    [one.imports && "in", one.exports && "out"].filter(Boolean).join(", "),
    prose(one.meaning),
  ]);
  return [
    `Types that \`generate\` makes: ${names(GENERATED_TYPES)}. Types that are only stored: ${names(written)}.`,
    table(["format", "way", "what"], rows),
    "[formats.md](formats.md) says what each keeps.",
  ].join("\n\n");
}

/** `keyhold generate NAME [--type TYPE] [--tag TAG]…`, without the flags of every command and of every list. */
function usage(path: readonly string[], command: Command): string {
  const shown = Object.entries(command.args).filter(([, arg]) => arg.hidden !== true);
  const parts = [
    ...shown.filter(([, arg]) => !isFlag(arg)).map(([key, arg]) => word(key, arg)),
    ...shown.filter(([, arg]) => isFlag(arg)).map(([key, arg]) => flag(key, arg)),
  ];
  if (command.rest !== undefined) {
    parts.push(command.rest.required ? `-- ${command.rest.hint}` : `[-- ${command.rest.hint}]`);
  }
  return ["keyhold", ...path, ...parts].join(" ");
}

function word(key: string, arg: Arg): string {
  const name = `${placeholder(key, arg)}${arg.type === "positionals" ? "…" : ""}`;
  return (arg.type === "positionals" ? arg.required === true : isRequired(arg)) ? name : `[${name}]`;
}

/** An enum of more choices is named by its flag. */
const MANY = 5;

function flag(key: string, arg: Arg): string {
  const name = `--${flagName(key)}`;
  const many = arg.type === "enum" && arg.options.length > MANY;
  const value = takesValue(arg) ? ` ${many ? flagName(key).toUpperCase() : placeholder(key, arg)}` : "";
  if (isRequired(arg)) return `${name}${value}`;
  return `[${name}${value}]${arg.type === "list" ? "…" : ""}`;
}

const pipes = (text: string) => text.replaceAll("|", "\\|");
const code = (text: string) => `\`${pipes(text)}\``;
/** Text in a cell; what Markdown would read as a mark or as HTML is escaped, except in code. */
const prose = (text: string) =>
  text
    .split(/(`[^`]*`)/)
    .map((part, index) => (index % 2 === 1 ? pipes(part) : pipes(part).replace(/[<*_[\]]/g, "\\$&")))
    .join("")
    .replaceAll("\n", " ");
/** Objects as code, the words between them as text. */
const data = (text: string) =>
  text.includes("`") ? prose(text) : text.replace(/\{(?:[^{}]|\{[^{}]*\})*\}/g, (object) => code(object));

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(heads), line(heads.map(() => "---")), ...rows.map(line)].join("\n");
}

if (import.meta.main) {
  const page = readFileSync(PAGE, "utf8");
  const next = await commandPage(page, root);
  if (next !== page) writeFileSync(PAGE, next);
  process.stdout.write(next === page ? "docs/cli.md is up to date\n" : "docs/cli.md was written\n");
  writeFileSync(DESCRIPTION, `${JSON.stringify(openApi(), null, 2)}\n`);
  process.stdout.write("docs/openapi.json was written\n");
}
