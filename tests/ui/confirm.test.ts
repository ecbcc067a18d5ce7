import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { agentOptions, words } from "../../src/ui/agentoptions.ts";
import { loadSettings } from "../../src/ui/config.ts";
import { askByProgram, checkDisplay } from "../../src/ui/confirm.ts";
import { ended } from "../binary/world.ts";
import { testUnless } from "../support/skip.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "keyhold-confirm-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function script(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, 0o755);
  return path;
}
const never = new AbortController().signal;
const question = { method: "get", names: ["prod/db"], pid: process.pid };
const notLinux = process.platform === "linux" ? undefined : "needs /proc";

describe("the program that asks the owner", () => {
  test.each([
    ["exit 0", "yes"],
    ["exit 1", "no"],
    ["exit 255", "no"],
    ["kill -TERM $$", "no"],
  ] as const)("%s: %s", async (text, wanted) => {
    expect(await askByProgram([script("answer", text)], "default", [])(question, never)).toBe(wanted);
  });

  test("that cannot be started is a no with a hint", async () => {
    const ask = askByProgram([join(dir, "gone")], "default", []);
    await expect(ask(question, never)).rejects.toMatchObject({
      code: "denied",
      hint: expect.stringContaining("confirmCommand"),
    });
  });

  testUnless(notLinux, "is told who asks for what, and nothing else", async () => {
    const out = join(dir, "told");
    const before = process.env["KEYHOLD_CANARY"];
    process.env["KEYHOLD_CANARY"] = "hunter2";
    try {
      const names = [
        "prod/\u001b]0;x\u0007a",
        "prod/\u202eb",
        "$(touch x); `y`",
        ...Array.from({ length: 40 }, (_, i) => `n${i}`),
      ];
      const program = script("tell", 'env >"$1"; printf "%s|" "$#" "$2" "$PWD" >>"$1"; cat >>"$1"');
      const ask = askByProgram([program, out, "an argument; with $HOME"], "work", [{ name: "DISPLAY", value: ":7" }]);
      expect(await ask({ method: "getMany", names, pid: process.pid }, never)).toBe("yes");
    } finally {
      if (before === undefined) delete process.env["KEYHOLD_CANARY"];
    }
    const text = readFileSync(out, "utf8");
    expect(text).not.toContain("hunter2");
    expect(text).toContain("2|an argument; with $HOME|/|");
    const lines = new Map(text.split("\n").map((line) => line.split(/=(.*)/s, 2) as [string, string]));
    expect([...lines.keys()].filter((name) => name.startsWith("KEYHOLD_")).sort()).toEqual([
      "KEYHOLD_CONFIRM_COUNT",
      "KEYHOLD_CONFIRM_EXE",
      "KEYHOLD_CONFIRM_METHOD",
      "KEYHOLD_CONFIRM_NAME",
      "KEYHOLD_CONFIRM_NAMES",
      "KEYHOLD_CONFIRM_PARENT_EXE",
      "KEYHOLD_CONFIRM_PARENT_PID",
      "KEYHOLD_CONFIRM_PID",
      "KEYHOLD_CONFIRM_PROFILE",
    ]);
    expect(Object.fromEntries(lines)).toMatchObject({
      DISPLAY: ":7",
      KEYHOLD_CONFIRM_COUNT: "43",
      KEYHOLD_CONFIRM_EXE: process.execPath,
      KEYHOLD_CONFIRM_METHOD: "getMany",
      KEYHOLD_CONFIRM_NAME: "43 secrets",
      KEYHOLD_CONFIRM_PID: String(process.pid),
      KEYHOLD_CONFIRM_PARENT_PID: String(process.ppid),
      KEYHOLD_CONFIRM_PROFILE: "work",
    });
    expect(text).toContain("KEYHOLD_CONFIRM_NAMES=prod/\\x1b]0;x\\x07a\nprod/\\u202eb\n$(touch x); `y`\nn0\n");
    expect(text.includes("n28\n") && !text.includes("n29\n")).toBe(true);
    expect(existsSync(join(dir, "x"))).toBe(false);
  });

  test("a process that the system does not name, and the whole account", async () => {
    const out = join(dir, "account");
    const ask = askByProgram(
      [script("who", `echo "$KEYHOLD_CONFIRM_NAME|$KEYHOLD_CONFIRM_PID|$KEYHOLD_CONFIRM_EXE|" >"$1"`), out],
      "p",
      [],
    );
    expect(await ask({ method: "linkDevice", names: null, pid: null }, never)).toBe("yes");
    expect(readFileSync(out, "utf8")).toBe("the whole account|||\n");
  });

  testUnless(
    notLinux,
    "that is late is ended with all that it started; so is one whose question is withdrawn",
    async () => {
      const pids = join(dir, "pids");
      const hang = [script("hang", 'sleep 1000 & echo "$$ $!" >"$1.new"; mv "$1.new" "$1"; wait'), pids];
      const started = async () => {
        while (!existsSync(pids)) await Bun.sleep(5);
        const both = readFileSync(pids, "utf8").trim().split(" ").map(Number);
        rmSync(pids);
        return both;
      };
      const withdraw = new AbortController();
      const asking = askByProgram(hang, "p", [])(question, withdraw.signal);
      const first = await started();
      withdraw.abort();
      expect(await asking).toBe("no");
      const late = askByProgram(hang, "p", [], 300)(question, never);
      const second = await started();
      expect(await late).toBe("timed_out");
      for (const pid of [...first, ...second]) while (!ended(pid)) await Bun.sleep(5);
    },
  );
});

