import { fromBase64url, toBase64url } from "../crypto/bytes.ts";
import { type ErrorCode, Fault, isErrorCode } from "../errors.ts";
import type { Json } from "../wire/codec.ts";

/** Messages between a process and its agent: JSON-RPC 2.0, one message a line (docs/architecture.md). */

/** Largest message in bytes, its newline included. */
export const AGENT_MESSAGE_MAX_BYTES = 8 * 1_024 * 1_024;

const DEPTH_MAX = 64;

/** A request as the agent reads it. */
export interface AgentRequest {
  readonly id: string | number;
  readonly method: string;
  readonly params: unknown;
}

const RPC = { invalidRequest: -32_600, fault: -32_000 } as const;

/** Codes that JSON-RPC names itself; every other fault has -32000. */
const RPC_OF: Partial<Record<ErrorCode, number>> = { unsupported: -32_601, bad_input: -32_602, internal: -32_603 };

/**
 * Plain data as JSON: bytes become `{"$b64": base64url}`, and an own key that begins with `$` gets one more.
 *
 * @throws Fault internal for what is not plain data (functions, dates, NaN) or nested deeper than 64.
 */
export function toAgentJson(value: unknown, depth = 0): Json {
  if (depth > DEPTH_MAX) throw notPlain();
  if (value === null || value === undefined) return null;
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw notPlain();
    return value;
  }
  if (value instanceof Uint8Array) return { $b64: toBase64url(value) };
  if (Array.isArray(value)) return value.map((item) => toAgentJson(item, depth + 1));
  if (typeof value !== "object") throw notPlain();
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw notPlain();
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([key, item]) => [key.startsWith("$") ? `$${key}` : key, toAgentJson(item, depth + 1)]),
  );
}

/** Inverse of {@link toAgentJson}. @throws Fault bad_input */
export function fromAgentJson(value: unknown, depth = 0): unknown {
  if (depth > DEPTH_MAX) throw new Fault("bad_input", "the message is nested too deeply");
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => fromAgentJson(item, depth + 1));
  const entries = Object.entries(value);
  const first = entries[0];
  if (entries.length === 1 && first?.[0] === "$b64") return bytesOf(first[1]);
  return Object.fromEntries(
    entries.map(([key, item]) => {
      if (key.startsWith("$") && !key.startsWith("$$")) {
        throw new Fault("bad_input", "the message has an unknown $ key");
      }
      return [key.startsWith("$$") ? key.slice(1) : key, fromAgentJson(item, depth + 1)];
    }),
  );
}

/** One request line, its newline included. @throws Fault too_large, internal */
export function requestLine(id: number, method: string, params: unknown): Uint8Array {
  return line({ jsonrpc: "2.0", id, method, params: toAgentJson(params) });
}

/** Reads a request; batches and notifications are refused. @throws Fault bad_input */
export function readRequest(bytes: Uint8Array): AgentRequest {
  const message = readObject(bytes);
  const { id, method } = message;
  const known = Object.keys(message).every((key) => ["jsonrpc", "id", "method", "params"].includes(key));
  if (
    !known ||
    message["jsonrpc"] !== "2.0" ||
    (typeof id !== "number" && typeof id !== "string") ||
    typeof method !== "string" ||
    !/^[A-Za-z][A-Za-z0-9._-]{0,63}$/.test(method)
  ) {
    throw new Fault("bad_input", "not a JSON-RPC 2.0 request with an id");
  }
  return { id, method, params: fromAgentJson(message["params"] ?? null) };
}

/** One result line. @throws Fault too_large, internal */
export function resultLine(id: string | number, result: unknown): Uint8Array {
  return line({ jsonrpc: "2.0", id, result: toAgentJson(result) });
}

/** One error line; anything but a Fault becomes `internal` without its text. An id of null answers an unreadable line. */
export function errorLine(id: string | number | null, error: unknown): Uint8Array {
  const fault = error instanceof Fault ? error : new Fault("internal", "the agent failed");
  const code = id === null ? RPC.invalidRequest : (RPC_OF[fault.code] ?? RPC.fault);
  const data = {
    code: fault.code,
    why: fault.why ?? null,
    hint: fault.hint ?? null,
    retryAfterMs: fault.retryAfterMs ?? null,
    culprits: fault.culprits,
    requestId: fault.requestId ?? null,
  };
  return line({ jsonrpc: "2.0", id, error: { code, message: fault.message, data } });
}

/**
 * Reads the reply to request `id`.
 *
 * @returns The result; a Fault of the other side is thrown as it was.
 * @throws Fault unavailable when the line is no such reply.
 */
export function readReply(id: number, bytes: Uint8Array): unknown {
  const message = readObject(bytes);
  if (message["jsonrpc"] !== "2.0" || (message["id"] !== id && message["id"] !== null)) {
    throw new Fault("unavailable", "the agent answered something else");
  }
  if ("error" in message) throw faultOf(message["error"]);
  if (message["id"] === null || !("result" in message)) {
    throw new Fault("unavailable", "the agent answered something else");
  }
  return fromAgentJson(message["result"]);
}

function faultOf(error: unknown): Fault {
  const { message, data } = record(error);
  const { code, why, hint, retryAfterMs, culprits, requestId } = record(data);
  return new Fault(
    typeof code === "string" && isErrorCode(code) ? code : "internal",
    typeof message === "string" ? message : "the agent failed",
    {
      ...(typeof why === "string" && { why }),
      ...(typeof hint === "string" && { hint }),
      ...(typeof retryAfterMs === "number" && { retryAfterMs }),
      ...(typeof requestId === "string" && { requestId }),
      ...(Array.isArray(culprits) && { culprits: culprits.filter((name) => typeof name === "string") }),
    },
  );
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function readObject(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Fault("bad_input", "the message is not JSON in UTF-8");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Fault("bad_input", "the message is not a JSON object");
  }
  return value as Record<string, unknown>;
}

function bytesOf(value: unknown): Uint8Array {
  try {
    if (typeof value === "string") return fromBase64url(value);
  } catch {
    // falls through to the one error
  }
  throw new Fault("bad_input", "the message has bytes that are not base64url");
}

function line(message: Json): Uint8Array {
  const bytes = new TextEncoder().encode(`${JSON.stringify(message)}\n`);
  if (bytes.length > AGENT_MESSAGE_MAX_BYTES) {
    throw new Fault("too_large", "the message exceeds 8 MiB", { hint: "ask for fewer secrets at once" });
  }
  return bytes;
}

function notPlain(): Fault {
  return new Fault("internal", "only plain data can cross the agent's socket");
}
