import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { ageText } from "../../src/client/age.ts";
import type { KeyholdClient } from "../../src/client/api.ts";
import { decodeModel } from "../../src/client/model.ts";
import { openEntry } from "../../src/client/queue.ts";
import { readPending, readVaultFile } from "../../src/client/vaultfile.ts";
import { Fault } from "../../src/errors.ts";
import type { EntryId } from "../../src/ids.ts";
import { openVaultWithKey } from "../../src/protocol/vault.ts";
import { undelivered } from "../../src/wire/failure.ts";
import { addTestDevice, type Middle, registerDevice, type TestDevice } from "../support/harness.ts";
import {
  asking,
  EVERYTHING,
  impatient,
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
let bob: TestDevice;
const ends: (() => Promise<void>)[] = [];

beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  account = `ada ${count++}`;
  ada = await registerDevice(villain.link, account, PASSWORD);
  bob = await addTestDevice(villain.link, account, PASSWORD);
  ends.push(
    () => ada.end(),
    () => bob.end(),
  );
  impatient(ada);
  await ada.client.store(storing("a", "first"));
  await bob.client.sync();
  villain.seen.length = 0;
});
afterEach(async () => {
  villain.attack = null;
  for (const end of ends.splice(0).reverse()) await end();
  expect(villain.server.faults).toEqual([]);
});

/** Nothing listens there: nothing of a request leaves. */
const refused: Middle = async () => {
  throw undelivered(new Fault("unreachable", "nothing listens there"));
};
const away = <T>(work: () => Promise<T>): Promise<T> => villain.during(refused, work);

const look = async (client: KeyholdClient): Promise<string[]> =>
  (await client.list({ ...EVERYTHING, fresh: false })).items.map(({ name, version, tags, queued }) =>
    [name, version, ...tags, ...(queued ? ["queued"] : [])].join(" "),
  );
const text = (value: Uint8Array | null): string => new TextDecoder().decode(value ?? undefined);
const read = async (client: KeyholdClient, name: string, version: number | null = null): Promise<string> =>
  text((await client.get(asking(name, { version }))).value);
const conflicts = async (client: KeyholdClient) => (await client.status()).sync?.conflicts;
const waiting = async (client: KeyholdClient) => (await client.status()).sync?.queued;
const item = (name: string, value: string) => ({
  name,
  type: "note" as const,
  value: new TextEncoder().encode(value),
  tags: [],
  createdAt: null,
});
const importing = (...items: ReturnType<typeof item>[]) => ({
  items,
  prefix: "",
  dryRun: false,
  origin: "json",
  where: null,
});
const GENERATE = { name: "made", type: "password", length: null, tags: [], replace: false, where: null } as const;

