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

/** A throwaway world: a directory with homes, files and a server process. */
export interface World {
  readonly dir: string;
  readonly server: { readonly url: string; readonly pin: string };
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

async function startServer(dir: string, env: Record<string, string>) {
  const server = Bun.spawn(
    selfCommand("serve", "--dir", join(dir, "server"), "--listen", "127.0.0.1:0", "--json", "--quiet"),
    {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
      env,
      cwd: dir,
    },
  );
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
  const line = exit === 0 || exit === 10 ? stdout.trim() : (stderr.trim().split("\n").at(-1) ?? "");
  try {
    const parsed = JSON.parse(line) as { data?: Record<string, unknown>; error?: Record<string, unknown> };
    return parsed.data ?? parsed.error ?? {};
  } catch {
    return {};
  }
}

/** Walks the steps on real processes; stops at the first that does not hold. Gives the exit code. */
export async function runDemo(steps: readonly Step[], ctx: Pick<Context, "out" | "flags" | "signal">): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), "keyhold-demo-"));
  const clean = () => rmSync(dir, { recursive: true, force: true });
  const forget = atExit(clean);
  let server: Bun.Subprocess | undefined;
  const { out } = ctx;
  const show = (step: string, shown: string, ok: boolean, ms: number, detail: string): void => {
    if (out.json) out.jsonLine({ v: 1, step, ok, ms: Math.round(ms), detail });
    else out.lines(`\n${ok ? "✔" : "✘"} ${step}   ${Math.round(ms)} ms\n  $ ${shown}\n${indent(detail)}`);
  };
  try {
    const startedAt = performance.now();
    const started = await startServer(dir, environment(join(dir, "operator")));
    server = started.server;
    show(
      "serve",
      "keyhold serve --listen 127.0.0.1:0",
      true,
      performance.now() - startedAt,
      `${started.url}\npin ${started.pin}`,
    );
    const world: World = {
      dir,
      server: { url: started.url, pin: started.pin },
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
    server.kill("SIGTERM");
    const ended = await server.exited;
    if (ended !== 0) throw new Fault("internal", `the demo's server ended with ${ended}`);
    return 0;
  } finally {
    server?.kill("SIGKILL");
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
