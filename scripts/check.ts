import { mkdtemp, readdir, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { closingLine, failures, type Tally, tally } from "./tally.ts";

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

/** Rooms of the tests that take longest, in this order; a machine with two cores works at two rooms at a time. */
const LONGEST = ["hostile", "binary", "client", "hostile-input", "storage", "server", "durability", "supply"];
const LANES = Math.min(2, availableParallelism());

/** Every room of the tests: the folders, and each file beside them. */
async function rooms(): Promise<readonly string[]> {
  const entries = await readdir(join(PROJECT, "tests"), { withFileTypes: true });
  const place = (name: string) => (LONGEST.includes(name) ? LONGEST.indexOf(name) : LONGEST.length);
  const all = entries.filter((one) => one.isDirectory() || one.name.endsWith(".test.ts")).map(({ name }) => name);
  const found = all.sort((a, b) => place(a) - place(b) || a.localeCompare(b));
  const files = new Bun.Glob("tests/**/*.test.ts");
  const tested = new Set([...files.scanSync({ cwd: PROJECT })].map((file) => file.split("/")[1]));
  // as root the tests of permissions would pass or skip for nothing: .ci/run has them run by another user
  return found.filter((name) => tested.has(name) && !(NO_SKIP && IS_ROOT && name === "unprivileged"));
}

interface Ran extends Tally {
  /** Each failed test with its cause. */
  readonly why: readonly string[];
}

/** Runs one room; its output appears whole when it has ended. */
async function room(name: string, folder: string): Promise<Ran> {
  const file = join(folder, `${name}.xml`);
  const log = join(folder, `${name}.log`);
  const command = ["test", "--timeout=60000", "--reporter=junit", `--reporter-outfile=${file}`, `./tests/${name}`];
  const output = Bun.file(log);
  const child = Bun.spawn([process.execPath, ...command], {
    cwd: PROJECT,
    stdin: "ignore",
    stdout: output,
    stderr: output,
  });
  const ran = (await child.exited) === 0;
  const text = await output.text();
  process.stdout.write(text);
  const report = Bun.file(file);
  const why = ran ? [] : [`== ${name}: exit ${child.exitCode ?? child.signalCode}`, ...failures(text)];
  return { ...tally((await report.exists()) ? await report.text() : "", ran, NO_SKIP), why };
}

async function tests(only?: string): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), "keyhold-check-"));
  try {
    const waiting = only === undefined ? [...(await rooms())] : [only];
    const results: Ran[] = [];
    const lane = async () => {
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift())
        results.push(await room(name, folder));
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    const sum = (field: keyof Tally) => results.reduce((total, result) => total + result[field], 0);
    const result = { passed: sum("passed"), failed: sum("failed"), skipped: sum("skipped") };
    // again, where the end of a long report is all that one sees
    for (const line of results.flatMap(({ why }) => why)) process.stdout.write(`${line}\n`);
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
  tests: () => tests(),
};

/** Not part of a whole check: the same tests run with the others unless root runs them. */
const EXTRA: typeof STEPS = { unprivileged: () => tests("unprivileged") };

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
