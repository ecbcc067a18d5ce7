import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { VERSION } from "../version.ts";
import { type AgentFacts, type AgentHello, lockAgent } from "./agent.ts";
import { AGENT_API, agentMethods, readCall, readNothing } from "./agentapi.ts";
import { type AgentClock, type AgentEnd, agentTimer, systemClock } from "./agentclock.ts";
import { type ConfirmPolicy, confirmer, NO_CONFIRM } from "./agentconfirm.ts";
import { type AgentPeer, listenAgent } from "./agentsocket.ts";
import type { KeyholdClient } from "./api.ts";

/** What an agent holds. */
export interface AgentInput {
  readonly socket: string;
  readonly profile: string;
  readonly client: KeyholdClient;
  /** A path whose vanishing ends the agent: the vault. */
  readonly home: string;
  /** Notices of the work that a call did, handed to its caller. */
  readonly takeNotices: () => readonly string[];
  readonly clock?: AgentClock;
  /** 0: it does not end by being idle. */
  readonly idleMs?: number;
  readonly absoluteMs?: number;
  readonly lockOnSuspend?: boolean;
  readonly confirm?: ConfirmPolicy;
  /** Version of keyhold that it says it is. */
  readonly version?: string;
}

/** An agent that runs. */
export interface RunningAgent {
  /** Ends with it. */
  readonly ended: Promise<void>;
}

const WATCH_MS = 1_000;

const ENDED: Readonly<Record<AgentEnd, string>> = {
  idle: "nobody used it for too long",
  absolute: "its time is over",
  suspend: "the computer was asleep",
};

/**
 * Serves an open client to this user's processes until it is locked, idle for too long, its time is over, the system
 * slept, or its home vanishes.
 *
 * @throws Fault exists when another agent serves the profile
 */
export async function runAgent(input: AgentInput): Promise<RunningAgent> {
  const { client, profile, lockOnSuspend = true, confirm = NO_CONFIRM, version = VERSION } = input;
  const idleMs = input.idleMs ?? DEFAULTS.agentIdleMs;
  const absoluteMs = input.absoluteMs ?? DEFAULTS.agentAbsoluteMs;
  const timer = agentTimer(input.clock ?? systemClock(), { idleMs, absoluteMs, lockOnSuspend });
  const ending = new AbortController();
  const done = Promise.withResolvers<void>();
  const confirmed = confirmer(confirm, knownTo(client));
  let calls = 0;

  const end = (): void => {
    ending.abort();
    done.resolve();
  };
  const hello = (): AgentHello => ({ api: AGENT_API, version, methods: agentMethods() });
  const facts = (): AgentFacts => {
    const { locksAtMs, endsAtMs } = timer.ends();
    return {
      pid: process.pid,
      profile,
      version,
      api: AGENT_API,
      startedAt: new Date(timer.startedAtMs).toISOString(),
      locksAt: new Date(locksAtMs).toISOString(),
      endsAt: new Date(endsAtMs).toISOString(),
      idleMs,
      lockOnSuspend,
      confirm: { patterns: confirm.patterns, program: confirm.ask !== null },
      calls,
    };
  };
  /** Nothing is answered by an agent whose time is over, though nobody has ended it yet. */
  const stillOpen = (): void => {
    const why = timer.over();
    if (why === null && !ending.signal.aborted) return;
    end();
    throw new Fault("locked", "the vault is locked", { why: why === null ? "the agent has ended" : ENDED[why] });
  };

  async function serve(method: string, given: unknown, { pid, gone }: AgentPeer): Promise<unknown> {
    if (method === "agent.lock") {
      readNothing(given);
      const last = facts();
      setImmediate(end);
      return last;
    }
    stillOpen();
    if (method === "agent.hello" || method === "agent.status") {
      readNothing(given);
      return method === "agent.hello" ? hello() : facts();
    }
    const call = readCall(method, given);
    if (call.use) timer.touch();
    await confirmed(call.method, call.touched, pid, AbortSignal.any([ending.signal, gone]));
    stillOpen();
    const run = client[call.method] as (input: unknown) => Promise<unknown>;
    const value = await run(call.input);
    if (timer.over() === "suspend") {
      wipeValues(value);
      stillOpen();
    }
    if (call.use) {
      timer.touch();
      calls++;
    }
    return { value, notices: [...input.takeNotices()] };
  }

  const listener = await listenAgent(input.socket, serve, {
    sent: (result) => wipeValues((result as { value?: unknown } | null)?.value),
  });
  const watch = setInterval(() => {
    if (timer.over() !== null || !existsSync(input.home) || !existsSync(dirname(input.socket))) end();
  }, WATCH_MS);
  const ended = done.promise.then(async () => {
    clearInterval(watch);
    await listener.stop();
    await closeSession(client);
    // what close writes would make a home again that was deleted; the keys go with the process
    if (existsSync(input.home)) await client.close();
  });
  return { ended };
}

/** Names with key ids, from the server or the vault. */
function knownTo(client: KeyholdClient): () => Promise<readonly { name: string; keyId: string }[]> {
  return async () => (await client.list({ prefix: null, search: null, tag: null, fresh: false })).items;
}

/** Overwrites the secret bytes of a result; everything else may still be the client's own. */
function wipeValues(result: unknown): void {
  for (const one of Array.isArray(result) ? result : [result]) {
    if (typeof one !== "object" || one === null) continue;
    for (const name of ["value", "fileKey"]) {
      const bytes: unknown = Reflect.get(one, name);
      if (bytes instanceof Uint8Array) wipe(bytes);
    }
  }
}

const CLOSE_MS = 2_000;

/** A locked session is of no use to anybody; a server that is away forgets it after the idle time. */
async function closeSession(client: KeyholdClient): Promise<void> {
  const closing = client.closeSession({ sessionId: null, all: false }).catch((error: unknown) => {
    if (!(error instanceof Fault)) throw error;
  });
  await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, CLOSE_MS))]);
}

const REPLACE_MS = 10_000;
const REPLACE_POLL_MS = 20;

/** Like {@link runAgent}, in the place of an agent that runs already: that one is locked first. */
export async function replaceAgent(input: AgentInput): Promise<RunningAgent> {
  const giveUpAt = performance.now() + REPLACE_MS;
  for (;;) {
    await lockAgent(input.socket);
    try {
      return await runAgent(input);
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "exists" || performance.now() >= giveUpAt) throw error;
      await new Promise((resolve) => setTimeout(resolve, REPLACE_POLL_MS));
    }
  }
}
