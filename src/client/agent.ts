import { join } from "node:path";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { AGENT_API, AGENT_METHODS, type AgentMethod, PARAMS_REFUSED } from "./agentapi.ts";
import type { Params } from "./agentparams.ts";
import { callAgent } from "./agentsocket.ts";
import type { Got, KeyholdClient } from "./api.ts";

/** Where the agent of a profile listens. */
export function agentSocket(runtime: string, profile: string): string {
  return join(runtime, `agent-${profile}.sock`);
}

/** What a running agent is: `agent.hello`. */
export interface AgentHello {
  /** Version of its API. */
  readonly api: number;
  /** Version of keyhold. */
  readonly version: string;
  readonly methods: readonly string[];
}

/** What a running agent says of itself: `agent.status`. */
export interface AgentFacts {
  readonly pid: number;
  readonly profile: string;
  readonly version: string;
  readonly api: number;
  readonly startedAt: string;
  /** When it locks if nothing is asked of it until then. */
  readonly locksAt: string;
  readonly endsAt: string;
  /** 0: being idle does not lock it. */
  readonly idleMs: number;
  readonly lockOnSuspend: boolean;
  /** What the owner is asked about, and whether there is a program that asks. */
  readonly confirm: { readonly patterns: readonly string[]; readonly program: boolean };
  /** Calls of the client API that it has answered, `status` aside. */
  readonly calls: number;
}

const CALL_MS = 120_000;
const ASK_MS = 2_000;
/** References in one message; where their values do not fit one, they are asked for in halves. */
const GET_BATCH = 1_000;

/** Failures of an agent that ends while it is asked. */
const ENDING: ReadonlySet<string> = new Set(["outcome_unknown", "locked", "unavailable"]);

/** Asks an agent about itself; `undefined` when none runs, or when it ended meanwhile. */
export async function agentFacts(socket: string): Promise<AgentFacts | undefined> {
  return ask<AgentFacts>(socket, "agent.status");
}

/**
 * Whether an agent runs that this program can talk to.
 *
 * @throws Fault unsupported for one of another API
 */
export async function agentUsable(socket: string): Promise<boolean> {
  const facts = await agentFacts(socket);
  if (facts === undefined || facts.api === AGENT_API) return facts !== undefined;
  throw new Fault("unsupported", "the running agent speaks another language than this program", {
    why: `it is keyhold ${facts.version ?? "of an older version"}`,
    hint: "keyhold unlock   (starts an agent of this version in its place)",
  });
}

/** What the running agent is; `undefined` when none runs; null for one from before API 1. */
export async function agentHello(socket: string): Promise<AgentHello | null | undefined> {
  try {
    return await ask<AgentHello>(socket, "agent.hello");
  } catch (error) {
    if (error instanceof Fault && error.code === "unsupported") return null;
    throw error;
  }
}

async function ask<T>(socket: string, method: string): Promise<T | undefined> {
  try {
    return (await callAgent(socket, method, null, { timeoutMs: ASK_MS })) as T | undefined;
  } catch (error) {
    if (error instanceof Fault && ENDING.has(error.code)) return undefined;
    throw error;
  }
}

/** Locks: the agent forgets everything and ends. False when none ran. */
export async function lockAgent(socket: string): Promise<boolean> {
  return (await callAgent(socket, "agent.lock", null, { timeoutMs: 5_000 })) !== undefined;
}

/**
 * The client API through a running agent; every call fails with `locked` once it has ended.
 *
 * @param options.timeoutMs How long a call may take; by default longer than the owner has to confirm it.
 */
export function agentClient(
  socket: string,
  notice: (text: string) => void,
  { timeoutMs = CALL_MS }: { readonly timeoutMs?: number } = {},
): KeyholdClient {
  async function forward(method: AgentMethod, input?: unknown): Promise<unknown> {
    const { slim } = AGENT_METHODS[method].params as Params<object>;
    const params = input === undefined ? null : slim(input as object);
    let answer: unknown;
    try {
      answer = await callAgent(socket, method, params, { timeoutMs });
    } catch (error) {
      throw await otherVersion(socket, method, input, error);
    }
    if (answer === undefined) throw new Fault("locked", "the vault is locked", { why: "the agent has ended" });
    const { value, notices } = answer as { value: unknown; notices: readonly string[] };
    for (const text of notices) notice(text);
    return value;
  }
  const methods = (Object.keys(AGENT_METHODS) as AgentMethod[]).map((method) => [
    method,
    (input?: unknown) => forward(method, input),
  ]);
  const client = { ...Object.fromEntries(methods), close: async () => undefined } as KeyholdClient;
  return {
    ...client,
    async getMany(input) {
      const all: Got[] = [];
      try {
        for (let at = 0, count = GET_BATCH; at < input.refs.length; ) {
          const refs = input.refs.slice(at, at + count);
          try {
            all.push(...(await client.getMany({ ...input, refs })));
            at += refs.length;
          } catch (error) {
            if (!(error instanceof Fault) || error.code !== "too_large" || refs.length === 1) throw error;
            count = Math.ceil(refs.length / 2);
          }
        }
        return all;
      } catch (error) {
        for (const { value } of all) wipe(value ?? undefined);
        throw error;
      }
    },
    async list(input) {
      try {
        return await client.list(input);
      } catch (error) {
        const whole = (input.limit ?? null) === null && (input.cursor ?? null) === null;
        if (!whole || !(error instanceof Fault) || error.code !== "too_large") throw error;
        const { listInPages } = await import("./agentlist.ts");
        return listInPages(input, client.list);
      }
    },
    async importItems(input) {
      const { importInBatches } = await import("./agentimport.ts");
      return importInBatches(input, client.importItems);
    },
  };
}

/** Tells a refusal by an agent of another version from every other failure: `keyhold unlock` mends it. */
async function otherVersion(socket: string, method: AgentMethod, input: unknown, error: unknown): Promise<unknown> {
  if (!(error instanceof Fault)) return error;
  const unknownMethod = error.code === "unsupported";
  if (!unknownMethod && error.why !== PARAMS_REFUSED) return error;
  if (!unknownMethod && !fits(method, input)) return error;
  const hello = await agentHello(socket).catch(() => null);
  if (hello === undefined || (unknownMethod && hello?.methods.includes(method))) return error;
  return new Fault("unsupported", `the running agent does not know this use of "${method}"`, {
    why: `it is keyhold ${hello?.version ?? "of an older version"}, started before this one was installed`,
    hint: "keyhold unlock   (starts an agent of this version in its place)",
  });
}

function fits(method: AgentMethod, input: unknown): boolean {
  try {
    AGENT_METHODS[method].params.decode(input ?? null, "params");
    return true;
  } catch {
    return false;
  }
}
