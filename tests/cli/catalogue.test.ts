import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/commands/index.ts";
import { TOPICS } from "../../src/commands/topicnames.ts";
import { flagName, isFlag } from "../../src/ui/args.ts";
import { isGroup } from "../../src/ui/command.ts";
import { SETTINGS, variableOf } from "../../src/ui/config.ts";
import { GLOBAL_ARGS } from "../../src/ui/flags.ts";
import { allCommands, findNode } from "../../src/ui/help.ts";
import { parse, resolve } from "../../src/ui/parse.ts";
import { testNeeding } from "../support/skip.ts";
import { run, shell, withDirectory } from "./support.ts";

setDefaultTimeout(60_000);
const commands = await allCommands(root);

describe("every command", () => {
  test("is named and declared so that no flag is shadowed, swallowed or without words", () => {
    const globals = Object.keys(GLOBAL_ARGS).map(flagName);
    const shorts = Object.values(GLOBAL_ARGS).flatMap((arg) => ("short" in arg ? [arg.short] : []));
    for (const { path, entry, command } of commands) {
      expect(path.join(" ")).toMatch(/^[a-z-]+( [a-z-]+){0,2}$/);
      expect(entry.summary).toMatch(/^[a-z].*[^.]$/);
      const args = Object.entries(command.args);
      for (const [index, [key, arg]] of args.entries()) {
        expect(arg.description).toMatch(/^\S.*[^.]$/);
        if (arg.type === "positionals") expect(args.slice(index + 1).filter(([, next]) => !isFlag(next))).toEqual([]);
        if (!isFlag(arg)) continue;
        expect(globals).not.toContain(flagName(key));
        // a switch is read by us alone; of other flags the parser would take it for a "no"
        if (arg.type !== "boolean") expect(flagName(key)).not.toStartWith("no-");
        if (arg.short !== undefined) expect([...shorts, "h", "V"]).not.toContain(arg.short);
      }
      for (const [line] of command.examples ?? []) expect(line).toContain("keyhold");
    }
  });

  test("has a summary, an example of itself, and says what --json holds", () => {
    const lacking = commands.flatMap(({ path, entry, command }) => {
      const line = ["keyhold", ...path].join(" ");
      const lacks = [
        entry.summary.trim() === "" && "summary",
        !command.examples?.some(([example, meaning]) => example.includes(line) && meaning.trim() !== "") && "example",
        !command.data?.trim() && "data",
      ].filter(Boolean);
      return lacks.length === 0 ? [] : [`${line}: ${lacks.join(", ")}`];
    });
    expect(lacking).toEqual([]);
  });

  test("is shown in its examples with words and flags that it takes", async () => {
    for (const { path, command } of commands) {
      for (const [example] of command.examples ?? []) {
        const at = example.indexOf(["keyhold", ...path].join(" "));
        // in a file or as another program's setting it is no line to be typed
        if (at === -1 || /[^ (]$/.test(example.slice(0, at))) continue;
        const own = example.slice(at).replace(/\)"?$/, "");
        const words = own.split(/ (?:[|<>]|3<|&&) ?/)[0]?.match(/"[^"]*"|'[^']*'|\S+/g) ?? [];
        const found = resolve(root, words.slice(1));
        expect([example, found.kind]).toEqual([example, "run"]);
        if (found.kind === "run") await parse(command, found, 0);
      }
    }
  });

  test("explains itself on stdout, by --help and by help, in both forms", async () => {
    const queue = [...commands];
    const worker = async () => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        const { path } = next;
        const [byFlag, byHelp] = await Promise.all([run([...path, "--help"]), run(["help", ...path])]);
        expect([byFlag.code, byFlag.err]).toEqual([0, ""]);
        expect(byFlag.out).toContain(`keyhold ${path.join(" ")}`);
        expect(byHelp).toEqual(byFlag);
      }
    };
    await Promise.all([worker(), worker()]);
    const { data } = JSON.parse((await run(["help", "version", "--json"])).out);
    expect(data).toMatchObject({ command: "keyhold version", usage: "keyhold version" });
  });

  test("stands in the manual page and in the root help", async () => {
    const { out } = await run(["man"]);
    const help = (await run(["help"])).out;
    for (const { path } of commands) {
      expect(out).toContain(`keyhold ${path.join(" ").replaceAll("-", "\\-")}`);
      expect(help).toMatch(new RegExp(`^  ${path[0]} `, "m"));
    }
  });

  testNeeding(["man", "groff"], "a page for each command and group, without a warning", async () => {
    await withDirectory(async (directory) => {
      const to = join(directory, "pages");
      const made = await run(["man", "--all", to, "--json"]);
      expect(made.err).toBe("");
      const files = readdirSync(to);
      expect(JSON.parse(made.out).data).toEqual({ dir: to, pages: files.length });
      for (const { path } of commands) expect(files).toContain(`keyhold-${path.join("-")}.1`);
      for (const name of ["keyhold.1", "keyhold-audit.1"]) expect(files).toContain(name);
      // as man has it read, with the same warnings: all of them in one run
      const ran = await shell(`cd '${to}' && groff -wmac -t -mandoc -Tutf8 -z *.1`, { LC_ALL: "C.UTF-8" });
      expect([ran.code, ran.err]).toEqual([0, ""]);
      const shown = await shell(`man -l '${join(to, "keyhold-generate.1")}' | cat`, {
        MANPAGER: "cat",
        MANWIDTH: "80",
      });
      for (const part of ["keyhold generate NAME", "EXAMPLES", "--type"]) expect(shown.out).toContain(part);
      const refused = await run(["man", "--all", join(to, "keyhold.1"), "--json"]);
      expect([refused.code, refused.out]).toEqual([1, ""]);
    });
  });

  testNeeding("man", "the manual page is roff that man reads without a warning", async () => {
    const ran = await shell("$KEYHOLD man | man --warnings -l - | cat", {
      MANPAGER: "cat",
      MANWIDTH: "80",
      LC_ALL: "C.UTF-8",
    });
    expect([ran.code, ran.err]).toEqual([0, ""]);
    expect(ran.out).toContain("keyhold config show [flags]");
  });
});

