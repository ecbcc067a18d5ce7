import { describe, expect, test } from "bun:test";
import { isErrorCode } from "../../src/errors.ts";
import { FIXTURE, lastError, MAIN, onTerminal, run, shell } from "./support.ts";

const fixture = (argv: readonly string[], options = {}) => run(argv, { script: FIXTURE, ...options });
const data = (ran: { out: string }) => JSON.parse(ran.out).data;

describe("arguments", () => {
  test("every kind arrives typed, absent ones as null, false and []", async () => {
    const all = await fixture([
      "echo",
      "a",
      "--tag",
      "x",
      "--tag=y",
      "--tag",
      "-z",
      "--type",
      "bytes",
      "--length",
      "3",
      "--length=4",
      "-f",
      "--after",
      "2m",
      "--when",
      "2026-01-31T00:00:00Z",
      "--in-file",
      "-",
      "b",
      "--json",
    ]);
    expect(all.err).toBe("");
    expect(data(all).args).toEqual({
      name: "a",
      other: "b",
      tag: ["x", "y", "-z"],
      type: "bytes",
      length: 4,
      after: 120_000,
      when: Date.UTC(2026, 0, 31),
      inFile: "-",
      force: true,
      secretly: false,
    });
    expect(data(await fixture(["echo", "a", "--json"])).args).toEqual({
      name: "a",
      other: null,
      tag: [],
      type: "note",
      length: null,
      after: 30_000,
      when: null,
      inFile: null,
      force: false,
      secretly: false,
    });
  });

  test("global flags stand before or after the command", async () => {
    const ran = await fixture(["--json", "--profile", "echo", "echo", "a", "--quiet", "--kdf", "test"]);
    expect(data(ran).flags).toMatchObject({ json: true, profile: "echo", quiet: true, kdf: "test" });
  });

  test("words after -- belong to the program that is run, else they are words", async () => {
    expect((await fixture(["run", "--", "echo", "--help", "--json", "x"])).out).toBe("--help --json x\n");
    expect(data(await fixture(["echo", "--json", "--", "--tag"])).args).toMatchObject({ name: "--tag", tag: [] });
    expect((await fixture(["run", "--json"])).code).toBe(2);
  });

  const refused: readonly (readonly [string, readonly string[], RegExp])[] = [
    ["an unknown command", ["ecko", "a"], /unknown command "ecko"; did you mean "keyhold echo"/],
    ["an unknown flag", ["echo", "a", "--lenght", "3"], /unknown flag "--lenght"; did you mean "--length"/],
    ["an unknown flag with a value inside", ["echo", "a", "--passwort=hunter2"], /unknown flag "--passwort"/],
    ["an unknown flag before the command", ["--jsno", "echo", "a"], /unknown flag "--jsno"; did you mean "--json"/],
    ["an unknown short flag", ["echo", "a", "-x"], /unknown flag "-x"/],
    ["a flag that objects inherit", ["echo", "a", "--constructor", "x"], /unknown flag/],
    ["a command that objects inherit", ["constructor"], /unknown command/],
    ["a hidden flag's name is not offered", ["echo", "a", "--secretl"], /unknown flag "--secretl"(?!.*secretly)/],
    ["a flag without its value", ["echo", "a", "--length"], /--length needs a value/],
    [
      "a flag whose value is another flag",
      ["echo", "a", "--in-file", "--force"],
      /--in-file needs a value, but the flag --force follows/,
    ],
    ["a value for a switch", ["echo", "a", "--force=maybe"], /--force takes no value/],
    ["a number out of range", ["echo", "a", "--length", "11"], /whole number from 1 to 10/],
    ["a number that is none", ["echo", "a", "--length", "1e1"], /whole number/],
    ["a choice that is none", ["echo", "a", "--type", "nothing"], /one of note, bytes/],
    ["a choice that is nearly one", ["echo", "a", "--type", "byts"], /not "byts"; did you mean "bytes"/],
    ["a duration that is none", ["echo", "a", "--after", "soon"], /duration like/],
    ["a day that does not exist", ["echo", "a", "--when", "2026-02-31"], /time like/],
    ["a word too many", ["echo", "a", "b", "hunter2"], /takes 2 words, but 3 were given/],
    ["a missing word", ["echo"], /NAME is needed/],
  ];
  for (const [what, argv, message] of refused) {
    test(`${what}: exit 2, nothing on stdout, says why`, async () => {
      const ran = await fixture([...argv, "--json"]);
      expect(ran.code).toBe(2);
      expect(ran.out).toBe("");
      expect(lastError(ran).error["message"]).toMatch(message);
      expect(ran.err).not.toContain("hunter2");
    });
  }

  test("a group alone is a usage error that names its commands", async () => {
    const ran = await run(["config"]);
    expect([ran.code, ran.out]).toEqual([2, ""]);
    expect(ran.err).toContain("show, defaults, path");
  });
});

