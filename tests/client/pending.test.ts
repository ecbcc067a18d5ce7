import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { KeyholdClient } from "../../src/client/api.ts";
import { readPending } from "../../src/client/vaultfile.ts";
import { Fault } from "../../src/errors.ts";
import { frameHead } from "../../src/protocol/channel.ts";
import { operations } from "../../src/wire/operations.ts";
import { addTestDevice, type Middle, random, registerDevice, type TestDevice } from "../support/harness.ts";
import {
  EVERYTHING,
  impatient,
  onDisk,
  rejected,
  reopened,
  startVillain,
  storing,
  textOf,
  type Villain,
} from "../support/hostile.ts";

const PASSWORD = "a password of ada";
let villain: Villain;
let count = 0;
let account: string;
let ada: TestDevice;
const ends: (() => Promise<void>)[] = [];

beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  account = `ada ${count++}`;
  ada = await registerDevice(villain.link, account, PASSWORD);
  ends.push(() => ada.end());
  await ada.client.store(storing("a", "first"));
  await ada.client.store(storing("gone", "value"));
  await ada.client.remove({ name: "gone", purge: false });
  villain.seen.length = 0;
});
afterEach(async () => {
  villain.attack = null;
  for (const end of ends.splice(0).reverse()) await end();
  expect(villain.server.faults).toEqual([]);
});

const again = async () => {
  const made = await reopened(villain.link, ada, account, PASSWORD);
  ends.push(() => made.client.close());
  return made;
};

const GENERATE = { name: "made", type: "bytes", length: null, tags: [], replace: false, where: null } as const;
const IMPORT = {
  items: ["i1", "i2"].map((name) => ({
    name,
    type: "note" as const,
    value: new TextEncoder().encode(name),
    tags: [],
    createdAt: null,
  })),
  prefix: "",
  dryRun: false,
  origin: "json",
  where: null,
};

/** Every mutation of secrets with what the account looks like once it was made exactly once. */
const MUTATIONS: Record<string, { work: (client: KeyholdClient) => Promise<unknown>; after: string[] }> = {
  "secret.store (new)": { work: (c) => c.store(storing("b", "value")), after: ["a 1", "b 1"] },
  "secret.store (next version)": { work: (c) => c.store(storing("a", "second")), after: ["a 2"] },
  "secret.generate": { work: (c) => c.generate(GENERATE), after: ["a 1", "made 1"] },
  "secret.import": { work: (c) => c.importItems(IMPORT), after: ["a 1", "i1 1", "i2 1"] },
  "secret.update (rename)": { work: (c) => c.rename({ from: "a", to: "b" }), after: ["b 1"] },
  "secret.update (tag)": { work: (c) => c.tag({ name: "a", add: ["t"], remove: [] }), after: ["a 1 t"] },
  "secret.remove": { work: (c) => c.remove({ name: "a", purge: false }), after: [] },
  "secret.purge": { work: (c) => c.remove({ name: "a", purge: true }), after: [] },
  "secret.restore": { work: (c) => c.restore({ name: "gone", version: 1 }), after: ["a 1", "gone 2"] },
};
const operationOf = (name: string): string => name.split(" ")[0] ?? "";
const look = async (client: KeyholdClient): Promise<string[]> =>
  (await client.list(EVERYTHING)).items.map(({ name, version, tags }) => [name, version, ...tags].join(" "));

const isMutation = (operation: string): boolean =>
  Object.hasOwn(operations, operation) && operations[operation as "secret.store"].mutation;

/** The request ids under which an operation reached the server. */
const idsOf = (operation: string): Set<string> =>
  new Set(villain.seen.filter((one) => one.operation === operation).map(({ body }) => frameHead(body).requestId));

async function effects(client: KeyholdClient, operation: string): Promise<number> {
  const query = {
    name: null,
    fromMs: null,
    untilMs: null,
    requestId: null,
    limit: null,
    cursor: null,
    purpose: "list",
  } as const;
  const { items } = await client.auditList({ ...query, action: operation });
  const ids = idsOf(operation);
  return new Set(
    items.filter((item) => item.status === "ok" && ids.has(item.requestId ?? "")).map((item) => item.requestId),
  ).size;
}

const lost = () => new Fault("unreachable", "the connection broke");

