import { afterEach, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import fc from "fast-check";
import { lockAgent } from "../../src/client/agent.ts";
import { type AskOwner, type ConfirmQuestion, confirmPatterns, needsConfirm } from "../../src/client/agentconfirm.ts";
import { agentSocketPath } from "../../src/client/agentsocket.ts";
import type { KeyholdClient, Listed } from "../../src/client/api.ts";
import { type FakeAgent, fakeAgent, gotValue, setClock } from "../support/fakeagent.ts";
import { rejected } from "../support/hostile.ts";

const agents: FakeAgent[] = [];
afterEach(async () => {
  for (const agent of agents.splice(0)) await agent.close();
});

const shape = { version: null, reveal: true, fresh: false, save: false };
const PROD_ID = "ab".repeat(16);

/** An agent over a client that notes what it was asked; the owner answers as `answer` says. */
async function start(
  patterns: readonly string[],
  answer: AskOwner | "yes" | "no" | "timed_out" | null,
  options: Parameters<typeof fakeAgent>[1] = {},
  others: readonly { readonly name: string; readonly keyId: string }[] = [],
) {
  const asked: ConfirmQuestion[] = [];
  const done: string[] = [];
  const note =
    <T>(what: string, value: T) =>
    async (): Promise<T> => {
      done.push(what);
      return value;
    };
  const listed = {
    items: [{ name: "prod/db", keyId: PROD_ID }, ...others].map((one) => ({ ...gotValue("", null).info, ...one })),
    requestId: null,
    from: "vault",
    syncedAt: null,
  } as unknown as Listed;
  const client: Partial<KeyholdClient> = {
    get: async ({ name }) => {
      done.push("get");
      return gotValue(name, Uint8Array.of(1));
    },
    getMany: async ({ refs }) => {
      done.push("getMany");
      return refs.map(({ name }) => gotValue(name, Uint8Array.of(1)));
    },
    list: async () => listed,
    sign: note("sign", { signature: new Uint8Array(1), scheme: "ed25519", publicKey: new Uint8Array(1) }),
    otp: note("otp", { code: "123456" } as Awaited<ReturnType<KeyholdClient["otp"]>>),
    rename: note("rename", {} as Awaited<ReturnType<KeyholdClient["rename"]>>),
    remove: note("remove", {} as Awaited<ReturnType<KeyholdClient["remove"]>>),
    importItems: note("importItems", { imported: 0, skipped: 0, items: [], requestId: null, queued: false }),
    linkDevice: note("linkDevice", {} as Awaited<ReturnType<KeyholdClient["linkDevice"]>>),
  };
  const ask: AskOwner | null =
    answer === null
      ? null
      : (question, signal) => {
          asked.push(question);
          return typeof answer === "string" ? Promise.resolve(answer) : answer(question, signal);
        };
  const agent = await fakeAgent(client, { ...options, confirm: { patterns, ask } });
  agents.push(agent);
  return { agent, asked, done };
}

describe("patterns", () => {
  test("a name is itself, a beginning ends in *, always is all, never none", () => {
    expect(confirmPatterns(["never"])).toEqual([]);
    expect(confirmPatterns([])).toEqual([]);
    expect(confirmPatterns(["prod/*", "always"])).toEqual(["*"]);
    expect(confirmPatterns(["caf\u0065\u0301"])).toEqual(["caf\u00e9"]);
    for (const bad of [["never", "a"], ["a*b"], ["*/db"], [""], ["x".repeat(1_025)], ["\ud800"], Array(65).fill("a")]) {
      expect(() => confirmPatterns(bad)).toThrow(expect.objectContaining({ code: "bad_input" }));
    }
    const cases = [
      ["prod/*", "prod/db", true],
      ["prod/*", "prod", false],
      ["prod/*", "Prod/db", false],
      ["prod", "prod", true],
      ["prod", "prod/db", false],
      ["*", "anything", true],
      ["p.*", "prod", false],
    ] as const;
    for (const [pattern, name, wanted] of cases)
      expect([pattern, name, needsConfirm([pattern], name)]).toEqual([pattern, name, wanted]);
  });

  test("a beginning matches exactly what begins so", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (start, name) => {
        expect(needsConfirm([`${start}*`], name)).toBe(name.startsWith(start));
      }),
    );
  });
});

