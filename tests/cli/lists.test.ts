import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { createOutput, listing, result } from "../../src/ui/output.ts";
import { pagerEnvironment } from "../../src/ui/pager.ts";
import { type DialogueStep, onTerminal } from "../binary/terminal.ts";
import { testNeeding } from "../support/skip.ts";
import { FIXTURE, run } from "./support.ts";

setDefaultTimeout(30_000);
let home: string;
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "keyhold-lists-"));
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

const fixture = (argv: readonly string[], options = {}) => run(argv, { script: FIXTURE, ...options });
const atTerminal = (argv: readonly string[], env: Record<string, string> = {}, steps: readonly DialogueStep[] = []) =>
  onTerminal(home, [FIXTURE, ...argv], steps, { env, program: process.execPath, pager: true });
const LONG = ["lots", "--count", "100"];

describe("the forms of a list", () => {
  test("--plain: cells between tabs, no heads, no colour, control characters escaped", async () => {
    const ran = await fixture(["lots", "--count", "4", "--plain", "--color", "always"]);
    expect([ran.code, ran.err]).toEqual([0, ""]);
    expect(ran.out).toBe(
      "0\trow 0\tplain\n1\trow 1\tesc \\x1b[2Jx\n2\trow 2\tbidi \\u202e\\u200bx\n3\trow 3\ttab\\tline\\nend\\x00\n",
    );
  });

  test("--null and -0: the names alone, each ended by NUL, as xargs -0 reads them", async () => {
    for (const flag of ["--null", "-0"]) expect((await fixture(["lots", flag])).out).toBe("row 0\0row 1\0row 2\0");
    for (const flag of ["--plain", "-0"]) expect((await fixture(["lots", flag, "--count", "0"])).out).toBe("");
  });

  test("columns are the same whatever the rows hold", () => {
    const cell = fc.string({ unit: "binary" });
    fc.assert(
      fc.property(fc.array(fc.tuple(cell, cell, cell)), (cells) => {
        const written: string[] = [];
        const out = createOutput({
          json: false,
          quiet: false,
          verbose: false,
          color: "always",
          form: "plain",
          env: {},
          write: (_fd, bytes) => void written.push(new TextDecoder().decode(bytes)),
        });
        out.result(listing({}, { heads: ["a", "b", "c"], cells }));
        const lines = written.join("").split("\n").slice(0, -1);
        expect(lines.map((line) => line.split("\t").length)).toEqual(cells.map(() => 3));
        expect(written.join("")).not.toMatch(/[\p{Cf}\u0000-\u0008\u000b-\u001f\u007f-\u009f]/u);
      }),
    );
  });

  test("they exclude each other, and commands without a list have none of them", async () => {
    for (const flags of [
      ["--plain", "-0"],
      ["--json", "--plain"],
      ["--json", "--null"],
    ]) {
      const ran = await fixture(["lots", ...flags]);
      expect([flags, ran.code, ran.out]).toEqual([flags, 2, ""]);
    }
    expect((await fixture(["echo", "a", "--plain"])).code).toBe(2);
    expect((await fixture(["lots", "--help"])).out).toContain("-0, --null");
  });
});

