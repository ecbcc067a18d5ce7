import { join } from "node:path";
import type { Seeded } from "../support/seeded.ts";

/** What is crashed while clients write. */
export interface Victim {
  readonly url: string;
  readonly pin: string;
  /** Ends it without warning. */
  crash(): Promise<void>;
  /** Starts it again under the same address; resolves when it serves. */
  restart(): Promise<void>;
}

export interface KillLoopOptions {
  readonly victim: Victim;
  /** Scratch directory for the clients' homes. */
  readonly dir: string;
  /** Crashes at least. */
  readonly kills: number;
  /** Acknowledged writes at least: until then the crashes go on, up to five times as many. */
  readonly least: number;
  /** Accounts that write at once. */
  readonly accounts: number;
  readonly random: Seeded;
  /** Milliseconds of writing before a crash, drawn evenly between the two. */
  readonly writeMs: readonly [number, number];
  /** Called after each crash with what stands so far. */
  readonly progress?: (done: number, acknowledged: number) => void;
}

export interface KillLoopResult {
  readonly kills: number;
  readonly acknowledged: number;
  /** Writes whose outcome the client said not to know. */
  readonly unknown: number;
  /** Acknowledged writes that were gone or changed after a crash. */
  readonly lost: readonly string[];
  /** Why the clients stopped before the end, such as a server that went back: null if they did not. */
  readonly stopped: string | null;
}

interface Checked {
  readonly number: number;
  readonly lost: readonly string[];
  readonly acknowledged: number;
  readonly unknown: number;
}

/** The clients gave up. */
class Stopped extends Error {}

const DRIVER = join(import.meta.dir, "driver.ts");

/** The writing process, spoken to in lines. */
function startDriver(options: KillLoopOptions) {
  const { victim, dir, accounts } = options;
  const child = Bun.spawn([process.execPath, DRIVER, victim.url, victim.pin, dir, String(accounts)], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const lines = (async function* () {
    let text = "";
    const decoder = new TextDecoder();
    for await (const part of child.stdout) {
      text += decoder.decode(part, { stream: true });
      for (let cut = text.indexOf("\n"); cut !== -1; cut = text.indexOf("\n")) {
        yield JSON.parse(text.slice(0, cut)) as { ready?: true; failed?: string } & Checked;
        text = text.slice(cut + 1);
      }
    }
  })();
  async function line(): Promise<{ ready?: true } & Checked> {
    const { value, done } = await lines.next();
    if (done) throw new Stopped("the writing process ended");
    if (value.failed !== undefined) throw new Stopped(value.failed);
    return value;
  }
  return {
    line,
    /** Every account compares what was acknowledged with what the server says. */
    async check(word: "check" | "end"): Promise<readonly Checked[]> {
      child.stdin.write(`${word}\n`);
      await child.stdin.flush();
      const answers: Checked[] = [];
      while (answers.length < accounts) answers.push(await line());
      return answers;
    },
    async stop(): Promise<void> {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/**
 * Crashes a server again and again while several accounts write, and after each restart asks it for every write that
 * was acknowledged since the crash before; at the end every account's log is verified whole.
 */
export async function killLoop(options: KillLoopOptions): Promise<KillLoopResult> {
  const { victim, kills, least, random, writeMs } = options;
  const driver = startDriver(options);
  const lost: string[] = [];
  let last: readonly Checked[] = [];
  let done = 0;
  const sum = (answers: readonly Checked[], of: (answer: Checked) => number) =>
    answers.reduce((total, answer) => total + of(answer), 0);
  const result = (stopped: string | null): KillLoopResult => ({
    kills: done,
    acknowledged: sum(last, (answer) => answer.acknowledged),
    unknown: sum(last, (answer) => answer.unknown),
    lost,
    stopped,
  });
  try {
    await driver.line();
    while (done < kills || (result(null).acknowledged < least && done < kills * 5)) {
      await Bun.sleep(writeMs[0] + random.int(writeMs[1] - writeMs[0]));
      await victim.crash();
      await victim.restart();
      last = await driver.check("check");
      done += 1;
      for (const answer of last)
        lost.push(...answer.lost.map((text) => `kill ${done}, account ${answer.number}, ${text}`));
      options.progress?.(done, result(null).acknowledged);
    }
    last = await driver.check("end");
    for (const answer of last) lost.push(...answer.lost.map((text) => `at the end, account ${answer.number}, ${text}`));
    return result(null);
  } catch (error) {
    if (error instanceof Stopped) return result(error.message);
    throw error;
  } finally {
    await driver.stop();
  }
}
