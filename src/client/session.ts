import { wipe } from "../crypto/bytes.ts";
import { Fault, isErrorCode } from "../errors.ts";
import { newId, type RequestId, type SessionId } from "../ids.ts";
import { type ChannelKeys, openReply, sealRequest } from "../protocol/channel.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type Codec, decodeJson, encodeJson, type Of } from "../wire/codec.ts";
import { wasUndelivered } from "../wire/failure.ts";
import {
  errorBody,
  type InputOf,
  type OperationName,
  type OutputOf,
  operations,
  replyHead,
  type SessionOperation,
} from "../wire/operations.ts";
import { pinOf } from "../wire/pin.ts";
import { type Statement, verifyStatement } from "../wire/statement.ts";
import { decodeReply } from "../wire/transport.ts";
import { pauseIn, type Surroundings } from "./model.ts";

/** Sends one request to the server that the profile pins. */
export interface Link {
  /** Ed25519 identity that the pin names, 32 bytes. */
  readonly identity: Uint8Array;
  readonly statementNumber: number;
  /** What the identity signed, verified: the keys of OPAQUE and of the server-wide log. */
  readonly statement: Statement;
  /** OPAQUE static keys that the server's signed statement names. */
  readonly opaqueKeys: readonly Uint8Array[];
  /** Makes sure that the server is there. @throws Fault unreachable, tls_refused */
  readonly reach?: () => Promise<void>;
  /** @param token Of an operation for tokens. @throws Fault unreachable, tls_refused, integrity */
  post(
    operation: string,
    contentType: "application/json" | "application/octet-stream",
    body: Uint8Array | string,
    token?: string,
  ): Promise<{ status: number; contentType: string; body: Uint8Array }>;
}

/** Position of the account that an answer shows. */
export type HeadSummary = Of<typeof replyHead>["head"];

/** Inclusion promise beside the position. */
export type ShownPromise = NonNullable<Of<typeof replyHead>["promise"]>;

/** One authenticated answer. */
export interface Answer<O> {
  readonly output: O;
  readonly head: HeadSummary;
  readonly requestId: RequestId;
}

/** An open session: seals requests, opens answers, tries again under the same request id (docs/protocol.md §4). */
export interface Session {
  readonly sessionId: SessionId;
  readonly expiresAtMs: number;
  /** The server's signed statement: the one that this session began under, or a newer one. */
  readonly statement: Statement;
  /** Asks what needs no session, over the same link: the answer is the connection's alone. */
  ask<N extends Exclude<OperationName, SessionOperation>>(operation: N, input: InputOf<N>): Promise<OutputOf<N>>;
  /** Asks for the statement of now, after a key of the server was rotated; false where it is the same one. */
  renewStatement(): Promise<boolean>;
  /**
   * Sees the account's position of every authenticated answer, failures too, and the promise to log it: `owed` where
   * a mutation was acknowledged.
   */
  onHead: (
    head: HeadSummary,
    beside: { readonly promise: ShownPromise | null; readonly owed: boolean },
  ) => void | Promise<void>;
  /** @throws Fault; one that is not {@link isSealed} leaves a mutation's outcome unknown */
  call<N extends SessionOperation>(
    operation: N,
    input: InputOf<N>,
    requestId?: RequestId,
  ): Promise<Answer<OutputOf<N>>>;
  /** True for `awayMs` after the server was found away, unless it has answered since. */
  away(): boolean;
  /** Forgets the keys; does not close the session on the server. */
  forget(): void;
}

/** What a server may say of a session's request in clear; whatever concerns the account itself it must seal. */
const CLEAR: ReadonlySet<string> = new Set([
  "session_invalid",
  "replayed",
  "rate_limited",
  "unavailable",
  "outcome_unknown",
  "storage",
  "internal",
  "bad_input",
  "too_large",
  "unsupported",
  "unreachable",
]);

function clearFault(body: Uint8Array, requestId: RequestId): Fault {
  const fault = faultOf(body, requestId);
  if (CLEAR.has(fault.code)) return fault;
  return new Fault("integrity", "the server sent in clear what it must seal", { why: fault.code, requestId });
}

/** The typed error in a reply's body; its text is reduced to printable characters. */
export function faultOf(body: Uint8Array, requestId?: RequestId): Fault {
  let error: Of<typeof errorBody>;
  try {
    error = decodeJson(errorBody, body);
  } catch {
    return new Fault("unreachable", "what answered is not a keyhold server");
  }
  return new Fault(isErrorCode(error.code) ? error.code : "internal", error.message.replace(UNPRINTABLE, "?"), {
    ...(error.retryAfterMs === null ? {} : { retryAfterMs: error.retryAfterMs }),
    ...(requestId === undefined ? {} : { requestId }),
  });
}

