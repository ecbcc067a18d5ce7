import type { Argon2Cost } from "../crypto/kdf.ts";
import { type ErrorCode, Fault } from "../errors.ts";

export type ClientJob =
  | { kind: "start"; exchange: "register" | "login"; password: Uint8Array }
  | { kind: "finish"; account: string; responses: readonly Uint8Array[]; costs: readonly Argon2Cost[] };

export type ClientResult =
  | { kind: "start"; request: Uint8Array }
  | {
      kind: "finish";
      /** Registration: the record for the server. */
      record?: Uint8Array;
      /** Login: KE3 and the session key. */
      finish?: Uint8Array;
      sessionKey?: Uint8Array;
      exportKey: Uint8Array;
      serverKey: Uint8Array;
      /** Which of the responses fitted. */
      setup: number;
    }
  | { kind: "refused" };

export type Finished = Extract<ClientResult, { kind: "finish" }>;

/** One OPAQUE exchange in a Worker of its own, whose memory goes with it. */
export interface OpaqueExchange {
  readonly request: Uint8Array;
  /** Runs the key stretching; `undefined` for a wrong password (or account: they cannot be told apart). */
  finish(
    account: string,
    responses: readonly Uint8Array[],
    costs: readonly Argon2Cost[],
  ): Promise<Finished | undefined>;
  /** Ends the Worker; call it in `finally`. */
  end(): void;
}

type Answer = { result: ClientResult } | { code: ErrorCode; message: string };

/**
 * Starts a registration or a login.
 *
 * @param password NFC-normalised UTF-8; copied, the caller wipes its own.
 */
export async function startOpaque(exchange: "register" | "login", password: Uint8Array): Promise<OpaqueExchange> {
  const worker = new Worker(new URL("./opaque.worker.ts", import.meta.url).href);
  const ask = (job: ClientJob, moved: ArrayBuffer[] = []): Promise<ClientResult> =>
    new Promise((resolve, reject) => {
      worker.onmessage = (event: MessageEvent<Answer>) => {
        const answer = event.data;
        if ("result" in answer) resolve(answer.result);
        else reject(new Fault(answer.code, answer.message));
      };
      worker.onerror = () => reject(new Fault("internal", "the OPAQUE worker died"));
      worker.postMessage(job, moved);
    });
  try {
    // moved, not copied: the Worker wipes the one copy there is
    const copy = new Uint8Array(password);
    const started = await ask({ kind: "start", exchange, password: copy }, [copy.buffer]);
    if (started.kind !== "start") throw new Fault("internal", "OPAQUE answered out of order");
    return {
      request: started.request,
      async finish(account, responses, costs) {
        const done = await ask({ kind: "finish", account, responses, costs });
        return done.kind === "finish" ? done : undefined;
      },
      end: () => worker.terminate(),
    };
  } catch (error) {
    worker.terminate();
    throw error;
  }
}
