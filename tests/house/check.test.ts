import { describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { closingLine, failures, tally } from "../../scripts/tally.ts";

const SUPPORT = join(import.meta.dir, "..", "support");

/** Runs `text` as a test file of its own; gives the closing line for it. */
async function close(text: string, noSkip = false): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "keyhold-tally-"));
  try {
    await Bun.write(join(folder, "sample.test.ts"), text);
    const report = join(folder, "junit.xml");
    const run = Bun.spawn([process.execPath, "test", "--reporter=junit", `--reporter-outfile=${report}`], {
      cwd: folder,
      env: { ...process.env, KEYHOLD_TEST_NO_SKIP: noSkip ? "1" : "" },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });
    const succeeded = (await run.exited) === 0;
    const file = Bun.file(report);
    return closingLine(tally((await file.exists()) ? await file.text() : "", succeeded, noSkip));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const HEAD = 'import { describe, expect, test } from "bun:test";\n';
const MIXED = `${HEAD}test("a", () => {}); test("b", () => expect(1).toBe(2)); describe("d", () => { test("c", () => {}); });
test.skip("e", () => {}); test.todo("f");\n`;

describe("the closing line", () => {
  test("counts passed, failed and skipped tests of a real run", async () => {
    expect(await close(MIXED)).toBe("2 passed, 1 failed, 2 skipped");
  });
  test("counts skipped tests as failed where nothing may be skipped", async () => {
    expect(await close(MIXED, true)).toBe("2 passed, 3 failed");
  });
  test("counts a file that cannot be loaded, a run without tests and a lost report as failures", async () => {
    expect(await close('import "./missing.ts";\n')).toBe("0 passed, 1 failed");
    expect(await close(`${HEAD}test("a", () => {}); process.exit(0);\n`)).toBe("0 passed, 1 failed");
    expect(await close("export {};\n")).toBe("0 passed, 1 failed");
    expect(closingLine(tally("", true, false))).toBe("0 passed, 1 failed");
  });
  test("a run of skipped tests alone is a failure", async () => {
    expect(await close(`${HEAD}test.skip("a", () => {});\n`)).toBe("0 passed, 1 failed, 1 skipped");
  });
});

describe("a whole run", () => {
  /** A project of these test files alone; gives the run's last line and its exit code. */
  async function whole(files: Readonly<Record<string, string>>): Promise<[string, number | null]> {
    const folder = await mkdtemp(join(tmpdir(), "keyhold-rooms-"));
    try {
      for (const name of ["check.ts", "tally.ts"])
        await Bun.write(join(folder, "scripts", name), Bun.file(join(SUPPORT, "..", "..", "scripts", name)));
      for (const [path, text] of Object.entries(files)) await Bun.write(join(folder, "tests", path), text);
      const run = Bun.spawn([process.execPath, "scripts/check.ts", "tests"], {
        cwd: folder,
        env: { ...process.env, KEYHOLD_TEST_NO_SKIP: "" },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "ignore",
      });
      const out = await run.stdout.text();
      return [out.trimEnd().split("\n").at(-1) ?? "", await run.exited];
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  const good = `${HEAD}test("a", () => {}); test("b", () => {});\n`;
  const five = Object.fromEntries([1, 2, 3, 4, 5].map((at) => [`client/deep/c${at}.test.ts`, good]));

  test("has each test once, in whatever room and part it is, and every failure", async () => {
    expect(await whole({ ...five, "binary/one.test.ts": good, "top.test.ts": good, "ui/u.test.ts": good })).toEqual([
      "16 passed, 0 failed",
      0,
    ]);
    expect(await whole({ ...five, "binary/one.test.ts": MIXED })).toEqual(["12 passed, 1 failed, 2 skipped", 1]);
  });
  test("without any test is a failure", async () => {
    expect(await whole({ "support/none.ts": "export {};\n" })).toEqual(["0 passed, 1 failed", 1]);
  });
});

describe("the causes at the end", () => {
  const LOG = [
    "(pass) one [1.00ms]",
    "error: expect(received).toBe(expected)",
    "(fail) room > two [2.00ms]",
    "(pass) three",
    "# Unhandled error between tests",
    "(fail) four",
  ];
  test("name each failed test with what stands between it and the one before", () => {
    const found = failures(LOG.join("\n"));
    expect(found).toEqual([LOG.slice(1, 3).join("\n"), LOG[4] ?? "", LOG.slice(4, 6).join("\n")]);
  });
  test("are none where nothing failed", () => {
    expect(failures("(pass) one\n\n 1 pass\n 0 fail\n")).toEqual([]);
  });
});

describe("tests that need something", () => {
  const sample = (tool: string) =>
    `import { testNeeding } from ${JSON.stringify(join(SUPPORT, "skip.ts"))};\n${HEAD}
     testNeeding(["${tool}"], "x", () => expect(1).toBe(1)); test("y", () => {});\n`;
  test("run where it is present", async () => {
    expect(await close(sample("sh"))).toBe("2 passed, 0 failed");
  });
  test("are skipped where it is missing, and fail where nothing may be skipped", async () => {
    expect(await close(sample("no-such-tool-anywhere"))).toBe("1 passed, 0 failed, 1 skipped");
    expect(await close(sample("no-such-tool-anywhere"), true)).toBe("1 passed, 1 failed");
  });
});
