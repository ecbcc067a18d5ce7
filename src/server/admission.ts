import { readFileSync } from "node:fs";
import { Fault } from "../errors.ts";
import { addressBucket } from "./limits.ts";

/** Requests that one process reads or answers at the same time; each may hold a body in memory. */
const IN_FLIGHT = 2_048;
/** The share of them that one address (a /64 of IPv6) may have. */
const IN_FLIGHT_PER_ADDRESS = 512;
/** What a refused caller is told to wait. */
const RETRY_AFTER_MS = 1_000;

/** Bounds how many requests run at once, so that a flood costs others a refusal and not the process. */
export interface Admission {
  /**
   * Lets a request in.
   *
   * @returns What to call, once, when it is over.
   * @throws Fault unavailable, with the time to wait, when too many run.
   */
  enter(address: string): () => void;
}

/** Makes the bounds of one process. */
export function admission(limits = { total: IN_FLIGHT, perAddress: IN_FLIGHT_PER_ADDRESS }): Admission {
  const running = new Map<string, number>();
  let total = 0;
  return {
    enter(address) {
      const bucket = addressBucket(address);
      const own = running.get(bucket) ?? 0;
      if (total >= limits.total || own >= limits.perAddress) {
        throw new Fault("unavailable", "the server is busy: too many requests run", { retryAfterMs: RETRY_AFTER_MS });
      }
      total += 1;
      running.set(bucket, own + 1);
      return () => {
        total -= 1;
        const left = (running.get(bucket) ?? 1) - 1;
        if (left === 0) running.delete(bucket);
        else running.set(bucket, left);
      };
    },
  };
}

/** How many descriptors, connections among them, this process may have open; undefined where the system does not say. */
export function descriptorLimit(): number | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
