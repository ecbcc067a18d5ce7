import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  addLine,
  completionInstalled,
  completionPlace,
  installCompletion,
  shellOf,
  wantedShell,
} from "../../src/ui/completionfiles.ts";
import { withDirectory } from "../cli/support.ts";

const SCRIPT = "# zsh completion for keyhold\n";

describe("where a completion goes", () => {
  test("to the standard place of each shell, by XDG where that is set", () => {
    const env = { HOME: "/home/ada" };
    expect(completionPlace("fish", env)).toEqual({
      shell: "fish",
      file: "/home/ada/.config/fish/completions/keyhold.fish",
      start: null,
    });
    expect(completionPlace("bash", env, ["/"]).file).toBe("/home/ada/.local/share/bash-completion/completions/keyhold");
    expect(completionPlace("bash", env, ["/"]).start).toBeNull();
    expect(completionPlace("bash", env, ["/not/there"]).start).toEqual({
      file: "/home/ada/.bashrc",
      line: "source /home/ada/.local/share/bash-completion/completions/keyhold",
    });
    const zsh = completionPlace("zsh", { ...env, XDG_DATA_HOME: "/data/it's", ZDOTDIR: "/z" });
    expect(zsh.file).toBe("/data/it's/zsh/site-functions/_keyhold");
    expect(zsh.start?.file).toBe("/z/.zshrc");
    expect(zsh.start?.line).toContain("source '/data/it'\\''s/zsh/site-functions/_keyhold'");
    expect(completionPlace("fish", { ...env, XDG_CONFIG_HOME: "relative" }).file).toStartWith("/home/ada/.config/");
    expect(completionPlace("bash", { ...env, BASH_COMPLETION_USER_DIR: "/b" }).file).toBe("/b/completions/keyhold");
  });

  test("the shell is the one that SHELL names", () => {
    expect([shellOf({ SHELL: "/usr/bin/zsh" }), shellOf({ SHELL: "/bin/sh" }), shellOf({})]).toEqual([
      "zsh",
      null,
      null,
    ]);
    expect(wantedShell("fish", {})).toBe("fish");
    expect(() => wantedShell("tcsh", {})).toThrow('there is no completion for "tcsh"');
    expect(() => wantedShell(null, {})).toThrow("SHELL names no shell");
  });
});

describe("installing a completion", () => {
  test("writes once, leaves no temporary file, and replaces an older script of ours", () =>
    withDirectory((home) => {
      const place = completionPlace("zsh", { HOME: home });
      expect(completionInstalled(place)).toBe(false);
      expect([installCompletion(place, SCRIPT), installCompletion(place, SCRIPT)]).toEqual([true, false]);
      expect(installCompletion(place, `${SCRIPT}# newer\n`)).toBe(true);
      expect(readdirSync(join(place.file, ".."))).toEqual(["_keyhold"]);
      expect(existsSync(join(home, ".zshrc"))).toBe(false);
    }));

  test("refuses what is no script of ours, and a link", () =>
    withDirectory((home) => {
      const place = completionPlace("fish", { HOME: home });
      mkdirSync(join(place.file, ".."), { recursive: true });
      writeFileSync(place.file, "complete -c mine\n");
      expect(() => installCompletion(place, SCRIPT)).toThrow("is no completion script of keyhold");
      const linked = completionPlace("zsh", { HOME: home });
      mkdirSync(join(linked.file, ".."), { recursive: true });
      writeFileSync(join(home, "target"), SCRIPT);
      symlinkSync(join(home, "target"), linked.file);
      expect(() => installCompletion(linked, SCRIPT)).toThrow("is no completion script of keyhold");
      expect(readFileSync(join(home, "target"), "utf8")).toBe(SCRIPT);
    }));

  test("adds the line to a start file once, after what stands there", () =>
    withDirectory((home) => {
      const { start } = completionPlace("zsh", { HOME: home });
      if (!start) throw new Error("zsh needs a line");
      writeFileSync(start.file, "alias k=keyhold");
      expect([addLine(start), addLine(start)]).toEqual([true, false]);
      expect(readFileSync(start.file, "utf8")).toBe(`alias k=keyhold\n${start.line}\n`);
    }));
});