describe("the pager", () => {
  const marker = () => join(home, "called");
  const text = (shown: string) => Bun.stripANSI(shown).replaceAll("\r", "");

  test("$KEYHOLD_PAGER goes before $PAGER and gets the whole text; the terminal sees what it shows", async () => {
    const file = join(home, "paged");
    const ran = await atTerminal(LONG, { KEYHOLD_PAGER: `tee '${file}' | head -2`, PAGER: `touch '${marker()}'` });
    expect(ran.code).toBe(0);
    expect(text(ran.shown)).toContain("row 0");
    expect(text(ran.shown)).not.toContain("row 99");
    const paged = readFileSync(file, "utf8");
    expect(paged).toContain("row 99");
    expect(paged).toContain("esc \\x1b[2Jx");
    expect(existsSync(marker())).toBe(false);
    await atTerminal(LONG, { PAGER: `touch '${marker()}'` });
    expect(existsSync(marker())).toBe(true);
    rmSync(marker());
  });

  test("is not asked where nobody pages: short, a pipe, other forms, told not to, TERM=dumb, values", async () => {
    const env = { KEYHOLD_PAGER: `touch '${marker()}'; cat` };
    for (const [argv, extra] of [
      [["lots"], {}],
      [[...LONG, "--no-pager"], {}],
      [[...LONG, "--no-input"], {}],
      [[...LONG, "--json"], {}],
      [[...LONG, "--plain"], {}],
      [[...LONG, "-0"], {}],
      [LONG, { TERM: "dumb" }],
      [LONG, { CI: "1" }],
      [["many"], {}],
    ] as const) {
      const ran = await atTerminal(argv, { ...env, ...extra });
      expect([argv, extra, ran.code, existsSync(marker())]).toEqual([argv, extra, 0, false]);
    }
    await fixture(LONG, { env });
    expect(existsSync(marker())).toBe(false);
    for (const none of ["", "cat"]) {
      const ran = await atTerminal(LONG, { KEYHOLD_PAGER: none, PAGER: `touch '${marker()}'` });
      expect([text(ran.shown).includes("row 99"), existsSync(marker())]).toEqual([true, false]);
    }
    const out = createOutput({ json: false, quiet: false, verbose: false, color: "auto", env: {} });
    expect(out.pageable({ ...result({}, () => "a\n".repeat(100), { bare: true }), paged: true })).toBeNull();
  });

  test("one that is missing or fails: the list is printed plainly", async () => {
    for (const pager of ["no-such-pager-anywhere", "false", "exit 3"]) {
      const ran = await atTerminal(LONG, { KEYHOLD_PAGER: pager });
      expect([pager, ran.code, text(ran.shown).includes("row 99")]).toEqual([pager, 0, true]);
    }
  });

  test("one that ends early is no error, however long the list", async () => {
    const ran = await atTerminal(["lots", "--count", "60000"], { KEYHOLD_PAGER: "head -1" });
    expect(ran.code).toBe(0);
    expect(text(ran.shown).trim().split("\n")).toHaveLength(1);
  });

  test("gets no secrets, nothing of keyhold's, and no program of the working directory", async () => {
    const file = join(home, "env");
    await atTerminal(LONG, {
      KEYHOLD_PAGER: `env >'${file}'`,
      KEYHOLD_PROFILE: "work",
      AWS_SECRET_ACCESS_KEY: "hunter2",
      CREDENTIALS_DIRECTORY: "/run/hunter2",
      LESS: "-S",
      PATH: `.::${process.env["PATH"] ?? ""}`,
    });
    const seen = readFileSync(file, "utf8");
    expect(seen).not.toMatch(/^KEYHOLD_|hunter2/m);
    for (const line of ["LESS=-S", "LESSHISTFILE=-", "TERM=xterm-256color"]) expect(seen.split("\n")).toContain(line);
    expect(pagerEnvironment({ PATH: ":/bin:.:x/y:/usr/bin" })["PATH"]).toBe("/bin:/usr/bin");
    writeFileSync(join(home, "less"), `#!/bin/sh\ntouch '${marker()}'\n`, { mode: 0o755 });
    await atTerminal(LONG, { PATH: `.:${process.env["PATH"] ?? ""}` }, [{ expect: "row 0", type: "q" }]);
    rmSync(join(home, "less"));
    expect(existsSync(marker())).toBe(false);
  });

  test("a terminal that it leaves in disorder is put right", async () => {
    // the modes are compared by `onTerminal`
    const ran = await atTerminal(LONG, { KEYHOLD_PAGER: "stty raw -echo </dev/tty; kill -KILL $$" });
    expect(ran.code).toBe(0);
  });

  testNeeding("less", "less: Ctrl-C goes on, q ends with 0; SIGTERM ends both with 143", async () => {
    const quit = await atTerminal(LONG, {}, [
      { expect: "row 0", type: "\u0003" },
      { expect: /./s, type: " " },
      { expect: "row 30", type: "q" },
    ]);
    expect([quit.code, text(quit.shown).includes("row 99")]).toEqual([0, false]);
    const ended = await atTerminal(LONG, {}, [{ expect: "row 0", signal: "SIGTERM" }]);
    expect(ended.code).toBe(143);
    const asked = await atTerminal([...LONG, "--ask"], {}, [
      { expect: "Which list", type: "mine\r" },
      { expect: "row 0", type: " " },
      { expect: "row 30", type: " " },
      { expect: "row 60", type: "q" },
    ]);
    expect(asked.code).toBe(0);
    const help = await atTerminal(["echo", "--help"], {}, [{ expect: "Usage", type: "q" }]);
    expect(help.code).toBe(0);
  });
});
