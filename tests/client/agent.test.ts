import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { agentClient, agentSocket, lockAgent, runAgent } from "../../src/client/agent.ts";
import type { Got, KeyholdClient } from "../../src/client/api.ts";
import { Fault } from "../../src/errors.ts";
import type { KeyId } from "../../src/ids.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { rejected } from "../support/hostile.ts";

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** An agent in this process over a client that knows `getMany` alone. */
async function agentOver(getMany: KeyholdClient["getMany"]): Promise<KeyholdClient> {
  const home = mkdtempSync(join(tmpdir(), "keyhold-agent-"));
  const socket = agentSocket(home, "default");
  const client = {
    getMany,
    closeSession: async () => ({ closed: 0, requestId: null }),
    close: async () => undefined,
  } as unknown as KeyholdClient;
  const { ended } = await runAgent({ socket, profile: "default", client, home, now: Date.now, takeNotices: () => [] });
  ends.push(async () => {
    await lockAgent(socket);
    await ended;
    rmSync(home, { recursive: true, force: true });
  });
  return agentClient(socket, () => undefined);
}

function got(name: string, value: Uint8Array): Got {
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
  };
  return { info, version: 1, value, requestId: null, from: "server", syncedAt: null };
}

describe("many secrets through the agent", () => {
  const refs = Array.from({ length: 200 }, (_, i) => ({ name: `n${i}`, version: null }));

  test("more of them than one message holds arrive, in order", async () => {
    const through = await agentOver(async (input) =>
      input.refs.map(({ name }) => got(name, new Uint8Array(DEFAULTS.secretBytes).fill(Number(name.slice(1))))),
    );
    const all = await through.getMany({ refs, fresh: false, purpose: "export" });
    expect(all.map(({ info }) => info.name)).toEqual(refs.map(({ name }) => name));
    expect(all.every(({ value }, i) => value?.length === DEFAULTS.secretBytes && value[7] === i)).toBe(true);
    expect(await through.getMany({ refs: [], fresh: false, purpose: "get" })).toEqual([]);
  });

  test("all or none: one that fails fails them all", async () => {
    const through = await agentOver(async (input) => {
      if (input.refs.some(({ name }) => name === "n150")) throw new Fault("not_found", "no such secret");
      return input.refs.map(({ name }) => got(name, Uint8Array.of(1)));
    });
    await rejected(through.getMany({ refs, fresh: false, purpose: "get" }), "not_found");
  });
});