test("completion for an unknown shell exits 2", async () => {
  const ran = await run(["completion", "tcsh"]);
  expect([ran.code, ran.out]).toEqual([2, ""]);
});

describe("topics of help", () => {
  test("each is listed, explained and found by a near word", async () => {
    const help = (await run(["help"])).out;
    expect((await run([])).out).toBe(help);
    for (const [name, summary] of Object.entries(TOPICS)) {
      expect(help).toContain(`  ${name}`);
      expect(help).toContain(summary);
      const shown = await run(["help", name]);
      expect([shown.code, shown.err, shown.out.length > 100]).toEqual([0, "", true]);
      const { data } = JSON.parse((await run(["help", name, "--json"])).out);
      expect(data.items?.length > 3 || data.text.length > 100).toBe(true);
      const near = await run(["help", `${name.slice(0, -2)}x`]);
      expect([near.code, near.out]).toEqual([2, ""]);
      expect(near.err).toContain(`did you mean "${name}"`);
    }
  });

  test("formats are those of import and export, each with its meaning", async () => {
    const { items } = JSON.parse((await run(["help", "formats", "--json"])).out).data;
    expect(items.map((one: { format: string }) => one.format)).toContain("json");
    expect(items.filter((one: { meaning: string }) => one.meaning === "")).toEqual([]);
  });

  test("environment names every variable that sets something", async () => {
    const { out } = await run(["help", "environment"]);
    for (const name of Object.keys(SETTINGS)) expect(out).toContain(variableOf(name as keyof typeof SETTINGS));
  });
});

test("a group lists what it holds", async () => {
  const config = findNode(root, ["config"]);
  expect(isGroup(config)).toBe(true);
  const { out } = await run(["config", "--help"]);
  for (const name of ["show", "defaults", "path"]) expect(out).toMatch(new RegExp(`^  ${name} `, "m"));
});
