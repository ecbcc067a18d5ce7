import type { EnclaveOperation } from "../enclave/api.ts";
import {
  type EnclaveInput,
  type EnclaveOutput,
  frameReader,
  frameWriter,
  readReply,
  requestFrame,
} from "../enclave/frames.ts";
import { Fault } from "../errors.ts";
import { plainEnvironment } from "../wire/environment.ts";
import type { ServerLog } from "./log.ts";

/** What an enclave has gone through, for figures. */
export interface EnclaveFigures {
  readonly running: boolean;
  /** Starts that ended well, the first one included. */
  readonly starts: number;
  /** Ends that nobody asked for. */
  readonly crashes: number;
}

/** The server's side of its enclave process (docs/protocol.md §8.8). */
export interface EnclaveClient {
  /**
   * Asks the enclave; the first call starts it.
   *
   * @throws the enclave's own Fault; unavailable when it ended before it answered: its attempts are gone with it
   */
  call<O extends EnclaveOperation>(operation: O, input: EnclaveInput<O>): Promise<EnclaveOutput<O>>;
  figures(): EnclaveFigures;
  /** Lets the calls under way end, then the process. */
  close(): Promise<void>;
}

export interface EnclaveOptions {
  /** The server's directory. */
  readonly dir: string;
  /** The command line that runs the enclave, without its arguments. */
  readonly command: readonly [string, ...string[]];
  readonly log: ServerLog;
  /** Before each start; what it throws is thrown to whoever asks. */
  readonly demand?: () => Promise<void>;
  /** In place of the process's own environment. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** In place of the documented times. */
  readonly times?: Partial<EnclaveTimes>;
}

/** How long things may take, in milliseconds. */
export interface EnclaveTimes {
  readonly answerMs: number;
  /** More for each opening of a ceremony that is combined: its function may be Argon2id. */
  readonly openingMs: number;
  /** From one start to the next: the first time, and at most. */
  readonly backoffFirstMs: number;
  readonly backoffMaxMs: number;
  /** Up for so long, it counts as sound again. */
  readonly soundMs: number;
}

/** Questions that wait for their answer at most. */
const PENDING_MAX = 256;
const TIMES: EnclaveTimes = {
  answerMs: 120_000,
  openingMs: 5_000,
  backoffFirstMs: 100,
  backoffMaxMs: 30_000,
  soundMs: 60_000,
};

/** How long an answer may take, in milliseconds. */
export function answerLimit<O extends EnclaveOperation>(times: EnclaveTimes, _: O, input: EnclaveInput<O>): number {
  const combines = "step" in input && input.step.kind === "combine";
  return times.answerMs + (combines ? input.step.openings.length * times.openingMs : 0);
}

const gone = () =>
  new Fault("unavailable", "the enclave restarted: order a new attempt", {
    why: "what it held of attempts is gone, on purpose",
    hint: "give the same command again",
  });

interface Pending {
  readonly operation: EnclaveOperation;
  readonly resolve: (output: never) => void;
  readonly reject: (error: unknown) => void;
  /** On the clock that only runs forward. */
  readonly untilMs: number;
}

/** One life of the process. */
interface Life {
  ask<O extends EnclaveOperation>(operation: O, input: EnclaveInput<O>): Promise<EnclaveOutput<O>>;
  /** Closes its input; resolves when it has ended. */
  end(): Promise<void>;
}

/** Supervises the enclave of a directory. Nothing runs until the first call. */
export function startEnclave(options: EnclaveOptions): EnclaveClient {
  const { log } = options;
  const times = { ...TIMES, ...options.times };
  let life: Promise<Life> | undefined;
  let closed = false;
  let failures = 0;
  let starts = 0;
  let crashes = 0;
  let up = false;
  let notBeforeMs = 0;
  let again: ReturnType<typeof setTimeout> | undefined;

  const putOff = (): void => {
    const waitMs = Math.min(times.backoffMaxMs, times.backoffFirstMs * 2 ** failures);
    failures += 1;
    notBeforeMs = performance.now() + waitMs;
  };

  function ended(startedAtMs: number): void {
    up = false;
    life = undefined;
    if (closed) return;
    crashes += 1;
    if (performance.now() - startedAtMs > times.soundMs) failures = 0;
    log.write("error", { event: "enclave-ended", count: crashes });
    putOff();
    again = setTimeout(() => void start().catch(() => undefined), Math.max(0, notBeforeMs - performance.now()));
    again.unref();
  }

  function start(): Promise<Life> {
    if (closed) return Promise.reject(new Fault("unavailable", "the server is stopping"));
    life ??= (async () => {
      try {
        await options.demand?.();
      } catch (error) {
        life = undefined;
        throw error;
      }
      const waitMs = notBeforeMs - performance.now();
      if (waitMs > 0) await Bun.sleep(waitMs);
      const startedAtMs = performance.now();
      try {
        const begun = await spawnEnclave(options, times, () => ended(startedAtMs));
        up = true;
        starts += 1;
        log.write("info", { event: "enclave-started", pid: begun.pid, count: starts });
        return begun;
      } catch (error) {
        life = undefined;
        putOff();
        log.write("error", { event: "enclave-failed", code: error instanceof Fault ? error.code : "internal" });
        throw error;
      }
    })();
    return life;
  }

  let closing: Promise<void> | undefined;
  return {
    call: async (operation, input) => (await start()).ask(operation, input),
    figures: () => ({ running: up, starts, crashes }),
    close() {
      closing ??= (async () => {
        const last = life;
        closed = true;
        clearTimeout(again);
        await last?.then((one) => one.end()).catch(() => undefined);
      })();
      return closing;
    },
  };
}

