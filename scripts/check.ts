import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { closingLine, tally } from "./tally.ts";

const PROJECT = dirname(import.meta.dir);
const NO_SKIP = process.env["KEYHOLD_TEST_NO_SKIP"] === "1";
const IS_ROOT = process.getuid?.() === 0;

/** Runs `bun ARGS` in the project without standard input; true if it exits 0. */
async function bun(...args: string[]): Promise<boolean> {
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: PROJECT,
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
  return (await child.exited) === 0;
}

const tool = (...args: string[]) => bun("run", "--silent", ...args);

async function tests(...only: string[]): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), "keyhold-check-"));
  try {
    const file = join(folder, "junit.xml");
    const ran = await bun("test", "--timeout=60000", "--reporter=junit", `--reporter-outfile=${file}`, ...only);
    const report = Bun.file(file);
    const result = tally((await report.exists()) ? await report.text() : "", ran, NO_SKIP);
    process.stdout.write(`${closingLine(result)}\n`);
    return result.failed === 0;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const STEPS: Readonly<Record<string, () => Promise<boolean>>> = {
  format: () => tool("biome", "check", "--linter-enabled=false", "--enforce-assist=true", "--error-on-warnings"),
  lint: () => tool("biome", "lint", "--error-on-warnings", "--skip=style/noRestrictedImports"),
  layers: () => tool("biome", "lint", "--only=style/noRestrictedImports"),
  types: () => tool("tsc", "--project", ".", "--noEmit"),
  "dead-code": () => tool("knip", "--no-progress"),
  // as root the tests of permissions would pass or skip for nothing: .ci/run has them run by another user
  tests: () => (NO_SKIP && IS_ROOT ? tests("--path-ignore-patterns=tests/unprivileged/**") : tests()),
};

/** Not part of a whole check: the same tests run with the others unless root runs them. */
const EXTRA: typeof STEPS = { unprivileged: () => tests("tests/unprivileged") };

const known = { ...STEPS, ...EXTRA };
const named = process.argv.slice(2);
process.exitCode = 0;
for (const name of named.length > 0 ? named : Object.keys(STEPS)) {
  const step = Object.hasOwn(known, name) ? known[name] : undefined;
  if (!step) {
    process.stderr.write(`check: no step "${name}": one of ${Object.keys(known).join(", ")}\n`);
    process.exitCode = 2;
    break;
  }
  process.stdout.write(`== ${name}\n`);
  if (!(await step())) {
    process.stderr.write(`check: ${name} failed\n`);
    process.exitCode = 1;
    break;
  }
}
