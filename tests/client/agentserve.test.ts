import { afterEach, describe, expect, test } from "bun:test";
import { agentFacts, agentHello, agentUsable } from "../../src/client/agent.ts";
import { agentMethods } from "../../src/client/agentapi.ts";
import type { KeyholdClient } from "../../src/client/api.ts";
import { type FakeAgent, fakeAgent, gotValue, setClock } from "../support/fakeagent.ts";
import { rejected } from "../support/hostile.ts";

const agents: FakeAgent[] = [];
afterEach(async () => {
  for (const agent of agents.splice(0)) await agent.close();
});

async function start(...input: Parameters<typeof fakeAgent>): Promise<FakeAgent> {
  const agent = await fakeAgent(...input);
  agents.push(agent);
  return agent;
}

const GET = { name: "a", version: null, reveal: true, fresh: false, save: false };
const MINUTE = 60_000;
const getter = (value = Uint8Array.of(1, 2)): Pick<KeyholdClient, "get"> => ({
  get: async ({ name }) => gotValue(name, value.slice()),
});

describe("what reaches the client", () => {
  test("only params that fit, and what was left out filled in", async () => {
    const seen: unknown[] = [];
    const agent = await start({
      get: async (input) => {
        seen.push(input);
        return gotValue(input.name, null);
      },
    });
    await agent.call("get", { name: "a" });
    expect(seen.splice(0)).toEqual([{ ...GET, reveal: false }]);
    for (const [bad, path] of [
      [null, "params.name"],
      [[], "params"],
      ["a", "params"],
      [{}, "params.name"],
      [{ name: 1 }, "params.name"],
      [{ name: "\ud800" }, "params.name"],
      [{ name: "a", version: 0 }, "params.version"],
      [{ name: "a", version: 1.5 }, "params.version"],
      [{ name: "a", reveal: "hunter2" }, "params.reveal"],
      [{ name: "a", revael: true }, "params has an unknown field"],
      [{ name: "hunter2".repeat(1_000) }, "params.name"],
      [Uint8Array.of(1), "params"],
    ] as const) {
      const fault = await rejected(agent.call("get", bad), "bad_input");
      expect([fault.message, fault.why]).toEqual([
        expect.stringContaining(path),
        expect.stringContaining("docs/agent.md"),
      ]);
      expect(fault.message).not.toContain("hunter2");
    }
    await rejected(agent.call("agent.status", { surprise: 1 }), "bad_input");
    await rejected(agent.call("agent.hello", { surprise: 1 }), "bad_input");
    for (const method of ["toString", "constructor", "__proto__", "close", "agent.x"]) {
      await rejected(agent.call(method), method.startsWith("_") ? "bad_input" : "unsupported");
    }
    expect(seen).toEqual([]);
  });

  test("hello and status say what it is; neither they nor `status` put the idle time off", async () => {
    const clock = setClock();
    const agent = await start(
      {
        ...getter(),
        ceremonies: async () => [],
        status: async () => ({}) as Awaited<ReturnType<KeyholdClient["status"]>>,
        list: async () => ({}) as Awaited<ReturnType<KeyholdClient["list"]>>,
        ceremony: async () => ({}) as Awaited<ReturnType<KeyholdClient["ceremony"]>>,
        ceremonyAdvance: async () => ({}) as Awaited<ReturnType<KeyholdClient["ceremonyAdvance"]>>,
      },
      {
        clock,
        version: "9.8.7",
        confirm: { patterns: ["prod/*"], ask: null },
        idleMs: 10 * MINUTE,
        absoluteMs: 60 * MINUTE,
      },
    );
    expect(await agentHello(agent.socket)).toEqual({ api: 1, version: "9.8.7", methods: agentMethods() });
    const at = clock.wallMs();
    const iso = (ms: number) => new Date(ms).toISOString();
    const facts = {
      pid: process.pid,
      profile: "default",
      version: "9.8.7",
      api: 1,
      startedAt: iso(at),
      locksAt: iso(at + 10 * MINUTE),
      endsAt: iso(at + 60 * MINUTE),
      idleMs: 10 * MINUTE,
      lockOnSuspend: true,
      confirm: { patterns: ["prod/*"], program: false },
      calls: 0,
    };
    expect(await agentFacts(agent.socket)).toEqual(facts);
    clock.pass(MINUTE);
    await agent.client.status();
    await agent.client.ceremonies();
    await agentHello(agent.socket);
    expect(await agentFacts(agent.socket)).toEqual(facts);
    await agent.client.get(GET);
    expect(await agentFacts(agent.socket)).toEqual({ ...facts, calls: 1, locksAt: iso(at + 11 * MINUTE) });
    clock.pass(MINUTE);
    const all = { prefix: null, search: null, tag: null, fresh: false };
    await agent.client.list({ ...all, passive: true });
    await agent.client.ceremony({ ceremony: "door", fresh: true, passive: true });
    await agent.client.ceremonyAdvance({ ceremony: "door", passive: true });
    expect(await agentFacts(agent.socket)).toEqual({ ...facts, calls: 1, locksAt: iso(at + 11 * MINUTE) });
    await agent.client.list(all);
    await agent.client.ceremony({ ceremony: "door" });
    await agent.client.ceremonyAdvance({ ceremony: "door" });
    expect(await agentFacts(agent.socket)).toEqual({ ...facts, calls: 4, locksAt: iso(at + 12 * MINUTE) });
  });
});

