import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { closingLine, failures, type Tally, tally } from "./tally.ts";

const PROJECT = dirname(import.meta.dir);
const NO_SKIP = process.env["KEYHOLD_TEST_NO_SKIP"] === "1";
const IS_ROOT = process.getuid?.() === 0;

/** What one process came to. */
interface Ended {
  /** Exit code, or the signal that ended it. */
  readonly exit: number | string;
  readonly text: string;
}

/** Runs `bun ARGS` in the project without standard input; its output goes to a file, and appears whole at its end. */
async function bun(log: string, ...args: string[]): Promise<Ended> {
  const output = Bun.file(log);
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: PROJECT,
    stdin: "ignore",
    stdout: output,
    stderr: output,
  });
  await child.exited;
  return { exit: child.exitCode ?? child.signalCode ?? "unknown", text: await output.text() };
}

/** Tests wait for processes more than they compute: one room more than a machine with two cores has cores. */
const LANES = Math.min(3, availableParallelism() + 1);

/** Rooms that take longest, in the order they start in, and into how many parts each is cut. */
const LONGEST: Readonly<Record<string, number>> = {
  binary: 4,
  hostile: 1,
  client: 2,
  server: 2,
  cli: 1,
  durability: 1,
  formats: 1,
  "hostile-input": 1,
  storage: 1,
};

/** Does `work` for each of `all`, in this order, {@link LANES} at a time. */
async function inLanes<T>(all: readonly T[], work: (one: T) => Promise<void>): Promise<void> {
  const waiting = [...all];
  const lane = async () => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) await work(one);
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

interface Room {
  readonly name: string;
  readonly files: readonly string[];
}

/** The rooms of the tests: the folders, and each file beside them; every test file is in one of them. */
async function rooms(only?: string): Promise<readonly Room[]> {
  const found = new Map<string, string[]>();
  for (const file of [...new Bun.Glob("tests/**/*.test.ts").scanSync({ cwd: PROJECT })].sort()) {
    const name = file.split("/")[1] ?? "";
    // as root the tests of permissions would pass or skip for nothing: .ci/run has them run by another user
    if (only === undefined ? NO_SKIP && IS_ROOT && name === "unprivileged" : name !== only) continue;
    found.set(name, [...(found.get(name) ?? []), `./${file}`]);
  }
  const order = Object.keys(LONGEST);
  const place = (name: string) => (order.includes(name) ? order.indexOf(name) : order.length);
  const names = [...found.keys()].sort((a, b) => place(a) - place(b) || a.localeCompare(b));
  const parted = names.flatMap((name) => {
    const files = found.get(name) ?? [];
    const parts = LONGEST[name] ?? 1;
    if (parts === 1) return [{ name, files }];
    return Array.from({ length: parts }, (_, part) => ({
      name: `${name}-${part + 1}`,
      files: files.filter((_file, at) => at % parts === part),
    }));
  });
  // to be told no file is to run them all
  return parted.filter(({ files }) => files.length > 0);
}

interface Ran extends Tally {
  /** Each failed test with its cause. */
  readonly why: readonly string[];
}

/** Runs one room; its output appears whole when it has ended. */
async function room({ name, files }: Room, folder: string): Promise<Ran> {
  const report = Bun.file(join(folder, `${name}.xml`));
  const reporter = ["--reporter=junit", `--reporter-outfile=${report.name}`];
  const { exit, text } = await bun(join(folder, `${name}.log`), "test", "--timeout=60000", ...reporter, ...files);
  process.stdout.write(text);
  const why = exit === 0 ? [] : [`== ${name}: exit ${exit}`, ...failures(text)];
  return { ...tally((await report.exists()) ? await report.text() : "", exit === 0, NO_SKIP), why };
}

/** Does something with a folder of its own for reports and logs. */
async function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "keyhold-check-"));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs the tests, or one room of them; true if none failed. */
const tests = (only?: string): Promise<boolean> =>
  withFolder(async (folder) => {
    const results: Ran[] = [];
    await inLanes(await rooms(only), async (one) => {
      results.push(await room(one, folder));
    });
    const sum = (field: keyof Tally) => results.reduce((total, result) => total + result[field], 0);
    // a run that found no test at all is no success
    const result = {
      passed: sum("passed"),
      failed: sum("failed") + (results.length === 0 ? 1 : 0),
      skipped: sum("skipped"),
    };
    // again, where the end of a long report is all that one sees
    for (const line of results.flatMap(({ why }) => why)) process.stdout.write(`${line}\n`);
    process.stdout.write(`${closingLine(result)}\n`);
    return result.failed === 0;
  });

/** What is looked at without running anything: the tools and their words. */
const TOOLS: Readonly<Record<string, readonly string[]>> = {
  format: ["biome", "check", "--linter-enabled=false", "--enforce-assist=true", "--error-on-warnings"],
  lint: ["biome", "lint", "--error-on-warnings", "--skip=style/noRestrictedImports"],
  layers: ["biome", "lint", "--only=style/noRestrictedImports"],
  types: ["tsc", "--project", ".", "--noEmit"],
  "dead-code": ["knip", "--no-progress"],
};

/** Runs these tools side by side; gives the names of those that failed. */
const look = (names: readonly string[]): Promise<readonly string[]> =>
  withFolder(async (folder) => {
    const failed: string[] = [];
    await inLanes(names, async (name) => {
      const { exit, text } = await bun(join(folder, `${name}.log`), "run", "--silent", ...(TOOLS[name] ?? []));
      process.stdout.write(`== ${name}\n${text}`);
      if (exit !== 0) failed.push(name);
    });
    return failed;
  });

/** Tests, whole or of one room; a whole check includes that of permissions already, unless root runs it. */
const RUNS: Readonly<Record<string, () => Promise<boolean>>> = {
  tests: () => tests(),
  unprivileged: () => tests("unprivileged"),
};

/** Runs what was named, or everything; gives the names of what failed. */
async function check(named: readonly string[]): Promise<readonly string[]> {
  const all = named.length > 0 ? named : [...Object.keys(TOOLS), "tests"];
  const failed = await look(all.filter((name) => Object.hasOwn(TOOLS, name)));
  if (failed.length > 0) return failed;
  for (const name of all) {
    if (!Object.hasOwn(RUNS, name)) continue;
    process.stdout.write(`== ${name}\n`);
    if (!(await RUNS[name]?.())) return [name];
  }
  return [];
}

const named = process.argv.slice(2);
const known = [...Object.keys(TOOLS), ...Object.keys(RUNS)];
const unknown = named.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`check: no step "${unknown[0]}": one of ${known.join(", ")}\n`);
  process.exitCode = 2;
} else {
  const failed = await check(named);
  for (const name of failed) process.stderr.write(`check: ${name} failed\n`);
  process.exitCode = failed.length > 0 ? 1 : 0;
}
