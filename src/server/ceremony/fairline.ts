/** Work that is done one piece at a time: owners take turns, so nobody waits for all that another one has brought. */
export interface FairLine {
  /** Puts a piece of work into its owner's line; resolves or rejects with it. */
  take(owner: string, work: () => Promise<void>): Promise<void>;
}

/** Makes a line for one process. Who comes waits for what is under way, and for one piece of each other owner. */
export function createFairLine(): FairLine {
  /** What waits, by owner, in the order in which it came. */
  const waiting = new Map<string, (() => Promise<void>)[]>();
  /** Owners in the order of their turns; whose work is under way comes back at the end. */
  const turns: string[] = [];
  let running: string | null = null;

  async function run(): Promise<void> {
    for (let owner = turns.shift(); owner !== undefined; owner = turns.shift()) {
      running = owner;
      await waiting.get(owner)?.shift()?.();
      if (waiting.get(owner)?.length === 0) waiting.delete(owner);
      else turns.push(owner);
    }
    running = null;
  }

  return {
    take(owner, work) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const queue = waiting.get(owner);
      const piece = () => work().then(resolve, reject);
      if (queue) queue.push(piece);
      else {
        waiting.set(owner, [piece]);
        turns.push(owner);
      }
      if (running === null) void run();
      return promise;
    },
  };
}
