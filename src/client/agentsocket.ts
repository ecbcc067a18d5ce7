import { chmodSync, lstatSync, rmSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { connect, listen } from "bun";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { tryFileLock } from "../wire/filelock.ts";
import { libc } from "../wire/libc.ts";
import {
  AGENT_LIMITS,
  type Connection,
  discard,
  endAfterReplies,
  flush,
  makeRoom,
  newConnection,
  send,
  sweep,
  takeLines,
} from "./agentconnection.ts";
import { errorLine, fromAgentJson, readReply, readRequest, requestLine, resultLine } from "./agentmessage.ts";
import { makePrivateDirectory, storageFault } from "./privatefile.ts";

/** Who asks: the process at the other end when it connected, or null where the system does not tell. */
export interface AgentPeer {
  readonly pid: number | null;
  /** Aborted once its connection is closed. */
  readonly gone: AbortSignal;
}

/** Answers one request; params and result are plain data. A rejection with a Fault crosses as it is. */
export type AgentHandler = (method: string, params: unknown, peer: AgentPeer) => Promise<unknown>;

/** What else {@link listenAgent} takes. */
export interface ListenOptions {
  readonly uid?: number;
  readonly sent?: (result: unknown) => void;
  readonly stalledMs?: number;
}

/** A listening agent. */
export interface AgentListener {
  /** Where the socket really is: {@link agentSocketPath} of what was asked for. */
  readonly path: string;
  /** Takes no new requests, answers those under way, removes the socket. Not to be awaited by a handler. */
  stop(): Promise<void>;
}

const SWEEP_MS = 1_000;

/** sun_path holds 104 bytes on macOS, 108 on Linux, with its end mark. */
const PATH_MAX_BYTES = 100;

/**
 * Where a socket of this name is put: the path itself, or if it is too long for the system a name by its hash in
 * `/tmp/keyhold-UID`, a directory that is used only when it is this user's own and 0700.
 */
export function agentSocketPath(path: string): string {
  const whole = resolve(path);
  if (Buffer.byteLength(whole) <= PATH_MAX_BYTES) return whole;
  const name = new Bun.CryptoHasher("sha256").update(whole).digest("hex").slice(0, 32);
  return join(`/tmp/keyhold-${process.geteuid?.() ?? 0}`, `${name}.sock`);
}

/**
 * Serves requests on a Unix socket (0600 in a 0700 directory) to processes of one user. The system's word on the
 * peer's user id is checked where it can be had (Linux, macOS); elsewhere the directory's mode alone protects.
 *
 * @param options.uid Whom to serve; the process's own user by default.
 * @param options.sent Told of each result once it stands in its message: what it held can be wiped.
 * @param options.stalledMs In place of the documented limit.
 * @throws Fault exists when an agent runs already; denied when the directory is not this user's; storage.
 */
export async function listenAgent(
  socketPath: string,
  handler: AgentHandler,
  options: ListenOptions = {},
): Promise<AgentListener> {
  let stopping = false;
  const work: Work = {
    handler: (method, params, peer) => {
      if (stopping) throw new Fault("unavailable", "the agent is stopping");
      return handler(method, params, peer);
    },
    sent: options.sent ?? (() => undefined),
  };
  const listener = await listenPrivately(socketPath, (connection, chunk) => receive(connection, chunk, work), options);
  return {
    path: listener.path,
    stop: () => {
      stopping = true;
      return listener.stop();
    },
  };
}

/**
 * Listens as {@link listenAgent} does, for messages of any form.
 *
 * @param take Gets what arrives; whole messages are worked on in `connection.active` and answered by `send`.
 * @throws Fault as {@link listenAgent}
 */
export async function listenPrivately(
  socketPath: string,
  take: (connection: Connection, chunk: Uint8Array) => void,
  options: Omit<ListenOptions, "sent"> = {},
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
  const sweeper = setInterval(() => sweep(connections, options.stalledMs), SWEEP_MS);
  sweeper.unref();
  try {
    removeStale(path);
    const listener = listen<Connection | undefined>({
      unix: path,
      socket: {
        open: (socket) => {
          if (stopping || !mayAsk(socket, uid) || !makeRoom(connections)) {
            socket.terminate();
            return;
          }
          socket.data = newConnection(socket);
          connections.add(socket.data);
        },
        data: (socket, chunk) => {
          if (!socket.data) return;
          take(socket.data, chunk);
          if (socket.data.received > 0) sweep(connections, options.stalledMs);
        },
        drain: (socket) => {
          if (socket.data) flush(socket.data);
        },
        close: (socket) => {
          if (!socket.data) return;
          socket.data.closed = true;
          socket.data.gone.abort();
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
        clearInterval(sweeper);
        listener.stop();
        rmSync(path, { force: true });
        const busy = [...connections].flatMap((connection) => [...connection.active]);
        await Promise.allSettled(busy);
        for (const connection of connections) endAfterReplies(connection);
        lock.release();
      },
    };
  } catch (error) {
    clearInterval(sweeper);
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
    const hint = `if it hangs: kill -9 ${connection?.pid ?? "its process"}, then keyhold unlock`;
    answer.reject(new Fault("timed_out", "the agent did not answer in time", { hint }));
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

interface Work {
  readonly handler: AgentHandler;
  readonly sent: (result: unknown) => void;
}

function receive(connection: Connection, chunk: Uint8Array, work: Work): void {
  if (connection.ending) return;
  const { lines, tooLong } = takeLines(connection, chunk);
  for (const [i, line] of lines.entries()) {
    if (connection.active.size >= AGENT_LIMITS.requests) {
      for (const unread of lines.slice(i)) wipe(unread);
      send(connection, errorLine(null, new Fault("rate_limited", "too many requests at once on one connection")));
      endAfterReplies(connection);
      return;
    }
    const answering = answerLine(line, work, { pid: connection.pid, gone: connection.gone.signal }).then((reply) => {
      connection.active.delete(answering);
      send(connection, reply);
    });
    connection.active.add(answering);
  }
  if (tooLong) {
    send(connection, errorLine(null, new Fault("too_large", "the message exceeds 8 MiB")));
    endAfterReplies(connection);
  }
}

async function answerLine(line: Uint8Array, work: Work, peer: AgentPeer): Promise<Uint8Array> {
  let id: string | number | null = null;
  try {
    const request = readRequest(line);
    id = request.id;
    const result = await work.handler(request.method, fromAgentJson(request.params), peer);
    try {
      return resultLine(id, result);
    } finally {
      work.sent(result);
    }
  } catch (error) {
    return errorLine(id, error);
  } finally {
    wipe(line);
  }
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