describe("confirmation", () => {
  test("is asked before a value is fetched, a signature or a code is made; other names go through", async () => {
    const { agent, asked, done } = await start(["prod/*"], "no");
    const { client } = agent;
    await rejected(client.get({ name: "prod/db", ...shape }), "denied");
    await rejected(client.sign({ name: "prod/db", version: null, message: new Uint8Array(1), scheme: null }), "denied");
    await rejected(client.otp({ name: "prod/db", fresh: false }), "denied");
    await rejected(client.rename({ from: "prod/db", to: "free" }), "denied");
    await rejected(client.linkDevice(), "denied");
    const item = { name: "db", type: "note" as const, value: Uint8Array.of(1), tags: [], createdAt: null };
    const importing = { items: [item], prefix: "prod/", dryRun: true, origin: "json", where: null };
    await rejected(client.importItems(importing), "denied");
    expect(done).toEqual([]);
    const { pid } = process;
    expect(asked).toEqual([
      { method: "get", names: ["prod/db"], pid },
      { method: "sign", names: ["prod/db"], pid },
      { method: "otp", names: ["prod/db"], pid },
      { method: "rename", names: ["prod/db"], pid },
      { method: "linkDevice", names: null, pid },
      { method: "importItems", names: ["prod/db"], pid },
    ]);
    asked.length = 0;
    await client.get({ name: "dev/db", ...shape });
    await client.get({ name: "prod/db", ...shape, reveal: false });
    await client.list({ prefix: null, search: null, tag: null, fresh: false });
    await client.remove({ name: "prod/db", purge: false });
    await client.importItems({ ...importing, prefix: "dev/" });
    expect(asked).toEqual([]);
    expect(done).toEqual(["get", "get", "remove", "importItems"]);
  });

  test("yes lets through, once: the next access is asked about again", async () => {
    const { agent, asked } = await start(["*"], "yes");
    for (let i = 0; i < 2; i++) {
      expect((await agent.client.get({ name: "prod/db", ...shape })).value).toEqual(Uint8Array.of(1));
    }
    expect(asked.length).toBe(2);
  });

  test("of many at once it is one question, for all or nothing", async () => {
    const refs = ["dev/a", "prod/b", "dev/c", "prod/d", "prod/b"].map((name) => ({ name, version: null }));
    for (const answer of ["no", "yes"] as const) {
      const { agent, asked, done } = await start(["prod/*"], answer);
      const reading = agent.client.getMany({ refs, fresh: false, purpose: "get" });
      if (answer === "yes") expect((await reading).length).toBe(5);
      else await rejected(reading, "denied");
      expect(done).toEqual(answer === "yes" ? ["getMany"] : []);
      expect(asked.map(({ names }) => names)).toEqual([["prod/b", "prod/d"]]);
    }
  });

  test("a key id, whole, cut short or in capitals, counts as the name it stands for; an unknown one is asked about", async () => {
    const { agent, asked } = await start(["prod/*"], "no");
    for (const id of [PROD_ID, PROD_ID.slice(0, 6), PROD_ID.toUpperCase(), "abcd", "1234"]) {
      await rejected(agent.client.get({ name: id, ...shape }), "denied");
    }
    expect(asked.map(({ names }) => names)).toEqual([["prod/db"], ["prod/db"], ["prod/db"], ["abcd"], ["1234"]]);
    const other = await start(["other/*"], "no");
    await other.agent.client.get({ name: PROD_ID, ...shape });
    expect(other.asked).toEqual([]);
  });

  test("a secret named like another one's key id hides it from no question: it may be gone when the name is read", async () => {
    const decoy = PROD_ID.slice(0, 12);
    const { agent, asked, done } = await start(["prod/*"], "no", {}, [{ name: decoy, keyId: "cd".repeat(16) }]);
    await rejected(agent.client.get({ name: decoy, ...shape }), "denied");
    await rejected(
      agent.client.getMany({ refs: [{ name: decoy, version: null }], fresh: false, purpose: "get" }),
      "denied",
    );
    expect(asked.map(({ names }) => names)).toEqual([["prod/db"], ["prod/db"]]);
    expect(done).toEqual([]);
    const free = await start(["prod/*"], "no", {}, [{ name: "beef", keyId: "cd".repeat(16) }]);
    await free.agent.client.get({ name: "beef", ...shape });
    expect(free.asked).toEqual([]);
  });

  test("a name in another form of the same Unicode text is the same name", async () => {
    const { agent, asked } = await start(confirmPatterns(["caf\u00e9"]), "no");
    await rejected(agent.client.get({ name: "cafe\u0301", ...shape }), "denied");
    expect(asked.length).toBe(1);
  });

  test("nobody to ask: refused with a hint; no answer in time: timed_out", async () => {
    const nobody = await start(["*"], null);
    const fault = await rejected(nobody.agent.client.get({ name: "a", ...shape }), "denied");
    expect([fault.exit, fault.hint]).toEqual([5, expect.stringContaining("confirmCommand")]);
    const late = await start(["*"], "timed_out");
    expect((await rejected(late.agent.client.get({ name: "a", ...shape }), "timed_out")).exit).toBe(11);
    expect([nobody.done, late.done]).toEqual([[], []]);
  });

  test("questions come one at a time; behind eight further ones are refused", async () => {
    let open = 0;
    let most = 0;
    const first = Promise.withResolvers<void>();
    const { agent, asked } = await start(["*"], async () => {
      most = Math.max(most, ++open);
      await first.promise;
      open--;
      return "yes";
    });
    const all = Array.from({ length: 12 }, (_, i) => agent.client.get({ name: `n${i}`, ...shape }));
    const settled = Promise.allSettled(all);
    const refused = await Promise.any(
      all.map((one) =>
        one.then(
          () => Promise.reject(new Error("let through")),
          (error) => error,
        ),
      ),
    );
    expect(refused).toMatchObject({ code: "rate_limited" });
    first.resolve();
    const outcomes = (await settled).map(({ status }) => status);
    expect([outcomes.filter((one) => one === "fulfilled").length, most, asked.length]).toEqual([8, 1, 8]);
  });

  test("a caller that goes away withdraws its question, and does not keep the others waiting", async () => {
    const withdrawn = Promise.withResolvers<void>();
    const shown = Promise.withResolvers<void>();
    const { agent, asked, done } = await start(["*"], (question, signal) => {
      if (question.names?.[0] !== "first") return Promise.resolve("yes");
      shown.resolve();
      return new Promise((resolve) =>
        signal.addEventListener("abort", () => {
          withdrawn.resolve();
          resolve("yes");
        }),
      );
    });
    const socket = connect(agentSocketPath(agent.socket));
    socket.write(
      `${JSON.stringify({ jsonrpc: "2.0", id: 1, method: "get", params: { name: "first", reveal: true } })}\n`,
    );
    await shown.promise;
    const second = agent.client.get({ name: "second", ...shape });
    socket.destroy();
    await withdrawn.promise;
    expect((await second).value).toEqual(Uint8Array.of(1));
    expect([asked.length, done]).toEqual([2, ["get"]]);
  });

  test("locking withdraws the question; a yes after the system slept is too late", async () => {
    const withdrawn = Promise.withResolvers<void>();
    const shown = Promise.withResolvers<void>();
    const { agent, done } = await start(["*"], (_question, signal) => {
      shown.resolve();
      return new Promise((resolve) =>
        signal.addEventListener("abort", () => {
          withdrawn.resolve();
          resolve("no");
        }),
      );
    });
    const reading = rejected(agent.client.get({ name: "a", ...shape }), "locked");
    await shown.promise;
    await lockAgent(agent.socket);
    await withdrawn.promise;
    await reading;
    const clock = setClock();
    const asleep = await start(
      ["*"],
      async () => {
        clock.sleep(60_000);
        return "yes";
      },
      { clock },
    );
    await rejected(asleep.agent.client.get({ name: "a", ...shape }), "locked");
    expect([done, asleep.done]).toEqual([[], []]);
  });
});