describe("while the server is away", () => {
  test("writes wait in the vault, reads show them on top, and nothing of them has left", async () => {
    await away(async () => {
      const stored = await ada.client.store(storing("b", "new", { tags: ["t"] }));
      expect([stored.queued, stored.requestId, stored.info.where, stored.info.queued]).toEqual([
        true,
        null,
        "local",
        true,
      ]);
      expect((await ada.client.store(storing("a", "second"))).info.version).toBe(2);
      expect((await ada.client.generate(GENERATE)).queued).toBe(true);
      expect((await ada.client.rename({ from: "b", to: "c" })).queued).toBe(true);
      expect((await ada.client.tag({ name: "c", add: ["u"], remove: ["t"] })).info.tags).toEqual(["u"]);
      expect((await ada.client.importItems(importing(item("i1", "1"), item("i2", "2")))).queued).toBe(true);
      expect((await ada.client.remove({ name: "i2", purge: false })).queued).toBe(true);
      expect(await look(ada.client)).toEqual(["a 2 queued", "c 1 u queued", "i1 1 queued", "made 1 queued"]);
      expect([await read(ada.client, "a"), await read(ada.client, "a", 1), await read(ada.client, "c")]).toEqual([
        "second",
        "first",
        "new",
      ]);
      const { items } = await ada.client.history({ name: "a" });
      expect(items.map(({ version, current }) => [version, current])).toEqual([
        [1, false],
        [2, true],
      ]);
      const many = await ada.client.getMany({
        refs: ["a", "c", "i1"].map((name) => ({ name, version: null })),
        fresh: false,
        purpose: "export",
      });
      expect(many.map((one) => [text(one.value), one.from])).toEqual([
        ["second", "vault"],
        ["new", "vault"],
        ["1", "vault"],
      ]);
      expect((await ada.client.restore({ name: "i2", version: 1 })).queued).toBe(true);
      expect(await read(ada.client, "i2")).toBe("2");
      expect(await waiting(ada.client)).toBe(9);
      await rejected(ada.client.store(storing("c", "x", { where: "local" })), "conflict");
      await rejected(ada.client.generate({ ...GENERATE, name: "c" }), "exists");
      await rejected(ada.client.rename({ from: "a", to: "c" }), "exists");
      await rejected(ada.client.rename({ from: "nobody", to: "d" }), "not_found");
    });
    expect(villain.seen).toEqual([]);
  });

  test("the next command that reaches the server sends everything, in order, each change once", async () => {
    await away(async () => {
      await ada.client.store(storing("b", "new", { tags: ["t"] }));
      await ada.client.store(storing("b", "newer"));
      await ada.client.store(storing("a", "second"));
      await ada.client.rename({ from: "b", to: "c" });
      await ada.client.importItems(importing(item("i1", "1"), item("i2", "2")));
      await ada.client.remove({ name: "i2", purge: false });
      await ada.client.restore({ name: "i2", version: 1 });
      await ada.client.generate(GENERATE);
      await ada.client.tag({ name: "c", add: ["u"], remove: [] });
    });
    const made = await away(() => read(ada.client, "made"));
    const done = await ada.client.sync();
    expect([done.sent, done.conflicts]).toEqual([10, 0]);
    expect(await look(ada.client)).toEqual(["a 2", "c 2 t u", "i1 1", "i2 2", "made 1"]);
    expect(await waiting(ada.client)).toBe(0);
    for (const device of [ada, bob]) {
      await device.client.sync();
      expect(await textOf(device.client, "c")).toBe("newer");
      expect(await textOf(device.client, "c", 1)).toBe("new");
      expect(await textOf(device.client, "a")).toBe("second");
      expect(await textOf(device.client, "i2")).toBe("2");
      expect(await textOf(device.client, "made")).toBe(made);
      expect((await device.client.auditVerify()).ok).toBe(true);
    }
    // a kept copy is kept
    expect(await away(() => read(ada.client, "c"))).toBe("newer");
    const audited = await ada.client.auditList({
      ...{ name: "c", fromMs: null, untilMs: null, requestId: null, limit: null, cursor: null, purpose: "list" },
      action: "secret.store",
    });
    expect(audited.items).toHaveLength(2);
  });

  test("what insists on the server, or cannot be undone, does not wait", async () => {
    for (const work of [
      () => ada.client.store(storing("b", "x", { where: "server" })),
      () => ada.client.store(storing("a", "x", { where: "server" })),
      () => ada.client.importItems({ ...importing(item("i", "1")), where: "server" }),
      () => ada.client.generate({ ...GENERATE, where: "server" }),
      () => ada.client.remove({ name: "a", purge: true }),
    ]) {
      expect((await away(() => rejected(work(), "unreachable"))).exit).toBe(7);
    }
    expect(await waiting(ada.client)).toBe(0);
    expect(readPending(ada.open.box.path)).toBeNull();
    expect((await ada.client.sync()).sent).toBe(0);
  });

  test("a vault that was opened without the server queues too, and another process sees it", async () => {
    const next = await reopened(null, ada, account, PASSWORD);
    ends.push(() => next.client.close());
    await next.client.store(storing("b", "offline"));
    await away(async () => {
      expect(await look(ada.client)).toEqual(["a 1", "b 1 queued"]);
      await ada.client.store(storing("b", "again"));
      await Promise.all([ada.client.store(storing("x", "1")), next.client.store(storing("y", "2"))]);
    });
    expect(await look(next.client)).toEqual(["a 1", "b 2 queued", "x 1 queued", "y 1 queued"]);
    expect((await ada.client.sync()).sent).toBe(4);
    expect(await look(next.client)).toEqual(["a 1", "b 2", "x 1", "y 1"]);
    expect(next.notices.join()).toContain("from the vault, synced");
  });

  test("a change whose outcome is unknown does not wait twice, and what follows it goes on from it", async () => {
    const lost: Middle = async (op, body, forward) => {
      const reply = await forward(op, body);
      if (op === "secret.store") throw new Fault("unreachable", "the connection broke");
      return reply;
    };
    await villain.during(lost, () => rejected(ada.client.store(storing("a", "second")), "outcome_unknown"));
    await away(() => ada.client.store(storing("a", "third")));
    const done = await ada.client.sync();
    expect(done.conflicts).toBe(0);
    expect(await read(ada.client, "a", 2)).toBe("second");
    expect(await read(ada.client, "a")).toBe("third");
  });

  test("a server that lies that nothing was delivered makes nothing happen twice", async () => {
    const lying: Middle = async (op, body, forward) => {
      const reply = await forward(op, body);
      if (op !== "secret.store") return reply;
      const error = new TextEncoder().encode('{"code":"unreachable","message":"gone","retryAfterMs":null}');
      return { status: 503, contentType: "application/json", body: error, outcome: "unreachable" };
    };
    await villain.during(lying, () => rejected(ada.client.store(storing("a", "second")), "outcome_unknown"));
    await ada.client.sync();
    expect(await look(ada.client)).toEqual(["a 2"]);
  });
});

