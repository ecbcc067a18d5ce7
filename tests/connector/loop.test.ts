import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { silentLog } from "../../src/connector/log.ts";
import { backoffMs, createLoop, LOOP } from "../../src/connector/loop.ts";
import { Fault } from "../../src/errors.ts";
import { distinct } from "../support/fakeregistry.ts";
import { type ConnectorWorld, Crash, connectorWorld, work } from "./world.ts";

setDefaultTimeout(120_000);

let world: ConnectorWorld;
beforeEach(async () => {
  world = await connectorWorld();
});
afterEach(() => world.close());

const away = () => new Fault("unreachable", "nothing listens there");

test("pauses grow to a bound, are never less than half, and never less than was asked for", () => {
  fc.assert(
    fc.property(
      fc.nat(64),
      fc.double({ min: 0, max: 0.999_999, noNaN: true }),
      fc.nat(100_000),
      (tries, jitter, after) => {
        const whole = Math.min(LOOP.backoffMaxMs, LOOP.backoffFirstMs * 2 ** Math.min(tries, 20));
        const pause = backoffMs(tries, jitter, after);
        expect(pause).toBeGreaterThanOrEqual(Math.max(after, whole / 2));
        expect(pause).toBeLessThanOrEqual(Math.max(after, whole));
      },
    ),
  );
  // a registry that says never is asked again all the same
  expect(backoffMs(0, 0, Number.MAX_SAFE_INTEGER)).toBe(LOOP.retryAfterMaxMs);
});