describe("a connection that breaks", () => {
  for (const [name, { work, after }] of Object.entries(MUTATIONS)) {
    const operation = operationOf(name);
    for (const moment of ["before", "after"] as const) {
      test(`${moment} the execution of ${name}: the same request again, one effect`, async () => {
        impatient(ada);
        const breaking: Middle = async (op, body, forward) => {
          if (op !== operation) return forward(op, body);
          if (moment === "after") await forward(op, body);
          else villain.seen.push({ operation: op, body });
          throw lost();
        };
        const fault = await villain.during(breaking, () => rejected(work(ada.client), "outcome_unknown"));
        expect(fault.exit).toBe(7);
        expect(idsOf(operation)).toEqual(new Set([fault.requestId ?? ""]));
        expect(readPending(ada.open.box.path)).not.toBeNull();
        const next = await again();
        expect(await look(next.client)).toEqual(after);
        expect(next.notices.join()).toContain(`an earlier change was completed (${operation})`);
        expect(readPending(ada.open.box.path)).toBeNull();
        expect(idsOf(operation).size).toBe(1);
        expect(await effects(next.client, operation)).toBe(1);
        expect((await next.client.auditVerify()).ok).toBe(true);
        expect(await look(ada.client)).toEqual(after);
      });
    }
  }

  test("a copy that the vault was to keep is kept when a later command settles the change", async () => {
    impatient(ada);
    const breaking: Middle = async (op, body, forward) => {
      const reply = await forward(op, body);
      if (isMutation(op)) throw lost();
      return reply;
    };
    for (const [name, where] of [
      ["kept", "both"],
      ["not kept", "server"],
    ] as const) {
      await villain.during(breaking, () =>
        rejected(ada.client.store(storing(name, "value", { where })), "outcome_unknown"),
      );
      const { items } = await (await again()).client.list(EVERYTHING);
      expect(items.find((item) => item.name === name)?.where).toBe(where);
    }
  });

  test("for a moment only: tried again within the same command", async () => {
    let failures = 0;
    const flaky: Middle = async (op, body, forward) => {
      if (op !== "secret.store" || failures >= 2) return forward(op, body);
      failures += 1;
      if (failures === 2) await forward(op, body);
      throw lost();
    };
    await villain.during(flaky, () => ada.client.store(storing("a", "second")));
    expect(failures).toBe(2);
    expect(idsOf("secret.store").size).toBe(1);
    expect(await look(ada.client)).toEqual(["a 2"]);
    expect(readPending(ada.open.box.path)).toBeNull();
  });

  test("twice in a row: still the same request, and a read settles it too", async () => {
    impatient(ada);
    const down: Middle = async (op, body, forward) => {
      if (isMutation(op)) throw lost();
      return forward(op, body);
    };
    await villain.during(down, () => rejected(ada.client.store(storing("a", "second")), "outcome_unknown"));
    // what comes behind it waits
    expect((await villain.during(down, () => ada.client.store(storing("b", "value")))).queued).toBe(true);
    expect(await textOf(ada.client, "a")).toBe("second");
    expect(await look(ada.client)).toEqual(["a 2", "b 1"]);
    expect(idsOf("secret.store").size).toBe(2);
  });

  test("a pending change that another device overtook is not made, and says so", async () => {
    impatient(ada);
    const bob = await addTestDevice(villain.link, account, PASSWORD);
    ends.push(() => bob.end());
    await ada.client.sync();
    const down: Middle = async (op, body, forward) => {
      if (op === "secret.store") throw lost();
      return forward(op, body);
    };
    await villain.during(down, () => rejected(ada.client.store(storing("a", "of ada")), "outcome_unknown"));
    await bob.client.sync();
    await bob.client.store(storing("a", "of bob"));
    const next = await again();
    await next.client.sync();
    expect(next.notices.join()).toContain("an earlier change was not made (secret.store): stale");
    expect(await textOf(next.client, "a")).toBe("of bob");
    expect(readPending(ada.open.box.path)).toBeNull();
  });

  test("while the server is away a read answers from the vault and keeps the pending change", async () => {
    impatient(ada);
    const down: Middle = async () => {
      throw lost();
    };
    await villain.during(
      async (op, body, forward) => {
        if (isMutation(op)) throw lost();
        return forward(op, body);
      },
      () => rejected(ada.client.store(storing("a", "second")), "outcome_unknown"),
    );
    const listed = await villain.during(down, () => ada.client.list({ ...EVERYTHING, fresh: false }));
    expect(listed.from).toBe("vault");
    expect(listed.items.map(({ version }) => version)).toEqual([1]);
    expect(readPending(ada.open.box.path)).not.toBeNull();
  });
});

