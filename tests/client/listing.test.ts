import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { KeyholdClient, Listed, ListInput, SecretInfo } from "../../src/client/api.ts";
import { Fault } from "../../src/errors.ts";
import type { KeyId } from "../../src/ids.ts";
import { type FakeAgent, fakeAgent, gotValue } from "../support/fakeagent.ts";
import { registerDevice, type TestDevice } from "../support/harness.ts";
import { rejected, startVillain, type Villain } from "../support/hostile.ts";

const ALL: ListInput = { prefix: null, search: null, tag: null, fresh: false };
const names = ({ items }: Listed): readonly string[] => items.map(({ name }) => name);

describe("pages of an account", () => {
  let villain: Villain;
  let ada: TestDevice;
  let client: KeyholdClient;

  beforeAll(async () => {
    villain = await startVillain();
    ada = await registerDevice(villain.link, "pages", "a password of ada");
    ({ client } = ada);
    for (const [name, tag, where] of [
      ["b/two", "red", null],
      ["a/one", "blue", "local"],
      ["c/three", "red", "both"],
      ["b/four", "red", "server"],
      ["d", "Red", "local"],
    ] as const) {
      await client.store({ name, type: null, value: Uint8Array.of(1), tags: [tag], where });
    }
  });
  afterAll(async () => {
    await ada.end();
    await villain.close();
  });

  const pages = async (input: ListInput, limit: number): Promise<string[][]> => {
    const all: string[][] = [];
    for (let cursor: string | null = null; ; ) {
      const page: Listed = await client.list({ ...input, limit, cursor });
      all.push([...names(page)]);
      if (page.next === undefined) throw new Error("a page says what follows");
      if (page.next === null) return all;
      cursor = page.next;
    }
  };

  test("a list is sorted by name and says nothing of pages", async () => {
    const whole = await client.list(ALL);
    expect(names(whole)).toEqual(["a/one", "b/four", "b/two", "c/three", "d"]);
    expect(Object.keys(whole).sort()).toEqual(["from", "items", "requestId", "syncedAt"]);
    expect(names(await client.list({ ...ALL, prefix: "b/" }))).toEqual(["b/four", "b/two"]);
    expect(names(await client.list({ ...ALL, tag: "red" }))).toEqual(["b/four", "b/two", "c/three"]);
    expect(names(await client.list({ ...ALL, search: "RED" }))).toEqual(["b/four", "b/two", "c/three", "d"]);
    expect(names(await client.list({ ...ALL, search: "R", prefix: "b/", tag: "red" }))).toEqual(["b/four", "b/two"]);
    expect(names(await client.list({ ...ALL, search: "nothing" }))).toEqual([]);
  });

  test.each([1, 2, 3, 4, 5, 6])("pages of %p give the same, each secret once, filters too", async (limit) => {
    expect((await pages(ALL, limit)).flat()).toEqual([...names(await client.list(ALL))]);
    expect((await pages({ ...ALL, tag: "red" }, limit)).flat()).toEqual(["b/four", "b/two", "c/three"]);
    for (const page of (await pages(ALL, limit)).slice(0, -1)) expect(page).toHaveLength(limit);
  });

  test("a limit that all fit in has no next page", async () => {
    expect((await client.list({ ...ALL, limit: 5 })).next).toBeNull();
  });

  test("only the first page asks the server", async () => {
    const first = await client.list({ ...ALL, limit: 2 });
    expect([first.from, first.requestId === null]).toEqual(["server", false]);
    const second = await client.list({ ...ALL, limit: 2, cursor: first.next ?? null });
    expect([second.from, second.requestId]).toEqual(["vault", null]);
  });

  test("after a change a cursor is stale: no page mixes two states of the account", async () => {
    for (const where of ["server", "local"] as const) {
      const { next } = await client.list({ ...ALL, limit: 2 });
      await client.store({ name: "a/0", type: null, value: Uint8Array.of(2), tags: [], where });
      await rejected(client.list({ ...ALL, limit: 2, cursor: next ?? null }), "stale");
      await client.remove({ name: "a/0", purge: true });
    }
  });

  test("what is no cursor is refused", async () => {
    for (const cursor of ["x", "1", "1.2", "1.2.x", "-1.0.0", "1.2.3.4", `${"9".repeat(20)}.1.1`]) {
      await rejected(client.list({ ...ALL, cursor }), "bad_input");
    }
  });
});

