import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { parseArgs } from "node:util";
import type { BunPlugin } from "bun";
import manifest from "../package.json" with { type: "json" };

const PROJECT = dirname(import.meta.dir);

/** The platforms that keyhold is built for, and what Bun calls them. */
export const TARGETS = {
  "linux-x64": "bun-linux-x64",
  "linux-x64-baseline": "bun-linux-x64-baseline",
  "linux-x64-musl": "bun-linux-x64-musl",
  "linux-arm64": "bun-linux-arm64",
  "linux-arm64-musl": "bun-linux-arm64-musl",
  "darwin-x64": "bun-darwin-x64",
  "darwin-arm64": "bun-darwin-arm64",
  "windows-x64": "bun-windows-x64",
} as const satisfies Record<string, Bun.Build.CompileTarget>;

/** A key of {@link TARGETS}. */
export type Target = keyof typeof TARGETS;

/** What {@link compile} needs to know. Paths are absolute or relative to the working directory. */
export interface CompileInput {
  /** The main module; each `*.worker.ts` below its directory becomes a further entry point. */
  readonly entry: string;
  /** The executable to write. The name is part of the result: another name gives another checksum. */
  readonly outfile: string;
  /** The platform; without it the one that runs this. */
  readonly target?: Target;
  /** The version and the commit that the executable reports. */
  readonly version: string;
  readonly commit: string;
}

const WORKER_URL = /new URL\("(\.{1,2}\/[^"]+\.worker)\.ts", import\.meta\.url\)/g;

/**
 * In the executable all shared code lies flat beside the main module, so a Worker's address relative to its source
 * file points nowhere: it is made relative to the source root, where the Worker's own entry point stands.
 */
function workerAddresses(root: string, workers: readonly string[]): BunPlugin {
  return {
    name: "worker addresses",
    setup(build) {
      build.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        const text = await Bun.file(path).text();
        if (!path.startsWith(root + sep) || !text.includes("new Worker(")) return { contents: text, loader: "ts" };
        if (text.search(WORKER_URL) < 0) {
          throw new Error(`${path}: start a Worker as new Worker(new URL("./NAME.worker.ts", import.meta.url))`);
        }
        const contents = text.replace(WORKER_URL, (_, address: string) => {
          const worker = resolve(dirname(path), `${address}.ts`);
          if (!workers.includes(worker)) throw new Error(`${path}: no such worker: ${address}.ts`);
          return `new URL("./${relative(root, worker).replaceAll(sep, "/").replace(/\.ts$/, ".js")}", import.meta.url)`;
        });
        return { contents, loader: "ts" };
      });
    },
  };
}

/**
 * Writes one executable: minified byte code that takes nothing from the working directory and evaluates no text.
 *
 * @throws AggregateError with the bundler's reasons
 */
export async function compile(input: CompileInput): Promise<void> {
  const entry = resolve(input.entry);
  const outfile = resolve(input.outfile);
  const root = dirname(entry);
  const workers = [...new Bun.Glob("**/*.worker.ts").scanSync({ cwd: root, absolute: true })].sort();
  await mkdir(dirname(outfile), { recursive: true });
  await Bun.build({
    entrypoints: [entry, ...workers],
    root,
    target: "bun",
    format: "esm",
    splitting: true,
    minify: true,
    bytecode: true,
    env: "disable",
    define: {
      KEYHOLD_VERSION: JSON.stringify(input.version),
      KEYHOLD_COMMIT: JSON.stringify(input.commit),
      "process.env.NODE_ENV": '"production"',
    },
    plugins: [workerAddresses(root, workers)],
    compile: {
      outfile,
      autoloadBunfig: false,
      autoloadDotenv: false,
      autoloadPackageJson: false,
      autoloadTsconfig: false,
      execArgv: ["--disallow-code-generation-from-strings=strict"],
      ...(input.target ? { target: TARGETS[input.target] } : {}),
    },
  });
}

/** The commit of the sources in `folder`, with `+changes` if files differ from it; `unknown` outside its own git tree. */
export function commitOf(folder: string): string {
  const git = (...args: string[]): string | undefined => {
    if (!Bun.which("git")) return undefined;
    const done = Bun.spawnSync(["git", "-C", folder, ...args], { stdout: "pipe", stderr: "ignore" });
    return done.success ? done.stdout.toString().trim() : undefined;
  };
  if (git("rev-parse", "--show-prefix") !== "") return "unknown";
  const commit = git("rev-parse", "HEAD");
  if (!commit) return "unknown";
  return git("status", "--porcelain", "--untracked-files=no") === "" ? commit : `${commit}+changes`;
}

/** The SHA-256 of a file, 64 lower-case hexadecimal digits. */
export async function sha256Of(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk);
  return hash.digest("hex");
}

function isTarget(text: string): text is Target {
  return Object.hasOwn(TARGETS, text);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      target: { type: "string", multiple: true, default: [] },
      all: { type: "boolean", default: false },
      outdir: { type: "string", default: join(PROJECT, "dist") },
      entry: { type: "string", default: join(PROJECT, "src", "main.ts") },
    },
  });
  const wanted = values.all ? Object.keys(TARGETS) : values.target;
  const unknown = wanted.filter((name) => !isTarget(name));
  if (unknown.length > 0) {
    throw new Error(`unknown target "${unknown.join('", "')}": one of ${Object.keys(TARGETS).join(", ")}`);
  }
  const common = { entry: values.entry, version: manifest.version, commit: commitOf(PROJECT) };
  const made: string[] = [];
  const make = async (name: string, target?: Target): Promise<void> => {
    const outfile = join(values.outdir, name);
    await compile({ ...common, outfile, ...(target ? { target } : {}) });
    made.push(`${await sha256Of(outfile)}  ${basename(outfile)}`);
    process.stdout.write(`${made.at(-1)}\n`);
  };
  if (wanted.length === 0) await make(process.platform === "win32" ? "keyhold.exe" : "keyhold");
  for (const name of wanted.filter(isTarget)) {
    await make(name.startsWith("windows") ? `keyhold-${name}.exe` : `keyhold-${name}`, name);
  }
  if (values.all) await writeFile(join(values.outdir, "SHA256SUMS"), `${made.join("\n")}\n`);
}

function reasons(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(reasons).join("\n");
  if ((error instanceof BuildMessage || error instanceof ResolveMessage) && error.position) {
    const { file, line, column } = error.position;
    return `${file}:${line}:${column}: ${error.message}`;
  }
  return error instanceof Error ? error.message : String(error);
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    process.stderr.write(`compile: ${reasons(error)}\n`);
    process.exitCode = 1;
  }
}
