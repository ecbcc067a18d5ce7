import { isIP } from "node:net";
import { hostname } from "node:os";
import { Fault } from "./errors.ts";
import { DEFAULTS } from "./protocol/defaults.ts";
import { type Admission, admission, descriptorLimit } from "./server/admission.ts";
import type { ServerLog } from "./server/log.ts";
import type { Meter } from "./server/meter.ts";
import type { TlsFiles } from "./server/tls.ts";
import { encodeJson } from "./wire/codec.ts";
import { contentTypeOf, isLoopback, JSON_TYPE, OPERATION_PATH, REQUEST_MAX } from "./wire/http.ts";
import { errorBody, isOperation, type OperationName, operations } from "./wire/operations.ts";

/** What an operation answers over HTTP. */
export interface HandleReply {
  readonly status: number;
  readonly contentType: string;
  readonly body: Uint8Array | string;
  readonly retryAfterMs?: number;
  /** Code of the outcome, for the log: `ok` or an error code. */
  readonly outcome?: string;
}

/** Answers one operation; whatever it throws becomes a typed error. */
export type Handle = (
  name: OperationName,
  contentType: string,
  body: Uint8Array,
  remote: { readonly address: string; readonly authorization: string | null },
) => Promise<HandleReply>;

export interface ServeOptions {
  /** Port 0 picks a free one. */
  readonly listen: { readonly host: string; readonly port: number };
  /** `plaintext` only where the host is loopback. */
  readonly tls: TlsFiles | "plaintext";
  readonly pin: string;
  /** Host name or address for the URL, where the one listened on is none to call (0.0.0.0). */
  readonly name?: string;
  readonly handle: Handle;
  /** Lets other processes that ask for it too listen on the same port; the system spreads the connections (Linux). */
  readonly reusePort?: boolean;
  /** False while requests can't be served; asked by `/readyz`. */
  readonly ready?: () => boolean;
  readonly log: ServerLog;
  /** Learns of each answer, for figures. */
  readonly meter?: Pick<Meter, "request">;
  /** How many requests run at once; for tests. */
  readonly admission?: Admission;
}

/** A server that listens. */
export interface RunningServer {
  readonly url: string;
  readonly pin: string;
  readonly port: number;
  /** Operations answered since the start. */
  requests(): number;
  /** Operations that run. */
  running(): number;
  /** Stops accepting, lets running requests end for at most `drainMs`, then closes; a second call waits for the first. */
  stop(drainMs: number): Promise<void>;
}

const TLS_1_3 = 0x0304;
/** Bun answers for itself above this, without a typed body; below, we do. */
const HARD_BODY_MAX = 4 * REQUEST_MAX;
/** Headers and body of a request, byte by byte or not, and a connection between two requests. */
const IDLE_SECONDS = Math.ceil(DEFAULTS.headerTimeoutMs / 1_000);
/** A handler may take its time once its request is complete. */
const HANDLER_SECONDS = 120;
/** Some thousand connections, the database, sockets. */
const DESCRIPTORS_WANTED = 8_192;
const DRAIN_POLL_MS = 5;

const HEADERS = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
} as const;

interface State {
  readonly admission: Admission;
  draining: boolean;
  running: number;
  answered: number;
}

/**
 * Starts the listener: TLS 1.3 only, one typed JSON error for everything that isn't an operation.
 *
 * @throws Fault bad_input for plaintext beyond loopback or an unusable address, conflict for a port in use.
 */
export function startServer(options: ServeOptions): Promise<RunningServer> {
  return Promise.resolve().then(() => start(options));
}

function start(options: ServeOptions): RunningServer {
  const { listen, log } = options;
  if (options.tls === "plaintext" && !isLoopback(listen.host)) {
    throw new Fault("bad_input", "plaintext is refused beyond this machine", {
      hint: "listen on 127.0.0.1, or use TLS",
    });
  }
  const state: State = { admission: options.admission ?? admission(), draining: false, running: 0, answered: 0 };
  const server = bind(options, state);
  const port = server.port ?? listen.port;
  log.write("info", { event: "listening", port, pid: process.pid });
  // the runtime has raised the limit as far as it may; beyond it new connections wait for old ones to end
  const descriptors = descriptorLimit();
  if (descriptors !== undefined && descriptors < DESCRIPTORS_WANTED) {
    log.write("warn", { event: "few-descriptors", count: descriptors });
  }
  let stopped: Promise<void> | undefined;
  return {
    url: `${options.tls === "plaintext" ? "http" : "https"}://${hostShown(options)}:${port}`,
    pin: options.pin,
    port,
    requests: () => state.answered,
    running: () => state.running,
    stop: (drainMs) => {
      stopped ??= drain(server, state, drainMs, log);
      return stopped;
    },
  };
}

