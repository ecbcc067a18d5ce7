import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/commands/index.ts";
import { allCommands } from "../../src/ui/help.ts";
import { testNeeding } from "../support/skip.ts";
import { onTerminal } from "./terminal.ts";
import { binary, environment, type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(120_000);
const COUNT = 40;
let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld({ server: false });
  home = world.home("home");
  await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
  await home.ok(["unlock", ...home.password, "--kdf", "test"]);
  const items = [
    ...Array.from({ length: COUNT }, (_, i) => ({ name: `row/${String(i).padStart(2, "0")}`, value: "v" })),
    { name: "a name with spaces", value: "v" },
    { name: "größe/密码/🔑", value: "v" },
    { name: "zz/bidi\u202eevil", value: "v" },
    { name: "long value", value: "a line\n".repeat(200) },
  ].map((item) => ({ ...item, type: "note", tags: ["t"], createdAt: null }));
  await home.ok(["import", world.file("export.json", JSON.stringify({ keyhold: "export", v: 1, items }))]);
}, SETUP_MS);
afterAll(async () => {
  await home.run(["lock"]);
  await world.close();
});

const text = (shown: string) => Bun.stripANSI(shown).replaceAll("\r", "");
const shell = async (line: string) => {
  const child = Bun.spawn(["bash", "-c", line], {
    env: environment(home.dir, { KH: await binary() }),
    cwd: home.dir,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, err };
};

describe("lists", () => {
  test("--plain is for awk and cut, -0 for xargs", async () => {
    const plain = await shell(`"$KH" list --plain | cut -f 1,2 | sort`);
    expect(plain.err).toBe("");
    const lines = plain.out.trim().split("\n");
    expect(lines).toHaveLength(COUNT + 4);
    expect(lines).toContain("a name with spaces\tnote");
    expect(lines).toContain("zz/bidi\\u202eevil\tnote");
    const named = await shell(`"$KH" list -0 | xargs -0 -n 1 "$KH" read | grep -c 'a line'`);
    expect([named.err, named.out]).toEqual(["", "200\n"]);
    const removed = await shell(`"$KH" search evil -0 | xargs -0 "$KH" get --plain`);
    expect(removed.out).toBe("");
    for (const command of [
      ["history", "long value"],
      ["profile", "list"],
      ["config", "show"],
      ["search", "row"],
    ]) {
      const ran = await home.run([...command, "--plain"]);
      expect([command, ran.code, ran.err]).toEqual([command, 0, ""]);
      const columns = new Set(
        ran.out
          .trim()
          .split("\n")
          .map((line) => line.split("\t").length),
      );
      expect([command, columns.size]).toEqual([command, 1]);
    }
  });

  testNeeding(
    "less",
    "a list longer than the terminal is paged, with names that cannot steer it; values never",
    async () => {
      const paged = await onTerminal(
        home.dir,
        ["list"],
        [
          { expect: "row/00", type: "G" },
          { expect: "bidi\\u202eevil", type: "q" },
        ],
        { pager: true },
      );
      expect([paged.code, paged.shown.includes("\u202e")]).toEqual([0, false]);
      const called = world.file("called");
      const env = { KEYHOLD_PAGER: `touch '${called}'` };
      for (const argv of [
        ["get", "long value", "--reveal"],
        ["read", "long value"],
        ["run", "--env", "A=kh://long%20value", "--", "sh", "-c", 'echo "$A"'],
        ["list", "--json"],
        ["search", "bidi"],
      ]) {
        const ran = await onTerminal(home.dir, argv, [], { env });
        expect([argv, ran.code, existsSync(called)]).toEqual([argv, 0, false]);
      }
      await onTerminal(home.dir, ["list"], [], { env });
      expect(existsSync(called)).toBe(true);
    },
  );

  testNeeding("less", "after a question the pager has the keys", async () => {
    await home.run(["lock"]);
    const password = await Bun.file(home.password[1]).text();
    const paged = await onTerminal(
      home.dir,
      ["list", "--kdf", "test"],
      [
        { expect: "Password", type: `${password}\r` },
        { expect: "row/00", type: "q" },
      ],
      { pager: true },
    );
    expect(paged.code).toBe(0);
    await home.ok(["unlock", ...home.password, "--kdf", "test"]);
  });
});

describe("any terminal and any locale", () => {
  test("what is shown is whole at 0, 20, 40, 80 and 200 columns, in C and in UTF-8", async () => {
    for (const cols of [0, 20, 40, 80, 200]) {
      for (const locale of ["C", "C.UTF-8"]) {
        const env = { LC_ALL: locale, LANG: locale };
        for (const argv of [
          ["search", "密码"],
          ["help"],
          ["help", "exit-codes"],
          ["get", "a name with spaces"],
          ["status"],
        ]) {
          const ran = await onTerminal(home.dir, [...argv, "--no-pager"], [], { cols, env });
          expect([cols, locale, argv, ran.code]).toEqual([cols, locale, argv, 0]);
          expect(ran.shown).not.toContain("\ufffd");
          if (argv[0] === "search") expect(ran.shown).toContain("größe");
          const wide = text(ran.shown)
            .split("\n")
            .filter((line) => Bun.stringWidth(line) > cols);
          if (cols >= 80 && argv[0] !== "status") expect([cols, argv, wide]).toEqual([cols, argv, []]);
        }
        const failed = await onTerminal(home.dir, ["get", "nothing/there"], [], { cols, env });
        expect([failed.code, text(failed.shown).replace(/\s+/g, " ").includes("[not_found, exit 3]")]).toEqual([
          3,
          true,
        ]);
      }
    }
  });

  test("a question in the C locale, and in 20 columns", async () => {
    const asked = await onTerminal(home.dir, ["remove", "row/39"], [{ expect: "Remove", type: "y" }], {
      cols: 20,
      env: { LC_ALL: "C" },
    });
    expect(asked.code).toBe(0);
  });
});

test("every command explains itself at a terminal of 40 columns, without a line that is broken in a word", async () => {
  const commands = [...(await allCommands(root))];
  const worker = async () => {
    for (let item = commands.shift(); item !== undefined; item = commands.shift()) {
      const ran = await onTerminal(home.dir, [...item.path, "--help", "--no-pager"], [], { cols: 40 });
      expect([item.path, ran.code]).toEqual([item.path, 0]);
      // what is to be copied stays in one piece
      const whole = (item.command.examples ?? []).map(([line]) => line);
      const broken = text(ran.shown)
        .split("\n")
        .filter((line) => Bun.stringWidth(line) > 40 && !whole.includes(line.trim()))
        .filter((line) => !/^ *(?:keyhold|-|[A-Z{`])/.test(line));
      expect([item.path, broken.filter((line) => line.trim().includes(" "))]).toEqual([item.path, []]);
    }
  };
  await Promise.all([worker(), worker()]);
});

test("Ctrl-C while the password is checked: 130, and the terminal as before", async () => {
  const slow = world.home("slow");
  await slow.ok(["init", "--local", ...slow.password]);
  const ran = await onTerminal(slow.dir, ["unlock", ...slow.password], [{ expect: "Unlocking", type: "\u0003" }]);
  expect([ran.code, ran.shown.includes("interrupted, exit 130")]).toEqual([130, true]);
  const ended = await onTerminal(slow.dir, ["unlock", ...slow.password], [{ expect: "Unlocking", signal: "SIGTERM" }]);
  expect([ended.code, ended.shown.includes("interrupted, exit 143")]).toEqual([143, true]);
});

testNeeding("bash", "the completion that is in force knows the vault's names, and none once it is locked", async () => {
  const tools = world.file("tools");
  mkdirSync(tools);
  symlinkSync(await binary(), join(tools, "keyhold"));
  const complete = async (line: string) =>
    (
      await shell(
        `export PATH="${tools}:$PATH"; source <(keyhold completion bash); COMP_LINE='${line}'; COMP_POINT=\${#COMP_LINE}; COMP_WORDS=(\${COMP_LINE}); [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=(''); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _keyhold 2>/dev/null; printf '%s\\n' "\${COMPREPLY[@]}"`,
      )
    ).out
      .trim()
      .split("\n");
  expect(await complete("keyhold get row/0")).toEqual(Array.from({ length: 10 }, (_, i) => `row/0${i}`));
  expect(await complete("keyhold get a")).toEqual(["a\\ name\\ with\\ spaces"]);
  // one that would not show as it is must be typed
  expect(await complete("keyhold get zz")).toEqual([""]);
  await home.run(["lock"]);
  expect(await complete("keyhold get row/0")).toEqual([""]);
  expect(readdirSync(home.dir)).not.toContain("core");
  await home.ok(["unlock", ...home.password, "--kdf", "test"]);
});