describe("the vault", () => {
  const body = () => {
    const bytes = readVaultFile(ada.open.box.path);
    if (!bytes) throw new Error("no vault");
    return JSON.parse(new TextDecoder().decode(openVaultWithKey(bytes, ada.open.box.vault.key).body));
  };

  test("is of another version while something waits, which earlier programs refuse, and of the first one again", async () => {
    expect([body().v, Object.hasOwn(body(), "queue")]).toEqual([1, false]);
    await bob.client.store(storing("a", "of bob"));
    await away(() => ada.client.store(storing("a", "of ada, a canary")));
    expect([body().v, body().queue.length]).toEqual([2, 1]);
    const [entry] = body().queue;
    // sealed once more inside the vault, and bound to its entry
    expect(JSON.stringify(entry)).not.toContain(Buffer.from("a canary").toString("base64url").slice(0, 8));
    const { model } = ada.open.box;
    const [waiting] = model.queue;
    if (!waiting) throw new Error("nothing waits");
    const keys = [model.keys.record];
    expect(new TextDecoder().decode(openEntry(keys, model.owner, waiting))).toBe("of ada, a canary");
    for (const other of [
      { ...waiting, id: "00".repeat(16) as EntryId },
      { ...waiting, meta: { ...waiting.meta, type: "bytes" as const } },
    ]) {
      expect(() => openEntry(keys, model.owner, other)).toThrow("does not belong where it was found");
    }
    await ada.client.sync();
    expect([body().v, body().queue.length, body().conflicts.length]).toEqual([2, 0, 1]);
    await ada.client.restore({ name: "a", version: 2 });
    expect(body().v).toBe(1);
    expect(() => decodeModel(new TextEncoder().encode(JSON.stringify({ ...body(), v: 2 })))).toThrow();
    expect(() =>
      decodeModel(new TextEncoder().encode(JSON.stringify({ ...body(), queue: [], conflicts: [] }))),
    ).toThrow();
  });

  test("says its age in people's words", () => {
    expect([0, 999, 1_000, 59_999, 180_000, 7_200_000, 3 * 86_400_000].map(ageText)).toEqual([
      "just now",
      "just now",
      "1 s ago",
      "59 s ago",
      "3 m ago",
      "2 h ago",
      "3 d ago",
    ]);
    expect(ageText(-5_000)).toBe("just now");
  });
});

