import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { Fault } from "../../src/errors.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { undelivered } from "../../src/wire/failure.ts";
import { type Middle, registerDevice, type TestDevice } from "../support/harness.ts";
import { asking, rejected, startVillain, storing, type Villain } from "../support/hostile.ts";

/** How long a client tries a server that is away, on a clock of the test's own. */

let villain: Villain;
let ada: TestDevice;
let count = 0;
let nowMs = Date.parse("2026-01-01T00:00:00Z");
let asked = 0;

beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  ada = await registerDevice(villain.link, `ada ${count++}`, "a password of ada");
  const pause = async (ms: number) => {
    nowMs += ms;
  };
  Object.assign(ada.open.around, { now: () => nowMs, pause });
  await ada.client.store(storing("a", "value"));
  await ada.client.store(storing("there", "on the server alone", { where: "server" }));
  asked = 0;
});
afterEach(async () => {
  villain.attack = null;
  await ada.end();
});

const refused: Middle = async () => {
  asked += 1;
  throw undelivered(new Fault("unreachable", "nothing listens there"));
};
const lost: Middle = async (op, body, forward) => {
  asked += 1;
  await forward(op, body);
  throw new Fault("outcome_unknown", "the connection broke");
};
const read = (more: object = {}) => ada.client.get(asking("a", more));

/** What a piece of work cost: requests that were tried, and time. */
async function cost(work: () => Promise<unknown>): Promise<{ requests: number; ms: number }> {
  const [from, before] = [nowMs, asked];
  await work();
  return { requests: asked - before, ms: nowMs - from };
}

test("the first read tries for the connection's limit, the next ones go to the vault at once, for a while", async () => {
  villain.attack = refused;
  const first = await cost(() => read());
  expect(first.requests).toBeGreaterThan(1);
  expect(first.ms).toBeGreaterThan(0);
  expect(first.ms).toBeLessThanOrEqual(DEFAULTS.connectTimeoutMs);
  for (let i = 0; i < 3; i++) expect(await cost(() => read())).toEqual({ requests: 0, ms: 0 });
  expect(ada.notices.filter((text) => text.includes("the server is away: from the vault, synced"))).toHaveLength(4);
  nowMs += DEFAULTS.awayMs;
  expect((await cost(() => read())).requests).toBeGreaterThan(1);
});

test("fresh reads, writes, and what the vault does not know ask all the same, once", async () => {
  villain.attack = refused;
  await read();
  expect(await cost(() => rejected(read({ fresh: true }), "unreachable"))).toEqual({ requests: 1, ms: 0 });
  expect(await cost(() => ada.client.store(storing("b", "x")))).toEqual({ requests: 1, ms: 0 });
  expect(await cost(() => rejected(ada.client.get(asking("there")), "unreachable"))).toEqual({ requests: 1, ms: 0 });
  expect(await cost(() => rejected(ada.client.get(asking("nobody")), "not_found"))).toEqual({ requests: 1, ms: 0 });
});

test("an answer ends it at once: what the vault has not is read, and what waits is sent", async () => {
  villain.attack = refused;
  await ada.client.store(storing("b", "x"));
  villain.attack = null;
  expect((await read()).from).toBe("vault");
  expect((await ada.client.get(asking("there"))).from).toBe("server");
  expect((await read()).from).toBe("server");
  expect((await ada.client.status()).sync?.queued).toBe(0);
});

test("a change that may have been delivered is tried for longer, and does not wait", async () => {
  villain.attack = lost;
  const took = await cost(() => rejected(ada.client.store(storing("a", "second")), "outcome_unknown"));
  expect(took.ms).toBeGreaterThan(DEFAULTS.connectTimeoutMs);
  expect(took.ms).toBeLessThanOrEqual(DEFAULTS.retryForMs);
  expect((await ada.client.status()).sync).toMatchObject({ queued: 0, pending: true });
});

test("one request that may have been delivered is enough, though nothing listens afterwards", async () => {
  let first = true;
  villain.attack = async (op, body, forward) => {
    if (op !== "secret.store") return forward(op, body);
    if (!first) return refused(op, body, forward);
    first = false;
    return lost(op, body, forward);
  };
  await rejected(ada.client.store(storing("a", "second")), "outcome_unknown");
  villain.attack = null;
  await ada.client.sync();
  const got = await read();
  expect([got.version, new TextDecoder().decode(got.value ?? undefined)]).toEqual([2, "second"]);
  expect((await ada.client.status()).sync).toMatchObject({ queued: 0, pending: false, conflicts: [] });
});

test("a session that was quiet looks for the server before it sends a change", async () => {
  let looked = 0;
  let there = true;
  Object.assign(villain.link, {
    reach: async () => {
      looked += 1;
      if (!there) throw undelivered(new Fault("unreachable", "it did not answer in time"));
    },
  });
  try {
    await ada.client.store(storing("a", "2"));
    expect(looked).toBe(0);
    nowMs += 5_000;
    await ada.client.rename({ from: "a", to: "b" });
    expect(looked).toBe(1);
    nowMs += 5_000;
    there = false;
    villain.attack = async () => {
      throw new Error("nothing is sent where nobody is");
    };
    expect((await ada.client.rename({ from: "b", to: "c" })).queued).toBe(true);
    expect((await ada.client.status().catch(() => null)) === null).toBe(true);
  } finally {
    Object.assign(villain.link, { reach: undefined });
    villain.attack = null;
  }
  expect((await ada.client.sync()).sent).toBe(1);
});
