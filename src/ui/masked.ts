import { closeSync, read } from "node:fs";
import { isatty, WriteStream } from "node:tty";
import { makeRaw, openPipe } from "../wire/tty.ts";
import { createMasker, type MaskedValue, type Masker } from "./mask.ts";
import { atExit, BrokenPipe, sealProcess, writeAll } from "./process.ts";
import { type CannotRun, cannotSpawn, exitOf, locate } from "./run.ts";
import { askedInput } from "./terminal.ts";

/** A stream that has said nothing for so long waits for an answer. */
const PAUSE_MS = 10;
/** What a child's own children may still write after it has ended. */
const LINGER_MS = 200;

/** A command whose output is masked. */
export interface MaskedRun {
  readonly command: readonly string[];
  readonly env: Record<string, string>;
  readonly values: readonly MaskedValue[];
  /** Takes over the next SIGINT, SIGTERM or SIGHUP of this process. */
  onTerminate(handler: (signal: NodeJS.Signals) => void): void;
}

/**
 * Runs a command beside this process and replaces values in what it prints. Where stdin, stdout and stderr are a
 * terminal it gets one of its own, of the same size, with keys passed on as they are typed; else its stdout and stderr
 * are pipes, masked apart.
 *
 * @returns Its exit code (128+n after signal n), or why it could not be started.
 * @throws Fault bad_input for a variable with a NUL byte.
 */
export async function runMasked(run: MaskedRun): Promise<number | CannotRun> {
  const file = locate(run.command, run.env);
  if (typeof file !== "string") return file;
  const terminal = isatty(0) && isatty(1) && isatty(2) && process.platform !== "win32";
  return terminal ? await onTerminal(run, file) : await onPipes(run, file);
}

/** Writes a masked stream to a descriptor. */
interface Screen {
  write(chunk: Uint8Array): void;
  /** @throws Fault storage for what could not be written */
  end(): void;
}

function screen(masker: Masker, fd: 1 | 2, broken: () => void): Screen {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let open = true;
  let failure: unknown;
  const put = (bytes: Uint8Array) => {
    if (!open || bytes.length === 0) return;
    try {
      writeAll(fd, bytes);
    } catch (error) {
      open = false;
      if (!(error instanceof BrokenPipe)) failure = error;
      broken();
    }
  };
  return {
    write(chunk) {
      clearTimeout(timer);
      put(masker.push(chunk));
      if (masker.holding) timer = setTimeout(() => put(masker.pause()), PAUSE_MS);
    },
    end() {
      clearTimeout(timer);
      put(masker.end());
      if (failure !== undefined) throw failure;
    },
  };
}

/** Passes signals on to a child instead of ending by them; this process, which knows the values, is closed to others. */
function attend(run: MaskedRun, child: Bun.Subprocess, passes: (signal: NodeJS.Signals) => boolean): void {
  // not before the child is there: it keeps its own limit for core dumps
  sealProcess();
  const pass = (signal: NodeJS.Signals) => {
    run.onTerminate(pass);
    if (passes(signal)) child.kill(signal);
  };
  run.onTerminate(pass);
  process.on("SIGQUIT", () => {
    if (passes("SIGQUIT")) child.kill("SIGQUIT");
  });
}

async function onTerminal(run: MaskedRun, file: string): Promise<number | CannotRun> {
  const [name = "", ...args] = run.command;
  const [cols, rows] = sizeOf();
  const closed = Promise.withResolvers<void>();
  let child: Bun.Subprocess | undefined;
  const shown = screen(createMasker(run.values), 1, () => child?.kill("SIGHUP"));
  try {
    child = Bun.spawn([file, ...args], {
      argv0: name,
      env: run.env,
      terminal: { cols, rows, data: (_terminal, data) => shown.write(data), exit: () => closed.resolve() },
    });
  } catch (error) {
    return cannotSpawn(name, error);
  }
  const { terminal } = child;
  const input = askedInput() ?? process.stdin;
  const restore = makeRaw(0) ?? (() => undefined);
  const forget = atExit(restore);
  const resize = () => terminal?.resize(...sizeOf());
  try {
    input.on("data", (keys: Uint8Array) => void terminal?.write(keys));
    input.resume();
    process.on("SIGWINCH", resize);
    resize();
    // keys that mean signals arrive through the child's terminal
    attend(run, child, () => true);
    await child.exited;
    await Promise.race([closed.promise, Bun.sleep(LINGER_MS)]);
    shown.end();
    return exitOf(child);
  } finally {
    process.off("SIGWINCH", resize);
    input.pause();
    restore();
    forget();
    terminal?.close();
  }
}

function sizeOf(): [number, number] {
  // a stream keeps the size that it was made with
  const [cols, rows] = new WriteStream(1).getWindowSize();
  return [cols || 80, rows || 24];
}

async function onPipes(run: MaskedRun, file: string): Promise<number | CannotRun> {
  const [name = "", ...args] = run.command;
  const pipes = [openPipe(), openPipe()];
  const ends = pipes.map((pipe) => pipe?.write ?? ("pipe" as const));
  let child: Bun.Subprocess;
  try {
    child = Bun.spawn([file, ...args], {
      argv0: name,
      env: run.env,
      stdin: "inherit",
      stdout: ends[0] ?? "pipe",
      stderr: ends[1] ?? "pipe",
    });
  } catch (error) {
    return cannotSpawn(name, error);
  } finally {
    for (const pipe of pipes) if (pipe) closeSync(pipe.write);
  }
  // a terminal sends its signals to the child too
  const shared = isatty(0) || isatty(1) || isatty(2);
  attend(run, child, (signal) => !shared || signal === "SIGTERM");
  const copies = ([1, 2] as const).map((fd, i) => {
    const own = fd === 1 ? child.stdout : child.stderr;
    const chunks = own instanceof ReadableStream ? own : chunksOf(pipes[i]?.read ?? -1);
    return copy(chunks, createMasker(run.values), fd);
  });
  await child.exited;
  await Promise.race([Promise.all(copies.map(({ done }) => done)), Bun.sleep(LINGER_MS)]);
  for (const { end } of copies) end();
  return exitOf(child);
}

/** What comes through a pipe until its writers have closed it; leaving the loop closes it on this side. */
async function* chunksOf(fd: number): AsyncIterable<Uint8Array> {
  const buffer = new Uint8Array(65_536);
  try {
    for (;;) {
      const length = await new Promise<number>((resolve) => {
        read(fd, buffer, 0, buffer.length, null, (error, count) => resolve(error === null ? count : 0));
      });
      if (length === 0) return;
      yield buffer.subarray(0, length);
    }
  } finally {
    buffer.fill(0);
    closeSync(fd);
  }
}

/** Copies a stream until it ends, or nobody reads on: then the child's next write fails as it would without us. */
function copy(chunks: AsyncIterable<Uint8Array>, masker: Masker, fd: 1 | 2): { done: Promise<void>; end: () => void } {
  let broken = false;
  const shown = screen(masker, fd, () => {
    broken = true;
  });
  const done = (async () => {
    for await (const chunk of chunks) {
      shown.write(chunk);
      if (broken) return;
    }
  })();
  return { done, end: shown.end };
}
