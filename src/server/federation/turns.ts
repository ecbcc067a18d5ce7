/** Lets work of one name run one after another; of other names beside it. */
export interface Turns {
  take<T>(name: string, work: () => Promise<T>): Promise<T>;
}

/** Makes turns for one process; what several processes do to one record, its version refuses. */
export function createTurns(): Turns {
  const last = new Map<string, Promise<unknown>>();
  return {
    take(name, work) {
      const before = last.get(name) ?? Promise.resolve();
      const mine = before.then(work, work);
      const settled = mine.then(
        () => undefined,
        () => undefined,
      );
      last.set(name, settled);
      void settled.then(() => {
        if (last.get(name) === settled) last.delete(name);
      });
      return mine;
    },
  };
}