describe("streams", () => {
  test("a failure reads what, why, fix, code", async () => {
    const ran = await fixture(["fail", "locked"]);
    expect(ran).toEqual({
      code: 4,
      out: "",
      err: [
        'keyhold: cannot read "db/prod": the vault is locked.',
        "  Why: idle for 15 minutes.",
        "  Fix: keyhold unlock   (scripts: --password-fd 3)     [locked, exit 4]",
        "",
      ].join("\n"),
    });
  });

  test("what was given wrong has a fix: the command's help, where nothing better is known", async () => {
    expect((await fixture(["fail", "input"])).err).toBe(
      "keyhold: cannot use this.\n  Why: it is odd.\n  Fix: keyhold help fail     [bad_input, exit 2]\n",
    );
    for (const argv of [
      ["echo", "a", "--length", "x"],
      ["echo", "a", "--type", "nothing"],
      ["echo", "a", "--when", "soon"],
    ]) {
      expect(lastError(await fixture([...argv, "--json"])).error["hint"]).toBe("keyhold help echo");
    }
  });

  test("a failure under --json is one line, the last of stderr", async () => {
    const ran = await fixture(["fail", "locked", "--json"]);
    expect(JSON.parse(ran.err)).toEqual({
      v: 1,
      error: {
        code: "locked",
        message: 'cannot read "db/prod": the vault is locked',
        hint: "keyhold unlock   (scripts: --password-fd 3)",
        why: "idle for 15 minutes",
      },
      requestId: "00112233445566778899aabbccddeeff",
    });
    expect(ran.code).toBe(4);
  });

  test("a rate limit carries the time to wait", async () => {
    const ran = await fixture(["fail", "rate", "--json"]);
    expect(ran.code).toBe(12);
    expect(lastError(ran).error["retryAfterMs"]).toBe(1_500);
  });

  test("a foreign error's text, which may hold data, is not shown", async () => {
    for (const flags of [[], ["--json"], ["--verbose"]]) {
      const ran = await fixture(["fail", "foreign", ...flags]);
      expect(ran.code).toBe(1);
      expect(ran.err).toContain("TypeError");
      expect(ran.err).not.toContain("hunter2");
    }
  });

  test("control characters in a message cannot reach the terminal", async () => {
    const { err } = await fixture(["fail", "control"]);
    expect(err).toContain("a\\x1b[2Jb\\n");
    expect(err).not.toContain("\u001b");
  });

  test("a value goes into a pipe unchanged; on a terminal its control characters are escaped", async () => {
    expect((await fixture(["reveal"])).out).toBe("l1\r\n\u001b[31ml2\ufeff\n");
    const { shown } = await onTerminal("$FIXTURE reveal >/dev/tty", []);
    expect(shown).toContain("l1\\r");
    expect(shown).not.toContain("\ufeff");
  });

  test("partly done: the data on stdout, exit 10", async () => {
    const ran = await fixture(["queued", "--json"]);
    expect(ran.code).toBe(10);
    expect(ran.out).toBe('{"v":1,"data":{"queued":true},"requestId":"00112233445566778899aabbccddeeff"}\n');
  });

  test("a reader that goes away is no error worth a word", async () => {
    const ran = await shell("$FIXTURE many | head -1; echo status ${PIPESTATUS[0]}");
    expect(ran).toEqual({ code: 0, out: "a line of text\nstatus 141\n", err: "" });
  });

  test("large output is whole when the reader is slow", async () => {
    const ran = await shell("$FIXTURE many | (sleep 0.3; wc -c)");
    expect(ran.out.trim()).toBe(String(15 * 200_000));
  });

  test("colour: NO_COLOR of any value, TERM=dumb, --color, FORCE_COLOR", async () => {
    const colored = async (argv: readonly string[], env: Record<string, string> = {}) =>
      (await fixture(["fail", "locked", ...argv], { env })).err.includes("\u001b[");
    expect(await colored([])).toBe(false);
    expect(await colored(["--color", "always"], { NO_COLOR: "true" })).toBe(true);
    expect(await colored([], { FORCE_COLOR: "1" })).toBe(true);
    expect(await colored([], { FORCE_COLOR: "1", NO_COLOR: "true" })).toBe(false);
    expect(await colored(["--color=never"], { FORCE_COLOR: "1" })).toBe(false);
    const shown = async (env: Record<string, string>) =>
      (await onTerminal("$FIXTURE fail locked", [], env)).shown.includes("\u001b[");
    expect(await shown({})).toBe(true);
    expect(await shown({ NO_COLOR: "true" })).toBe(false);
    expect(await shown({ TERM: "dumb" })).toBe(false);
  });
});

