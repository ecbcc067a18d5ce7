import { existsSync } from "node:fs";
import { connect } from "bun";
import type { Confirmer } from "../../client/agentconfirm.ts";
import { type Connection, send } from "../../client/agentconnection.ts";
import { listenPrivately } from "../../client/agentsocket.ts";
import { Fault } from "../../errors.ts";
import { libc } from "../../wire/libc.ts";
import type { SshKeys } from "./keys.ts";
import { readSshRequest, sshFailure, sshIdentities, sshSigned, sshSuccess, takeSshMessages } from "./protocol.ts";

/** What an SSH agent serves. */
export interface SshAgentInput {
  readonly socket: string;
  readonly keys: SshKeys;
  /** Asks the owner before a use. */
  readonly confirmed: Confirmer;
  /** Refuses what comes through a connection that ssh forwarded to another machine. */
  readonly refuseForwarded: boolean;
  /** Told why something was refused, in one line. */
  readonly notice: (text: string) => void;
}

/** An SSH agent that runs. */
export interface RunningSshAgent {
  /** Where the socket really is. */
  readonly path: string;
  /** Ends when the socket vanishes. */
  readonly gone: Promise<void>;
  stop(): Promise<void>;
}

/** Messages of one connection that wait; ssh itself waits for each answer. */
const WAITING_MAX = 4;
const WATCH_MS = 1_000;

interface Line {
  tail: Promise<void>;
  waiting: number;
  forwarded: boolean;
}

/**
 * Serves keys to ssh on a Unix socket, for this user's processes alone (draft-ietf-sshm-ssh-agent). Messages of one
 * connection are answered in their order; a question to the owner keeps no other connection waiting.
 *
 * @throws Fault exists when an agent listens there; denied; storage
 */
export async function serveSsh(input: SshAgentInput): Promise<RunningSshAgent> {
  const lines = new WeakMap<Connection, Line>();
  const ending = new AbortController();

  async function answer(connection: Connection, line: Line, message: Uint8Array): Promise<Uint8Array> {
    const { keys, confirmed, notice } = input;
    const request = readSshRequest(message);
    switch (request.kind) {
      case "list":
        try {
          return sshIdentities((await keys.list()).map(({ blob, name }) => ({ blob, comment: name })));
        } catch (error) {
          // as OpenSSH's own agent while it is locked: ssh goes on to another way to log in
          notice(`no keys are offered: ${reason(error)}`);
          return sshIdentities([]);
        }
      case "sign":
        try {
          if (line.forwarded && input.refuseForwarded) throw new Fault("denied", "it comes from another machine");
          const key = await keys.find(request.blob);
          if (key === null) throw new Fault("not_found", "this key is not offered");
          const method = line.forwarded ? "ssh-sign-forwarded" : "ssh-sign";
          const signal = AbortSignal.any([ending.signal, connection.gone.signal]);
          await confirmed(method, [key.name], connection.pid, signal);
          return sshSigned(await keys.sign(key, request.data, request.flags));
        } catch (error) {
          notice(`a signature is refused: ${reason(error)}`);
          return sshFailure();
        }
      case "bind":
        line.forwarded ||= request.forwarded;
        return sshSuccess();
      case "other":
        return sshFailure();
      default:
        return request satisfies never;
    }
  }

  function take(connection: Connection, chunk: Uint8Array): void {
    const line = lines.get(connection) ?? { tail: Promise.resolve(), waiting: 0, forwarded: false };
    lines.set(connection, line);
    const { messages, broken } = takeSshMessages(connection, chunk);
    for (const message of messages) {
      if (line.waiting >= WAITING_MAX) {
        connection.socket.terminate();
        return;
      }
      line.waiting++;
      const working = line.tail
        .then(() => answer(connection, line, message))
        .then(
          (reply) => send(connection, reply),
          (error: unknown) => {
            input.notice(`a request failed: ${reason(error)}`);
            connection.socket.terminate();
          },
        )
        .finally(() => {
          line.waiting--;
          connection.active.delete(working);
        });
      line.tail = working;
      connection.active.add(working);
    }
    if (broken) connection.socket.terminate();
  }

  const listener = await listenPrivately(input.socket, take);
  const gone = Promise.withResolvers<void>();
  const watch = setInterval(() => {
    if (!existsSync(listener.path)) gone.resolve();
  }, WATCH_MS);
  return {
    path: listener.path,
    gone: gone.promise,
    stop: async () => {
      clearInterval(watch);
      ending.abort();
      await listener.stop();
    },
  };
}

const reason = (error: unknown): string => (error instanceof Fault ? error.message : "unexpected failure");

/** Whether something listens at a socket, and which process that is. */
export async function sshAgentAt(path: string): Promise<{ readonly pid: number | null } | null> {
  const socket = await connect({ unix: path, socket: { data: () => undefined, connectError: () => undefined } }).catch(
    () => undefined,
  );
  if (!socket) return null;
  const fd: unknown = Reflect.get(socket, "fd");
  const pid = typeof fd === "number" && fd >= 0 ? libc()?.peerPid(fd) : undefined;
  socket.terminate();
  return { pid: pid ?? null };
}
