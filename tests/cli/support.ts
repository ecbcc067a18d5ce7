import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binary } from "../binary/world.ts";

const PROJECT = join(import.meta.dir, "..", "..");
export const MAIN = join(PROJECT, "src", "main.ts");
/** A program on the same frame whose commands exist to be tested. */
export const FIXTURE = join(import.meta.dir, "fixture.ts");

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  readonly env?: Record<string, string>;
  readonly stdin?: Uint8Array | "ignore" | "pipe";
  readonly script?: string;
}

/** An environment without what the machine that runs the tests may have set. */
export function cleanEnvironment(extra: Record<string, string> = {}): Record<string, string> {
  return { PATH: process.env["PATH"] ?? "", HOME: tmpdir(), TERM: "xterm-256color", ...extra };
}

/**
 * Runs a command line of the executable, or of `script`, as a child without a controlling terminal and collects what it
 * says.
 */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const program = options.script === undefined ? [await binary()] : [process.execPath, options.script];
  const child = Bun.spawn([...program, ...argv], {
    env: cleanEnvironment(options.env),
    stdin: options.stdin ?? "ignore",
    stdout: "pipe",
    stderr: "pipe",
    // A session of its own: /dev/tty of whoever runs the tests stays out of it.
    detached: true,
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, err };
}

/** Runs shell text with `$KEYHOLD` as the executable and `$FIXTURE` as that of the fixture. */
export async function shell(text: string, env: Record<string, string> = {}, program = "bash"): Promise<Ran> {
  const child = Bun.spawn([program, "-c", text], {
    env: cleanEnvironment({
      ...env,
      KEYHOLD: await binary(),
      FIXTURE: `${process.execPath} ${FIXTURE}`,
    }),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, err };
}

/** The last line of stderr as JSON. */
export function lastError(ran: Ran): { v: number; error: Record<string, unknown> } {
  return JSON.parse(ran.err.trimEnd().split("\n").at(-1) ?? "");
}

/** Gives `work` a directory that is gone afterwards. */
export async function withDirectory<T>(work: (directory: string) => T | Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-test-"));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export interface Dialogue {
  /** Everything that the terminal showed. */
  readonly shown: string;
  readonly code: number | null;
  readonly out: string;
}

/**
 * Runs shell text on a real pty, its stdout captured apart. Each step waits for `expect` in what is shown since the
 * last step, then types `type`, or acts on the process
 * that `text` announced as `pid N.`
 */
export async function onTerminal(
  text: string,
  steps: readonly { expect: string | RegExp; type?: string; act?: (pid: number) => void }[],
  env: Record<string, string> = {},
): Promise<Dialogue> {
  return await withDirectory(async (directory) => {
    const outFile = join(directory, "out");
    let shown = "";
    let wake = () => {};
    const decoder = new TextDecoder();
    const child = Bun.spawn(["bash", "-c", `(${text}) >"$OUT"`], {
      env: cleanEnvironment({
        ...env,
        OUT: outFile,
        KEYHOLD: await binary(),
        FIXTURE: `${process.execPath} ${FIXTURE}`,
      }),
      terminal: {
        cols: 80,
        rows: 24,
        data(_terminal, data) {
          shown += decoder.decode(data, { stream: true });
          wake();
        },
      },
    });
    const ended = child.exited.then(() => wake());
    let from = 0;
    for (const { expect, type, act } of steps) {
      for (;;) {
        const fresh = shown.slice(from);
        if (typeof expect === "string" ? fresh.includes(expect) : expect.test(fresh)) break;
        if (child.exitCode !== null || child.signalCode !== null) {
          throw new Error(`ended before it showed ${String(expect)}: ${JSON.stringify(shown)}`);
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      from = shown.length;
      // The prompt is drawn before raw mode is certain; a character typed too early would be echoed.
      if (type !== undefined) {
        await Bun.sleep(60);
        child.terminal?.write(type);
      }
      if (act !== undefined) {
        const pid = /pid (\d+)\./.exec(shown)?.[1];
        if (pid === undefined) throw new Error(`no "pid N." was shown: ${JSON.stringify(shown)}`);
        act(Number(pid));
      }
    }
    await ended;
    const file = Bun.file(outFile);
    return { shown, code: child.exitCode, out: (await file.exists()) ? await file.text() : "" };
  });
}
