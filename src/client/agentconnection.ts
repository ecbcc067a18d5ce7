import type { Socket } from "bun";
import { wipe } from "../crypto/bytes.ts";
import { libc } from "../wire/libc.ts";
import { AGENT_MESSAGE_MAX_BYTES } from "./agentmessage.ts";

/** What keeps one local process from taking the agent away from the others (docs/agent.md). */
export const AGENT_LIMITS = {
  connections: 128,
  /** Requests under way on one connection. */
  requests: 64,
  /** Bytes that all connections together hold: unfinished messages and answers that nobody fetches. */
  heldBytes: 64 * 1_024 * 1_024,
  /** A message that is not whole, or an answer that is not fetched, for so long ends its connection. */
  stalledMs: 30_000,
} as const;

/** One end of a connection: what arrived without its newline, and what waits to be written. */
export interface Connection {
  readonly socket: Socket<Connection | undefined>;
  /** The process at the other end when it connected, or null. */
  readonly pid: number | null;
  /** Aborted once it is closed. */
  readonly gone: AbortController;
  readonly active: Set<Promise<void>>;
  /** An unfinished message: `received` bytes of it. */
  buffer: Uint8Array;
  received: number;
  queue: Uint8Array[];
  queuedBytes: number;
  /** Bytes of the queue's first element that were written. */
  written: number;
  /** Monotonic milliseconds: when something last went through, or began to wait. */
  movedAtMs: number;
  ending: boolean;
  closed: boolean;
}

const EMPTY = new Uint8Array(0);
const nowMs = (): number => Bun.nanoseconds() / 1e6;

/** An open connection without anything in it. */
export function newConnection(socket: Socket<Connection | undefined>): Connection {
  const fd: unknown = Reflect.get(socket, "fd");
  return {
    socket,
    pid: (typeof fd === "number" && fd >= 0 ? libc()?.peerPid(fd) : undefined) ?? null,
    gone: new AbortController(),
    active: new Set(),
    buffer: EMPTY,
    received: 0,
    queue: [],
    queuedBytes: 0,
    written: 0,
    movedAtMs: nowMs(),
    ending: false,
    closed: false,
  };
}

/** Overwrites what a connection holds. */
export function discard(connection: Connection): void {
  wipe(connection.buffer, ...connection.queue);
  connection.buffer = EMPTY;
  connection.received = 0;
  connection.queue = [];
  connection.queuedBytes = 0;
}

/** Whole lines (copies, without newline) that a chunk completes; a too long one ends the taking. Wipes the chunk. */
export function takeLines(connection: Connection, chunk: Uint8Array): { lines: Uint8Array[]; tooLong: boolean } {
  const lines: Uint8Array[] = [];
  try {
    for (let from = 0; ; ) {
      const newline = chunk.indexOf(0x0a, from);
      const part = chunk.subarray(from, newline < 0 ? undefined : newline);
      if (connection.received + part.length >= AGENT_MESSAGE_MAX_BYTES) {
        wipe(connection.buffer);
        connection.buffer = EMPTY;
        connection.received = 0;
        return { lines, tooLong: true };
      }
      if (connection.received === 0) connection.movedAtMs = nowMs();
      append(connection, part);
      if (newline < 0) return { lines, tooLong: false };
      lines.push(connection.buffer.slice(0, connection.received));
      wipe(connection.buffer);
      connection.received = 0;
      if (connection.buffer.length > KEPT_BYTES) connection.buffer = EMPTY;
      from = newline + 1;
    }
  } finally {
    wipe(chunk);
  }
}

/** A buffer up to this size stays for the next message. */
const KEPT_BYTES = 65_536;

/** Puts a part of a message behind what has arrived of it; the caller sees to it that it stays below `maxBytes`. */
export function append(connection: Connection, part: Uint8Array, maxBytes: number = AGENT_MESSAGE_MAX_BYTES): void {
  const needed = connection.received + part.length;
  if (needed > connection.buffer.length) {
    const size = Math.min(maxBytes, Math.max(needed, 2 * connection.buffer.length, 256));
    const larger = new Uint8Array(size);
    larger.set(connection.buffer.subarray(0, connection.received));
    wipe(connection.buffer);
    connection.buffer = larger;
  }
  connection.buffer.set(part, connection.received);
  connection.received = needed;
}

/** Takes `bytes` over and wipes them once they are written. */
export function send(connection: Connection, bytes: Uint8Array): void {
  if (connection.closed) {
    wipe(bytes);
    return;
  }
  if (connection.queue.length === 0) connection.movedAtMs = nowMs();
  connection.queue.push(bytes);
  connection.queuedBytes += bytes.length;
  flush(connection);
}

/** Writes what the socket takes. */
export function flush(connection: Connection): void {
  for (let bytes = connection.queue[0]; bytes; bytes = connection.queue[0]) {
    const sent = connection.socket.write(bytes.subarray(connection.written));
    if (sent < 0) return;
    if (sent > 0) connection.movedAtMs = nowMs();
    connection.written += sent;
    if (connection.written < bytes.length) return;
    wipe(bytes);
    connection.queue.shift();
    connection.queuedBytes -= bytes.length;
    connection.written = 0;
  }
  if (connection.ending && connection.active.size === 0) connection.socket.end();
}

/** Closes once everything under way is answered. */
export function endAfterReplies(connection: Connection): void {
  connection.ending = true;
  flush(connection);
}

const held = (connection: Connection): number => connection.buffer.length + connection.queuedBytes;

/** Ends connections that stalled, and the largest ones while all together hold too much. */
export function sweep(connections: ReadonlySet<Connection>, stalledMs: number = AGENT_LIMITS.stalledMs): void {
  const before = nowMs() - stalledMs;
  let total = 0;
  for (const connection of connections) {
    const waits = connection.received > 0 || connection.queue.length > 0;
    if (waits && connection.movedAtMs <= before) connection.socket.terminate();
    else total += held(connection);
  }
  if (total <= AGENT_LIMITS.heldBytes) return;
  for (const connection of [...connections].sort((a, b) => held(b) - held(a))) {
    if (total <= AGENT_LIMITS.heldBytes) return;
    total -= held(connection);
    connection.socket.terminate();
  }
}

/**
 * Makes room for one more connection: of the process that has the most, the one that has been idle for longest ends.
 *
 * @returns False when all of them are busy.
 */
export function makeRoom(connections: ReadonlySet<Connection>): boolean {
  if (connections.size < AGENT_LIMITS.connections) return true;
  const byProcess = Map.groupBy(connections, ({ pid }) => pid);
  const idle = [...byProcess.values()]
    .sort((a, b) => b.length - a.length)
    .map((group) => group.filter(({ active }) => active.size === 0))
    .find((group) => group.length > 0);
  const [oldest] = (idle ?? []).sort((a, b) => a.movedAtMs - b.movedAtMs);
  oldest?.socket.terminate();
  return oldest !== undefined;
}