function bind(options: ServeOptions, state: State): Bun.Server<undefined> {
  const { tls, listen, log } = options;
  try {
    return Bun.serve({
      hostname: listen.host.replace(/^\[(.*)\]$/, "$1"),
      port: listen.port,
      development: false,
      // said outright: otherwise a second listener of this process takes the port over
      reusePort: options.reusePort ?? false,
      maxRequestBodySize: HARD_BODY_MAX,
      idleTimeout: IDLE_SECONDS,
      ...(tls === "plaintext" ? {} : { tls: tlsOptions(tls) }),
      fetch: (request, server) => respond(request, server, options, state),
      error: () => {
        log.write("error", { event: "request", status: 500, code: "internal" });
        return faultResponse(new Fault("internal", "the server failed"));
      },
    });
  } catch (error) {
    const code = typeof error === "object" && error !== null && "code" in error ? error.code : "";
    const at = `${listen.host}:${listen.port}`;
    if (code === "EADDRINUSE") {
      throw new Fault("conflict", `cannot listen on ${at}: the port is in use`, {
        hint: "--listen HOST:0 picks a free one",
      });
    }
    if (code === "EACCES") throw new Fault("denied", `cannot listen on ${at}: permission denied`);
    throw new Fault("bad_input", `cannot listen on ${at}`, {
      why: "the address is not one of this machine, or the certificate is unusable",
    });
  }
}

function tlsOptions({ certPem, keyPem }: TlsFiles): Bun.TLSOptions {
  const options = { cert: certPem, key: keyPem, minVersion: TLS_1_3 };
  return options;
}

function hostShown({ name, listen }: ServeOptions): string {
  const bare = (name ?? listen.host).replace(/^\[(.*)\]$/, "$1");
  const host = bare === "0.0.0.0" || bare === "::" ? hostname() : bare;
  return isIP(host) === 6 ? `[${host}]` : host;
}

async function drain(server: Bun.Server<undefined>, state: State, drainMs: number, log: ServerLog): Promise<void> {
  state.draining = true;
  log.write("info", { event: "draining", count: state.running });
  const until = performance.now() + drainMs;
  const stopping = server.stop(false);
  // pending until the reply's last byte is handed to the system, which a handler cannot see
  while (server.pendingRequests > 0 && performance.now() < until) await Bun.sleep(DRAIN_POLL_MS);
  const cut = server.pendingRequests;
  await Promise.all([server.stop(true), stopping]);
  log.write("info", { event: "stopped", count: cut });
}

async function respond(
  request: Request,
  server: Bun.Server<undefined>,
  options: ServeOptions,
  state: State,
): Promise<Response> {
  const { log } = options;
  const url = URL.parse(request.url);
  const path = url?.search === "" ? url.pathname : "";
  const host = request.headers.get("host");
  // two Host headers arrive joined by a comma
  if (host === null || host === "" || host.includes(",")) {
    return faultResponse(new Fault("bad_input", "a request names one host"), { close: true });
  }
  if (path === "/healthz" || path === "/readyz") return health(request, path, options, state);

  const wanted = path.startsWith(OPERATION_PATH) ? path.slice(OPERATION_PATH.length) : "";
  const name = isOperation(wanted) ? wanted : undefined;
  const startedAt = performance.now();
  const note = (status: number, code: string) => {
    const ms = performance.now() - startedAt;
    const op = name ?? "unknown";
    log.write(code === "internal" ? "error" : "info", { event: "request", op, status, ms, code });
    options.meter?.request(op, code, ms);
  };
  state.running += 1;
  let leave = (): void => undefined;
  try {
    const address = server.requestIP(request)?.address ?? "";
    leave = state.admission.enter(address);
    if (name === undefined) throw new Fault("not_found", "there is no such operation");
    if (state.draining) throw new Fault("unavailable", "the server is stopping", { retryAfterMs: 1_000 });
    const body = await admit(request, name);
    server.timeout(request, HANDLER_SECONDS);
    const token = operations[name].auth === "token";
    const authorization = token ? request.headers.get("authorization") : null;
    const reply = await options.handle(name, contentTypeOf(name), body, { address, authorization });
    note(reply.status, reply.outcome ?? "ok");
    return response(reply, { close: state.draining, challenge: token && reply.status === 401 });
  } catch (error) {
    const fault = error instanceof Fault ? error : new Fault("internal", "the server failed");
    note(fault.http, fault.code);
    return faultResponse(fault, { close: state.draining || fault.code === "too_large" });
  } finally {
    leave();
    // else the handler's time would stay for whatever comes next on the connection
    server.timeout(request, IDLE_SECONDS);
    state.running -= 1;
    state.answered += 1;
  }
}

