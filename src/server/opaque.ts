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

/** Starts `size` Workers; jobs go to the one with the fewest waiting. */
export function startOpaquePool(size: number): OpaquePool {
  const waiting = new Map<number, Waiting>();
  let next = 0;
  let closed = false;
  const workers = Array.from({ length: size }, () => {
    const worker = new Worker(new URL("./opaque.worker.ts", import.meta.url).href);
    const state = { worker, load: 0 };
    worker.onmessage = (event: MessageEvent<Answer>) => {
      state.load -= 1;
      const answer = event.data;
      const waiter = waiting.get(answer.id);
      waiting.delete(answer.id);
      if ("result" in answer) waiter?.resolve(answer.result);
      else waiter?.reject(new Fault(answer.bad ? "bad_input" : "internal", answer.message));
    };
    worker.onerror = () => {
      for (const waiter of waiting.values()) waiter.reject(new Fault("internal", "an OPAQUE worker died"));
      waiting.clear();
    };
    worker.unref();
    return state;
  });
  return {
    run<J extends OpaqueJob>(job: J) {
      if (closed || waiting.size >= QUEUE_MAX) {
        return Promise.reject(new Fault("unavailable", "too many logins at once", { retryAfterMs: 1_000 }));
      }
      const least = workers.reduce((a, b) => (b.load < a.load ? b : a));
      const id = next++;
      least.load += 1;
      return new Promise<ResultOf<J>>((resolve, reject) => {
        waiting.set(id, { resolve: (result) => resolve(result as ResultOf<J>), reject });
        least.worker.postMessage({ id, job });
      });
    },
    close() {
      closed = true;
      for (const { worker } of workers) worker.terminate();
    },
  };
}
