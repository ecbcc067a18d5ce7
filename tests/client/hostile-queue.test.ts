import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../src/errors.ts";
import type { KeyId } from "../../src/ids.ts";
import { stateHash } from "../../src/protocol/state.ts";
import { undelivered } from "../../src/wire/failure.ts";
import { type Middle, random, registerDevice, type TestDevice } from "../support/harness.ts";
import {
  asking,
  EVERYTHING,
  editing,
  impatient,
  inventing,
  onDisk,
  rejected,
  reopened,
  startVillain,
  storing,
  unsealed,
  type Villain,
} from "../support/hostile.ts";

/** What a server that lies can make of changes that waited for it. */

const PASSWORD = "a password of ada";
let villain: Villain;
let count = 0;
let account: string;
let ada: TestDevice;
let existing: KeyId;

beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  account = `ada ${count++}`;
  ada = await registerDevice(villain.link, account, PASSWORD);
  existing = (await ada.client.store(storing("a", "first"))).info.keyId;
  impatient(ada);
  await villain.during(refused, async () => {
    await ada.client.store(storing("a", "second"));
    await ada.client.store(storing("n", "new"));
  });
});
afterEach(async () => {
  villain.attack = null;
  await ada.end();
});

const refused: Middle = async () => {
  throw undelivered(new Fault("unreachable", "nothing listens there"));
};

/** As an honest server has it in the end: each change once. */
async function once(device: Pick<TestDevice, "client"> = ada): Promise<void> {
  await device.client.sync();
  const { items } = await device.client.list(EVERYTHING);
  expect(items.map(({ name, version }) => [name, version])).toEqual([
    ["a", 2],
    ["n", 1],
  ]);
  expect((await device.client.status()).sync).toMatchObject({ queued: 0, pending: false, conflicts: [] });
  for (const [name, value] of [
    ["a", "second"],
    ["n", "new"],
  ] as const) {
    expect(new TextDecoder().decode((await device.client.get(asking(name, { fresh: true }))).value ?? undefined)).toBe(
      value,
    );
  }
  expect((await device.client.auditVerify()).ok).toBe(true);
}

describe("a new secret that waited", () => {
  const lies: [string, (keyId: KeyId) => { keyId: KeyId; random: Uint8Array }[]][] = [
    ["the id of a secret that exists", () => [{ keyId: existing, random: random(32) }]],
    [
      "the id that was drawn offline, as if it knew it",
      () => [{ keyId: ada.open.box.model.queue.at(-1)?.keyId ?? existing, random: random(32) }],
    ],
    [
      "two ids",
      (keyId) => [
        { keyId, random: random(32) },
        { keyId: random(16).toHex() as KeyId, random: random(32) },
      ],
    ],
    ["none", () => []],
  ];
  for (const [what, lie] of lies) {
    test(`is not stored under ${what}`, async () => {
      const attack = editing(villain, {
        "secret.reserve": ({ items }) => ({ items: lie(items[0]?.keyId ?? existing) }),
      });
      await villain.during(attack, () => rejected(ada.client.sync(), "integrity"));
      expect(ada.open.box.model.queue.some(({ meta }) => meta.name === "n")).toBe(true);
      await once();
    });
  }
});

describe("a change that waited is made once, and not dropped unnoticed", () => {
  test("by a server that makes it and says in clear that it was away, full or could not read it", async () => {
    for (const code of ["unreachable", "unavailable", "storage", "bad_input", "too_large", "internal"]) {
      const lying: Middle = async (op, body, forward) => {
        const reply = await forward(op, body);
        return op === "secret.store" ? unsealed(code, 503) : reply;
      };
      await villain.during(lying, () => ada.client.sync().catch((error: unknown) => error));
    }
    await once();
  });

  test("by a server that makes it and calls it stale, under its seal", async () => {
    const stale: Middle = async (op, body, forward) => {
      if (op !== "secret.store") return forward(op, body);
      await forward(op, body);
      return inventing(villain, "secret.store", () => ({ error: "stale" }))(op, body, forward);
    };
    await villain.during(stale, () => rejected(ada.client.sync(), "integrity"));
    await once();
  });

  test("by a server that refuses it: it goes on waiting, is named, and keeps no other back", async () => {
    const refusing = inventing(villain, "secret.store", () => ({ error: "denied" }));
    await villain.during(refusing, () => ada.client.list({ ...EVERYTHING, fresh: false }));
    expect(ada.notices.join()).toContain('a queued change of "a" goes on waiting');
    expect((await ada.client.status()).sync?.queued).toBe(2);
    await villain.during(refusing, () => ada.client.tag({ name: "a", add: ["t"], remove: [] }));
    expect((await ada.client.status()).sync?.queued).toBe(3);
    await ada.client.sync();
    const { items } = await ada.client.list(EVERYTHING);
    expect(items.map(({ name, version, tags }) => [name, version, ...tags])).toEqual([
      ["a", 2, "t"],
      ["n", 1],
    ]);
  });

  test("by a server that says that it made it and did not: the next answer shows it", async () => {
    const dropping = inventing(villain, "secret.store", ({ state }, head) => ({
      output: { revision: state.state.revision, stateHash: stateHash(state.state) },
      head: { ...head, revision: state.state.revision, stateHash: stateHash(state.state) },
    }));
    await villain.during(dropping, () => ada.client.sync().catch((error: unknown) => error));
    const next = await reopened(villain.link, ada, account, PASSWORD);
    await rejected(next.client.sync(), "integrity");
    const before = onDisk(ada);
    await rejected(next.client.get(asking("a", { fresh: true })), "integrity");
    expect(onDisk(ada)).toBe(before);
    await next.client.close();
  });
});