describe("a list that no message holds, through the agent", () => {
  const agents: FakeAgent[] = [];
  afterEach(async () => {
    for (const agent of agents.splice(0)) await agent.close();
  });

  const COUNT = 40_000;
  const infos: readonly SecretInfo[] = Array.from({ length: COUNT }, (_, at) => ({
    ...gotValue(`team-${at % 97}/${"service".repeat(6)}-${at}`, null).info,
    createdAt: "2026-01-01T00:00:00.000Z",
    updatedAt: "2026-01-01T00:00:00.000Z",
    keyId: at.toString(16).padStart(32, "0") as KeyId,
  }));

  /** A client whose list pages as the real one does, and what it was asked. */
  async function agentOf(all: readonly SecretInfo[], before: (input: ListInput) => void = () => undefined) {
    const asked: ListInput[] = [];
    const agent = await fakeAgent({
      list: async (input) => {
        asked.push(input);
        before(input);
        const start = Number(input.cursor ?? 0);
        const end = start + (input.limit ?? all.length);
        const paged = (input.limit ?? null) !== null;
        return {
          items: all.slice(start, end),
          ...(paged && { next: end < all.length ? String(end) : null }),
          requestId: null,
          from: start === 0 ? "server" : "vault",
          syncedAt: "2026-01-01T00:00:00.000Z",
        };
      },
    });
    agents.push(agent);
    return { agent, asked };
  }

  test("comes whole, in order, as if there were no pages", async () => {
    const { agent, asked } = await agentOf(infos);
    const listed = await agent.client.list({ ...ALL, fresh: true });
    expect(listed.items.length).toBe(COUNT);
    expect(names(listed)).toEqual(infos.map(({ name }) => name));
    expect([listed.from, "next" in listed]).toEqual(["server", false]);
    // the server is insisted on where it is asked: for the first page
    expect(asked.slice(1).map(({ fresh }) => fresh)).toEqual([true, ...asked.slice(2).map(() => false)]);
    expect(asked.length).toBeGreaterThan(3);
  });

  test("one that fits is asked for once, and without a limit, which an older agent would not know", async () => {
    const { agent, asked } = await agentOf(infos.slice(0, 1_000));
    expect((await agent.client.list(ALL)).items).toHaveLength(1_000);
    expect(asked).toStrictEqual([ALL]);
  });

  test("pages too long for a message are halved", async () => {
    const long = infos
      .slice(0, 4_000)
      .map((info) => ({ ...info, tags: Array.from({ length: 50 }, () => "x".repeat(60)) }));
    const { agent, asked } = await agentOf(long);
    expect(names(await agent.client.list(ALL))).toEqual(long.map(({ name }) => name));
    expect(Math.min(...asked.map(({ limit }) => limit ?? COUNT))).toBeLessThan(8_192);
  });

  test("a change between the pages starts the list anew; one that goes on changing is given up as stale", async () => {
    let changes = 2;
    const stale = ({ cursor }: ListInput): void => {
      if ((cursor ?? null) !== null && changes-- > 0) throw new Fault("stale", "changed");
    };
    const twice = await agentOf(infos, stale);
    expect((await twice.agent.client.list(ALL)).items).toHaveLength(COUNT);
    changes = Number.POSITIVE_INFINITY;
    const ever = await agentOf(infos, stale);
    await rejected(ever.agent.client.list(ALL), "stale");
  });

  test("a caller that asks for pages itself gets what it asked for", async () => {
    const { agent, asked } = await agentOf(infos);
    const page = await agent.client.list({ ...ALL, limit: 10 });
    expect([page.items.length, page.next]).toEqual([10, "10"]);
    await rejected(agent.client.list({ ...ALL, limit: COUNT }), "too_large");
    expect(asked).toHaveLength(2);
  });
});
