/** Time that passes only when everything that runs in it waits: a second of it costs nothing. */
export interface VirtualClock {
  /** Whole milliseconds since 1970. */
  now(): number;
  /** Waits; between actors the only place where others get their turn. */
  sleep(ms: number): Promise<void>;
  /** Starts an actor. Its failure ends the run; a run does not wait for the end of a `daemon`. */
  start(work: () => Promise<void>, kind?: "daemon"): void;
  /** Waits until {@link release}: an actor whose process was killed. */
  hang(): Promise<never>;
  /** Runs until all actors but daemons have ended or hang. */
  run(): Promise<void>;
  /** Makes all that hangs throw, so that it gives back what it holds. */
  release(): Promise<void>;
}

/** Thrown into what hung, at the end. */
export class Killed extends Error {}

interface Wake {
  readonly at: number;
  readonly order: number;
  readonly resume: () => void;
}

/** Real time after which an actor that does not come to rest is a mistake of the simulation. */
const STUCK_MS = 20_000;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

export function virtualClock(startMs: number): VirtualClock {
  let now = startMs;
  let order = 0;
  let running = 0;
  /** Actors that a run waits for. */
  let awaited = 0;
  let failure: unknown;
  const wakes: Wake[] = [];
  const hung: ((error: Error) => void)[] = [];

  function earliest(): Wake | undefined {
    let best = 0;
    for (const [index, wake] of wakes.entries()) {
      const other = wakes[best];
      if (other && (wake.at < other.at || (wake.at === other.at && wake.order < other.order))) best = index;
    }
    return wakes.splice(best, 1)[0];
  }

  /** Until every actor waits for the clock or has ended. */
  async function rest(): Promise<void> {
    const since = performance.now();
    while (running > 0) {
      await turn();
      if (performance.now() - since > STUCK_MS) throw new Error("an actor waits for something outside the simulation");
    }
  }

  return {
    now: () => Math.floor(now),
    sleep: (ms) =>
      new Promise((resolve) => {
        running -= 1;
        wakes.push({
          at: now + Math.max(0, ms),
          order: order++,
          resume: () => {
            running += 1;
            resolve();
          },
        });
      }),
    start(work, kind) {
      running += 1;
      const counts = kind === "daemon" ? 0 : 1;
      awaited += counts;
      const end = () => {
        running -= 1;
        awaited -= counts;
      };
      work().then(end, (error: unknown) => {
        end();
        if (!(error instanceof Killed)) failure ??= error;
      });
    },
    hang: () =>
      new Promise((_resolve, reject) => {
        running -= 1;
        awaited -= 1;
        hung.push((error) => {
          running += 1;
          awaited += 1;
          reject(error);
        });
      }),
    async run() {
      for (;;) {
        await rest();
        if (failure !== undefined) throw failure;
        if (awaited === 0) return;
        const wake = earliest();
        if (!wake) throw new Error("an actor waits for nothing");
        now = Math.max(now, wake.at);
        wake.resume();
      }
    },
    async release() {
      for (const end of hung.splice(0)) end(new Killed("killed"));
      await rest();
    },
  };
}
