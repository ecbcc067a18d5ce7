import { defineCommand, type Group } from "../ui/command.ts";
import { GLOBAL_ARGS } from "../ui/flags.ts";
import { type ArgHelp, allCommands, describeCommand, flagHelp } from "../ui/help.ts";
import { result } from "../ui/output.ts";
import { VERSION } from "../version.ts";

/** Text as roff shows it: no line becomes a request, hyphens stay hyphens. */
function roff(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll("…", "...")
    .split("\n")
    .map((line) => (/^[.']/.test(line) ? `\\&${line}` : line))
    .join("\n");
}

const items = (rows: readonly ArgHelp[]) =>
  rows.map(({ usage, description }) => `.TP\n\\fB${roff(usage)}\\fR\n${roff(description)}`);

async function page(root: Group): Promise<string> {
  const lines = [
    `.TH KEYHOLD 1 "" "keyhold ${roff(VERSION)}" "User commands"`,
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
    lines.push(".SS", roff(help.usage), roff(`${help.summary[0]?.toUpperCase() ?? ""}${help.summary.slice(1)}.`));
    if (help.details !== null) lines.push(".PP", roff(help.details));
    lines.push(...items([...help.words, ...help.flags]));
    for (const { line, meaning } of help.examples)
      lines.push(".PP", `Example: \\fB${roff(line)}\\fR (${roff(meaning)})`);
  }
  lines.push(".SH EXIT STATUS", "See \\fBkeyhold help exit\\-codes\\fR.", "");
  return lines.join("\n");
}

export default defineCommand({
  args: {},
  details: "The page is written in roff, for man, groff or mandoc.",
  examples: [["keyhold man | man -l -", "read it"]],
  run: async (_args, { out, root, flags }) => {
    const text = await page(root);
    if (flags.json) return result({ page: text }, () => "");
    out.bytes(text);
    return undefined;
  },
});
