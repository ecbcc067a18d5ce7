import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import type { KeyholdClient } from "../../src/client/api.ts";
import type { Secret } from "../../src/client/model.ts";
import { type Open, online } from "../../src/client/opened.ts";
import { leavesOf, readVersion } from "../../src/client/reading.ts";
import { Fault } from "../../src/errors.ts";
import { undelivered } from "../../src/wire/failure.ts";
import { addTestDevice, type Middle, registerDevice, type TestDevice } from "../support/harness.ts";
import { EVERYTHING, impatient, reopened, startVillain, storing, type Villain } from "../support/hostile.ts";

setDefaultTimeout(120_000);
/** More of them with KEYHOLD_RUNS. */
const RUNS = Number(process.env["KEYHOLD_RUNS"] ?? 20);

const PASSWORD = "a password of ada";
let villain: Villain;
let count = 0;
beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());

const refused: Middle = async () => {
  throw undelivered(new Fault("unreachable", "nothing listens there"));
};

/** The process ends here, as by SIGKILL: nothing catches this. */
class Killed extends Error {}

/** Kills at the n-th request from now, before the server has it or after; then nothing more goes through. */
function killing(at: number, after: boolean): Middle {
  let left = at;
  return async (op, body, forward) => {
    left -= 1;
    if (left > 0) return forward(op, body);
    if (left === 0 && after) await forward(op, body);
    throw new Killed();
  };
}

interface Side {
  readonly device: TestDevice;
  client: KeyholdClient;
  open: Open;
  readonly account: string;
}

async function restart(side: Side): Promise<void> {
  const next = await reopened(villain.link, side.device, side.account, PASSWORD);
  impatient(next);
  side.client = next.client;
  side.open = next.open;
}

const NAMES = ["a", "b", "c"] as const;
const name = fc.constantFrom(...NAMES);
const act = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("store" as const), name }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("rename" as const), name, to: name }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("tag" as const), name, tag: fc.constantFrom("x", "y") }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("remove" as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restore" as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("import" as const), name }) },
);
type Act = typeof act extends fc.Arbitrary<infer T> ? T : never;
const kill = fc.record({ at: fc.integer({ min: 1, max: 8 }), after: fc.boolean() });
const step = fc.record({
  who: fc.constantFrom(0, 1),
  offline: fc.boolean(),
  acts: fc.array(act, { minLength: 1, maxLength: 4 }),
  kill: fc.option(kill, { nil: null, freq: 4 }),
});

const bytes = (text: string) => new TextEncoder().encode(text);

async function perform(client: KeyholdClient, one: Act, value: string): Promise<boolean> {
  switch (one.do) {
    case "store":
      await client.store(storing(one.name, value));
      return true;
    case "import": {
      const item = { name: one.name, type: "note" as const, value: bytes(value), tags: [], createdAt: null };
      await client.importItems({ items: [item], prefix: "", dryRun: false, origin: "json", where: null });
      return true;
    }
    case "rename":
      await client.rename({ from: one.name, to: one.to });
      return false;
    case "tag":
      await client.tag({ name: one.name, add: [one.tag], remove: [] });
      return false;
    case "remove":
      await client.remove({ name: one.name, purge: false });
      return false;
    case "restore":
      await client.restore({ name: one.name, version: 1 });
      return false;
  }
}

/** Every value in every version of every secret of the account. */
async function valuesOf(open: Open): Promise<Set<string>> {
  const all = new Set<string>();
  await online(open, true, async (at) => {
    const secrets: Secret[] = [...open.box.model.secrets.values()];
    for (const secret of secrets) {
      const { leaves } = await leavesOf(open, secret, at?.session ?? null);
      for (const version of new Set(leaves.map((leaf) => leaf.version))) {
        all.add(new TextDecoder().decode((await readVersion(open, secret, version, at)).value));
      }
    }
  });
  return all;
}

const view = async (client: KeyholdClient) =>
  (await client.list(EVERYTHING)).items.map(({ name, keyId, version, tags }) => ({ name, keyId, version, tags }));

