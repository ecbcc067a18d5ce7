import { X509Certificate } from "node:crypto";
import { rootCertificates } from "node:tls";
import { Fault, isErrorCode } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { canConnect, pinnedCa, pinOfCertificate, takeChain } from "./chain.ts";
import { type Codec, decodeJson } from "./codec.ts";
import { connectionFault, isUntrusted, requestFault, undelivered } from "./failure.ts";
import { JSON_TYPE, OPERATION_PATH, parseServerUrl, type ServerUrl } from "./http.ts";
import { errorBody, type OperationName, operations } from "./operations.ts";
import { parsePin } from "./pin.ts";
import { type Statement, verifyStatement } from "./statement.ts";

const TLS_1_3 = 0x0304;
const STATEMENT_MAX = 16 * 1_024;
/** A server that can be connected to has so many times the connection's limit to show its statement. */
const ANSWER = 5;

/** Where requests go and which authority stands behind the server's certificate. */
export interface ServerAddress {
  readonly url: string;
  /** The pinned identity as private CA; null behind a publicly trusted certificate or over loopback http. */
  readonly caPem: string | null;
  /** Authorities for public mode, PEM; without it the compiled-in public ones. The environment adds none. */
  readonly tlsCaPem?: string | null;
}

export interface RequestLimits {
  /** For the whole exchange, the reply's last byte included. */
  readonly timeoutMs: number;
  readonly maxReplyBytes: number;
  /** For the connection alone (default `connectTimeoutMs`). */
  readonly connectMs?: number;
  /** Of an operation for tokens: goes into the header `Authorization`. */
  readonly token?: string;
}

/** A reply as it came; status and body are still unchecked. */
export interface Reply {
  readonly status: number;
  /** Without parameters, in lower case. */
  readonly contentType: string;
  /** The server's clock as it says itself, in milliseconds since 1970; null where it does not. */
  readonly dateMs: number | null;
  readonly body: Uint8Array;
}

export interface ConnectInput extends ServerAddress {
  readonly pin: string;
  /** Number of the newest statement seen from this server; 0 at first contact. */
  readonly minStatement: number;
  readonly now: () => number;
  readonly timeouts?: { readonly connectMs: number; readonly requestMs: number };
}

/** A server whose identity was checked against the pin. */
export interface Connected {
  readonly mode: "private" | "public";
  /** To be kept beside the pin: with it the next contact needs no look. */
  readonly caPem: string | null;
  readonly statement: Statement;
}

/**
 * Finds the pinned server behind a URL (docs/protocol.md §3.1). In private mode nothing is sent before a CA with the
 * pinned key was found and checked; in public mode the signed statement is fetched and held against the pin.
 *
 * @param input `caPem` from an earlier contact, or null.
 * @throws Fault bad_input, unreachable, tls_refused, pin_mismatch, integrity
 */
export async function connectServer(input: ConnectInput): Promise<Connected> {
  const server = parseServerUrl(input.url);
  parsePin(input.pin);
  const connectMs = input.timeouts?.connectMs ?? DEFAULTS.connectTimeoutMs;
  const requestMs = input.timeouts?.requestMs ?? DEFAULTS.requestTimeoutMs;
  const statementFrom = async (caPem: string | null): Promise<Statement> => {
    const statement = await fetchStatement(server, { ...input, caPem }, connectMs, requestMs);
    return verifyStatement(statement, { pin: input.pin, minNumber: input.minStatement, nowMs: input.now() });
  };
  if (!server.secure) {
    try {
      return { mode: "public", caPem: null, statement: await statementFrom(null) };
    } catch (error) {
      throw connectionFault(error, server.origin);
    }
  }

  if (input.caPem !== null && caMatches(input.caPem, input.pin)) {
    try {
      return { mode: "private", caPem: input.caPem, statement: await statementFrom(input.caPem) };
    } catch (error) {
      // another kind of certificate since: look again, which tells why
      if (!isUntrusted(error)) throw connectionFault(error, server.origin);
    }
  }
  const caPem = pinnedCa(await takeChain(server, connectMs), server, input.pin, input.now());
  if (caPem === null && input.caPem !== null) {
    // a relay with a public certificate could pass the server's own statement on and read what is said before login
    throw new Fault("pin_mismatch", "the server no longer shows the identity that it showed before", {
      why: "its certificate comes from a public authority now, not from the pinned identity",
      hint: "if its operator changed the certificate: keyhold profile remove, then log in again as a new device",
    });
  }
  try {
    return { mode: caPem === null ? "public" : "private", caPem, statement: await statementFrom(caPem) };
  } catch (error) {
    if (caPem === null && isUntrusted(error)) {
      throw new Fault("pin_mismatch", "the server's identity is not the pinned one", {
        why: "no certificate that it shows has the pinned key, and no public authority vouches for it",
      });
    }
    throw connectionFault(error, server.origin);
  }
}

function caMatches(caPem: string, pin: string): boolean {
  try {
    if (pinOfCertificate(new X509Certificate(caPem)) === pin) return true;
  } catch {
    // falls through
  }
  throw new Fault("pin_mismatch", "the kept authority of this server does not have the pinned key", {
    hint: "the profile was altered: log in again with --server and --pin",
  });
}

/** Passes TLS errors on as they are, so that the caller can tell an unknown authority. */
async function fetchStatement(
  server: ServerUrl,
  address: ServerAddress,
  connectMs: number,
  requestMs: number,
): Promise<Statement> {
  const limits = { timeoutMs: Math.min(ANSWER * connectMs, requestMs), maxReplyBytes: STATEMENT_MAX, connectMs };
  const reply = await exchange(server, address, "server.statement", "{}", JSON_TYPE, limits);
  if (reply.status !== 200) throw replyFault(reply);
  return decodeReply(operations["server.statement"].output, reply.body);
}

