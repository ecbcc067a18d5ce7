import { closeSync, constants, openSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { makePrivateDirectory } from "../../client/privatefile.ts";
import { Fault, isErrorCode } from "../../errors.ts";
import { callControl } from "../../wire/control.ts";
import { plainEnvironment } from "../../wire/environment.ts";
import type { Directories } from "../paths.ts";
import { selfCommand } from "../process.ts";

/** A key server of this user on this machine. */
export interface LocalServer {
  readonly url: string;
  readonly pin: string;
  readonly registration: "open" | "invite" | "closed";
  readonly pid: number;
  readonly dir: string;
  /** Where its log goes; null for one that ran already. */
  readonly log: string | null;
}

const START_MS = 30_000;
const LOG_TAIL = 4_096;

/**
 * The server of this user: the one that runs on its directory, else one that is started in the background and stays
 * until the machine stops. Where the usual port is taken, a free one is used.
 *
 * @throws Fault of the server that did not start; timed_out
 */
export async function localServer(dirs: Directories, listen: string): Promise<LocalServer> {
  const running = await runningServer(dirs.server);
  if (running) return running;
  try {
    return await start(dirs, listen);
  } catch (error) {
    const taken = error instanceof Fault && error.code === "conflict" && /port/.test(error.message);
    if (!taken) throw error;
    return start(dirs, `${listen.replace(/:\d+$/, "")}:0`);
  }
}

/** The server that runs on a directory, or null. */
export async function runningServer(dir: string): Promise<LocalServer | null> {
  try {
    const { url, pin, pid, registration } = await callControl(dir, "status", {});
    return { url, pin, pid, dir, registration, log: null };
  } catch (error) {
    if (error instanceof Fault && (error.code === "unreachable" || error.code === "not_found")) return null;
    throw error;
  }
}

async function start({ server: dir, state }: Directories, listen: string): Promise<LocalServer> {
  makePrivateDirectory(state);
  const log = join(state, "serve.log");
  const { O_WRONLY, O_CREAT, O_APPEND, O_NOFOLLOW = 0 } = constants;
  const fd = openSync(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0o600);
  const from = statSync(log).size;
  try {
    const child = Bun.spawn(selfCommand("serve", "--json", "--dir", dir, "--listen", listen), {
      stdin: "ignore",
      stdout: "pipe",
      stderr: fd,
      env: plainEnvironment(process.env),
      cwd: "/",
      detached: true,
    });
    if (!(await saysReady(child.stdout))) {
      const code = await Promise.race([child.exited, Bun.sleep(1_000)]);
      if (code === undefined) child.kill();
      throw failureIn(log, from, code === undefined);
    }
    child.unref();
    const running = await runningServer(dir);
    if (!running)
      throw new Fault("unavailable", "the server ended right after its start", { hint: `look into ${log}` });
    return { ...running, log };
  } finally {
    closeSync(fd);
  }
}

/** False for a server that ended, or says nothing in time. */
async function saysReady(stream: ReadableStream<Uint8Array>): Promise<boolean> {
  const reader = stream.getReader();
  const timer = setTimeout(() => reader.cancel().catch(() => undefined), START_MS);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return false;
      if (!value.includes(10)) continue;
      await reader.cancel();
      return true;
    }
  } finally {
    clearTimeout(timer);
  }
}

/** What the server said last. */
function failureIn(log: string, from: number, silent: boolean): Fault {
  if (silent) return new Fault("timed_out", "the server did not start in time", { hint: `look into ${log}` });
  const buffer = new Uint8Array(LOG_TAIL);
  const fd = openSync(log, "r");
  let length = 0;
  try {
    length = readSync(fd, buffer, 0, LOG_TAIL, Math.max(from, statSync(log).size - LOG_TAIL));
  } finally {
    closeSync(fd);
  }
  const lines = new TextDecoder().decode(buffer.subarray(0, length)).trim().split("\n");
  for (const line of lines.reverse()) {
    try {
      const { error } = JSON.parse(line) as { error?: { code?: string; message?: string; hint?: string | null } };
      if (error?.code === undefined || error.message === undefined || !isErrorCode(error.code)) continue;
      return new Fault(error.code, `the server did not start: ${error.message}`, {
        ...(error.hint ? { hint: error.hint } : {}),
      });
    } catch {
      // a line of the log that is no failure
    }
  }
  return new Fault("unavailable", "the server did not start", { hint: `look into ${log}` });
}
