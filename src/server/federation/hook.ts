import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { Fault } from "../../errors.ts";
import { isHashId } from "../../ids.ts";
import { digestWords } from "../../protocol/federation/words.ts";
import { list, text } from "../../wire/codec.ts";
import { plainEnvironment } from "../../wire/environment.ts";
import { fileFault, shown } from "../../wire/keyfiles.ts";
import type { ServerLog } from "../log.ts";

const FILE_MAX = 16 * 1_024;
const TIMEOUT_MS = 10_000;
/** Commands at once, and events that wait for their turn. */
const RUNNING_MAX = 4;
const WAITING_MAX = 256;
const OTHERS_WRITE = 0o022;

const command = list(text({ min: 1, max: 4_096 }), { min: 1, max: 64 });

/** What a hook is told; nothing secret. `requestId` brings the six words of it along. */
export type HookEvent = { readonly event: string; readonly [fact: string]: string | number | null };

/** Tells the operator's own program of events. */
export interface Hook {
  /** Does not wait and never throws. */
  notify(event: HookEvent): void;
  /** Takes no more, drops what waits, and ends once nothing runs any longer. */
  close(): Promise<void>;
}

/** Where no command is set. */
export const noHook: Hook = { notify: () => undefined, close: () => Promise.resolve() };

/**
 * Reads the command from a file that holds a JSON list: an absolute path and its arguments. Nobody else may be able to
 * write the file, for whoever can runs programs as the server.
 *
 * @throws Fault not_found, denied, bad_input
 */
export async function readHookCommand(path: string): Promise<readonly string[]> {
  let content: string;
  try {
    const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw new Fault("denied", `cannot use ${shown(path)}: it is not a plain file`);
      const own = process.getuid?.();
      if (own !== undefined && ((stat.mode & OTHERS_WRITE) !== 0 || (stat.uid !== own && stat.uid !== 0))) {
        throw new Fault("denied", `cannot use ${shown(path)}: others may write it`, { hint: `chmod go-w ${path}` });
      }
      if (stat.size > FILE_MAX) throw new Fault("bad_input", `cannot use ${shown(path)}: it is too long`);
      content = await handle.readFile("utf8");
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fileFault(error, "read", path);
  }
  const hint = 'it holds a list like ["/usr/local/bin/tell", "--to", "ops"]';
  let argv: readonly string[];
  try {
    argv = command.decode(JSON.parse(content), "");
  } catch {
    throw new Fault("bad_input", `${shown(path)} is no command`, { hint });
  }
  if (isAbsolute(argv[0] ?? "") && !argv.some((word) => word.includes("\0"))) return argv;
  throw new Fault("bad_input", `the command in ${shown(path)} has no absolute path`, { hint });
}

export interface HookOptions {
  /** From {@link readHookCommand}; run as it is, without a shell. */
  readonly argv: readonly string[];
  readonly log: ServerLog;
  readonly timeoutMs?: number;
  readonly runningMax?: number;
  readonly waitingMax?: number;
}

/**
 * A hook that starts the command once an event, with the event as one line of JSON on its standard input, in an
 * environment that holds nothing of keyhold. Whatever fails is logged and otherwise ignored.
 */
export function createHook(options: HookOptions): Hook {
  const { argv, log, timeoutMs = TIMEOUT_MS, runningMax = RUNNING_MAX, waitingMax = WAITING_MAX } = options;
  const waiting: HookEvent[] = [];
  const running = new Set<Promise<void>>();
  let closed = false;

  function start(): void {
    while (running.size < runningMax) {
      const event = waiting.shift();
      if (event === undefined) return;
      const run: Promise<void> = runCommand(argv, lineOf(event), timeoutMs)
        .catch(() => "failed")
        .then((code) => {
          if (code !== null) log.write("warn", { event: "hook", code });
          running.delete(run);
          start();
        });
      running.add(run);
    }
  }

  return {
    notify(event) {
      if (closed) return;
      if (waiting.length >= waitingMax) {
        log.write("warn", { event: "hook", code: "overflow" });
        return;
      }
      waiting.push(event);
      start();
    },
    async close() {
      closed = true;
      waiting.length = 0;
      await Promise.all(running);
    },
  };
}

function lineOf(event: HookEvent): string {
  const id = event["requestId"];
  const words = typeof id === "string" && isHashId(id) ? { words: digestWords(Uint8Array.fromHex(id)).join(" ") } : {};
  return `${JSON.stringify({ ...event, ...words })}\n`;
}

/** Runs the command once; gives what went wrong, or null. */
async function runCommand(argv: readonly string[], line: string, timeoutMs: number): Promise<string | null> {
  let child: Bun.Subprocess<Uint8Array, "ignore", "ignore">;
  try {
    child = Bun.spawn([...argv], {
      env: plainEnvironment(process.env),
      cwd: "/",
      stdin: new TextEncoder().encode(line),
      stdout: "ignore",
      stderr: "ignore",
      // a group of its own, to be ended with all that it started
      detached: true,
    });
  } catch {
    return "not_started";
  }
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    endGroup(child.pid);
  }, timeoutMs);
  try {
    const code = await child.exited;
    if (late) return "timed_out";
    return code === 0 ? null : `exit_${code}`;
  } finally {
    clearTimeout(timer);
  }
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // it has ended already
  }
}