describe("a time that is over", () => {
  test.each([
    ["unused", (clock: ReturnType<typeof setClock>) => clock.pass(15 * MINUTE)],
    ["at its absolute end", (clock) => clock.pass(12 * 60 * MINUTE)],
    ["after the system slept", (clock) => clock.sleep(1_000)],
  ] as [string, (clock: ReturnType<typeof setClock>) => void][])(
    "%s: nothing is answered any more, before the next look at the clock too",
    async (_, pass) => {
      const clock = setClock();
      const agent = await start(getter(), { clock });
      expect((await agent.client.get(GET)).value).toEqual(Uint8Array.of(1, 2));
      pass(clock);
      const asked = agent.call("get", { name: "a", reveal: true });
      const beside = Promise.allSettled([agent.call("get", { name: "a", reveal: true })]);
      await rejected(asked, "locked");
      expect(JSON.stringify(await beside)).not.toContain('value":{');
      await agent.ended;
      expect(await agentFacts(agent.socket)).toBeUndefined();
      expect(await agentUsable(agent.socket)).toBe(false);
    },
  );

  test("status of an agent whose time is over is that of none", async () => {
    const clock = setClock();
    const agent = await start(getter(), { clock });
    clock.sleep(1_000);
    expect(await agentFacts(agent.socket)).toBeUndefined();
    await agent.ended;
  });

  test("the tick ends it when nobody asks", async () => {
    const clock = setClock();
    const agent = await start(getter(), { clock });
    clock.pass(15 * MINUTE);
    await agent.ended;
    expect(await agent.call("agent.hello")).toBeUndefined();
  });

  test("what was under way when the system fell asleep is not answered after it, and the value is wiped", async () => {
    const clock = setClock();
    const value = Uint8Array.of(7, 7);
    const agent = await start(
      {
        get: async ({ name }) => {
          clock.sleep(1_000);
          return gotValue(name, value);
        },
      },
      { clock },
    );
    await rejected(agent.client.get(GET), "locked");
    expect(value).toEqual(new Uint8Array(2));
    await agent.ended;
  });

  test("sleep is borne where the owner wants that", async () => {
    const clock = setClock();
    const agent = await start(getter(), { clock, lockOnSuspend: false });
    clock.sleep(1_000);
    expect((await agent.client.get(GET)).value).toEqual(Uint8Array.of(1, 2));
  });
});

test("a value is overwritten once it stands in the answer", async () => {
  const value = Uint8Array.of(7, 7);
  const agent = await start({ get: async ({ name }) => gotValue(name, value) });
  expect((await agent.client.get(GET)).value).toEqual(Uint8Array.of(7, 7));
  expect(value).toEqual(new Uint8Array(2));
});
