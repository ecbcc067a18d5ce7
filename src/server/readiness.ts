import type { Store } from "../storage/store.ts";

/** Milliseconds between two probes of the store. */
export const PROBE_MS = 10_000;
/** Milliseconds for which one answer of the store counts. */
export const PROBE_STALE_MS = 3 * PROBE_MS;

/** Knows whether requests can be served, without asking the store for each question. */
export interface Readiness {
  /** Asks the store for anything at all; its failure is passed on. */
  probe(): Promise<void>;
  /** True while the newest probe was answered, and lately. */
  ready(): boolean;
}

/**
 * Watches a store.
 *
 * @param clock Milliseconds of a clock that only runs forward.
 */
export function readiness(store: Store, clock: () => number): Readiness {
  let answeredAt = Number.NEGATIVE_INFINITY;
  return {
    async probe() {
      try {
        await store.transaction((tx) => tx.setting("incarnation"));
        answeredAt = clock();
      } catch (error) {
        answeredAt = Number.NEGATIVE_INFINITY;
        throw error;
      }
    },
    ready: () => clock() - answeredAt <= PROBE_STALE_MS,
  };
}