describe("the loop", () => {
  test("works on no more tasks at once than it may, and asks for no more", async () => {
    const [one] = world.connectors;
    if (!one) throw new Error("no connector");
    let most = 0;
    const seen = new Set<string>();
    for (let n = 0; n < 12; n++) world.askKey();
    const loop = one.start();
    one.before = (name) => {
      if (name === "federation.submit") seen.add(name);
      most = Math.max(most, loop.running());
    };
    const asked: number[] = [];
    world.registry.before = (name) => {
      if (name === "party.tasks") asked.push(loop.running());
    };
    const run = loop.run();
    while (one.calls.filter((name) => name === "federation.submit").length < 12) await Bun.sleep(2);
    loop.drain();
    await run;
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(4);
    expect(Math.max(...asked)).toBeLessThan(4);
  });

  test("what was done while the registry was asked is not done again, and only what it has not taken comes anew", async () => {
    const [one] = world.connectors;
    if (!one) throw new Error("no connector");
    const id = world.askKey();
    const { registry } = one.desk;
    const arrived = Promise.withResolvers<void>();
    let polls = 0;
    const ask = async (input: never) => {
      polls += 1;
      const answer = await registry.call("party.tasks", input);
      // the second answer was true when it was written, and is late: the report came between
      if (polls === 2) await arrived.promise;
      if (polls === 4) loop.drain();
      return answer;
    };
    const late: typeof registry = {
      async call(name, input) {
        if (name === "party.tasks") return (await ask(input as never)) as never;
        const output = await registry.call(name, input);
        if (name === "party.report") arrived.resolve();
        return output;
      },
    };
    const begun = Promise.withResolvers<void>();
    const { own } = one.desk;
    const slow: typeof own = {
      async call(name, input) {
        if (name === "federation.submit") await begun.promise;
        return own.call(name, input);
      },
    };
    const loop = createLoop(
      { ...one.desk, registry: late, own: slow },
      {
        concurrency: 4,
        version: "test",
        now: () => world.federation.enclaves.nowMs,
        jitter: () => 0,
        sleep: async () => {
          await Bun.sleep(1);
          if (polls >= 1) setTimeout(() => begun.resolve(), 20);
        },
        log: silentLog,
        figures: null,
        pollMs: 1,
      },
    );
    await loop.run();
    expect(polls).toBeGreaterThanOrEqual(3);
    expect(one.calls.filter((name) => name === "federation.submit")).toHaveLength(1);
    expect(world.registry.item(id).reports.map(({ report }) => report.did)).toEqual(["ready"]);
  });

  test("a task that the registry still shows after it was told is done again", async () => {
    const [one] = world.connectors;
    if (!one) throw new Error("no connector");
    const id = world.askKey();
    const { registry } = one.desk;
    let lost = 0;
    const forgetful: typeof registry = {
      async call(name, input) {
        if (name === "party.report" && lost++ === 0) return {} as never;
        return registry.call(name, input);
      },
    };
    const loop = createLoop(
      { ...one.desk, registry: forgetful },
      {
        concurrency: 4,
        version: "test",
        now: () => world.federation.enclaves.nowMs,
        jitter: () => 0,
        sleep: async () => {
          await Bun.sleep(1);
          if (world.registry.item(id).reports.length > 0) loop.drain();
        },
        log: silentLog,
        figures: null,
        pollMs: 1,
      },
    );
    await loop.run();
    expect(lost).toBeGreaterThanOrEqual(2);
    expect(world.registry.item(id).reports[0]?.report.did).toBe("ready");
  });

  test("drains: what has begun is finished and reported, and nothing more is asked for", async () => {
    const [one] = world.connectors;
    if (!one) throw new Error("no connector");
    const id = world.askKey();
    const loop = one.start();
    one.before = () => loop.drain();
    await loop.run();
    expect(loop.draining()).toBe(true);
    expect(loop.running()).toBe(0);
    expect(world.registry.item(id).reports.map(({ report }) => report.did)).toEqual(["ready"]);
    expect(world.registry.calls.filter((name) => name === "party.tasks")).toHaveLength(1);
  });

  test("a registry that asks to be left alone for ever holds up no drain", async () => {
    const one = world.connector(1);
    world.askKey();
    world.registry.before = (name) => {
      if (name === "party.report") throw new Fault("unreachable", "not now", { retryAfterMs: Number.MAX_SAFE_INTEGER });
    };
    const loop = one.start();
    const pauses: number[] = [];
    one.pausing = (ms, signal) => {
      if (ms < LOOP.retryAfterMaxMs) return void (loop.draining() && pauses.push(ms));
      expect(ms).toBe(LOOP.retryAfterMaxMs);
      loop.drain();
      // who pauses for so long wakes up for that
      expect(signal.aborted).toBe(true);
      pauses.push(0);
    };
    await loop.run();
    expect(pauses.length).toBeGreaterThan(1);
    expect(Math.max(...pauses)).toBeLessThanOrEqual(LOOP.backoffMaxMs);
  });

  test("goes on where the registry and the own server were away, and gives nothing up", async () => {
    let calls = 0;
    world.registry.before = () => {
      calls += 1;
      // no multiple of what one round takes: each kind of call is hit, none for ever
      if (calls % 5 === 0) throw away();
    };
    for (const one of world.connectors) {
      let count = 0;
      one.before = (name) => {
        count += 1;
        if (name !== "federation.begin" && name !== "federation.relay" && count % 7 === 0) throw away();
      };
    }
    const id = world.askKey();
    expect(await world.settled(id)).toHaveLength(3);
    for (const { outbox } of world.connectors) expect(outbox.counts()).toMatchObject({ dead: 0 });
  });

  test("tells the registry that all is well, and what hinders it while the own server is away", async () => {
    const one = world.connector(1);
    const { registry } = one.desk;
    const told: string[] = [];
    const heard: typeof registry = {
      call(name, input) {
        if (name === "party.tasks") told.push((input as { readonly health: { readonly state: string } }).health.state);
        return registry.call(name, input);
      },
    };
    const id = world.askKey();
    let down = true;
    one.before = () => {
      if (down) throw away();
    };
    const loop = createLoop(
      { ...one.desk, registry: heard },
      {
        concurrency: 4,
        version: "test",
        now: () => world.federation.enclaves.nowMs,
        jitter: () => 0,
        sleep: async (ms) => {
          world.federation.enclaves.nowMs += ms;
          await Bun.sleep(1);
        },
        log: silentLog,
        figures: null,
        pollMs: 0,
      },
    );
    const run = loop.run();
    while (!told.some((state) => state !== "ok")) await Bun.sleep(2);
    down = false;
    while (told.at(-1) !== "ok" || one.outbox.item(id)?.why !== "") await Bun.sleep(2);
    loop.drain();
    await run;
    expect(told[0]).toBe("ok");
    expect([...new Set(told)]).toEqual(["ok", "nothing listens there"]);
  });

  test("a response that was signed and not taken is sent after a restart, even if nobody asks for it any more", async () => {
    const one = world.connector(1);
    const id = world.askKey();
    one.step = (name) => {
      if (name === "report" && one.outbox.response(id) !== null) throw new Crash("SIGKILL");
    };
    await work(world, () => one.outbox.unsent().length === 1);
    one.step = () => undefined;
    world.registry.item(id).due.clear();
    expect(distinct(world.registry.item(id).responses)).toHaveLength(2);
    const loop = one.start();
    const run = loop.run();
    while (one.outbox.unsent().length > 0) await Bun.sleep(2);
    loop.drain();
    await run;
    expect(distinct(world.registry.item(id).responses)).toHaveLength(3);
  });

  test("a malformed task is a dead letter; put back, it is tried once more", async () => {
    const one = world.connector(1);
    const id = world.askKey();
    let bad = true;
    world.registry.tamper = (task, party) => {
      if (!bad || party.index !== 1) return task;
      return { ...task, request: { ...task.request, signature: task.request.signature.toReversed() } };
    };
    await work(world, () => one.outbox.counts().dead === 1);
    expect(one.calls).toEqual([]);
    const said = world.registry.item(id).reports.filter(({ party }) => party === "p1");
    expect(said[0]?.report).toMatchObject({ did: "missed", final: true });
    bad = false;
    // what was buried is what is tried again: the forged one
    expect(one.outbox.revive(null, 1)).toBe(1);
    await work(world, () => one.outbox.counts().dead === 1 && one.outbox.revived().length === 0, [one]);
    expect(one.calls).toEqual([]);
  });

  test("what keeps failing for a reason that nobody foresaw becomes a dead letter after its tries", async () => {
    const one = world.connector(1);
    const id = world.askKey();
    let tries = 0;
    one.before = () => {
      tries += 1;
      throw new Fault("denied", "this account may not do that here");
    };
    await work(world, () => one.outbox.counts().dead === 1, [one]);
    expect(tries).toBe(LOOP.triesMax);
    expect(one.outbox.dead()[0]).toMatchObject({ itemId: id, why: expect.stringContaining("may not do that") });
    expect(one.outbox.response(id)).toBeNull();
    // its operator has allowed it meanwhile
    one.before = () => undefined;
    one.outbox.revive(null, 1);
    const { reports } = world.registry.item(id);
    await work(world, () => reports.some(({ party, report }) => party === "p1" && report.did === "ready"), [one]);
    expect(one.outbox.counts()).toMatchObject({ dead: 0 });
  });

  test("an own server that restarts in the middle costs an attempt, and no second key", async () => {
    let crashed = false;
    const one = world.connector(2);
    one.after = (name) => {
      if (name === "federation.begin" && !crashed) {
        crashed = true;
        world.federation.party(2).crash();
      }
    };
    const id = world.askKey();
    const responses = await world.settled(id);
    expect(crashed).toBe(true);
    expect(new Set(responses.map(({ response }) => response.keyId)).size).toBe(1);
    expect(responses[0]?.response.attempt).toBeGreaterThan(1);
  });
});
