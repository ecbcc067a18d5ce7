import { describe, expect, test } from "bun:test";
import { root } from "../../src/commands/index.ts";
import { flagName, isFlag } from "../../src/ui/args.ts";
import { isGroup } from "../../src/ui/command.ts";
import { GLOBAL_ARGS } from "../../src/ui/flags.ts";
import { allCommands, findNode } from "../../src/ui/help.ts";
import { testNeeding } from "../support/skip.ts";
import { run, shell, withDirectory } from "./support.ts";

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
        expect(flagName(key)).not.toStartWith("no-");
        if (arg.short !== undefined) expect([...shorts, "h", "V"]).not.toContain(arg.short);
      }
      for (const [line] of command.examples ?? []) expect(line).toContain("keyhold");
    }
  });

  test("explains itself on stdout, by --help and by help, in both forms", async () => {
    for (const { path } of commands) {
      const byFlag = await run([...path, "--help"]);
      expect([byFlag.code, byFlag.err]).toEqual([0, ""]);
      expect(byFlag.out).toContain(`keyhold ${path.join(" ")}`);
      expect(await run(["help", ...path])).toEqual(byFlag);
    }
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

describe("completion", () => {
  const complete = async (...words: string[]) => {
    const list = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
    const ran = await shell(
      `source <($KEYHOLD completion bash); COMP_WORDS=(${list}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _keyhold; printf '%s\\n' "\${COMPREPLY[@]}"`,
    );
    expect([ran.code, ran.err]).toEqual([0, ""]);
    return ran.out.trim().split("\n");
  };

  test("bash completes commands, flags and choices", async () => {
    expect(await complete("keyhold", "")).toEqual(
      Object.keys(root.commands).filter((name) => root.commands[name]?.hidden !== true),
    );
    expect(await complete("keyhold", "vers")).toEqual(["version"]);
    expect(await complete("keyhold", "config", "")).toEqual(["show", "defaults", "path"]);
    expect(await complete("keyhold", "--profile", "version", "config", "s")).toEqual(["show"]);
    expect(await complete("keyhold", "config", "show", "--o")).toEqual(["--origin"]);
    expect(await complete("keyhold", "config", "show", "--color", "a")).toEqual(["auto", "always"]);
    expect(await complete("keyhold", "completion", "")).toEqual(["bash", "zsh", "fish"]);
    expect(await complete("keyhold", "--kd")).toEqual([""]);
    expect(await complete("keyhold", "run", "--", "")).toEqual([""]);
  });

  test("what is typed is never evaluated", async () => {
    for (const word of ["$(echo evil >&2)", "`echo evil >&2`", "a[$(echo evil >&2)]", "'; echo evil >&2; '"]) {
      await complete("keyhold", word, "");
      await complete("keyhold", word);
      await complete("keyhold", "config", word, "--");
    }
  });

  for (const shellName of ["zsh", "fish"] as const) {
    testNeeding(shellName, `${shellName} accepts its script`, async () => {
      await withDirectory(async (directory) => {
        const ran = await shell(
          `cd '${directory}' && $KEYHOLD completion ${shellName} >script && ${shellName} -n script`,
        );
        expect([ran.code, ran.err]).toEqual([0, ""]);
      });
    });
  }

  test("an unknown shell exits 2", async () => {
    const ran = await run(["completion", "tcsh"]);
    expect([ran.code, ran.out]).toEqual([2, ""]);
  });
});

test("a group lists what it holds", async () => {
  const config = findNode(root, ["config"]);
  expect(isGroup(config)).toBe(true);
  const { out } = await run(["config", "--help"]);
  for (const name of ["show", "defaults", "path"]) expect(out).toMatch(new RegExp(`^  ${name} `, "m"));
});
