import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { agentClient, agentSocket, lockAgent } from "../../src/client/agent.ts";
import type { AgentClock } from "../../src/client/agentclock.ts";
import { type AgentInput, runAgent } from "../../src/client/agentserve.ts";
import { callAgent } from "../../src/client/agentsocket.ts";
import type { Got, KeyholdClient } from "../../src/client/api.ts";
import type { KeyId } from "../../src/ids.ts";

/** Clocks that a test sets. */
export interface SetClock extends AgentClock {
  /** Time passes on all of them. */
  pass(ms: number): void;
  /** The system sleeps, and the wall clock is set right when it wakes. */
  sleep(ms: number): void;
  /** The wall clock alone is set. */
  setWall(byMs: number): void;
}

/** Clocks that stand until they are set. */
export function setClock(): SetClock {
  const at = { wall: Date.UTC(2026, 0, 1), awake: 1_000_000, slept: 5_000 };
  return {
    wallMs: () => at.wall,
    awakeMs: () => at.awake,
    sleptMs: () => at.slept,
    pass(ms) {
      at.wall += ms;
      at.awake += ms;
    },
    sleep(ms) {
      at.wall += ms;
      at.slept += ms;
    },
    setWall(byMs) {
      at.wall += byMs;
    },
  };
}

/** An agent in this process. */
export interface FakeAgent {
  readonly socket: string;
  readonly client: KeyholdClient;
  readonly ended: Promise<void>;
  /** A raw call. */
  call(method: string, params?: unknown): Promise<unknown>;
  close(): Promise<void>;
}

/** Starts an agent over a client that has the given methods alone. */
export async function fakeAgent(
  methods: Partial<KeyholdClient>,
  options: Partial<Omit<AgentInput, "client">> = {},
): Promise<FakeAgent> {
  const home = mkdtempSync(join(tmpdir(), "keyhold-agent-"));
  const socket = agentSocket(home, "default");
  const client = {
    closeSession: async () => ({ closed: 0, requestId: null }),
    close: async () => undefined,
    ...methods,
  } as KeyholdClient;
  const { ended } = await runAgent({
    socket,
    profile: "default",
    client,
    home,
    takeNotices: () => [],
    ...options,
  });
  return {
    socket,
    client: agentClient(socket, () => undefined),
    ended,
    call: (method, params = null) => callAgent(socket, method, params, { timeoutMs: 20_000 }),
    async close() {
      await lockAgent(socket);
      await ended;
      rmSync(home, { recursive: true, force: true });
    },
  };
}

/** What `get` answers. */
export function gotValue(name: string, value: Uint8Array | null): Got {
  const info = {
    name,
    keyId: "00" as KeyId,
    type: "bytes" as const,
    version: 1,
    tags: [],
    createdAt: "",
    updatedAt: "",
    where: "both" as const,
    origin: "stored",
    publicKey: null,
    expiresAt: null,
    user: null,
    urls: [],
  };
  return { info, version: 1, value, fields: value && [], requestId: null, from: "server", syncedAt: null };
}
