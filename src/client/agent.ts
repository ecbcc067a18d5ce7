import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { callAgent, listenAgent } from "./agentsocket.ts";
import type { Got, KeyholdClient } from "./api.ts";

/** Methods of the client API that the agent serves; `close` ends a caller's use, not the agent. */
const METHODS = [
  "generate",
  "store",
  "get",
  "getMany",
  "list",
  "history",
  "restore",
  "rename",
  "tag",
  "remove",
  "importItems",
  "auditList",
  "auditVerify",
  "auditExport",
  "sessions",
  "closeSession",
  "devices",
  "linkDevice",
  "sync",
  "status",
] as const satisfies readonly (keyof KeyholdClient)[];
type Method = (typeof METHODS)[number];

/** Where the agent of a profile listens. */
export function agentSocket(runtime: string, profile: string): string {
  return join(runtime, `agent-${profile}.sock`);
}

/** What a running agent says of itself. */
export interface AgentFacts {
  readonly pid: number;
  readonly profile: string;
  readonly startedAt: string;
  /** When it locks if nothing is asked of it until then. */
  readonly locksAt: string;
  readonly endsAt: string;
}

/** What an agent holds. */
export interface AgentInput {
  readonly socket: string;
  readonly profile: string;
  readonly client: KeyholdClient;
  /** A path whose vanishing ends the agent: the vault. */
  readonly home: string;
  readonly now: () => number;
  readonly idleMs?: number;
  readonly absoluteMs?: number;
  /** Notices of the work that a call did, handed to its caller. */
  readonly takeNotices: () => readonly string[];
}

const WATCH_MS = 1_000;

/**
 * Serves an open client to this user's processes until it is locked, idle for too long, or its home vanishes.
 *
 * @returns A promise that ends with the agent.
 * @throws Fault exists when another agent serves the profile
 */
export async function runAgent(input: AgentInput): Promise<{ readonly ended: Promise<void> }> {
  const { client, now, profile } = input;
  const idleMs = input.idleMs ?? DEFAULTS.agentIdleMs;
  const startedAt = now();
  const endsAt = startedAt + (input.absoluteMs ?? DEFAULTS.agentAbsoluteMs);
  let usedAt = now();
  const done = Promise.withResolvers<void>();
  const facts = (): AgentFacts => ({
    pid: process.pid,
    profile,
    startedAt: new Date(startedAt).toISOString(),
    locksAt: new Date(Math.min(usedAt + idleMs, endsAt)).toISOString(),
    endsAt: new Date(endsAt).toISOString(),
  });
  const listener = await listenAgent(input.socket, async (method, params) => {
    if (method === "agent.status") return facts();
    if (method === "agent.lock") {
      setImmediate(() => done.resolve());
      return facts();
    }
    if (!METHODS.some((name) => name === method)) throw new Fault("unsupported", "the agent has no such method");
    usedAt = now();
    const run = client[method as Method] as (input: unknown) => Promise<unknown>;
    const value = await run(params);
    usedAt = now();
    return { value, notices: [...input.takeNotices()] };
  });
  const timer = setInterval(() => {
    const over = now() >= endsAt || now() >= usedAt + idleMs;
    if (over || !existsSync(input.home) || !existsSync(dirname(input.socket))) done.resolve();
  }, WATCH_MS);
  const ended = done.promise.then(async () => {
    clearInterval(timer);
    await listener.stop();
    await closeSession(client);
    // what close writes would make a home again that was deleted; the keys go with the process
    if (existsSync(input.home)) await client.close();
  });
  return { ended };
}

const CLOSE_MS = 2_000;

/** A locked session is of no use to anybody; a server that is away forgets it after the idle time. */
async function closeSession(client: KeyholdClient): Promise<void> {
  const closing = client.closeSession({ sessionId: null, all: false }).catch((error: unknown) => {
    if (!(error instanceof Fault)) throw error;
  });
  await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, CLOSE_MS))]);
}

const CALL_MS = 120_000;
/** Of the largest values, fewer than one message holds. */
const GET_BATCH = 64;

/** Asks an agent about itself; `undefined` when none runs, or when it ended meanwhile. */
export async function agentFacts(socket: string): Promise<AgentFacts | undefined> {
  try {
    return (await callAgent(socket, "agent.status", null, { timeoutMs: 2_000 })) as AgentFacts | undefined;
  } catch (error) {
    if (error instanceof Fault && error.code === "outcome_unknown") return undefined;
    throw error;
  }
}

/** Locks: the agent forgets everything and ends. False when none ran. */
export async function lockAgent(socket: string): Promise<boolean> {
  return (await callAgent(socket, "agent.lock", null, { timeoutMs: 5_000 })) !== undefined;
}

const REPLACE_MS = 10_000;
const REPLACE_POLL_MS = 20;

/** Like {@link runAgent}, in the place of an agent that runs already: that one is locked first. */
export async function replaceAgent(input: AgentInput): Promise<{ readonly ended: Promise<void> }> {
  const giveUpAt = input.now() + REPLACE_MS;
  for (;;) {
    await lockAgent(input.socket);
    try {
      return await runAgent(input);
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "exists" || input.now() >= giveUpAt) throw error;
      await new Promise((resolve) => setTimeout(resolve, REPLACE_POLL_MS));
    }
  }
}

/** The client API through a running agent; every call fails with `locked` once it has ended. */
export function agentClient(socket: string, notice: (text: string) => void): KeyholdClient {
  const forward =
    (method: Method) =>
    async (params?: unknown): Promise<unknown> => {
      const answer = (await callAgent(socket, method, params ?? null, { timeoutMs: CALL_MS })) as
        | { value: unknown; notices: readonly string[] }
        | undefined;
      if (answer === undefined) throw new Fault("locked", "the vault is locked", { why: "the agent has ended" });
      for (const text of answer.notices) notice(text);
      return answer.value;
    };
  const methods = Object.fromEntries(METHODS.map((method) => [method, forward(method)]));
  const client = { ...methods, close: async () => undefined } as unknown as KeyholdClient;
  return {
    ...client,
    async getMany(input) {
      const all: Got[] = [];
      try {
        for (let at = 0; at < input.refs.length; at += GET_BATCH) {
          all.push(...(await client.getMany({ ...input, refs: input.refs.slice(at, at + GET_BATCH) })));
        }
        return all;
      } catch (error) {
        for (const { value } of all) wipe(value ?? undefined);
        throw error;
      }
    },
  };
}
