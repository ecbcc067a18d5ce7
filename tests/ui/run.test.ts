import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { become, cannotSpawn, childEnvironment, findCommand, isUnsafeVariable } from "../../src/ui/run.ts";
import { FIXTURE, lastError, onTerminal, run, shell, withDirectory } from "../cli/support.ts";

const fixture = (argv: readonly string[], options = {}) => run(["run", ...argv], { script: FIXTURE, ...options });

test("a child's environment: inherited, without ours, with what is added", () => {
  const env = { A: "1", B: "2", KEYHOLD_HOME: "/k", KEYHOLD_PROFILE: "p", BUN_BE_BUN: "1", BUN_X: "", NONE: undefined };
  expect(childEnvironment(env, { B: "3", KEYHOLD_TOKEN: "t" })).toEqual({ A: "1", B: "3", KEYHOLD_TOKEN: "t" });
});

test("a clean one has what a program needs to find its way, and what is added", () => {
  const env = { PATH: "/bin", HOME: "/h", TERM: "t", LC_ALL: "C", LD_PRELOAD: "x", AWS_SECRET: "y", BUN_BE_BUN: "1" };
  expect(childEnvironment(env, { A: "1" }, { clean: true })).toEqual({
    PATH: "/bin",
    HOME: "/h",
    TERM: "t",
    LC_ALL: "C",
    A: "1",
  });
});

test("a script without a first line that names its interpreter is said to be one", () => {
  const { exit, fault } = cannotSpawn("./job", Object.assign(new Error("x"), { code: "ENOEXEC" }));
  expect([exit, fault.hint]).toEqual([126, "name its interpreter: -- sh ./job"]);
});

test("variables that decide which code runs are known, in any case", () => {
  for (const name of [
    "PATH",
    "LD_PRELOAD",
    "ld_audit",
    "DYLD_X",
    "NODE_OPTIONS",
    "https_proxy",
    "BASH_FUNC_x",
    "ENV",
    "LESS",
    "PS1",
    "XDG_CONFIG_HOME",
    "DOTNET_STARTUP_HOOKS",
    "REQUESTS_CA_BUNDLE",
    "DOCKER_HOST",
  ]) {
    expect([name, isUnsafeVariable(name)]).toEqual([name, true]);
  }
  for (const name of ["DATABASE_KEY", "PGPASSWORD", "GITHUB_TOKEN", "GIT_TOKEN", "ENVIRONMENT", "PATHS", "NODE_ENV"]) {
    expect([name, isUnsafeVariable(name)]).toEqual([name, false]);
  }
});

describe("findCommand", () => {
  test("PATH in order; directories and files without x are passed over", async () => {
    await withDirectory((directory) => {
      for (const folder of ["a", "b", "c"]) mkdirSync(join(directory, folder));
      mkdirSync(join(directory, "a", "tool"));
      writeFileSync(join(directory, "b", "tool"), "");
      writeFileSync(join(directory, "c", "tool"), "");
      chmodSync(join(directory, "b", "tool"), 0o600);
      const path = ["", join(directory, "none"), ...["a", "b", "c"].map((folder) => join(directory, folder))].join(":");
      chmodSync(join(directory, "c", "tool"), 0o700);
      expect(findCommand("tool", path)).toBe(join(directory, "c", "tool"));
      expect(findCommand(join(directory, "c", "tool"), "")).toBe(join(directory, "c", "tool"));
      chmodSync(join(directory, "c", "tool"), 0o600);
      expect(findCommand("tool", path)).toMatchObject({ exit: 126 });
      expect(findCommand("another", path)).toMatchObject({ exit: 127 });
      expect(findCommand("", path)).toMatchObject({ exit: 127 });
      expect(findCommand("tool", "")).toMatchObject({ exit: 127 });
    });
  });
});

describe("run", () => {
  test("gives back the child's code and signal", async () => {
    expect((await fixture(["--", "sh", "-c", "exit 42"])).code).toBe(42);
    const ran = await shell("$FIXTURE run -- sh -c 'kill -TERM $$'; echo $?");
    expect(ran.out).toBe("143\n");
  });

  test("126 and 127 as shells give them, as JSON too", async () => {
    const none = await fixture(["--json", "--", "keyhold-no-such-command"]);
    expect([none.code, none.out, lastError(none).error["code"]]).toEqual([127, "", "not_found"]);
    await withDirectory(async (directory) => {
      for (const [name, mode, code] of [
        ["plain", 0o600, 126],
        ["text", 0o700, 126],
        ["lost", 0o700, 127],
      ] as const) {
        writeFileSync(join(directory, name), name === "lost" ? "#!/nonexistent/interpreter\n" : "no program", { mode });
        expect((await fixture(["--", join(directory, name)])).code).toBe(code);
      }
    });
  });

  test("the child is this process: same pid, default signals, its own argv[0], no password descriptor", async () => {
    const child = `echo $$; grep -E "^Sig(Ign|Blk)" /proc/self/status; echo $0; test -e /proc/self/fd/9 || echo closed`;
    const ran = await shell(`sh -c 'echo $$; exec '"$FIXTURE"' run -- sh -c "$CHILD"' 9<<<secret`, { CHILD: child });
    const [pid, ...lines] = ran.out.trim().split("\n");
    expect(lines).toEqual([pid ?? "", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "sh", "closed"]);
  });

  test("a hang-up that is ignored stays ignored, for this process and its child", async () => {
    const nohup = "trap '' HUP; exec";
    const ran = await shell(
      `sh -c '${nohup.replaceAll("'", "'\\''")} '"$FIXTURE"' run -- sh -c "kill -HUP \\$\\$; echo alive"'`,
    );
    expect(ran.out).toBe("alive\n");
  });

  test("a value with a NUL byte is refused, not cut", async () => {
    await expect(become(["true"], { A: "a\0b" })).rejects.toMatchObject({ code: "bad_input" });
  });

  test("stdin reaches the child untouched, and a terminal stays one", async () => {
    expect((await fixture(["--", "cat"], { stdin: new TextEncoder().encode("abc") })).out).toBe("abc");
    const ran = await onTerminal(
      "$FIXTURE run -- sh -c 'test -t 0 && stty -a </dev/tty >&2; read -r line; echo got $line'",
      [{ expect: "echo", type: "hello\r" }],
    );
    expect(ran.out).toBe("got hello\n");
  });
});
