import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, sha256Of, TARGETS } from "../../scripts/compile.ts";

const PROJECT = join(import.meta.dir, "..", "..");
const LIMIT_MS = 120_000;

const WORKER = 'postMessage("PLACE worker " + (globalThis as { stolen?: string }).stolen);\n';
const STARTER = `export function ask(): Promise<string> {
  const worker = new Worker(new URL("./same.worker.ts", import.meta.url).href);
  return new Promise((resolve, reject) => {
    worker.onmessage = (event) => { resolve(String(event.data)); worker.terminate(); };
    worker.onerror = (event) => reject(new Error(event.message));
  });
}
`;
const MAIN = `declare const KEYHOLD_VERSION: string;
declare const KEYHOLD_COMMIT: string;
const one = await import("./one/start.ts");
const two = await import("./two/start.ts");
function evaluated(): string {
  try {
    return String(new Function("return 'ran'")());
  } catch (error) {
    return (error as Error).name;
  }
}
process.stdout.write(JSON.stringify({
  version: KEYHOLD_VERSION,
  commit: KEYHOLD_COMMIT,
  workers: [await one.ask(), await two.ask()],
  evaluated: evaluated(),
  preloaded: String((globalThis as { stolen?: string }).stolen),
  environment: process.env["KEYHOLD_STOLEN"] ?? "unset",
  tls: process.env["NODE_TLS_REJECT_UNAUTHORIZED"] ?? "unset",
  dynamic: await import(process.cwd() + "/evil.ts").then(() => "loaded", () => "refused"),
}));
`;

let folder = "";
let binary = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "keyhold-compile-"));
  for (const place of ["one", "two"]) {
    await Bun.write(join(folder, "src", place, "start.ts"), STARTER);
    await Bun.write(join(folder, "src", place, "same.worker.ts"), WORKER.replace("PLACE", place));
  }
  await Bun.write(join(folder, "src", "main.ts"), MAIN);
  binary = join(folder, "a", "sample");
  await compile({ entry: join(folder, "src", "main.ts"), outfile: binary, version: "1.2.3", commit: "c0ffee" });
}, LIMIT_MS);
afterAll(() => rm(folder, { recursive: true, force: true }));

async function start(cwd: string, options?: string): Promise<{ output: string; errors: string; code: number }> {
  const { BUN_OPTIONS: _, ...clean } = process.env;
  const env = options === undefined ? clean : { ...clean, BUN_OPTIONS: options };
  const run = Bun.spawn([binary], { cwd, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([run.stdout.text(), run.stderr.text(), run.exited]);
  return { output, errors, code };
}

const HARMLESS = {
  errors: "",
  code: 0,
  output: JSON.stringify({
    version: "1.2.3",
    commit: "c0ffee",
    workers: ["one worker undefined", "two worker undefined"],
    evaluated: "EvalError",
    preloaded: "undefined",
    environment: "unset",
    tls: "unset",
    dynamic: "refused",
  }),
};

describe("the executable", () => {
  test("runs alone in an empty directory, Workers of one name in two folders included", async () => {
    const empty = join(folder, "empty");
    await mkdir(empty);
    expect(await start(empty)).toEqual(HARMLESS);
  });

  test("takes nothing from a hostile working directory", async () => {
    const hostile = join(folder, "hostile");
    const marker = join(folder, "marker");
    const evil = `(globalThis as { stolen?: string }).stolen = "yes";
await Bun.write(${JSON.stringify(marker)}, "ran");\n`;
    const files = {
      "evil.ts": evil,
      ".env": "KEYHOLD_STOLEN=yes\nNODE_TLS_REJECT_UNAUTHORIZED=0\n",
      ".env.local": "KEYHOLD_STOLEN=yes\n",
      ".env.production": "KEYHOLD_STOLEN=yes\n",
      "bunfig.toml": 'preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n',
      "package.json": '{ "name": "sample", "type": "commonjs", "imports": { "#x": "./evil.ts" } }\n',
      "tsconfig.json": '{ "compilerOptions": { "paths": { "*": ["./evil.ts"] } } }\n',
      "same.worker.ts": evil,
      "one/same.worker.ts": evil,
      "one/same.worker.js": 'postMessage("stolen");\n',
    };
    for (const [name, text] of Object.entries(files)) await Bun.write(join(hostile, name), text);
    expect(await start(hostile)).toEqual(HARMLESS);
    // a preload by environment stops the program, for it is code to be made from text
    expect(await start(hostile, "--preload=./evil.ts")).toMatchObject({ output: "", code: 1 });
    expect(await Bun.file(marker).exists()).toBe(false);
  });
});

test("two builds under one file name are equal, byte for byte", async () => {
  const real = join(PROJECT, "src", "main.ts");
  const entry = (await Bun.file(real).exists()) ? real : join(folder, "src", "main.ts");
  const sums: string[] = [];
  for (const place of ["b", "c"]) {
    const outfile = join(folder, place, "keyhold");
    await compile({ entry, outfile, version: "1.2.3", commit: "c0ffee" });
    sums.push(await sha256Of(outfile));
  }
  expect(sums[0]).toMatch(/^[0-9a-f]{64}$/);
  expect(sums[1]).toBe(sums[0] ?? "");
}, 120_000);

describe("scripts/compile.ts", () => {
  async function script(...args: string[]): Promise<{ code: number; errors: string }> {
    const command = [process.execPath, join(PROJECT, "scripts", "compile.ts"), ...args];
    const run = Bun.spawn(command, { cwd: folder, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
    const errors = await run.stderr.text();
    return { code: await run.exited, errors };
  }

  test("says why it fails, exits 1 and writes nothing", async () => {
    await Bun.write(join(folder, "bad", "main.ts"), 'import "./missing.ts";\n');
    await Bun.write(join(folder, "odd", "main.ts"), "new Worker(process.argv[2] ?? '');\n");
    const outdir = join(folder, "nothing");
    const failures = [
      [["--entry", join(folder, "bad", "main.ts")], /main\.ts:1:8: .*missing\.ts/],
      [["--entry", join(folder, "odd", "main.ts")], /new Worker\(new URL/],
      [["--entry", join(folder, "none.ts")], /none\.ts/],
      [["--target", "amiga"], /unknown target "amiga": one of linux-x64, /],
      [["--nonsense"], /nonsense/],
    ] as const;
    for (const [args, reason] of failures) {
      const { code, errors } = await script("--outdir", outdir, ...args);
      expect(errors).toMatch(/^compile: /);
      expect(errors).toMatch(reason);
      expect(code).toBe(1);
    }
    expect(await readdir(outdir).catch(() => [])).toEqual([]);
  }, 60_000);

  test("knows eight targets", () => {
    expect(Object.keys(TARGETS)).toHaveLength(8);
  });
});