/**
 * Decodes what a server sent.
 *
 * @throws Fault integrity where it does not fit the table.
 */
export function decodeReply<T>(codec: Codec<T>, body: Uint8Array): T {
  try {
    return decodeJson(codec, body);
  } catch (error) {
    throw new Fault("integrity", "the server's answer is malformed", {
      ...(error instanceof Fault ? { why: error.message } : {}),
    });
  }
}

/** The fault that an unsealed error reply names; its text is reduced to printable characters. */
export function replyFault(reply: Reply): Fault {
  try {
    const body = decodeJson(errorBody, reply.body);
    if (isErrorCode(body.code)) {
      const message = body.message.replace(/[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu, "?");
      return new Fault(body.code, message, body.retryAfterMs === null ? {} : { retryAfterMs: body.retryAfterMs });
    }
  } catch {
    // falls through: no error body
  }
  if (reply.status === 413) return new Fault("too_large", "the server refuses a request of this size");
  if (reply.status === 503) return new Fault("unavailable", "the server is not available");
  return new Fault("integrity", "the answer is not one of a keyhold server", { why: `HTTP status ${reply.status}` });
}

/**
 * Posts one operation and reads its reply, however a server may lie: no redirect is followed, nothing is unpacked,
 * time and size are bounded.
 *
 * @param body Not retained.
 * @throws Fault unreachable or tls_refused when nothing was delivered; outcome_unknown when that can't be known;
 *   integrity for a reply that is too long or a redirect.
 */
export async function postOperation(
  address: ServerAddress,
  name: OperationName,
  body: Uint8Array | string,
  contentType: string,
  limits: RequestLimits,
): Promise<Reply> {
  const server = parseServerUrl(address.url);
  try {
    return await exchange(server, address, name, body, contentType, limits);
  } catch (error) {
    throw requestFault(error, server.origin);
  }
}

/** Answers so far, by origin. */
const answers = new Map<string, number>();

async function exchange(
  server: ServerUrl,
  address: ServerAddress,
  name: OperationName,
  body: Uint8Array | string,
  contentType: string,
  limits: RequestLimits,
): Promise<Reply> {
  const stop = new AbortController();
  const giveUp = () => stop.abort(new DOMException("", "TimeoutError"));
  const timer = setTimeout(giveUp, limits.timeoutMs);
  const connectMs = limits.connectMs ?? DEFAULTS.connectTimeoutMs;
  let answered = false;
  const heard = () => answers.get(server.origin) ?? 0;
  // the runtime tells nothing of its connection: where no answer comes, one more connection shows whether any would;
  // while the server answers others it is there
  let look: Timer | undefined;
  const lookLater = (before: number) => {
    look = setTimeout(async () => {
      if (heard() !== before) lookLater(heard());
      else if (!(await canConnect(server, (3 * connectMs) / 4)) && !answered) giveUp();
    }, connectMs / 4);
  };
  lookLater(heard());
  try {
    const ca = address.caPem ?? address.tlsCaPem ?? publicAuthorities();
    const tls = { ca, rejectUnauthorized: true, minVersion: TLS_1_3 };
    const response = await fetch(`${server.origin}${OPERATION_PATH}${name}`, {
      method: "POST",
      body,
      headers: {
        "content-type": contentType,
        accept: "*/*",
        "accept-encoding": "identity",
        "user-agent": "keyhold",
        ...(limits.token !== undefined && { authorization: `Bearer ${limits.token}` }),
      },
      redirect: "manual",
      decompress: false,
      verbose: false,
      signal: stop.signal,
      ...(server.secure ? { tls } : {}),
    });
    answered = true;
    answers.set(server.origin, heard() + 1);
    clearTimeout(look);
    if (response.status >= 300 && response.status < 400) {
      throw new Fault("integrity", "the answer is not one of a keyhold server", { why: "it redirects" });
    }
    const read = await readBounded(response, limits.maxReplyBytes);
    const type = (response.headers.get("content-type") ?? "").split(";", 1)[0] ?? "";
    const dateMs = Date.parse(response.headers.get("date") ?? "");
    return {
      status: response.status,
      contentType: type.trim().toLowerCase(),
      dateMs: Number.isNaN(dateMs) ? null : dateMs,
      body: read,
    };
  } finally {
    answered = true;
    clearTimeout(timer);
    clearTimeout(look);
    // ends a connection of which not everything was read; does nothing to a finished one
    stop.abort();
  }
}

/**
 * Makes sure that the server is there, before something is sent whose outcome matters: its statement is asked for.
 *
 * @throws Fault unreachable, marked as undelivered; tls_refused
 */
export async function reachServer(address: ServerAddress): Promise<void> {
  const server = parseServerUrl(address.url);
  try {
    await fetchStatement(server, address, DEFAULTS.connectTimeoutMs, DEFAULTS.requestTimeoutMs);
  } catch (error) {
    throw undelivered(connectionFault(error, server.origin));
  }
}

let publicPem: string | undefined;

function publicAuthorities(): string {
  publicPem ??= rootCertificates.join("\n");
  return publicPem;
}

async function readBounded(response: Response, max: number): Promise<Uint8Array> {
  const tooLong = () => new Fault("integrity", "the server's answer is too long", { why: `more than ${max} bytes` });
  if (Number(response.headers.get("content-length") ?? 0) > max) throw tooLong();
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of response.body ?? []) {
    length += part.length;
    if (length > max) throw tooLong();
    parts.push(part);
  }
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
