import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fault } from "../errors.ts";
import type { Context } from "./command.ts";
import { atExit, selfCommand } from "./process.ts";
import { plain } from "./text.ts";

/** What one command gave. */
export interface Outcome {
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
  /** `data` of `--json`, or the error object. */
  readonly data: Readonly<Record<string, unknown>>;
}

/** One key server of the world, a process of its own. */
export interface DemoServer {
  readonly url: string;
  readonly pin: string;
  /** Its directory. */
  readonly dir: string;
  /** Ends it without warning, as a power cut does. */
  kill(): Promise<void>;
  /** Starts it again at the same address. */
  start(): Promise<void>;
}

/** A process of the world that goes on beside the steps. */
export interface Background {
  /** Ends it without warning, as a power cut does. */
  kill(): Promise<void>;
  /** Lets it stand still, and go on. */
  freeze(still: boolean): void;
  /** Asks it to end; its exit code. */
  end(): Promise<number>;
}

/** A throwaway world: a directory with homes, files and server processes. */
export interface World {
  readonly dir: string;
  /** The first of the servers. */
  readonly server: DemoServer;
  readonly servers: readonly DemoServer[];
  /** Starts one more. */
  addServer(): Promise<DemoServer>;
  /** Starts this very program in a home of the world, to run until it is ended. */
  start(home: string, args: readonly string[]): Background;
  /** Path of a file below the world's directory, written 0600 when content is given. */
  file(name: string, content?: string | Uint8Array): string;
  /** Runs this very program with `--json` in a home of the world. */
  run(home: string, args: readonly string[], stdin?: string | Uint8Array): Promise<Outcome>;
}

/** One step: what is shown, what is run, and what must hold. */
export interface Step {
  readonly title: string;
  /** The command as a person would type it. */
  readonly shown: string;
  /** Runs the step; gives the line to show, or throws to fail it. */
  run(world: World): Promise<string>;
}

const READY_MS = 20_000;

interface Process {
  readonly server: Bun.Subprocess;
  readonly url: string;
  readonly pin: string;
}

async function startProcess(
  dir: string,
  listen: string,
  more: readonly string[],
  env: Record<string, string>,
  cwd: string,
): Promise<Process> {
  const server = Bun.spawn(selfCommand("serve", "--dir", dir, "--listen", listen, ...more, "--json", "--quiet"), {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    env,
    cwd,
  });
  const timer = setTimeout(() => server.kill("SIGKILL"), READY_MS);
  let text = "";
  const decoder = new TextDecoder();
  const reader = server.stdout.getReader();
  while (!text.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) throw new Fault("internal", "the demo's server did not start");
    text += decoder.decode(value, { stream: true });
  }
  clearTimeout(timer);
  const { ready } = JSON.parse(text) as { ready: { url: string; pin: string } };
  return { server, url: ready.url, pin: ready.pin };
}

interface Running extends DemoServer {
  /** Asks it to end; false where it ended with a failure. */
  end(): Promise<boolean>;
  /** Ends it now, if it runs. */
  abandon(): void;
}

function startBackground(world: string, home: string, args: readonly string[]): Background & { abandon(): void } {
  const child = Bun.spawn(selfCommand(...args), {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
    env: environment(join(world, home)),
    cwd: world,
  });
  return {
    async kill() {
      child.kill("SIGKILL");
      await child.exited;
    },
    freeze: (still) => child.kill(still ? "SIGSTOP" : "SIGCONT"),
    end() {
      child.kill("SIGTERM");
      return child.exited;
    },
    abandon: () => child.kill("SIGKILL"),
  };
}

async function startServer(world: string, number: number, more: readonly string[] = []): Promise<Running> {
  const dir = join(world, `server${number}`);
  const env = environment(join(world, `operator${number}`));
  let running: Process | null = await startProcess(dir, "127.0.0.1:0", more, env, world);
  const { url, pin } = running;
  return {
    url,
    pin,
    dir,
    async kill() {
      running?.server.kill("SIGKILL");
      await running?.server.exited;
      running = null;
    },
    async start() {
      running ??= await startProcess(dir, new URL(url).host, more, env, world);
    },
    async end() {
      running?.server.kill("SIGTERM");
      const code = await running?.server.exited;
      running = null;
      return (code ?? 0) === 0;
    },
    abandon: () => running?.server.kill("SIGKILL"),
  };
}

function environment(home: string): Record<string, string> {
  return { KEYHOLD_HOME: home, PATH: process.env["PATH"] ?? "", CI: "1" };
}

