/** Lets parties wait for tasks; knows of what this process does alone. */
export interface Waiting {
  /** Ends the waits of a party. */
  wake(party: string): void;
  /** Ends when the party is woken, the time is over, or the server closes: whichever is first. */
  wait(party: string, timeMs: number): Promise<void>;
  readonly closed: boolean;
  /** Ends all waits, and lets nobody wait any more. */
  close(): void;
}

/** Waits of one process. */
export function createWaiting(): Waiting {
  const waits = new Map<string, Set<() => void>>();
  let closed = false;
  return {
    wake(party) {
      for (const end of [...(waits.get(party) ?? [])]) end();
    },
    wait(party, timeMs) {
      if (closed) return Promise.resolve();
      const { promise, resolve } = Promise.withResolvers<void>();
      const own = waits.get(party) ?? new Set();
      waits.set(party, own);
      const end = () => {
        clearTimeout(timer);
        own.delete(end);
        if (own.size === 0 && waits.get(party) === own) waits.delete(party);
        resolve();
      };
      const timer = setTimeout(end, timeMs);
      own.add(end);
      return promise;
    },
    get closed() {
      return closed;
    },
    close() {
      closed = true;
      for (const party of [...waits.keys()]) for (const end of [...(waits.get(party) ?? [])]) end();
    },
  };
}
