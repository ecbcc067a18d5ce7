import { Fault } from "../errors.ts";

/** One evaluation for a Worker. */
export type OpaqueJob =
  | { kind: "register"; setup: string; credentialId: Uint8Array; request: Uint8Array }
  | {
      kind: "login-start";
      setup: string;
      credentialId: Uint8Array;
      account: string;
      record: Uint8Array | null;
      request: Uint8Array;
    }
  | { kind: "login-finish"; state: Uint8Array; account: string; finish: Uint8Array };

export type OpaqueResult =
  | { kind: "register"; response: Uint8Array }
  | { kind: "login-start"; response: Uint8Array; state: Uint8Array }
  | { kind: "login-finish"; sessionKey: Uint8Array | null };

type ResultOf<J extends OpaqueJob> = Extract<OpaqueResult, { kind: J["kind"] }>;

/** Runs OPAQUE's server side off the main thread, so that a login flood does not slow other requests. */
export interface OpaquePool {
  /** @throws Fault bad_input for a malformed message, unavailable when too many wait. */
  run<J extends OpaqueJob>(job: J): Promise<ResultOf<J>>;
  close(): void;
}

interface Waiting {
  readonly resolve: (result: OpaqueResult) => void;
  readonly reject: (fault: Fault) => void;
}

type Answer = { id: number; result: OpaqueResult } | { id: number; bad: boolean; message: string };

const QUEUE_MAX = 1_024;

/** A Worker's place in the pool, with the jobs that it has not answered. */
interface Slot {
  worker: Worker | undefined;
  readonly waiting: Map<number, Waiting>;
}

/**
 * Starts `size` Workers; jobs go to the one with the fewest waiting. A Worker that dies fails its own jobs, and the
 * next job of its slot starts another.
 *
 * @param start Makes a Worker; for tests.
 */
export function startOpaquePool(
  size: number,
  start: () => Worker = () => new Worker(new URL("./opaque.worker.ts", import.meta.url).href),
): OpaquePool {
  let next = 0;
  let closed = false;
  const slots: readonly Slot[] = Array.from({ length: size }, () => ({ worker: undefined, waiting: new Map() }));

  function workerOf(slot: Slot): Worker {
    if (slot.worker) return slot.worker;
    const worker = start();
    worker.onmessage = (event: MessageEvent<Answer>) => {
      const answer = event.data;
      const waiter = slot.waiting.get(answer.id);
      slot.waiting.delete(answer.id);
      if ("result" in answer) waiter?.resolve(answer.result);
      else waiter?.reject(new Fault(answer.bad ? "bad_input" : "internal", answer.message));
    };
    // an error that nobody caught in there; "close" follows
    worker.onerror = (event) => event.preventDefault();
    worker.addEventListener("close", () => {
      slot.worker = undefined;
      for (const { reject } of slot.waiting.values()) {
        reject(closed ? new Fault("unavailable", "the server is stopping") : new Fault("internal", "a Worker died"));
      }
      slot.waiting.clear();
    });
    worker.unref();
    slot.worker = worker;
    return worker;
  }

  // at once, so that the first login does not wait for a start
  for (const slot of slots) workerOf(slot);
  return {
    run<J extends OpaqueJob>(job: J) {
      if (closed || slots.reduce((sum, { waiting }) => sum + waiting.size, 0) >= QUEUE_MAX) {
        return Promise.reject(new Fault("unavailable", "too many logins at once", { retryAfterMs: 1_000 }));
      }
      const least = slots.reduce((a, b) => (b.waiting.size < a.waiting.size ? b : a));
      const id = next++;
      return new Promise<ResultOf<J>>((resolve, reject) => {
        least.waiting.set(id, { resolve: (result) => resolve(result as ResultOf<J>), reject });
        workerOf(least).postMessage({ id, job });
      });
    },
    close() {
      closed = true;
      for (const { worker } of slots) worker?.terminate();
    },
  };
}