describe("options of an agent", () => {
  const none = { for: null, idle: null, confirm: [] };
  function ctx(env: Record<string, string> = {}) {
    const settings = loadSettings({ env, file: null, userDirectory: dir, systemFile: join(dir, "none") });
    return { env: { PATH: dir, ...env }, settings: async () => settings };
  }

  test("defaults, settings, then flags", async () => {
    expect(await agentOptions(ctx(), none)).toEqual({
      idleMs: 900_000,
      absoluteMs: 43_200_000,
      lockOnSuspend: true,
      confirm: [],
      command: null,
      display: [],
    });
    const program = script("asker", "exit 0");
    const env = {
      KEYHOLD_AGENT_IDLE: "0",
      KEYHOLD_AGENT_FOR: "2h",
      KEYHOLD_LOCK_ON_SUSPEND: "false",
      KEYHOLD_CONFIRM: '["prod/*","one"]',
      KEYHOLD_CONFIRM_COMMAND: '["asker","--title","a b"]',
      DISPLAY: ":1",
      SECRET: "x",
    };
    const set = await agentOptions(ctx(env), none);
    expect(set).toEqual({
      idleMs: 0,
      absoluteMs: 7_200_000,
      lockOnSuspend: false,
      confirm: ["prod/*", "one"],
      command: [program, "--title", "a b"],
      display: [{ name: "DISPLAY", value: ":1" }],
    });
    const flags = { for: 60_000, idle: 30_000, confirm: ["never"] };
    expect(await agentOptions(ctx(env), flags)).toEqual({ ...set, idleMs: 30_000, absoluteMs: 60_000, confirm: [] });
  });

  test("what makes no sense is refused before anything is unlocked", async () => {
    const day = 86_400_000;
    for (const args of [
      { ...none, for: 0 },
      { ...none, for: 999 },
      { ...none, for: 31 * day },
      { ...none, idle: 1 },
      { ...none, idle: 31 * day },
      { ...none, confirm: ["a*b"] },
      { ...none, confirm: ["never", "always"] },
    ]) {
      await expect(agentOptions(ctx(), args)).rejects.toMatchObject({ code: "bad_input" });
    }
    for (const command of ["no-such-program-here", "[]", "[1]", "[", '{"a":1}', ""]) {
      const asking = agentOptions(ctx({ KEYHOLD_CONFIRM_COMMAND: command }), none);
      if (command === "") expect((await asking).command).toBeNull();
      else await expect(asking).rejects.toMatchObject({ code: "bad_input" });
    }
    expect(words("confirm", "a b")).toEqual(["a b"]);
  });

  test("of the environment the program gets the way to the screen alone", () => {
    const env = { DISPLAY: ":0", WAYLAND_DISPLAY: "", XAUTHORITY: "x".repeat(2_000), AWS_SECRET: "s", TMUX: "/t,1,0" };
    expect(checkDisplay(env)).toEqual([
      { name: "DISPLAY", value: ":0" },
      { name: "TMUX", value: "/t,1,0" },
    ]);
  });
});