const unstarted = () => new Fault("unavailable", "the enclave did not start");

function spawnPiped(command: readonly string[], env: Record<string, string>) {
  try {
    return Bun.spawn([...command], { stdin: "pipe", stdout: "pipe", stderr: "ignore", env, cwd: "/" });
  } catch {
    throw unstarted();
  }
}

/** Starts the process and waits for its first word. @throws Fault of the enclave that could not start; unavailable */
async function spawnEnclave(
  { dir, command, env = process.env }: EnclaveOptions,
  times: EnclaveTimes,
  onEnd: () => void,
): Promise<Life & { readonly pid: number }> {
  const credentials = env["CREDENTIALS_DIRECTORY"];
  const child = spawnPiped([...command, "--dir", dir], {
    ...plainEnvironment(env),
    ...(credentials ? { CREDENTIALS_DIRECTORY: credentials } : {}),
  });
  const write = frameWriter(child.stdin);
  const pending = new Map<number, Pending>();
  const idle: (() => void)[] = [];
  let number = 0;
  let over = false;
  let watch: { readonly atMs: number; readonly timer: ReturnType<typeof setTimeout> } | undefined;

  /** One timer for all that is waited for: set for the first of it, and set anew where that was answered in time. */
  function watchUntil(atMs: number): void {
    if (watch && watch.atMs <= atMs) return;
    clearTimeout(watch?.timer);
    watch = { atMs, timer: setTimeout(look, Math.max(0, atMs - performance.now())).unref() };
  }
  function look(): void {
    watch = undefined;
    if (pending.size === 0) return;
    const first = Math.min(...[...pending.values()].map(({ untilMs }) => untilMs));
    // one that does not answer is no better than one that is gone
    if (first <= performance.now()) child.kill("SIGKILL");
    else watchUntil(first);
  }

  const expect = <O extends EnclaveOperation>(
    id: number,
    operation: O,
    limitMs = times.answerMs,
  ): Promise<EnclaveOutput<O>> =>
    new Promise((resolve, reject) => {
      const untilMs = performance.now() + limitMs;
      pending.set(id, { operation, resolve, reject, untilMs });
      watchUntil(untilMs);
    });
  const settle = (id: number): Pending | undefined => {
    const one = pending.get(id);
    pending.delete(id);
    if (pending.size === 0) for (const done of idle.splice(0)) done();
    return one;
  };
  const hello = expect(0, "info");

  void (async () => {
    try {
      const reader = frameReader();
      for await (const chunk of child.stdout) {
        for (const body of reader.take(chunk)) {
          const reply = readReply(body);
          const one = settle(reply.id);
          try {
            one?.resolve(reply.output(one.operation) as never);
          } catch (error) {
            one?.reject(error);
          }
        }
      }
    } catch {
      // what it says makes no sense: it ends below
    }
    over = true;
    clearTimeout(watch?.timer);
    child.kill("SIGKILL");
    await child.exited;
    for (const id of [...pending.keys()]) settle(id)?.reject(id === 0 ? unstarted() : gone());
  })();

  await hello;
  void child.exited.then(onEnd);
  return {
    pid: child.pid,
    async ask(operation, input) {
      if (over) throw gone();
      if (pending.size >= PENDING_MAX) {
        throw new Fault("rate_limited", "the enclave has too much to do", { retryAfterMs: 1_000 });
      }
      number += 1;
      const frame = requestFrame(number, operation, input);
      const answer = expect(number, operation, answerLimit(times, operation, input));
      // where it has gone, whoever waits is told when its output ends
      write(frame).catch(() => undefined);
      return answer;
    },
    async end() {
      if (pending.size > 0) await new Promise<void>((done) => idle.push(done));
      await child.stdin.end();
      await child.exited;
    },
  };
}
