import { expect } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PROJECT = join(import.meta.dir, "..", "..");
/** Time for hooks that may build the executable. */
export const SETUP_MS = 120_000;
/** After this a command counts as hanging. */
export const HANG_MS = 60_000;
const PASSWORD = "correct horse battery staple";

/** Built at most once in a process, whatever number of test files run in it. */
const shared = globalThis as { keyholdBinary?: Promise<string> };

/**
 * The executable: that of `KEYHOLD_TEST_BINARY`, else `dist/keyhold` if it is newer than all sources, else one of the
 * tests' own, built when it is older.
 */
export function binary(): Promise<string> {
  const given = process.env["KEYHOLD_TEST_BINARY"];
  shared.keyholdBinary ??= given ? Promise.resolve(given) : findOrBuild();
  return shared.keyholdBinary;
}

async function findOrBuild(): Promise<string> {
  const sources = [...new Bun.Glob("src/**/*").scanSync({ cwd: PROJECT }), "package.json", "scripts/compile.ts"];
  const newest = Math.max(...sources.map((path) => statSync(join(PROJECT, path)).mtimeMs));
  const cache = join(PROJECT, "node_modules", ".cache", "keyhold");
  const [made, built] = [join(cache, "keyhold"), join(PROJECT, "dist", "keyhold")];
  for (const path of [built, made]) if (existsSync(path) && statSync(path).mtimeMs > newest) return path;
  mkdirSync(cache, { recursive: true });
  const outdir = mkdtempSync(join(cache, "build-"));
  try {
    const build = Bun.spawn([process.execPath, join(PROJECT, "scripts", "compile.ts"), "--outdir", outdir], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const errors = await build.stderr.text();
    if ((await build.exited) !== 0) throw new Error(errors);
    renameSync(join(outdir, "keyhold"), made);
  } finally {
    rmSync(outdir, { recursive: true, force: true });
  }
  return made;
}

/** What one command gave. */
export interface Ran {
  /** Exit code; 128+n after signal n. */
  readonly code: number;
  readonly out: string;
  readonly bytes: Uint8Array;
  readonly err: string;
}

export interface RunOptions {
  readonly env?: Record<string, string>;
  /** Without it /dev/null; `[]` is a pipe that gives nothing, `closed` no descriptor at all. */
  readonly stdin?: Uint8Array | string | "closed" | [];
  readonly cwd?: string;
  /** Another executable than {@link binary}. */
  readonly program?: string;
  /** After so long, in milliseconds, it counts as hanging; default {@link HANG_MS}. */
  readonly hangMs?: number;
}

/** The last line of stderr of a command under `--json`. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly hint: string | null;
  readonly why?: string;
  readonly retryAfterMs?: number;
}

/** What a command printed as JSON; its form is what the tests state. */
type Data = ReturnType<typeof JSON.parse>;

const SIGNAL_NUMBERS: Record<string, number> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGPIPE: 13, SIGTERM: 15 };

/** The exit code as a shell gives it. */
export function exitOf(child: Pick<Bun.Subprocess, "exitCode" | "signalCode">): number {
  return child.exitCode ?? 128 + (SIGNAL_NUMBERS[child.signalCode ?? ""] ?? 0);
}