function health(request: Request, path: string, { ready }: ServeOptions, state: State): Response {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return faultResponse(new Fault("method_not_allowed", "only GET"), { allow: "GET, HEAD" });
  }
  if (path === "/readyz" && (state.draining || ready?.() === false)) {
    return faultResponse(new Fault("unavailable", "the server is not ready", { retryAfterMs: 1_000 }));
  }
  return response({ status: 200, contentType: JSON_TYPE, body: '{"ok":true}' });
}

/** Lets a well-formed request in and reads its body, at most {@link REQUEST_MAX} bytes. */
async function admit(request: Request, name: OperationName): Promise<Uint8Array> {
  if (request.method !== "POST") throw new Fault("method_not_allowed", "operations are posted");
  const type = (request.headers.get("content-type") ?? "").split(";", 1)[0]?.trim().toLowerCase();
  const expected = contentTypeOf(name);
  if (type !== expected) throw new Fault("unsupported", `the content type of this operation is ${expected}`);
  if ((request.headers.get("content-encoding") ?? "identity") !== "identity") {
    throw new Fault("unsupported", "a request body is not compressed");
  }
  const tooLarge = () => new Fault("too_large", `a request has at most ${REQUEST_MAX} bytes`);
  if (Number(request.headers.get("content-length") ?? 0) > REQUEST_MAX) throw tooLarge();
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    // a body whose length is known needs no counting while it comes, and reading it whole is cheaper
    if (request.headers.has("content-length")) {
      const body = await request.bytes();
      if (body.length > REQUEST_MAX) throw tooLarge();
      return body;
    }
    for await (const part of request.body ?? []) {
      length += part.length;
      if (length > REQUEST_MAX) throw tooLarge();
      parts.push(part);
    }
  } catch (error) {
    throw error instanceof Fault ? error : new Fault("bad_input", "the request's body broke off");
  }
  return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts);
}

interface ResponseNotes {
  readonly close?: boolean;
  readonly allow?: string;
  /** Says how to authenticate (RFC 6750 §3). */
  readonly challenge?: boolean;
}

function response(reply: HandleReply, { close, allow, challenge }: ResponseNotes = {}): Response {
  const headers: Record<string, string> = { ...HEADERS, "content-type": reply.contentType };
  if (close) headers["connection"] = "close";
  if (allow) headers["allow"] = allow;
  if (challenge) headers["www-authenticate"] = "Bearer";
  if (reply.retryAfterMs !== undefined) headers["retry-after"] = String(Math.ceil(reply.retryAfterMs / 1_000));
  return new Response(reply.body as Uint8Array<ArrayBuffer> | string, { status: reply.status, headers });
}

function faultResponse(fault: Fault, notes: ResponseNotes = {}): Response {
  const retryAfterMs = fault.retryAfterMs === undefined ? null : Math.ceil(fault.retryAfterMs);
  const body = encodeJson(errorBody, { code: fault.code, message: fault.message, retryAfterMs });
  const allow = fault.code === "method_not_allowed" ? { allow: notes.allow ?? "POST" } : {};
  const reply = { status: fault.http, contentType: JSON_TYPE, body };
  return response(fault.retryAfterMs === undefined ? reply : { ...reply, retryAfterMs: fault.retryAfterMs }, {
    ...notes,
    ...allow,
  });
}