describe("two devices", () => {
  test("both change a value: both versions are there, ours on top, and a restore solves it", async () => {
    await bob.client.store(storing("a", "of bob", { tags: ["theirs"] }));
    await away(() => ada.client.store(storing("a", "of ada", { tags: ["ours"] })));
    const done = await ada.client.sync();
    expect([done.sent, done.conflicts]).toEqual([1, 1]);
    expect(ada.notices.join()).toContain("keyhold status");
    expect(await conflicts(ada.client)).toMatchObject([{ name: "a", kind: "changed", theirs: 2, ours: 3 }]);
    expect(await look(ada.client)).toEqual(["a 3 ours theirs"]);
    expect([await read(ada.client, "a", 2), await read(ada.client, "a")]).toEqual(["of bob", "of ada"]);
    const again = await reopened(villain.link, ada, account, PASSWORD);
    expect(await conflicts(again.client)).toHaveLength(1);
    await again.client.restore({ name: "a", version: 2 });
    expect(await conflicts(again.client)).toEqual([]);
    await again.client.close();
    expect((await ada.client.sync()).conflicts).toBe(0);
  });

  test("both make a secret of one name: one secret with both values", async () => {
    await bob.client.store(storing("n", "of bob"));
    await away(async () => {
      await ada.client.store(storing("n", "of ada"));
      await ada.client.store(storing("n", "of ada, again"));
    });
    await ada.client.sync();
    expect(await look(ada.client)).toEqual(["a 1", "n 3"]);
    expect(await read(ada.client, "n", 1)).toBe("of bob");
    expect(await conflicts(ada.client)).toMatchObject([{ name: "n", kind: "changed", theirs: 1, ours: 3 }]);
    await ada.client.store(storing("n", "both"));
    expect(await conflicts(ada.client)).toEqual([]);
  });

  test("removed there and changed here: it comes back; removed here and changed there: it stays", async () => {
    await ada.client.store(storing("b", "b1"));
    await ada.client.store(storing("c", "c1"));
    await bob.client.sync();
    await bob.client.remove({ name: "a", purge: false });
    await bob.client.store(storing("b", "b2"));
    await bob.client.remove({ name: "c", purge: true });
    await away(async () => {
      await ada.client.store(storing("a", "second"));
      await ada.client.remove({ name: "b", purge: false });
      await ada.client.store(storing("c", "c2"));
    });
    await ada.client.sync();
    expect(await look(ada.client)).toEqual(["a 2", "b 2", "c 1"]);
    expect([await read(ada.client, "a"), await read(ada.client, "b"), await read(ada.client, "c")]).toEqual([
      "second",
      "b2",
      "c2",
    ]);
    expect(await conflicts(ada.client)).toMatchObject([
      { name: "a", kind: "removed-there" },
      { name: "b", kind: "removed-here", theirs: 2, ours: null },
    ]);
    await ada.client.remove({ name: "b", purge: false });
    await ada.client.restore({ name: "a", version: 1 });
    expect(await conflicts(ada.client)).toEqual([]);
  });

  test("a name that was taken meanwhile stays with its holder; tags of both are kept", async () => {
    await ada.client.store(storing("b", "b1", { tags: ["x", "y"] }));
    await bob.client.sync();
    await bob.client.rename({ from: "a", to: "z" });
    await bob.client.tag({ name: "b", add: ["bob"], remove: ["x"] });
    await away(async () => {
      await ada.client.rename({ from: "b", to: "z" });
      await ada.client.tag({ name: "z", add: ["ada"], remove: ["y"] });
    });
    await ada.client.sync();
    expect(await look(ada.client)).toEqual(["b 1 ada bob", "z 1"]);
    expect(await conflicts(ada.client)).toMatchObject([{ name: "b", kind: "name" }]);
    await ada.client.rename({ from: "b", to: "c" });
    expect(await conflicts(ada.client)).toEqual([]);
  });
});