/** True when a process is no more, or a zombie that nobody has fetched. */
export function ended(pid: number): boolean {
  try {
    return /^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch (error) {
    if (error instanceof Error && "code" in error) return true;
    throw error;
  }
}

/** An environment without what the machine that runs the tests may have set. */
export function environment(home: string, extra: Record<string, string> = {}): Record<string, string> {
  return { PATH: process.env["PATH"] ?? "", HOME: home, TERM: "xterm-256color", KEYHOLD_HOME: home, ...extra };
}

/** Starts the executable without a controlling terminal. */
export async function spawn(home: string, argv: readonly string[], options: RunOptions = {}) {
  const { stdin } = options;
  const program = options.program ?? (await binary());
  const throughShell = stdin === "closed" ? 'exec "$@" <&-' : Array.isArray(stdin) ? ': | "$@"' : undefined;
  const command =
    throughShell === undefined ? [program, ...argv] : ["bash", "-c", throughShell, "bash", program, ...argv];
  const input = throughShell !== undefined || stdin === undefined ? "ignore" : Buffer.from(stdin as string);
  return Bun.spawn(command, {
    env: environment(home, options.env),
    cwd: options.cwd ?? home,
    stdin: input,
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
  });
}

/** Runs the executable to its end; one that hangs is killed and fails the test. */
export async function keyhold(home: string, argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const child = await spawn(home, argv, options);
  let hung = false;
  const timer = setTimeout(() => {
    hung = true;
    child.kill("SIGKILL");
  }, options.hangMs ?? HANG_MS);
  const [bytes, err] = await Promise.all([child.stdout.bytes(), child.stderr.text(), child.exited]);
  clearTimeout(timer);
  if (hung) throw new Error(`keyhold ${argv.join(" ")} hangs`);
  return { code: exitOf(child), out: new TextDecoder().decode(bytes), bytes, err };
}

/** A home of one device. */
export interface Home {
  readonly dir: string;
  /** Flags that give the password. */
  readonly password: readonly [string, string];
  /** Runs a command as a person does. */
  run(argv: readonly string[], options?: RunOptions): Promise<Ran>;
  /** Runs with `--json`, which must succeed (or exit 10), and gives `data` and `requestId`. */
  ok(argv: readonly string[], options?: RunOptions): Promise<{ data: Data; requestId: string; code: number }>;
  /** Runs with `--json`, which must end with `code`, and gives the error of its last line of stderr. */
  fails(code: number, argv: readonly string[], options?: RunOptions): Promise<Failure & { requestId?: string }>;
  /** Registers an account of this name and, unless told otherwise, logs in. */
  register(account: string, options?: { login?: boolean }): Promise<Home>;
  login(account?: string): Promise<Home>;
}

/** The one line of a successful command under `--json`. */
export function dataOf(ran: Ran): { data: Data; requestId: string } {
  const lines = ran.out.split("\n");
  expect(lines).toHaveLength(2);
  const parsed = JSON.parse(lines[0] ?? "");
  expect(parsed.v).toBe(1);
  return parsed;
}

/** The error of a failed command under `--json`: the last line of stderr, with nothing on stdout. */
export function errorOf(ran: Ran): Failure & { requestId?: string } {
  expect(ran.out).toBe("");
  const { v, error, requestId, ...rest } = JSON.parse(ran.err.trimEnd().split("\n").at(-1) ?? "");
  expect({ v, rest }).toEqual({ v: 1, rest: {} });
  return requestId === undefined ? error : { ...error, requestId };
}

function makeHome(world: { dir: string; server: Server | null }, name: string, password: string): Home {
  const dir = join(world.dir, name);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const file = join(world.dir, `${name}.password`);
  writeFileSync(file, password, { mode: 0o600 });
  const flags = ["--password-file", file] as const;
  const withJson = (argv: readonly string[]) => {
    const at = argv.indexOf("--");
    return at === -1 ? [...argv, "--json"] : [...argv.slice(0, at), "--json", ...argv.slice(at)];
  };
  const home: Home = {
    dir,
    password: flags,
    run: (argv, options) => keyhold(dir, argv, options),
    async ok(argv, options) {
      const ran = await keyhold(dir, withJson(argv), options);
      if (ran.code !== 0 && ran.code !== 10) throw new Error(`keyhold ${argv.join(" ")}: exit ${ran.code}: ${ran.err}`);
      return { ...dataOf(ran), code: ran.code };
    },
    async fails(code, argv, options) {
      const ran = await keyhold(dir, withJson(argv), options);
      if (ran.code !== code) throw new Error(`keyhold ${argv.join(" ")}: exit ${ran.code}: ${ran.out}${ran.err}`);
      return errorOf(ran);
    },
    async register(account, options = {}) {
      await home.ok(["register", ...serverFlags(world.server, account), ...flags, "--kdf", "test"]);
      return options.login === false ? home : home.login();
    },
    async login(account) {
      const device = account === undefined ? [] : serverFlags(world.server, account);
      await home.ok(["login", ...device, ...flags, "--kdf", "test"]);
      return home;
    },
  };
  return home;
}

/** The three flags that name a server and an account on it. */
export function serverFlags(server: Pick<Server, "url" | "pin"> | null, account: string): string[] {
  if (!server) throw new Error("this world has no server");
  return ["--server", server.url, "--pin", server.pin, "--account", account];
}

/** A running server process. */
export interface Server {
  readonly url: string;
  readonly pin: string;
  readonly pid: number;
  readonly port: number;
  readonly invite: string | undefined;
  /** Everything on its stderr; whole once it has ended. */
  log(): string;
  /** Ends it by a signal and gives the exit code. */
  stop(signal?: "SIGTERM" | "SIGKILL"): Promise<number>;
}

/** Starts `keyhold serve` on a free port and waits for its ready line. */
export async function serve(
  dir: string,
  args: readonly string[] = ["--listen", "127.0.0.1:0"],
  options: RunOptions = {},
): Promise<Server> {
  const child = await spawn(dir, ["serve", "--dir", dir, ...args, "--json"], { cwd: tmpdir(), ...options });
  let log = "";
  const decoder = new TextDecoder();
  const logged = (async () => {
    for await (const part of child.stderr) log += decoder.decode(part, { stream: true });
  })();
  let text = "";
  const reader = child.stdout.getReader();
  while (!text.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) {
      await logged;
      throw new Error(`the server did not start: ${log}`);
    }
    text += new TextDecoder().decode(value);
  }
  const { ready } = JSON.parse(text);
  return {
    ...ready,
    invite: ready.invite,
    port: Number(new URL(ready.url).port),
    log: () => log,
    async stop(signal = "SIGTERM") {
      child.kill(signal);
      await Promise.all([child.exited, logged]);
      return exitOf(child);
    },
  };
}

/** A throwaway directory with a server and homes in it. */
export interface World {
  readonly dir: string;
  server: Server;
  /** A home of this name, with a password of its own in a file beside it. */
  home(name: string, password?: string): Home;
  /** Path of a file outside the homes, written 0600 where content is given. */
  file(name: string, content?: string | Uint8Array): string;
  /** Ends the server, if it runs, and starts it on the port it had. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

/** Makes a world; `server: false` leaves the server out. */
export async function openWorld(options: { server?: readonly string[] | false } = {}): Promise<World> {
  await binary();
  const dir = mkdtempSync(join(tmpdir(), "keyhold-world-"));
  chmodSync(dir, 0o700);
  const serverDir = join(dir, "server");
  const world = { dir } as World;
  if (options.server !== false) {
    mkdirSync(serverDir, { mode: 0o700 });
    world.server = await serve(serverDir, options.server);
  }
  return Object.assign(world, {
    home: (name: string, password = `${PASSWORD} ${name}`) => makeHome(world, name, password),
    file(name: string, content?: string | Uint8Array) {
      const path = join(dir, name);
      if (content !== undefined) writeFileSync(path, content, { mode: 0o600 });
      return path;
    },
    async restart() {
      await world.server.stop("SIGTERM");
      world.server = await serve(serverDir, ["--listen", `127.0.0.1:${world.server.port}`]);
    },
    // an agent ends by itself when its home vanishes
    async close() {
      if (options.server !== false) await world.server.stop("SIGKILL");
      rmSync(dir, { recursive: true, force: true });
    },
  });
}
