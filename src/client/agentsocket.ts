import { chmodSync, lstatSync, rmSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { connect, listen, type Socket } from "bun";
import { concat, wipe } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { tryFileLock } from "../wire/filelock.ts";
import { libc } from "../wire/libc.ts";
import { AGENT_MESSAGE_MAX_BYTES, errorLine, readReply, readRequest, requestLine, resultLine } from "./agentmessage.ts";
import { makePrivateDirectory, storageFault } from "./privatefile.ts";

/** Answers one request; params and result are plain data. A rejection with a Fault crosses as it is. */
export type AgentHandler = (method: string, params: unknown) => Promise<unknown>;

/** A listening agent. */
export interface AgentListener {
  /** Where the socket really is: {@link agentSocketPath} of what was asked for. */
  readonly path: string;
  /** Takes no new requests, answers those under way, removes the socket. Not to be awaited by a handler. */
  stop(): Promise<void>;
}

/** sun_path holds 104 bytes on macOS, 108 on Linux, with its end mark. */
const PATH_MAX_BYTES = 100;

/**
 * Where a socket of this name is put: the path itself, or if it is too long for the system a name by its hash in
 * `/tmp/keyhold-UID`, a directory that is used only when it is this user's own and 0700.
 */
export function agentSocketPath(path: string): string {
  const whole = resolve(path);
  if (Buffer.byteLength(whole) <= PATH_MAX_BYTES) return whole;
  const name = sha256(new TextEncoder().encode(whole)).subarray(0, 16).toHex();
  return join(`/tmp/keyhold-${process.geteuid?.() ?? 0}`, `${name}.sock`);
}

/**
 * Serves requests on a Unix socket (0600 in a 0700 directory) to processes of one user. The system's word on the
 * peer's user id is checked where it can be had (Linux, macOS); elsewhere the directory's mode alone protects.
 *
 * @param options.uid Whom to serve; the process's own user by default.
 * @throws Fault exists when an agent runs already; denied when the directory is not this user's; storage.
 */
export async function listenAgent(
  socketPath: string,
  handler: AgentHandler,
  options: { readonly uid?: number } = {},
): Promise<AgentListener> {
  const path = agentSocketPath(socketPath);
  const uid = options.uid ?? process.geteuid?.();
  makePrivateDirectory(dirname(path));
  const lock = tryFileLock(`${path}.lock`);
  if (!lock || (await answers(path))) {
    lock?.release();
    throw new Fault("exists", "an agent is running already");
  }
  const connections = new Set<Connection>();
  let stopping = false;
  try {
    removeStale(path);
    const listener = listen<Connection | undefined>({
      unix: path,
      socket: {
        open: (socket) => {
          if (stopping || !mayAsk(socket, uid)) {
            socket.terminate();
            return;
          }
          socket.data = newConnection(socket);
          connections.add(socket.data);
        },
        data: (socket, chunk) => {
          if (socket.data) receive(socket.data, chunk, handler, () => stopping);
        },
        drain: (socket) => {
          if (socket.data) flush(socket.data);
        },
        close: (socket) => {
          if (!socket.data) return;
          socket.data.closed = true;
          connections.delete(socket.data);
          discard(socket.data);
        },
        error: (socket) => socket.terminate(),
      },
    });
    chmodSync(path, 0o600);
    return {
      path,
      stop: async () => {
        if (stopping) return;
        stopping = true;
        listener.stop();
        rmSync(path, { force: true });
        const busy = [...connections].flatMap((connection) => [...connection.active]);
        await Promise.allSettled(busy);
        for (const connection of connections) endAfterReplies(connection);
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw storageFault("cannot listen for the agent", error);
  }
}

/**
 * Asks the agent.
 *
 * @param options.timeoutMs For connection and answer together.
 * @returns The result (null for none), or undefined when no agent of this user listens.
 * @throws Fault of the agent as it was; timed_out; outcome_unknown when it went away before it answered;
 * unavailable for an answer that is none; too_large.
 */
export async function callAgent(
  socketPath: string,
  method: string,
  params: unknown,
  options: { readonly timeoutMs: number },
): Promise<unknown> {
  const path = agentSocketPath(socketPath);
  if (!ownDirectory(dirname(path))) return undefined;
  const message = requestLine(1, method, params);
  const answer = Promise.withResolvers<Uint8Array>();
  // awaited below at the latest; until then a failure must not count as unhandled
  answer.promise.catch(() => undefined);
  let connection: Connection | undefined;
  const timer = setTimeout(() => {
    answer.reject(new Fault("timed_out", "the agent did not answer in time"));
    connection?.socket.terminate();
  }, options.timeoutMs);
  try {
    const socket = await connect<Connection | undefined>({
      unix: path,
      socket: {
        open: (opened) => {
          connection = newConnection(opened);
          opened.data = connection;
        },
        data: (open, chunk) => {
          if (!open.data) return;
          const taken = takeLines(open.data, chunk);
          if (taken.lines[0]) answer.resolve(taken.lines[0]);
          else if (taken.tooLong) answer.reject(new Fault("unavailable", "the agent's answer exceeds 8 MiB"));
        },
        drain: (open) => {
          if (open.data) flush(open.data);
        },
        close: () => answer.reject(new Fault("outcome_unknown", "the agent went away before it answered")),
        error: () => answer.reject(new Fault("outcome_unknown", "the connection to the agent failed")),
        connectError: () => undefined,
      },
    }).catch(() => undefined);
    if (!socket) return undefined;
    if (!connection || !mayAsk(socket, process.geteuid?.())) {
      socket.terminate();
      return undefined;
    }
    send(connection, message);
    const line = await answer.promise;
    try {
      return readReply(1, line) ?? null;
    } finally {
      wipe(line);
      socket.terminate();
    }
  } finally {
    clearTimeout(timer);
    wipe(message);
    if (connection) discard(connection);
  }
}

/** One end of a connection: what arrived without its newline, and what waits to be written. */
interface Connection {
  readonly socket: Socket<Connection | undefined>;
  readonly active: Set<Promise<void>>;
  parts: Uint8Array[];
  partBytes: number;
  queue: Uint8Array[];
  /** Bytes of the queue's first element that were written. */
  written: number;
  ending: boolean;
  closed: boolean;
}

function newConnection(socket: Socket<Connection | undefined>): Connection {
  return { socket, active: new Set(), parts: [], partBytes: 0, queue: [], written: 0, ending: false, closed: false };
}

function discard(connection: Connection): void {
  wipe(...connection.parts, ...connection.queue);
  connection.parts = [];
  connection.queue = [];
}

function receive(connection: Connection, chunk: Uint8Array, handler: AgentHandler, stopping: () => boolean): void {
  if (connection.ending) return;
  const { lines, tooLong } = takeLines(connection, chunk);
  for (const line of lines) {
    const work = answerLine(line, handler, stopping).then((reply) => {
      connection.active.delete(work);
      send(connection, reply);
    });
    connection.active.add(work);
  }
  if (tooLong) {
    send(connection, errorLine(null, new Fault("too_large", "the message exceeds 8 MiB")));
    endAfterReplies(connection);
  }
}

async function answerLine(line: Uint8Array, handler: AgentHandler, stopping: () => boolean): Promise<Uint8Array> {
  let id: string | number | null = null;
  try {
    const request = readRequest(line);
    id = request.id;
    if (stopping()) throw new Fault("unavailable", "the agent is stopping");
    return resultLine(id, await handler(request.method, request.params));
  } catch (error) {
    return errorLine(id, error);
  } finally {
    wipe(line);
  }
}

/** Whole lines (copies, without newline) that a chunk completes; a too long one ends the taking. */
function takeLines(connection: Connection, chunk: Uint8Array): { lines: Uint8Array[]; tooLong: boolean } {
  const lines: Uint8Array[] = [];
  let from = 0;
  for (;;) {
    const newline = chunk.indexOf(0x0a, from);
    const part = chunk.slice(from, newline < 0 ? undefined : newline);
    connection.parts.push(part);
    connection.partBytes += part.length;
    const tooLong = connection.partBytes >= AGENT_MESSAGE_MAX_BYTES;
    if (newline >= 0 && !tooLong) lines.push(concat(...connection.parts));
    if (newline >= 0 || tooLong) {
      wipe(...connection.parts);
      connection.parts = [];
      connection.partBytes = 0;
    }
    if (newline < 0 || tooLong) return { lines, tooLong };
    from = newline + 1;
  }
}

/** Takes `bytes` over and wipes them once they are written. */
function send(connection: Connection, bytes: Uint8Array): void {
  if (connection.closed) {
    wipe(bytes);
    return;
  }
  connection.queue.push(bytes);
  flush(connection);
}

function flush(connection: Connection): void {
  for (let bytes = connection.queue[0]; bytes; bytes = connection.queue[0]) {
    const sent = connection.socket.write(bytes.subarray(connection.written));
    if (sent < 0) return;
    connection.written += sent;
    if (connection.written < bytes.length) return;
    wipe(bytes);
    connection.queue.shift();
    connection.written = 0;
  }
  if (connection.ending && connection.active.size === 0) connection.socket.end();
}

function endAfterReplies(connection: Connection): void {
  connection.ending = true;
  flush(connection);
}

/** The runtime shows the descriptor of a socket without documenting it: where it does not, the directory protects. */
function mayAsk(socket: object, uid: number | undefined): boolean {
  const fd: unknown = Reflect.get(socket, "fd");
  const peer = typeof fd === "number" && fd >= 0 ? libc()?.peerUid(fd) : undefined;
  return peer === undefined || uid === undefined || peer === uid;
}

/** A stranger's directory could hold a stranger's socket. */
function ownDirectory(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat?.isDirectory() === true && stat.uid === process.geteuid?.() && (stat.mode & 0o077) === 0;
}

async function answers(path: string): Promise<boolean> {
  const socket = await connect({ unix: path, socket: { data: () => undefined, connectError: () => undefined } }).catch(
    () => undefined,
  );
  socket?.terminate();
  return socket !== undefined;
}

function removeStale(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (!stat) return;
  if (!stat.isSocket()) {
    throw new Fault("denied", `cannot listen at "${path}": something that is no socket is in the way`);
  }
  rmSync(path, { force: true });
}
