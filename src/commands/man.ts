import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../errors.ts";
import { defineCommand, type Group, isGroup } from "../ui/command.ts";
import { GLOBAL_ARGS } from "../ui/flags.ts";
import { type ArgHelp, allCommands, type CommandHelp, describeCommand, flagHelp } from "../ui/help.ts";
import { result } from "../ui/output.ts";
import { errnoOf } from "../ui/process.ts";
import { plain } from "../ui/text.ts";
import { VERSION } from "../version.ts";

/** Text as roff shows it: no line becomes a request, hyphens stay hyphens. */
function roff(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll("…", "...")
    .replaceAll("›", ">")
    .split("\n")
    .map((line) => (/^[.']/.test(line) ? `\\&${line}` : line))
    .join("\n");
}

const items = (rows: readonly ArgHelp[]) =>
  rows.map(({ usage, description }) => `.TP\n\\fB${roff(usage)}\\fR\n${roff(description)}`);
const sentence = (text: string) => roff(`${text[0]?.toUpperCase() ?? ""}${text.slice(1)}.`);
const head = (name: string) => `.TH ${name.toUpperCase()} 1 "" "keyhold ${roff(VERSION)}" "User commands"\n.ad l`;
const examples = (help: CommandHelp) =>
  help.examples.flatMap(({ line, meaning }) => [".TP", `\\fB${roff(line)}\\fR`, roff(meaning)]);

/** The page of the whole program. */
async function page(root: Group): Promise<string> {
  const lines = [
    head("keyhold"),
    ".SH NAME",
    "keyhold \\- keeps secrets end to end encrypted",
    ".SH SYNOPSIS",
    "\\fBkeyhold\\fR \\fIcommand\\fR [\\fIflags\\fR]",
    ".SH DESCRIPTION",
    roff(root.summary),
    "Data goes to stdout, everything else to stderr.",
    ".SH FLAGS OF EVERY COMMAND",
    ...items(flagHelp(GLOBAL_ARGS)),
    ".SH COMMANDS",
  ];
  for (const { path, entry, command } of await allCommands(root)) {
    const help = describeCommand(path, entry, command);
    lines.push(".SS", roff(help.usage), sentence(help.summary));
    if (help.details !== null) lines.push(".PP", roff(help.details));
    lines.push(...items([...help.words, ...help.flags]));
    if (help.data !== null) lines.push(".PP", `Data (\\-\\-json): ${roff(help.data)}`);
    if (help.examples.length > 0) lines.push(".PP", "Examples:", ...examples(help));
  }
  lines.push(".SH EXIT STATUS", "See \\fBkeyhold help exit\\-codes\\fR.", "");
  return lines.join("\n");
}

/** The page of one command. */
function commandPage(name: string, help: CommandHelp): string {
  const dashed = roff(name);
  return [
    head(name),
    ".SH NAME",
    `${dashed} \\- ${roff(help.summary)}`,
    ".SH SYNOPSIS",
    `\\fB${roff(help.command)}\\fR${roff(help.usage.slice(help.command.length))}`,
    ".SH DESCRIPTION",
    sentence(help.summary),
    ...(help.details === null ? [] : [".PP", roff(help.details)]),
    ...(help.words.length === 0 ? [] : [".SH ARGUMENTS", ...items(help.words)]),
    ...(help.flags.length === 0 ? [] : [".SH FLAGS", ...items(help.flags)]),
    ".PP",
    "The flags of every command stand in \\fBkeyhold\\fR(1).",
    ...(help.data === null ? [] : [".SH DATA", `With \\fB\\-\\-json\\fR: ${roff(help.data)}`]),
    ...(help.examples.length === 0 ? [] : [".SH EXAMPLES", ...examples(help)]),
    ".SH EXIT STATUS",
    "0 when done; all others: \\fBkeyhold help exit\\-codes\\fR.",
    ".SH SEE ALSO",
    "\\fBkeyhold\\fR(1)",
    "",
  ].join("\n");
}

/** The page of a group: what it holds. */
function groupPage(name: string, command: string, group: Group): string {
  const rows = Object.entries(group.commands).filter(([, node]) => node.hidden !== true);
  return [
    head(name),
    ".SH NAME",
    `${roff(name)} \\- ${roff(group.summary)}`,
    ".SH SYNOPSIS",
    `\\fB${roff(command)}\\fR \\fIcommand\\fR [\\fIflags\\fR]`,
    ".SH COMMANDS",
    ...rows.flatMap(([word, node]) => [".TP", `\\fB${roff(`${name}-${word}`)}\\fR(1)`, sentence(node.summary)]),
    ".SH SEE ALSO",
    "\\fBkeyhold\\fR(1)",
    "",
  ].join("\n");
}

/** Every page by its file name: `keyhold.1`, and one for each command and group (`keyhold-audit-list.1`). */
export async function manualPages(root: Group): Promise<ReadonlyMap<string, string>> {
  const pages = new Map([["keyhold.1", await page(root)]]);
  const groups = (group: Group, path: readonly string[]) => {
    for (const [word, node] of Object.entries(group.commands)) {
      if (node.hidden === true || !isGroup(node)) continue;
      const words = ["keyhold", ...path, word];
      pages.set(`${words.join("-")}.1`, groupPage(words.join("-"), words.join(" "), node));
      groups(node, [...path, word]);
    }
  };
  groups(root, []);
  for (const { path, entry, command } of await allCommands(root)) {
    const name = ["keyhold", ...path].join("-");
    pages.set(`${name}.1`, commandPage(name, describeCommand(path, entry, command)));
  }
  return pages;
}

export default defineCommand({
  args: { all: { type: "string", hint: "DIR", description: "write a page for each command into DIR" } },
  details: "The page is written in roff, for man, groff or mandoc.",
  data: "{page}; with --all {dir, pages}, the number of files",
  examples: [
    ["keyhold man | man -l -", "read it"],
    ["keyhold man --all ~/.local/share/man/man1", "for `man keyhold` and `man keyhold-generate`"],
  ],
  run: async (args, { out, root, flags }) => {
    if (args.all !== null) {
      const pages = await manualPages(root);
      writePages(args.all, pages);
      return result(
        { dir: args.all, pages: pages.size },
        () => `wrote ${pages.size} pages into ${plain(args.all ?? "")}`,
      );
    }
    const text = await page(root);
    if (flags.json) return result({ page: text }, () => "");
    out.bytes(text);
    return undefined;
  },
});

function writePages(directory: string, pages: ReadonlyMap<string, string>): void {
  try {
    mkdirSync(directory, { recursive: true });
    for (const [name, text] of pages) writeFileSync(join(directory, name), text, { mode: 0o644 });
  } catch (error) {
    throw new Fault("storage", `cannot write the pages into ${JSON.stringify(directory)}`, {
      why: errnoOf(error) ?? "unknown",
      hint: "choose a directory that you can write to",
    });
  }
}
