import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keyhold } from "./harness.ts";

/** Throwaway directories and processes; everything listens on loopback and ends with the run. */

const READY_MS = 20_000;
const TICKS_PER_SECOND = 100;

/** Gives `work` a directory and a way to register what is to be stopped; cleans up whatever happens. */
export async function inWorld<T>(work: (world: World) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), "keyhold-bench-"));
  const running: Bun.Subprocess[] = [];
  try {
    return await work({
      dir,
      file(name, content) {
        const path = join(dir, name);
        writeFileSync(path, content, { mode: 0o600 });
        return path;
      },
      stopLater: (child) => {
        running.push(child);
      },
    });
  } finally {
    for (const child of running.reverse()) {
      child.kill("SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), 15_000);
      await child.exited;
      clearTimeout(late);
    }
    rmSync(dir, { recursive: true, force: true });
  }
}

export interface World {
  readonly dir: string;
  /** Writes a file of this world, 0600; gives its path. */
  file(name: string, content: string | Uint8Array): string;
  stopLater(child: Bun.Subprocess): void;
}

/** An environment without what this machine's user has set. */
export function cleanEnvironment(extra: Record<string, string> = {}): Record<string, string> {
  return { PATH: process.env["PATH"] ?? "", HOME: tmpdir(), TERM: "xterm-256color", ...extra };
}

/** A running key server. */
export interface Served {
  readonly url: string;
  readonly pin: string;
  readonly pid: number;
}

/**
 * Starts a key server on a free loopback port and waits for its ready line.
 *
 * @param options `hold` wraps the command line (taskset); its log goes to a file as an operator's would.
 */
export async function startServe(
  world: World,
  options: {
    readonly hold?: (command: readonly string[]) => string[];
    readonly command?: readonly string[];
    /** Of its operator's home and log, where there are several. */
    readonly name?: string;
  } = {},
): Promise<Served> {
  const { name = "operator" } = options;
  const dir = join(world.dir, "server");
  const own = options.command ?? [await keyhold(), "serve", "--dir", dir, "--listen", "127.0.0.1:0", "--json"];
  const child = Bun.spawn(options.hold ? options.hold(own) : [...own], {
    cwd: world.dir,
    env: cleanEnvironment({ KEYHOLD_HOME: join(world.dir, name) }),
    stdin: "ignore",
    stdout: "pipe",
    stderr: Bun.file(join(world.dir, `${name}.log`)),
  });
  world.stopLater(child);
  const { ready } = JSON.parse(await firstLine(child.stdout)) as { ready: { url: string; pin: string } };
  return { url: ready.url, pin: ready.pin, pid: child.pid };
}

/** The first line of what a process says; more may come with it. */
export async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string> {
  const reader = stream.getReader();
  const timer = setTimeout(() => void reader.cancel(), READY_MS);
  const decoder = new TextDecoder();
  let text = "";
  while (!text.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) throw new Error("a server did not become ready");
    text += decoder.decode(value, { stream: true });
  }
  clearTimeout(timer);
  reader.releaseLock();
  return text;
}

/** Tries `work` until it succeeds, at most 10 s. */
export async function eventually<T>(work: () => Promise<T>): Promise<T> {
  const until = performance.now() + 10_000;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > until) throw error;
      await Bun.sleep(50);
    }
  }
}

/** Processor seconds that a process has used so far, all its threads together. */
export function processorSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Processor seconds of a process and of those that it has started. */
export function familySeconds(pid: number): { readonly own: number; readonly children: number } {
  let children = 0;
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const status = readFileSync(`/proc/${name}/status`, "latin1");
      if (Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]) === pid) children += processorSeconds(Number(name));
    } catch {
      // it has just ended
    }
  }
  return { own: processorSeconds(pid), children };
}

/** Resident and peak resident memory of a process in MB (10^6 bytes). */
export function memory(pid: number): { readonly now: number; readonly peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  const of = (name: string) => (Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) * 1_024) / 1e6;
  return { now: of("VmRSS"), peak: of("VmHWM") };
}

/** What a finished command said and used. */
export interface Ended {
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Peak resident memory in MB (10^6 bytes), where it was asked for. */
  readonly peakMb: number;
}

/** Runs a command without standard input or with the given one. @throws Error unless it exits with 0 */
export async function run(
  command: readonly string[],
  options: {
    readonly env?: Record<string, string>;
    readonly stdin?: string;
    readonly cwd?: string;
    readonly watchMemory?: boolean;
  } = {},
): Promise<Ended> {
  const child = Bun.spawn([...command], {
    env: cleanEnvironment(options.env),
    stdin: options.stdin === undefined ? "ignore" : new TextEncoder().encode(options.stdin),
    stdout: "pipe",
    stderr: "pipe",
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  let peakMb = 0;
  // the usage that the system gives at the end also counts what this process held when it forked
  const watch = setInterval(() => {
    try {
      peakMb = Math.max(peakMb, memory(child.pid).peak || 0);
    } catch {
      // it has just ended
    }
  }, 5);
  if (!options.watchMemory) clearInterval(watch);
  const [stdout, stderr, exit] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  clearInterval(watch);
  if (exit !== 0) throw new Error(`${command[0]} ${command[1] ?? ""} exited with ${exit}: ${stderr.slice(0, 400)}`);
  return { exit, stdout, stderr, peakMb };
}

/** Milliseconds until a program on a terminal of its own shows `wanted`; it is killed then. */
export async function untilShown(command: readonly string[], wanted: RegExp, env: Record<string, string>) {
  const startedAt = performance.now();
  const decoder = new TextDecoder();
  let text = "";
  let seen: (ms: number) => void = () => undefined;
  const found = new Promise<number>((resolve) => {
    seen = resolve;
  });
  const child = Bun.spawn([...command], {
    env: cleanEnvironment(env),
    terminal: {
      cols: 80,
      rows: 24,
      data(_terminal, data) {
        text += decoder.decode(data, { stream: true });
        if (wanted.test(text)) seen(performance.now() - startedAt);
      },
    },
  });
  const ended = child.exited.then(() => Number.NaN);
  const ms = await Promise.race([found, ended, Bun.sleep(10_000).then(() => Number.NaN)]);
  child.kill("SIGKILL");
  await child.exited;
  if (Number.isNaN(ms)) throw new Error(`${command.join(" ")} showed no prompt: ${JSON.stringify(text)}`);
  return ms;
}

/** A free loopback port; taken again a moment later by whoever asked. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