async function runOne(
  dir: string,
  home: string,
  args: readonly string[],
  stdin?: string | Uint8Array,
): Promise<Outcome> {
  const split = args.indexOf("--");
  const own = split === -1 ? args : args.slice(0, split);
  const rest = split === -1 ? [] : args.slice(split);
  const child = Bun.spawn(selfCommand(...own, "--json", ...rest), {
    stdin: stdin === undefined ? "ignore" : bytesOf(stdin),
    stdout: "pipe",
    stderr: "pipe",
    env: environment(join(dir, home)),
    cwd: dir,
  });
  const [stdout, stderr, exit] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { exit, stdout, stderr, data: dataOf(exit, stdout, stderr) };
}

const bytesOf = (input: string | Uint8Array): Uint8Array =>
  typeof input === "string" ? new TextEncoder().encode(input) : input;

function dataOf(exit: number, stdout: string, stderr: string): Record<string, unknown> {
  const line =
    [0, 9, 10].includes(exit) && stdout.trim() !== "" ? stdout.trim() : (stderr.trim().split("\n").at(-1) ?? "");
  try {
    const parsed = JSON.parse(line) as { data?: Record<string, unknown>; error?: Record<string, unknown> };
    return parsed.data ?? parsed.error ?? {};
  } catch {
    return {};
  }
}

/** A walk: how many servers it begins with, and its steps. */
export interface Walk {
  readonly servers: number;
  /** Flags of the first server alone. */
  readonly serve?: readonly string[];
  readonly steps: readonly Step[];
}

/** Walks the steps on real processes; stops at the first that does not hold. Gives the exit code. */
export async function runDemo(
  { servers: count, steps, serve = [] }: Walk,
  ctx: Pick<Context, "out" | "flags" | "signal">,
): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), "keyhold-demo-"));
  const clean = () => rmSync(dir, { recursive: true, force: true });
  const forget = atExit(clean);
  const servers: Running[] = [];
  const beside: { abandon(): void }[] = [];
  const { out } = ctx;
  const show = (step: string, shown: string, ok: boolean, ms: number, detail: string): void => {
    if (out.json) out.jsonLine({ v: 1, step, ok, ms: Math.round(ms), detail });
    else out.lines(`\n${ok ? "✔" : "✘"} ${step}   ${Math.round(ms)} ms\n  $ ${shown}\n${indent(detail)}`);
  };
  const add = async () => {
    const started = await startServer(dir, servers.length + 1);
    servers.push(started);
    return started;
  };
  try {
    const startedAt = performance.now();
    const starting = Array.from({ length: count }, (_, i) => startServer(dir, i + 1, i === 0 ? serve : []));
    servers.push(...(await Promise.all(starting)));
    const [server] = servers;
    if (!server) throw new RangeError("a demo has a server");
    const places = servers.map(({ url, pin }) => `${url}\npin ${pin}`).join("\n");
    show("serve", "keyhold serve --listen 127.0.0.1:0", true, performance.now() - startedAt, places);
    const world: World = {
      dir,
      server,
      servers,
      addServer: add,
      start(home, args) {
        const started = startBackground(dir, home, args);
        beside.push(started);
        return started;
      },
      file(name, content) {
        const path = join(dir, name);
        if (content !== undefined) writeFileSync(path, content, { mode: 0o600 });
        return path;
      },
      run: (home, args, stdin) => runOne(dir, home, args, stdin),
    };
    for (const step of steps) {
      const at = performance.now();
      try {
        const detail = await step.run(world);
        show(step.title, step.shown, true, performance.now() - at, detail);
      } catch (error) {
        const why = error instanceof Error ? error.message : "failed";
        show(step.title, step.shown, false, performance.now() - at, why);
        throw new Fault("internal", `the demo failed at: ${step.title}`, { why: plain(why) });
      }
    }
    const ended = await Promise.all(servers.map((one) => one.end()));
    if (ended.includes(false)) throw new Fault("internal", "a server of the demo ended with a failure");
    return 0;
  } finally {
    for (const one of [...beside, ...servers]) one.abandon();
    clean();
    forget();
  }
}

function indent(text: string): string {
  return text
    .split("\n")
    .map((line) => `  ${plain(line)}`)
    .join("\n");
}

/** Fails a step unless the exit code is the expected one. */
export function expectExit(outcome: Outcome, exit = 0): Outcome {
  if (outcome.exit !== exit) {
    throw new Error(`exit ${outcome.exit} instead of ${exit}: ${outcome.stderr.trim() || outcome.stdout.trim()}`);
  }
  return outcome;
}

/** Fails a step unless a fact holds. */
export function expectThat(holds: boolean, what: string): void {
  if (!holds) throw new Error(`does not hold: ${what}`);
}
