import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { binary, environment, exitOf, HANG_MS } from "./world.ts";

/** What a person at a terminal sees and does. */
export interface Dialogue {
  readonly shown: string;
  readonly code: number;
  /** `stty -a` of the terminal afterwards. */
  readonly modes: string;
}

export interface DialogueStep {
  readonly expect: string | RegExp;
  /** Keys, or what they follow from: everything that is shown up to now since the last step. */
  readonly type?: string | ((fresh: string) => string);
  readonly signal?: NodeJS.Signals;
  /** Columns and rows. */
  readonly resize?: readonly [number, number];
}

/**
 * Runs the executable on a real terminal, without a pager unless `pager` or its variable says so; each step waits for what is shown
 * since the last one, then acts.
 */
export async function onTerminal(
  home: string,
  argv: readonly string[],
  steps: readonly DialogueStep[],
  extra: { env?: Record<string, string>; cols?: number; program?: string; pager?: true } = {},
): Promise<Dialogue> {
  let shown = "";
  let wake = () => {};
  const decoder = new TextDecoder();
  // the shell stays, so that the terminal's modes can be read after the command
  const script = 'stty -a; echo "[before]"; "$@"; code=$?; echo "[after]"; stty -a; exit $code';
  const child = Bun.spawn(["bash", "-c", script, "bash", extra.program ?? (await binary()), ...argv], {
    env: environment(home, { ...(extra.pager !== true && { PAGER: "cat" }), ...extra.env }),
    cwd: home,
    terminal: {
      cols: extra.cols ?? 80,
      rows: 24,
      data(_terminal, data) {
        shown += decoder.decode(data, { stream: true });
        wake();
      },
    },
  });
  const killer = setTimeout(() => child.kill("SIGKILL"), HANG_MS);
  const ended = child.exited.then(() => wake());
  let from = 0;
  for (const { expect: wanted, type, signal, resize } of steps) {
    let fresh = "";
    for (;;) {
      fresh = shown.slice(from);
      const found = typeof wanted === "string" ? fresh.includes(wanted) : wanted.test(fresh);
      if (found) break;
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Error(`ended before it showed ${String(wanted)}: ${JSON.stringify(shown)}`);
      }
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    from = shown.length;
    // the prompt is drawn before raw mode is certain; a character typed too early would be echoed
    await Bun.sleep(60);
    if (type !== undefined) child.terminal?.write(typeof type === "string" ? type : type(fresh));
    if (resize !== undefined) child.terminal?.resize(...resize);
    if (signal !== undefined) process.kill(childOf(child.pid), signal);
  }
  await ended;
  clearTimeout(killer);
  const [, before = "", rest = ""] = /^(.*)\[before\]\r?\n(.*)$/s.exec(shown) ?? [];
  const at = rest.lastIndexOf("[after]");
  const after = rest.slice(at + "[after]".length);
  const normal = (text: string) => text.replaceAll("\r", "").trim();
  expect(normal(after)).toBe(normal(before));
  return { shown: rest.slice(0, at), code: exitOf(child), modes: normal(after) };
}

/** The one child of a process. */
function childOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").at(-1));
}