const sealedFaults = new WeakSet<Fault>();

/** True for a failure that the server sent under the session's seal: authentic and final. */
export function isSealed(error: unknown): boolean {
  return error instanceof Fault && sealedFaults.has(error);
}

/** Failures after which the same request may be sent again. */
const RETRIED: ReadonlySet<string> = new Set([
  "unreachable",
  "timed_out",
  "unavailable",
  "outcome_unknown",
  // a connection that broke can deliver a frame twice: the next frame asks again
  "replayed",
]);

const unsentFaults = new WeakSet<Fault>();

/** True where a call failed without having changed anything: nothing was delivered, or it asked for no change. */
export function wasUnsent(error: unknown): boolean {
  return error instanceof Fault && unsentFaults.has(error);
}

/** A session that heard from the server so long ago looks for it before it sends a change. */
const QUIET_MS = 1_000;

const UNPRINTABLE = /[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu;

/** Opens a session object over an established channel; takes the keys over. */
export function createSession(
  link: Link,
  keys: ChannelKeys,
  opened: { readonly sessionId: SessionId; readonly expiresAtMs: number },
  around: Pick<Surroundings, "now" | "random" | "pause">,
): Session {
  let sequence = 0;
  let { statement } = link;
  let answeredMs = around.now();
  let awayUntilMs = 0;
  const encoder = new TextEncoder();

  async function once(operation: SessionOperation, body: Uint8Array, requestId: RequestId): Promise<Answer<unknown>> {
    sequence += 1;
    const head = { sessionId: opened.sessionId, sequence, requestId };
    const frame = sealRequest(keys, head, operation, body, around.random);
    const reply = await link.post(operation, "application/octet-stream", frame);
    if (reply.contentType !== "application/octet-stream") throw clearFault(reply.body, requestId);
    const plain = openReply(keys, head, operation, frame, reply.body);
    const cut = plain.indexOf(10);
    const summary = decodeReply(replyHead, plain.subarray(0, Math.max(0, cut)));
    answeredMs = around.now();
    awayUntilMs = 0;
    const owed = summary.ok && operations[operation].mutation;
    await session.onHead(summary.head, { promise: summary.promise, owed });
    const rest = plain.subarray(cut + 1);
    if (!summary.ok) {
      const fault = faultOf(rest, requestId);
      sealedFaults.add(fault);
      throw fault;
    }
    const output = decodeReply(operations[operation].output as Codec<unknown>, rest);
    return { output, head: summary.head, requestId };
  }

  const session: Session = {
    ...opened,
    get statement() {
      return statement;
    },
    async ask(operation, input) {
      const shape = operations[operation];
      const reply = await link.post(operation, "application/json", encodeJson(shape.input as never, input as never));
      if (reply.status !== 200) throw faultOf(reply.body);
      return decodeReply(shape.output as never, reply.body);
    },
    async renewStatement() {
      const shown = await session.ask("server.statement", {});
      const expected = { pin: pinOf(link.identity), minNumber: statement.number, nowMs: around.now() };
      const newer = verifyStatement(shown, expected).number > statement.number;
      if (newer) statement = shown;
      return newer;
    },
    onHead: () => undefined,
    async call(operation, input, requestId = newId<RequestId>(around.random)) {
      const body = encoder.encode(encodeJson(operations[operation].input as Codec<unknown>, input));
      const { mutation } = operations[operation];
      const beganMs = around.now();
      const known = beganMs < awayUntilMs;
      let delivered = false;
      /** Nothing listens, or nobody answers: told from a connection that was lost with a request in it. */
      const patienceMs = (): number => {
        if (delivered) return mutation ? DEFAULTS.retryForMs : DEFAULTS.readRetryForMs;
        return known ? 0 : DEFAULTS.connectTimeoutMs;
      };
      let waitMs = 100;
      try {
        for (;;) {
          try {
            if (mutation && beganMs - answeredMs > QUIET_MS) await link.reach?.();
            return (await once(operation, body, requestId)) as Answer<OutputOf<typeof operation>>;
          } catch (error) {
            if (!(error instanceof Fault) || isSealed(error)) throw error;
            if (!RETRIED.has(error.code)) throw error;
            delivered ||= !wasUndelivered(error);
            const nowMs = around.now();
            if (nowMs + waitMs >= beganMs + patienceMs()) {
              awayUntilMs = nowMs + DEFAULTS.awayMs;
              if (!delivered || !mutation) unsentFaults.add(error);
              throw error;
            }
            await pauseIn(around, waitMs);
            waitMs = Math.min(waitMs * 2, 2_000);
          }
        }
      } finally {
        wipe(body);
      }
    },
    away: () => around.now() < awayUntilMs,
    forget: () => wipe(keys.request, keys.reply),
  };
  return session;
}
