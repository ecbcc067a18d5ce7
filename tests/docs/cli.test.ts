import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { commandPage } from "../../scripts/docs.ts";
import { root } from "../../src/commands/index.ts";
import { errorTable } from "../../src/errors.ts";
import { flagName, isFlag } from "../../src/ui/args.ts";
import { defineCommand } from "../../src/ui/command.ts";
import { GLOBAL_ARGS, LIST_ARGS } from "../../src/ui/flags.ts";
import { allCommands } from "../../src/ui/help.ts";

const page = readFileSync(join(import.meta.dir, "../../docs/cli.md"), "utf8");
const commands = await allCommands(root);

/** The row of a command: its cells. */
function rowOf(text: string, path: readonly string[]): readonly string[] {
  const line = text.split("\n").find((one) => {
    const words = /^\| `([^`]*)`/.exec(one)?.[1]?.split(" ") ?? [];
    const at = words.findIndex((word) => !/^[a-z-]+$/.test(word) || word.startsWith("-"));
    return words.slice(0, at === -1 ? undefined : at).join(" ") === ["keyhold", ...path].join(" ");
  });
  return (line ?? "").split(/(?<!\\)\|/).map((cell) => cell.trim());
}

test("docs/cli.md is what `bun scripts/docs.ts` writes", async () => {
  // the formatter pads the columns of tables
  const bare = (text: string) => text.replace(/ +/g, " ").replace(/-{3,}/g, "---");
  expect(bare(await commandPage(page, root))).toBe(bare(page));
});

test("a command that changes makes the page stale; without its marks it is refused", async () => {
  const changed = {
    ...root,
    commands: {
      ...root.commands,
      version: {
        summary: "print the version",
        section: "The rest",
        load: async () =>
          defineCommand({
            args: { short: { type: "boolean", description: "the number alone" } },
            data: "{version}",
            run: async () => 0,
          }),
      },
    },
  };
  const next = await commandPage(page, changed);
  expect(next).not.toBe(page);
  expect(next).toContain("| `keyhold version [--short]` | print the version. | `{version}` |");
  await expect(commandPage("# Command line\n", root)).rejects.toThrow("lacks");
});

test("every command has a row with its words, flags and data", () => {
  for (const { path, command } of commands) {
    const [, usage = "", does = "", data = ""] = rowOf(page, path);
    expect([path, does.length > 3, data.length > 3]).toEqual([path, true, true]);
    for (const [key, arg] of Object.entries(command.args)) {
      if (arg.hidden === true || !isFlag(arg)) continue;
      expect([path, usage.includes(`--${flagName(key)}`)]).toEqual([path, true]);
    }
  }
  for (const [key, arg] of Object.entries({ ...GLOBAL_ARGS, ...LIST_ARGS })) {
    if (!("hidden" in arg && arg.hidden)) expect(page).toContain(`--${flagName(key)}`);
  }
});

test("every flag that the page names exists", () => {
  const known = new Set([
    ...Object.keys({ ...GLOBAL_ARGS, ...LIST_ARGS }).map(flagName),
    ...commands.flatMap(({ command }) => Object.entries(command.args).map(([key]) => flagName(key))),
    "help",
  ]);
  const named = [...page.matchAll(/(?<![\w-])--([a-z][a-z-]*)/g)].map(([, name = ""]) => name);
  // "--new-password-fd|-file" and "--password-*" stand for several
  const unknown = named.filter(
    (name) => !known.has(name) && ![...known].some((flag) => name.endsWith("-") && flag.startsWith(name)),
  );
  expect([...new Set(unknown)]).toEqual([]);
  expect(named.length).toBeGreaterThan(100);
});

test("the table of exit codes has every exit of an error", () => {
  const codes = [...page.matchAll(/\| (\d+) +\|/g)].map(([, code]) => Number(code));
  const exits = errorTable().map(({ exit }) => exit);
  expect([...new Set(exits)].filter((exit) => exit < 126 && !codes.includes(exit))).toEqual([]);
});