/** What a process that was killed leaves behind: no Fault, nothing tidied up. */
class Killed extends Error {}

/** Kills the device's process at its n-th step: a draw of randomness, a request going out, a reply coming in. */
function killAt(step: number): { steps: () => number; middle: Middle; disarm: () => void } {
  let at = 0;
  let armed = true;
  const tick = (): void => {
    at += 1;
    if (armed && at === step) throw new Killed(`step ${step}`);
  };
  Object.assign(ada.open.around, {
    random: (length: number) => {
      tick();
      return random(length);
    },
  });
  return {
    steps: () => at,
    middle: async (op, body, forward) => {
      tick();
      const reply = await forward(op, body);
      tick();
      return reply;
    },
    disarm: () => {
      armed = false;
    },
  };
}

describe("a process that is killed", () => {
  for (const [name, { work, after }] of Object.entries(MUTATIONS)) {
    if (!["secret.store (next version)", "secret.import", "secret.purge", "secret.restore"].includes(name)) continue;
    test(`at every step of ${name}: reopened, the next command settles it; nothing lost, nothing doubled`, async () => {
      const operation = operationOf(name);
      let finished = false;
      for (let step = 1; !finished; step++) {
        if (step > 60) throw new Error("it never ends");
        // a fresh account for each step
        if (step > 1) {
          account = `ada ${count++}`;
          ada = await registerDevice(villain.link, account, PASSWORD);
          const mine = ada;
          ends.push(() => mine.end());
          await ada.client.store(storing("a", "first"));
          await ada.client.store(storing("gone", "value"));
          await ada.client.remove({ name: "gone", purge: false });
        }
        const before = await look(ada.client);
        villain.seen.length = 0;
        const killer = killAt(step);
        villain.attack = killer.middle;
        try {
          await work(ada.client);
          finished = true;
        } catch (error) {
          if (!(error instanceof Killed)) throw error;
        } finally {
          villain.attack = null;
          killer.disarm();
        }
        const next = await again();
        const now = await look(next.client);
        const reached = idsOf(operation).size;
        expect([before, after]).toContainEqual(now);
        // what reached the server, or may have, is made
        if (reached > 0 || finished) expect(now).toEqual(after);
        expect(await effects(next.client, operation)).toBe(now.join() === after.join() ? 1 : 0);
        expect(readPending(ada.open.box.path)).toBeNull();
        // the same command again is a new change of its own, and works
        if (now.join() === before.join()) {
          await work(next.client);
          expect(await look(next.client)).toEqual(after);
        }
        expect((await next.client.auditVerify()).ok).toBe(true);
        await next.client.close();
      }
    }, 30_000);
  }

  test("between the vault's new generation and the removal of the pending request", async () => {
    const pendingPath = `${ada.open.box.path}.pending`;
    let pending: Buffer | undefined;
    await villain.during(
      async (op, body, forward) => {
        if (op === "secret.store") pending = readFileSync(pendingPath);
        return forward(op, body);
      },
      () => ada.client.store(storing("a", "second")),
    );
    if (!pending) throw new Error("nothing was pending");
    expect(existsSync(pendingPath)).toBe(false);
    writeFileSync(pendingPath, pending, { mode: 0o600 });
    const next = await again();
    expect(await look(next.client)).toEqual(["a 2"]);
    expect(existsSync(pendingPath)).toBe(false);
    expect(idsOf("secret.store").size).toBe(1);
  });

  test("the pending request is sealed, and one of another vault or a damaged one is refused, not sent", async () => {
    impatient(ada);
    await villain.during(
      async (op, body, forward) => {
        if (op === "secret.store") throw lost();
        return forward(op, body);
      },
      () => rejected(ada.client.store(storing("a canary name", "a canary value")), "outcome_unknown"),
    );
    const pendingPath = `${ada.open.box.path}.pending`;
    const bytes = readFileSync(pendingPath);
    expect(bytes.includes("canary")).toBe(false);
    expect(bytes.includes("secret.store")).toBe(false);
    const bent = Buffer.from(bytes);
    bent[bent.length - 1] = (bent[bent.length - 1] ?? 0) ^ 1;
    writeFileSync(pendingPath, bent);
    villain.seen.length = 0;
    const before = onDisk(ada);
    await rejected(ada.client.store(storing("b", "value")), "corrupt");
    expect(idsOf("secret.store").size).toBe(0);
    expect(onDisk(ada)).toBe(before);
    writeFileSync(pendingPath, bytes);
    expect(await look(ada.client)).toEqual(["a 1", "a canary name 1"]);
  });
});

