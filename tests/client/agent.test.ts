import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { agentClient, agentFacts, agentHello, agentSocket, agentUsable } from "../../src/client/agent.ts";
import { agentMethods, PARAMS_REFUSED, readCall } from "../../src/client/agentapi.ts";
import { callAgent, listenAgent } from "../../src/client/agentsocket.ts";
import type { Imported, KeyholdClient } from "../../src/client/api.ts";
import { Fault } from "../../src/errors.ts";
import type { PlainItem } from "../../src/formats/item.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { type FakeAgent, fakeAgent, gotValue } from "../support/fakeagent.ts";
import { rejected } from "../support/hostile.ts";

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function agentOver(methods: Partial<KeyholdClient>): Promise<FakeAgent> {
  const agent = await fakeAgent(methods);
  ends.push(agent.close);
  return agent;
}

describe("many secrets through the agent", () => {
  const refs = Array.from({ length: 1_200 }, (_, i) => ({ name: `n${i}`, version: null }));

  test("more of them than one message holds arrive, in order, in as few messages as hold them", async () => {
    const sizes: number[] = [];
    const { client } = await agentOver({
      getMany: async (input) => {
        sizes.push(input.refs.length);
        return input.refs.map(({ name }) =>
          gotValue(name, new Uint8Array(DEFAULTS.secretBytes).fill(Number(name.slice(1)))),
        );
      },
    });
    const some = refs.slice(0, 200);
    const all = await client.getMany({ refs: some, fresh: false, purpose: "export" });
    expect(all.map(({ info }) => info.name)).toEqual(some.map(({ name }) => name));
    expect(all.every(({ value }, i) => value?.length === DEFAULTS.secretBytes && value[7] === i)).toBe(true);
    expect(sizes).toEqual([200, 100, 50, 50, 50, 50]);
    expect(await client.getMany({ refs: [], fresh: false, purpose: "get" })).toEqual([]);
  });

  test("a thousand small ones are one message", async () => {
    const sizes: number[] = [];
    const { client } = await agentOver({
      getMany: async (input) => {
        sizes.push(input.refs.length);
        return input.refs.map(({ name }) => gotValue(name, Uint8Array.of(1)));
      },
    });
    expect((await client.getMany({ refs, fresh: false, purpose: "get" })).length).toBe(refs.length);
    expect(sizes).toEqual([1_000, 200]);
  });

  test("all or none: one that fails fails them all", async () => {
    const { client } = await agentOver({
      getMany: async (input) => {
        if (input.refs.some(({ name }) => name === "n1150")) throw new Fault("not_found", "no such secret");
        return input.refs.map(({ name }) => gotValue(name, Uint8Array.of(1)));
      },
    });
    await rejected(client.getMany({ refs, fresh: false, purpose: "get" }), "not_found");
  });
});

describe("an import through the agent", () => {
  const item = (name: string, bytes: number): PlainItem => ({
    name,
    type: "bytes",
    value: new Uint8Array(bytes).fill(7),
    tags: [],
    createdAt: null,
  });
  const large = Array.from({ length: 300 }, (_, i) => item(`n${i}`, DEFAULTS.secretBytes));
  const input = { prefix: "in/", dryRun: false, origin: "json", where: null };

  /** An agent that stores in a list, and refuses an item of this name. */
  async function importer(refused: string | null = null) {
    const calls: { dryRun: boolean; count: number }[] = [];
    const stored: string[] = [];
    const { client } = await agentOver({
      importItems: async ({ items, prefix, dryRun, ...rest }): Promise<Imported> => {
        expect(rest).toEqual({ origin: "json", where: null });
        calls.push({ dryRun, count: items.length });
        if (items.some(({ name }) => name === refused)) throw new Fault("bad_input", "a bad item");
        if (!dryRun) stored.push(...items.map(({ name }) => `${prefix}${name}`));
        const outcomes = items.map(({ name }) => ({ name, outcome: "new" as const }));
        return { imported: items.length, skipped: 0, items: outcomes, requestId: null, queued: false };
      },
    });
    return { client, calls, stored };
  }

  test("of 19 MiB is checked whole, then stored, in order; what one message holds is one call", async () => {
    const { client, calls, stored } = await importer();
    const done = await client.importItems({ ...input, items: large });
    expect([done.imported, done.items.length, stored.length]).toEqual([300, 300, 300]);
    expect(stored).toEqual(large.map(({ name }) => `in/${name}`));
    const dry = calls.filter(({ dryRun }) => dryRun);
    expect(dry.length).toBeGreaterThan(2);
    expect(calls.slice(0, dry.length)).toEqual(dry);
    expect(calls.slice(dry.length).map(({ count }) => count)).toEqual(dry.map(({ count }) => count));
    calls.length = 0;
    await client.importItems({ ...input, items: large.slice(0, 50) });
    expect(calls).toEqual([{ dryRun: false, count: 50 }]);
  });

  test("stores nothing when one item far back is bad, or two have the same name in different messages", async () => {
    const { client, stored } = await importer("n299");
    await rejected(client.importItems({ ...input, items: large }), "bad_input");
    const twice = [...large.slice(0, 299), item("n0", 1)];
    const fault = await rejected(client.importItems({ ...input, items: twice }), "bad_input");
    expect([fault.message, stored]).toEqual([expect.stringContaining("same name"), []]);
  });

  test("a dry run stores nothing", async () => {
    const { client, calls, stored } = await importer();
    const done = await client.importItems({ ...input, items: large, dryRun: true });
    expect([done.imported, stored, calls.every(({ dryRun }) => dryRun)]).toEqual([300, [], true]);
  });

  test("fields count: many small values with large fields are split too", async () => {
    const { client, calls } = await importer();
    const fields = [{ name: "notes", kind: "text" as const, value: "\u0001".repeat(20_000) }];
    const items = Array.from({ length: 150 }, (_, i) => ({ ...item(`n${i}`, 1), fields }));
    expect((await client.importItems({ ...input, items })).imported).toBe(150);
    expect(calls.length).toBeGreaterThan(2);
  });
});

