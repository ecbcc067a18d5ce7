import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { completionScript } from "../../src/commands/completion.ts";
import { root } from "../../src/commands/index.ts";
import { defineCommand, type Group } from "../../src/ui/command.ts";
import { testNeeding } from "../support/skip.ts";
import { run } from "./support.ts";

setDefaultTimeout(60_000);

/** Names of which each has a first letter of its own; whatever a shell evaluates of them makes the file EVIL. */
const NAMES = [
  "a space",
  "b'quote",
  'c"double',
  "d$(touch EVIL)",
  "e`touch EVIL`",
  "f;touch EVIL",
  "g\\back",
  "h*glob",
  "i{a,b}",
  "j&k|l",
  "k:colon",
  "l=equals",
  "m!bang",
  "n~tilde",
  "o#hash",
  "p/ü/密码",
  "q@at",
  "r$HOME",
  "s[1]",
  "t (x)",
  "u<v>",
  "v^w",
  "w$((1+1))",
  "x${HOME}",
  "y\u00a0z",
] as const;

const SHELLS = {
  bash: { argv: ["bash", "--norc", "--noprofile", "-i"], init: "PS1='ready> '; source script" },
  zsh: { argv: ["zsh", "-f", "-i"], init: "PS1='ready> '; autoload -Uz compinit; compinit -u -D; source ./script" },
  fish: {
    argv: ["fish", "--no-config", "-i"],
    init: "function fish_prompt; echo 'ready> '; end; source script",
  },
} as const;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "keyhold-completion-"));
  writeFileSync(join(directory, "names"), NAMES.map((name) => `${name}\n`).join(""));
  // stands for the program: names as the agent would give them, and every other command line kept as it came
  const program = `#!/bin/sh
case "$1" in
  __names) echo "$*" >>'${directory}/asked'; cat '${directory}/names' ;;
  *) for word; do printf '%s\\0' "$word"; done >'${directory}/new'; mv '${directory}/new' '${directory}/words' ;;
esac
`;
  writeFileSync(join(directory, "keyhold"), program, { mode: 0o755 });
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** A shell at a terminal: `type` enters a line (with tabs) and gives the words that reached the program. */
async function openShell(shell: keyof typeof SHELLS) {
  writeFileSync(join(directory, "script"), await completionScript(root, shell));
  let shown = "";
  let wake = () => {};
  const child = Bun.spawn([...SHELLS[shell].argv], {
    cwd: directory,
    env: {
      PATH: `${directory}:${process.env["PATH"] ?? ""}`,
      HOME: directory,
      TERM: "xterm",
      LC_ALL: "C.UTF-8",
    },
    terminal: {
      cols: 200,
      rows: 50,
      data(_terminal, data) {
        shown += new TextDecoder().decode(data);
        wake();
      },
    },
  });
  const terminal = child.terminal;
  if (terminal === undefined) throw new Error("no terminal");
  const until = async (what: () => boolean) => {
    for (let tries = 0; !what(); tries++) {
      if (tries > 400) throw new Error(`${shell} does not go on: ${JSON.stringify(shown.slice(-2_000))}`);
      await Promise.race([Bun.sleep(25), new Promise<void>((resolve) => (wake = resolve))]);
    }
  };
  /** Until nothing is drawn any more: what a tab does has no other end. */
  const quiet = async () => {
    for (let before = ""; before !== shown; ) {
      before = shown;
      await Bun.sleep(150);
    }
  };
  await until(() => shown !== "");
  await quiet();
  terminal.write(`${SHELLS[shell].init}\r`);
  await until(() => shown.includes("ready> "));
  await quiet();
  const words = join(directory, "words");
  return {
    async type(line: string): Promise<readonly string[]> {
      rmSync(words, { force: true });
      // the shell reads one key after the other, however long a completion takes
      terminal.write(`${line}\r`);
      await until(() => existsSync(words));
      return readFileSync(words, "utf8").split("\0").slice(0, -1);
    },
    async close() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

for (const shell of ["bash", "zsh", "fish"] as const) {
  testNeeding(shell, `${shell} completes names as they are, and evaluates none of them`, async () => {
    const opened = await openShell(shell);
    try {
      for (const name of NAMES) expect(await opened.type(`keyhold get ${name[0]}\t`)).toEqual(["get", name]);
      expect(await opened.type("keyhold get 'a\t")).toEqual(["get", "a space"]);
      expect(await opened.type("keyhold get a\\ s\t")).toEqual(["get", "a space"]);
      expect(await opened.type("keyhold get k:c\t")).toEqual(["get", "k:colon"]);
      expect(await opened.type("keyhold get l=e\t")).toEqual(["get", "l=equals"]);
      expect(await opened.type("keyhold export a\tb\t--al\t")).toEqual(["export", "a space", "b'quote", "--all"]);
    } finally {
      await opened.close();
    }
    expect(existsSync(join(directory, "EVIL"))).toBe(false);
  });

  testNeeding(shell, `${shell} completes commands, flags, choices, topics and files`, async () => {
    const opened = await openShell(shell);
    try {
      const lines: readonly (readonly [string, readonly string[]])[] = [
        ["keyhold au\tli\ta\t", ["audit", "list", "a space"]],
        ["keyhold list --fre\t", ["list", "--fresh"]],
        ["keyhold list --color al\t", ["list", "--color", "always"]],
        ["keyhold list --color=al\t", ["list", "--color=always"]],
        ["keyhold --color never lis\t", ["--color", "never", "list"]],
        ["keyhold completion zs\t", ["completion", "zsh"]],
        ["keyhold he\texi\t", ["help", "exit-codes"]],
        ["keyhold help audit ver\t", ["help", "audit", "verify"]],
        ["keyhold import na\t", ["import", "names"]],
        ["keyhold store x --in-file na\t", ["store", "x", "--in-file", "names"]],
      ];
      for (const [line, words] of lines) expect([line, await opened.type(line)]).toEqual([line, [...words]]);
      writeFileSync(join(directory, "asked"), "");
      await opened.type("keyhold --profile work get a\t");
      expect(readFileSync(join(directory, "asked"), "utf8").trim().split("\n").at(-1)).toBe("__names secret work");
    } finally {
      await opened.close();
    }
  });

  testNeeding(shell, `${shell} reads its script without a word`, async () => {
    writeFileSync(join(directory, "checked"), await completionScript(root, shell));
    const ran = Bun.spawnSync([shell, "-n", join(directory, "checked")], { stdin: "ignore" });
    expect([ran.exitCode, ran.stderr.toString()]).toEqual([0, ""]);
  });
}

describe("the model", () => {
  test("a command that is added completes by itself", async () => {
    const added: Group = {
      ...root,
      commands: {
        ...root.commands,
        otp: {
          summary: "one-time passwords",
          commands: {
            code: {
              summary: "show a code",
              load: async () =>
                defineCommand({
                  args: {
                    name: { type: "positional", complete: "secret", description: "the secret" },
                    shape: { type: "enum", options: ["long", "short"], description: "how" },
                  },
                  run: async () => 0,
                }),
            },
          },
        },
      },
    };
    for (const shell of ["bash", "zsh", "fish"] as const) {
      const script = await completionScript(added, shell);
      for (const part of ["otp code", "shape", "long", "short"]) expect(script).toContain(part);
    }
  });

  test("hidden flags and the program's own entries stand in no script", async () => {
    for (const shell of ["bash", "zsh", "fish"] as const) {
      const script = await completionScript(root, shell);
      expect(script).not.toMatch(/(?<![a-z])kdf/);
      expect(script).not.toContain("__agent");
    }
  });

  test("without an agent there are no names, no question and no word", async () => {
    for (const words of [["secret"], ["reference", "work"], ["profile"], ["../../x"], []]) {
      const ran = await run(["__names", ...words], { env: { KEYHOLD_HOME: directory } });
      expect(ran).toEqual({ code: 0, out: "", err: "" });
    }
  });
});