describe("help", () => {
  test("the bare program explains itself; --help anywhere runs nothing", async () => {
    const bare = await run([]);
    expect([bare.code, bare.err]).toEqual([0, ""]);
    expect(bare.out).toContain("keyhold help <command>");
    const ran = await fixture(["fail", "locked", "--help"]);
    expect(ran.code).toBe(0);
    expect(ran.out).toContain("keyhold fail HOW");
  });

  test("the exit codes name every error code once", async () => {
    const { items } = data(await run(["help", "exit-codes", "--json"]));
    const codes = items.flatMap((row: { codes: string[] }) => row.codes);
    expect(codes.every(isErrorCode)).toBe(true);
    expect(new Set(codes).size).toBe(codes.length);
    const { errorTable } = await import("../../src/errors.ts");
    expect(codes.toSorted()).toEqual(
      errorTable()
        .map(({ code }) => code)
        .toSorted(),
    );
  });

  test("help for a command that is none exits 2 with the nearest", async () => {
    const ran = await run(["help", "versoin"]);
    expect([ran.code, ran.out]).toEqual([2, ""]);
    expect(ran.err).toContain('did you mean "version"');
  });
});

describe("start-up", () => {
  test("version says what was built", async () => {
    expect(data(await run(["version", "--json"]))).toEqual({
      version: expect.any(String),
      commit: expect.any(String),
      protocol: 1,
      bun: Bun.version,
    });
    expect((await run(["--version"])).out).toBe((await run(["version"])).out);
  });

  test("version loads neither prompts nor the cryptography of others", async () => {
    const build = await Bun.build({
      entrypoints: [MAIN],
      target: "bun",
      splitting: true,
      metafile: true,
      packages: "external",
    });
    const reached = new Set<string>();
    const inputs = build.metafile?.inputs ?? {};
    const walk = (path: string) => {
      if (reached.has(path)) return;
      reached.add(path);
      for (const { path: next, kind } of inputs[path]?.imports ?? []) if (kind !== "dynamic-import") walk(next);
    };
    const enter = (entries: RegExp) => {
      for (const path of Object.keys(inputs)) if (entries.test(path)) walk(path);
    };
    enter(/src\/main\.ts$/);
    expect([...reached].map((path) => path.replace(/^.*src\//, "")).sort()).toEqual(["main.ts", "version.ts"]);
    enter(/src\/(ui\/start|commands\/(index|version))\.ts$/);
    expect([...reached].some((path) => path.endsWith("src/ui/frame.ts"))).toBe(true);
    expect(
      [...reached].filter((path) => /@noble|@clack|@serenity|x509|consola|src\/(client|server)\//.test(path)),
    ).toEqual([]);
  });

  test("variables that weaken connections are gone for this process, yet kept for a child that is run", async () => {
    const env = { HTTPS_PROXY: "http://127.0.0.1:1", KEYHOLD_PROFILE: "x", BUN_BE_BUN: "1" };
    const ran = await fixture(["run", "--env", "A=1", "--", "env"], { env });
    expect(ran.out).toContain("HTTPS_PROXY=http://127.0.0.1:1\n");
    expect(ran.out).toContain("\nA=1\n");
    expect(ran.out).not.toMatch(/^(KEYHOLD_|BUN_BE_BUN)/m);
  });
});