describe("an agent of another version", () => {
  /** One that knows these methods, and of `get` no field beside the name. */
  async function older(hello: unknown): Promise<string> {
    const home = mkdtempSync(join(tmpdir(), "keyhold-agent-"));
    const socket = agentSocket(home, "default");
    const listener = await listenAgent(socket, async (method, params) => {
      if (method === "agent.status") return { pid: 1, profile: "default", ...(hello === null ? {} : { api: 1 }) };
      if (method === "agent.hello" && hello !== null) return hello;
      if (method === "get") {
        if (Object.keys(params as object).some((key) => key !== "name")) {
          throw new Fault("bad_input", "params has an unknown field", { why: PARAMS_REFUSED });
        }
        return {
          value: { ...gotValue("a", null), info: { ...gotValue("a", null).info, type: "hologram" } },
          notices: [],
        };
      }
      throw new Fault("unsupported", "the agent has no such method");
    });
    ends.push(async () => {
      await listener.stop();
      rmSync(home, { recursive: true, force: true });
    });
    return socket;
  }
  const sign = { name: "a", version: null, message: new Uint8Array(1), scheme: null };
  const get = { name: "a", version: null, reveal: false, fresh: false, save: false };

  test("a method that an older one has not: a clear error that says how to mend it", async () => {
    for (const [hello, version] of [
      [null, "an older version"],
      [{ api: 1, version: "0.1.0", methods: ["get"] }, "0.1.0"],
    ] as const) {
      const socket = await older(hello);
      const fault = await rejected(agentClient(socket, () => undefined).sign(sign), "unsupported");
      expect([fault.message, fault.why, fault.hint]).toEqual([
        expect.stringContaining('"sign"'),
        expect.stringContaining(version),
        expect.stringContaining("keyhold unlock"),
      ]);
    }
  });

  test("what is left out because it says nothing new does not trouble it; what it cannot do is refused, not dropped", async () => {
    const socket = await older({ api: 1, version: "0.1.0", methods: ["get"] });
    const client = agentClient(socket, () => undefined);
    // and a type that this version has never heard of is handed on as it is
    expect((await client.get(get)).info.type as string).toBe("hologram");
    const fault = await rejected(client.get({ ...get, reveal: true }), "unsupported");
    expect(fault.hint).toContain("keyhold unlock");
  });

  test("params that are wrong for both are told as such", async () => {
    const { client } = await agentOver({});
    await rejected(client.get({ ...get, name: 1 as unknown as string }), "bad_input");
  });

  test("commands refuse one of another API number, and one from before there was a number", async () => {
    const old = await older(null);
    expect(await agentHello(old)).toBeNull();
    expect(await agentFacts(old)).toMatchObject({ pid: 1 });
    const fault = await rejected(agentUsable(old), "unsupported");
    expect(fault.hint).toContain("keyhold unlock");
    const { socket } = await agentOver({});
    expect(await agentUsable(socket)).toBe(true);
    expect(await agentUsable(join(tmpdir(), "keyhold-nowhere.sock"))).toBe(false);
  });

  test("every request of API 1 as it was sent at first is still understood", () => {
    const item = { name: "a", type: "note", value: Uint8Array.of(1), tags: [], createdAt: null };
    const page = { name: null, action: null, fromMs: null, untilMs: null, requestId: null, limit: null, cursor: null };
    const first: [string, unknown][] = [
      ["generate", { name: "a", type: "ed25519", length: null, tags: [], replace: false, where: null }],
      ["store", { name: "a", type: null, value: Uint8Array.of(1), tags: ["t"], where: "both" }],
      ["get", { name: "a", version: 1, reveal: true, fresh: false, save: false }],
      ["getMany", { refs: [{ name: "a", version: null }], fresh: false, purpose: "export" }],
      ["sign", { name: "a", version: null, message: Uint8Array.of(1), scheme: "rsa-pss-sha256" }],
      ["otp", { name: "a", fresh: false }],
      ["list", { prefix: null, search: null, tag: null, fresh: false }],
      ["history", { name: "a" }],
      ["restore", { name: "a", version: 1 }],
      ["rename", { from: "a", to: "b" }],
      ["tag", { name: "a", add: [], remove: [] }],
      ["remove", { name: "a", purge: false }],
      ["importItems", { items: [item], prefix: "", dryRun: true, origin: "json", where: null }],
      ["auditList", { ...page, purpose: "list" }],
      ["auditVerify", null],
      ["auditExport", { cursor: null }],
      ["sessions", null],
      ["closeSession", { sessionId: "ab".repeat(16), all: false }],
      ["devices", null],
      ["linkDevice", null],
      ["sync", null],
      ["status", null],
    ];
    for (const [method, params] of first) expect(readCall(method, params).input).toEqual(params ?? {});
    const known = ["agent.hello", "agent.lock", "agent.status", ...first.map(([method]) => method)];
    expect(known.filter((method) => !agentMethods().includes(method))).toEqual([]);
  });
});

test("agents do not answer in the name of a method of their objects", async () => {
  const { socket } = await agentOver({});
  for (const method of ["toString", "valueOf", "hasOwnProperty"]) {
    await rejected(callAgent(socket, method, null, { timeoutMs: 5_000 }), "unsupported");
  }
});
