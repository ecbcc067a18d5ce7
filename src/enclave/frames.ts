import { concat } from "../crypto/bytes.ts";
import { Fault, isErrorCode } from "../errors.ts";
import { decodeJson, type Json, nullable, type Of, struct, text, u53, uint } from "../wire/codec.ts";
import { type EnclaveOperation, enclaveOperations } from "./api.ts";

/**
 * Frames between a server and its enclave: length (4, big-endian) ‖ JSON (docs/protocol.md §8.8). No secret crosses in
 * clear: shares are sealed, client bytes and partials are HPKE.
 */

/** Bytes of one frame's JSON at most. */
export const FRAME_MAX = 4 * 1_024 * 1_024;
const HEAD = 4;

/** A frame around a JSON text. @throws Fault too_large */
export function frameOf(json: string): Uint8Array {
  const body = new TextEncoder().encode(json);
  if (body.length > FRAME_MAX) throw new Fault("too_large", "a message to the enclave is too long");
  const head = new Uint8Array(HEAD);
  new DataView(head.buffer).setUint32(0, body.length);
  return concat(head, body);
}

/** The writing end of a pipe. */
export interface FramePipe {
  write(bytes: Uint8Array): unknown;
  flush(): unknown;
}

/**
 * Writes frames to a pipe. Those that come together go out together: whoever waits at the other end wakes up once.
 *
 * @returns what resolves when the frame is on its way, and rejects where the other end has gone.
 */
export function frameWriter(pipe: FramePipe): (frame: Uint8Array) => Promise<void> {
  let flushed: Promise<void> | undefined;
  async function flush(): Promise<void> {
    await undefined;
    flushed = undefined;
    await pipe.flush();
  }
  return async (frame) => {
    pipe.write(frame);
    flushed ??= flush();
    await flushed;
  };
}

/** Takes frames out of a stream of bytes. */
export interface FrameReader {
  /** The bodies that are complete now. @throws Fault too_large */
  take(chunk: Uint8Array): Uint8Array[];
}

export function frameReader(): FrameReader {
  let waiting: Uint8Array[] = [];
  let length = 0;
  const joined = (): Uint8Array => {
    if (waiting.length === 1 && waiting[0]) return waiting[0];
    const all = concat(...waiting);
    waiting = [all];
    return all;
  };
  const sizeOf = (at: Uint8Array): number => new DataView(at.buffer, at.byteOffset, HEAD).getUint32(0);
  return {
    take(chunk) {
      waiting.push(chunk);
      length += chunk.length;
      const bodies: Uint8Array[] = [];
      for (let need = 0; length >= HEAD; ) {
        const first = waiting[0];
        const head = first !== undefined && first.length >= HEAD ? first : joined();
        need = HEAD + sizeOf(head);
        if (need > HEAD + FRAME_MAX) throw new Fault("too_large", "a message of the enclave is too long");
        if (length < need) break;
        const all = joined();
        bodies.push(all.subarray(HEAD, need));
        const rest = all.subarray(need);
        waiting = rest.length > 0 ? [rest] : [];
        length = rest.length;
      }
      return bodies;
    },
  };
}

const json = { decode: (value: unknown) => value as Json, encode: (value: Json) => value };
const requestCodec = struct({ id: u53, operation: text({ min: 1, max: 64 }), input: json });
const replyCodec = struct({
  id: u53,
  output: json,
  fault: nullable(
    struct({
      code: text({ max: 64 }),
      message: text({ max: 1_024 }),
      why: nullable(text({ max: 4_096 })),
      hint: nullable(text({ max: 4_096 })),
      retryAfterMs: nullable(uint(0xffff_ffff)),
    }),
  ),
});

export type EnclaveInput<O extends EnclaveOperation> = Of<(typeof enclaveOperations)[O]["input"]>;
export type EnclaveOutput<O extends EnclaveOperation> = Of<(typeof enclaveOperations)[O]["output"]>;

const isOperation = (name: string): name is EnclaveOperation => Object.hasOwn(enclaveOperations, name);

/** The frame of a question. */
export function requestFrame<O extends EnclaveOperation>(id: number, operation: O, input: EnclaveInput<O>): Uint8Array {
  const encode = enclaveOperations[operation].input.encode as (value: EnclaveInput<O>) => Json;
  return frameOf(JSON.stringify(requestCodec.encode({ id, operation, input: encode(input) })));
}

/** A question as the enclave reads it. */
export interface ReadRequest {
  readonly id: number;
  readonly operation: EnclaveOperation;
  /** Decoded by the operation's own codec: a Fault when it does not fit. */
  input(): unknown;
}

/** @throws Fault bad_input for what is no question at all */
export function readRequest(body: Uint8Array): ReadRequest {
  const { id, operation, input } = decodeJson(requestCodec, body);
  if (!isOperation(operation)) throw new Fault("bad_input", "the enclave has no such operation");
  return { id, operation, input: () => enclaveOperations[operation].input.decode(input, "") };
}

/** The frame of an answer. */
export function outputFrame<O extends EnclaveOperation>(
  id: number,
  operation: O,
  output: EnclaveOutput<O>,
): Uint8Array {
  const encode = enclaveOperations[operation].output.encode as (value: EnclaveOutput<O>) => Json;
  return frameOf(JSON.stringify(replyCodec.encode({ id, output: encode(output), fault: null })));
}

/** The frame of a failure; what is no Fault crosses without its text. */
export function faultFrame(id: number, error: unknown): Uint8Array {
  const fault = error instanceof Fault ? error : new Fault("internal", "the enclave failed");
  const { code, message, why = null, hint = null, retryAfterMs } = fault;
  const retry = retryAfterMs === undefined ? null : Math.ceil(retryAfterMs);
  return frameOf(
    JSON.stringify(replyCodec.encode({ id, output: null, fault: { code, message, why, hint, retryAfterMs: retry } })),
  );
}

/** An answer as the server reads it. */
export interface ReadReply {
  readonly id: number;
  /** @throws the enclave's Fault; Fault internal for an answer that is none */
  output<O extends EnclaveOperation>(operation: O): EnclaveOutput<O>;
}

/** @throws Fault bad_input for what is no answer at all */
export function readReply(body: Uint8Array): ReadReply {
  const { id, output, fault } = decodeJson(replyCodec, body);
  return {
    id,
    output<O extends EnclaveOperation>(operation: O): EnclaveOutput<O> {
      if (fault === null) return enclaveOperations[operation].output.decode(output, "enclave") as EnclaveOutput<O>;
      throw new Fault(isErrorCode(fault.code) ? fault.code : "internal", fault.message, {
        ...(fault.why === null ? {} : { why: fault.why }),
        ...(fault.hint === null ? {} : { hint: fault.hint }),
        ...(fault.retryAfterMs === null ? {} : { retryAfterMs: fault.retryAfterMs }),
      });
    },
  };
}
