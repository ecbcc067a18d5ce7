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
  /** As sent: {@link fromAgentJson} reads them. */
  readonly params: unknown;
}

const RPC = { invalidRequest: -32_600, fault: -32_000 } as const;

/** Codes that JSON-RPC names itself; every other fault has -32000. */
const RPC_OF: Partial<Record<ErrorCode, number>> = { unsupported: -32_601, bad_input: -32_602, internal: -32_603 };

/**
 * Plain data as JSON: bytes become `{"$b64": base64url}`, and an own key that begins with `$` gets one more. What is
 * JSON already is given back as it is, without a copy.
 *
 * @param room Bytes that the bytes in it may take.
 * @throws Fault internal for what is not plain data (functions, dates, NaN) or nested deeper than 64; too_large
 */
export function toAgentJson(value: unknown, depth = 0, room = { bytes: AGENT_MESSAGE_MAX_BYTES }): Json {
  if (depth > DEPTH_MAX) throw notPlain();
  if (value === null || value === undefined) return null;
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw notPlain();
    return value;
  }
  if (value instanceof Uint8Array) {
    room.bytes -= Math.ceil((value.length * 4) / 3);
    // before anything of that size is made
    if (room.bytes < 0) throw tooLarge();
    return { $b64: toBase64url(value) };
  }
  if (Array.isArray(value)) return listToJson(value, depth, room);
  if (typeof value !== "object") throw notPlain();
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw notPlain();
  return objectToJson(value as Record<string, unknown>, depth, room);
}

function listToJson(items: readonly unknown[], depth: number, room: { bytes: number }): Json {
  let changed: Json[] | null = null;
  for (let at = 0; at < items.length; at++) {
    const item = items[at];
    const json = typeof item === "string" ? item : toAgentJson(item, depth + 1, room);
    if (changed === null && json !== item) changed = items.slice(0, at) as Json[];
    changed?.push(json);
  }
  return changed ?? (items as readonly Json[]);
}

function objectToJson(members: Record<string, unknown>, depth: number, room: { bytes: number }): Json {
  const keys = Object.keys(members);
  let changed: [string, Json][] | null = null;
  for (let at = 0; at < keys.length; at++) {
    const key = keys[at] ?? "";
    const item = members[key];
    const json = typeof item === "string" ? item : toAgentJson(item, depth + 1, room);
    const reserved = key.startsWith("$");
    if (changed === null && (json !== item || reserved)) {
      changed = keys.slice(0, at).map((before) => [before, members[before] as Json]);
    }
    if (item !== undefined) changed?.push([reserved ? `$${key}` : key, json]);
  }
  // assigning would take a key __proto__ for the prototype
  return changed === null ? (members as { readonly [key: string]: Json }) : Object.fromEntries(changed);
}

/** Inverse of {@link toAgentJson}; takes what `JSON.parse` gave over and changes it in its place. @throws Fault bad_input */
export function fromAgentJson(value: unknown, depth = 0): unknown {
  if (depth > DEPTH_MAX) throw new Fault("bad_input", "the message is nested too deeply");
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) {
      const item: unknown = value[at];
      if (typeof item === "object" && item !== null) value[at] = fromAgentJson(item, depth + 1);
    }
    return value;
  }
  const members = value as Record<string, unknown>;
  const keys = Object.keys(members);
  if (keys.length === 1 && keys[0] === "$b64") return bytesOf(members["$b64"]);
  let renamed = false;
  for (const key of keys) {
    const item = members[key];
    // an own key __proto__ is there already: assigning changes it, and not the prototype
    if (typeof item === "object" && item !== null) members[key] = fromAgentJson(item, depth + 1);
    renamed ||= key.startsWith("$");
  }
  return renamed ? Object.fromEntries(keys.map((key) => [unescapedKey(key), members[key]])) : members;
}

function unescapedKey(key: string): string {
  if (!key.startsWith("$")) return key;
  if (!key.startsWith("$$")) throw new Fault("bad_input", "the message has an unknown $ key");
  return key.slice(1);
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
    // a number that JSON cannot give back would come back as null
    !(typeof id === "string" || Number.isFinite(id)) ||
    typeof method !== "string" ||
    !/^[A-Za-z][A-Za-z0-9._-]{0,63}$/.test(method)
  ) {
    throw new Fault("bad_input", "not a JSON-RPC 2.0 request with an id");
  }
  return { id: id as string | number, method, params: message["params"] ?? null };
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
  if (bytes.length > AGENT_MESSAGE_MAX_BYTES) throw tooLarge();
  return bytes;
}

function tooLarge(): Fault {
  return new Fault("too_large", "the message exceeds 8 MiB", { hint: "ask for fewer secrets at once" });
}

function notPlain(): Fault {
  return new Fault("internal", "only plain data can cross the agent's socket");
}