describe("several at once", () => {
  test("two devices, 50 interleaved writes: nothing is lost", async () => {
    const bob = await addTestDevice(villain.link, account, PASSWORD);
    ends.push(() => bob.end());
    const write = async (device: TestDevice, mine: string) => {
      for (let i = 0; i < 25; i++)
        await device.client.store(storing(`${mine} ${i}`, `${mine} ${i}`, { where: i % 2 ? "both" : "server" }));
    };
    await Promise.all([write(ada, "of ada"), write(bob, "of bob")]);
    const names = [..."ab"].flatMap((who) =>
      Array.from({ length: 25 }, (_, i) => `${who === "a" ? "of ada" : "of bob"} ${i}`),
    );
    for (const device of [ada, bob]) {
      const { items } = await device.client.list(EVERYTHING);
      expect(items.map(({ name }) => name)).toEqual(["a", ...names].sort());
      const got = await device.client.getMany({
        refs: names.map((name) => ({ name, version: null })),
        fresh: true,
        purpose: "get",
      });
      expect(got.map(({ value }) => new TextDecoder().decode(value ?? undefined))).toEqual(names);
      expect((await device.client.auditVerify()).ok).toBe(true);
    }
  }, 30_000);

  test("two devices write versions of one secret: every version is there", async () => {
    const bob = await addTestDevice(villain.link, account, PASSWORD);
    ends.push(() => bob.end());
    const write = async (device: TestDevice, mine: string) => {
      for (let i = 0; i < 10; i++) await device.client.store(storing("a", `${mine} ${i}`));
    };
    await Promise.all([write(ada, "ada"), write(bob, "bob")]);
    const { items } = await ada.client.history({ name: "a" });
    expect(items.map(({ version }) => version)).toEqual(Array.from({ length: 21 }, (_, i) => i + 1));
    const values = new Set<string>();
    for (let version = 1; version <= 21; version++) values.add(await textOf(bob.client, "a", version));
    expect(values.size).toBe(21);
  }, 30_000);

  test("two clients on one vault file: server and local writes interleave without loss", async () => {
    const other = await again();
    const write = async (client: KeyholdClient, mine: string) => {
      for (let i = 0; i < 12; i++) {
        const where = (["server", "local", "both"] as const)[i % 3] ?? "both";
        await client.store(storing(`${mine} ${i}`, `${mine} ${i}`, { where }));
        if (i % 4 === 0) await client.list(EVERYTHING);
      }
    };
    await Promise.all([write(ada.client, "one"), write(other.client, "two")]);
    const names = ["one", "two"].flatMap((who) => Array.from({ length: 12 }, (_, i) => `${who} ${i}`));
    const third = await again();
    for (const client of [ada.client, other.client, third.client]) {
      const listed = (await client.list(EVERYTHING)).items.map(({ name }) => name);
      expect(listed).toEqual(["a", ...names].sort());
      for (const name of names) expect(await textOf(client, name)).toBe(name);
    }
    expect((await third.client.auditVerify()).ok).toBe(true);
  }, 30_000);

  test("a list that races with another process's write to the same vault shows what the server has", async () => {
    const other = await again();
    const bob = await addTestDevice(villain.link, account, PASSWORD);
    ends.push(() => bob.end());
    await bob.client.store(storing("of bob", "value"));
    // while ada reads the list, the other process writes a local secret: a new generation without bob's secret
    const racing: Middle = async (op, body, forward) => {
      const reply = await forward(op, body);
      if (op === "secret.list") {
        villain.attack = null;
        await other.client.store(storing("local", "value", { where: "local" }));
      }
      return reply;
    };
    const listed = await villain.during(racing, () => ada.client.list(EVERYTHING));
    expect(listed.items.map(({ name }) => name)).toContain("of bob");
    const third = await reopened(null, ada, account, PASSWORD);
    ends.push(() => third.client.close());
    const kept = (await third.client.list({ ...EVERYTHING, fresh: false })).items.map(({ name }) => name);
    expect(kept).toEqual(["a", "local", "of bob"]);
  });

  test("calls on one client at once run one after another", async () => {
    await Promise.all(Array.from({ length: 10 }, (_, i) => ada.client.store(storing("a", `value ${i}`))));
    const { items } = await ada.client.history({ name: "a" });
    expect(items.length).toBe(11);
    expect(await textOf(ada.client, "a")).toBe("value 9");
  });
});
