import { readFileSync } from "node:fs";
import { Fault } from "../errors.ts";
import { scrubEnvironment } from "../wire/environment.ts";
import type { Group } from "./command.ts";
import { runLine } from "./frame.ts";
import { createOutput, type Output } from "./output.ts";
import { BrokenPipe, runCleanups } from "./process.ts";

/** Entry points that the program starts itself with, by their first argument; each gives an exit code. */
export type InternalEntries = Readonly<Record<string, () => Promise<(args: readonly string[]) => Promise<number>>>>;

const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
/** What a program that ends by SIGPIPE reports. */
const BROKEN_PIPE_EXIT = 141;

/** Runs this process's command line and ends the process: the only catch, the only exit. */
export async function start(root: Group, internal: InternalEntries): Promise<never> {
  const inherited = { ...process.env };
  scrubEnvironment(process.env);
  const abort = new AbortController();
  let out: Output = createOutput({ json: false, quiet: false, verbose: false, color: "auto", env: process.env });
  let onTerminate: ((signal: NodeJS.Signals) => void) | null = null;

  for (const [signal, number] of Object.entries(SIGNALS) as [keyof typeof SIGNALS, number][]) {
    if (signal === "SIGHUP" && hangupIgnored()) continue;
    process.on(signal, () => {
      const handler = onTerminate;
      onTerminate = null;
      if (handler !== null) {
        handler(signal);
        return;
      }
      abort.abort();
      runCleanups();
      out.fail(new Fault("interrupted", `ended by ${signal}`), 128 + number);
      process.exit(128 + number);
    });
  }

  let code: number;
  try {
    const argv = process.argv.slice(2);
    const first = argv[0] ?? "";
    const own = Object.hasOwn(internal, first) ? internal[first] : undefined;
    code =
      own === undefined
        ? await runLine(root, argv, {
            env: process.env,
            inherited,
            signal: abort.signal,
            now: Date.now,
            onTerminate: (handler) => {
              onTerminate = handler;
            },
            useOutput: (used) => {
              out = used;
            },
          })
        : await (await own())(argv.slice(1));
  } catch (error) {
    runCleanups();
    code = error instanceof BrokenPipe ? BROKEN_PIPE_EXIT : out.fail(error);
  }
  runCleanups();
  process.exit(code);
}

/** True under `nohup` and the like, where a handler of ours would end what is meant to go on. */
function hangupIgnored(): boolean {
  if (process.platform !== "linux") return false;
  try {
    const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
    return (BigInt(`0x${mask}`) & 1n) === 1n;
  } catch {
    return false;
  }
}