test(
  "whatever two devices do, online, offline and killed: no value is lost, no name stands twice, both agree",
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 7 }), async (steps) => {
        const account = `merge ${count++}`;
        const devices = [await registerDevice(villain.link, account, PASSWORD)];
        devices.push(await addTestDevice(villain.link, account, PASSWORD));
        const sides = devices.map((device): Side => ({ device, client: device.client, open: device.open, account }));
        for (const device of devices) impatient(device);
        const kept = new Set<string>(["a0", "b0"]);
        for (const name of ["a", "b"]) await devices[0]?.client.store(storing(name, `${name}0`));
        await devices[1]?.client.sync();
        try {
          let serial = 0;
          for (const { who, offline, acts, kill: end } of steps) {
            const side = sides[who];
            if (!side) continue;
            villain.attack = offline ? refused : end ? killing(end.at, end.after) : null;
            let killed = false;
            for (const one of acts) {
              const value = `value ${serial++}`;
              try {
                if (await perform(side.client, one, value)) kept.add(value);
              } catch (error) {
                if (error instanceof Killed) killed = true;
                else if (!(error instanceof Fault)) throw error;
                else expect(error.code).not.toBe("integrity");
              }
              if (killed) break;
            }
            villain.attack = null;
            if (killed) await restart(side);
          }
          // each sends what waits, then both see what the other sent
          for (const side of [...sides, ...sides]) await side.client.sync();
          const [first, second] = await Promise.all(sides.map(({ client }) => view(client)));
          expect(second).toEqual(first);
          expect(new Set(first?.map((one) => one.name)).size).toBe(first?.length ?? 0);
          for (const { client } of sides) expect((await client.status()).sync?.queued).toBe(0);
          // who was alone met nobody
          const alone = new Set(steps.map(({ who }) => who)).size === 1;
          for (const { client } of alone ? sides : []) expect((await client.status()).sync?.conflicts).toEqual([]);
          const there = await valuesOf(sides[0]?.open ?? (undefined as never));
          expect([...kept].filter((value) => !there.has(value))).toEqual([]);
          expect((await sides[1]?.client.auditVerify())?.ok).toBe(true);
          expect(villain.server.faults).toEqual([]);
        } finally {
          villain.attack = null;
          for (const side of sides) {
            await side.client.close();
            await side.device.end();
          }
        }
      }),
      { numRuns: RUNS },
    );
  },
  RUNS * 5_000,
);

describe("killed while the queue is sent", () => {
  const WORK = async (client: KeyholdClient) => {
    await client.store(storing("a", "second"));
    await client.store(storing("n", "new"));
    await client.tag({ name: "n", add: ["t"], remove: [] });
    await client.remove({ name: "gone", purge: false });
  };

  for (let at = 1; at <= 9; at++) {
    for (const after of [false, true]) {
      test(`at request ${at}, ${after ? "after" : "before"} the server has it: the next command goes on, nothing twice`, async () => {
        const account = `killed ${count++}`;
        const device = await registerDevice(villain.link, account, PASSWORD);
        try {
          await device.client.store(storing("a", "first"));
          await device.client.store(storing("gone", "g"));
          impatient(device);
          await villain.during(refused, () => WORK(device.client));
          await villain
            .during(killing(at, after), () => device.client.sync())
            .catch((error: unknown) => {
              if (!(error instanceof Killed)) throw error;
            });
          const next = await reopened(villain.link, device, account, PASSWORD);
          await next.client.sync();
          const { items } = await next.client.list(EVERYTHING);
          expect(items.map(({ name, version, tags }) => [name, version, ...tags])).toEqual([
            ["a", 2],
            ["n", 1, "t"],
          ]);
          expect((await next.client.status()).sync).toMatchObject({ queued: 0, pending: false, conflicts: [] });
          expect((await next.client.history({ name: "n" })).items).toHaveLength(2);
          await next.client.close();
        } finally {
          await device.end();
        }
      });
    }
  }

  test("between the write of the vault and the end of the pending request", async () => {
    const account = `killed ${count++}`;
    const device = await registerDevice(villain.link, account, PASSWORD);
    const pending = `${device.open.box.path}.pending`;
    let kept: Uint8Array | null = null;
    await device.client.store(storing("a", "first"));
    await device.client.store(storing("gone", "g"));
    impatient(device);
    await villain.during(refused, () => WORK(device.client));
    const watching: Middle = async (op, body, forward) => {
      if (existsSync(pending)) kept = readFileSync(pending);
      return forward(op, body);
    };
    await villain.during(watching, () => device.client.sync()).catch(() => undefined);
    if (!kept) throw new Error("nothing was pending");
    writeFileSync(pending, kept, { mode: 0o600 });
    const next = await reopened(villain.link, device, account, PASSWORD);
    await next.client.sync();
    expect((await next.client.list(EVERYTHING)).items.map(({ name, version }) => [name, version])).toEqual([
      ["a", 2],
      ["n", 1],
    ]);
    expect((await next.client.status()).sync).toMatchObject({ queued: 0, pending: false, conflicts: [] });
    await next.client.close();
    await device.end();
  });
});
