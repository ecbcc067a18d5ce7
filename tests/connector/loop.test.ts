import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { backoffMs, LOOP } from "../../src/connector/loop.ts";
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
});

describe("the loop", () => {
  test("works on no more tasks at once than it may, and asks for no more", async () => {
    const [one] = world.connectors;
    if (!one) throw new Error("no connector");
    let most = 0;
    const { step } = one;
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
    expect(step).toBeDefined();
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(4);
    expect(Math.max(...asked)).toBeLessThan(4);
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
