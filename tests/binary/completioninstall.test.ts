import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { onTerminal } from "./terminal.ts";
import { binary, environment, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(30_000);
let world: World;
beforeAll(async () => {
  world = await openWorld({ server: false });
}, SETUP_MS);
afterAll(() => world.close());

/** What a new interactive shell of this home says. */
async function inShell(home: string, command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...command], {
    env: environment(home, { PATH: `${home}:${process.env["PATH"] ?? ""}` }),
    cwd: home,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return out;
}

test("fish has the completion in a new shell, from its own place", async () => {
  const home = world.home("fish");
  symlinkSync(await binary(), join(home.dir, "keyhold"));
  const fish = ["fish", "-c", "complete -C 'keyhold vau'"];
  expect(await inShell(home.dir, fish)).not.toContain("vault");
  const { data } = await home.ok(["completion", "install", "fish"]);
  expect(data).toEqual({ shell: "fish", file: join(home.dir, ".config/fish/completions/keyhold.fish"), changed: true });
  expect(await inShell(home.dir, fish)).toContain("vault");
  expect((await home.ok(["completion", "install", "fish"])).data.changed).toBe(false);
});

test("zsh and bash need a line in their start file, which --rc adds and nothing else does", async () => {
  for (const [shell, start, probe] of [
    ["zsh", ".zshrc", ["zsh", "-ic", 'print -r -- "$' + '{_comps[keyhold]}"']],
    ["bash", ".bashrc", ["bash", "-ic", "complete -p keyhold"]],
  ] as const) {
    const home = world.home(shell);
    symlinkSync(await binary(), join(home.dir, "keyhold"));
    const first = await home.run(["completion", "install"], { env: { SHELL: `/usr/bin/${shell}` } });
    expect([first.code, first.out.includes(".local/share")]).toEqual([0, true]);
    if (!first.out.includes("add this line")) continue;
    expect([shell, existsSync(join(home.dir, start)), await inShell(home.dir, probe)]).toEqual([
      shell,
      false,
      expect.not.stringContaining("_keyhold"),
    ]);
    const { data } = await home.ok(["completion", "install", shell, "--rc"]);
    expect([data.changed, data.start.added]).toEqual([false, true]);
    expect(await inShell(home.dir, probe)).toContain("_keyhold");
    await home.ok(["completion", "install", shell, "--rc"]);
    expect(readFileSync(join(home.dir, start), "utf8").trimEnd().split("\n")).toHaveLength(1);
  }
});

test("at a terminal the line is added only after a yes", async () => {
  const home = world.home("asked");
  const extra = { env: { SHELL: "/usr/bin/zsh" } };
  const rc = join(home.dir, ".zshrc");
  const no = await onTerminal(home.dir, ["completion", "install"], [{ expect: "Add this line", type: "\r" }], extra);
  expect([no.code, existsSync(rc)]).toEqual([0, false]);
  const yes = await onTerminal(
    home.dir,
    ["completion", "install"],
    [{ expect: "Add this line", type: "\u001b[B\r" }],
    extra,
  );
  expect([yes.code, existsSync(rc)]).toEqual([0, true]);
});

test("unknown shells and stray words are refused", async () => {
  const home = world.home("refused");
  expect((await home.fails(2, ["completion", "install", "tcsh"])).code).toBe("usage");
  expect((await home.fails(2, ["completion", "install"], { env: { SHELL: "/bin/sh" } })).code).toBe("usage");
  expect((await home.fails(2, ["completion", "bash", "zsh"])).code).toBe("usage");
});
