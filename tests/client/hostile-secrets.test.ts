import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { type KeyId, newId } from "../../src/ids.ts";
import { type LeafRecord, leafHash } from "../../src/protocol/leaf.ts";
import { addTestDevice, type Middle, random, registerDevice, type TestDevice } from "../support/harness.ts";
import {
  asking,
  detected,
  EVERYTHING,
  editing,
  inventing,
  rejected,
  startVillain,
  storing,
  textOf,
  unsealed,
  type Villain,
} from "../support/hostile.ts";

const PASSWORD = "a password of ada";
let villain: Villain;
let count = 0;
let account: string;
let ada: TestDevice;
const devices: TestDevice[] = [];

beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  account = `ada ${count++}`;
  ada = await registerDevice(villain.link, account, PASSWORD);
  devices.push(ada);
});
afterEach(async () => {
  for (const device of devices.splice(0)) await device.end();
  expect(villain.server.faults).toEqual([]);
});

async function further(): Promise<TestDevice> {
  const device = await addTestDevice(villain.link, account, PASSWORD);
  devices.push(device);
  return device;
}

async function store(device: TestDevice, name: string, value: string): Promise<KeyId> {
  return (await device.client.store(storing(name, value, { where: "server" }))).info.keyId;
}

const sealedOf = async (device: TestDevice, keyId: KeyId, version: number): Promise<Uint8Array> => {
  const { owner } = device.open.box.model;
  const found = await villain.server.store.transaction((tx) => tx.sealedValue(owner, keyId, version));
  if (!found) throw new Error("no such value");
  return found;
};

/** Answers each get with this ciphertext in place of the right one. */
const serving = (sealed: Uint8Array): Middle =>
  editing(villain, { "secret.get": ({ items }) => ({ items: items.map((item) => ({ ...item, sealed })) }) });

const fresh =
  (device: TestDevice, name: string, version: number | null = null) =>
  () =>
    device.client.get(asking(name, { fresh: true, version }));

describe("values", () => {
  test("swap two ciphertexts of one user", async () => {
    await store(ada, "a", "value a");
    const other = await store(ada, "b", "value b");
    await detected(villain, ada, serving(await sealedOf(ada, other, 1)), fresh(ada, "a"));
    expect(await textOf(ada.client, "a")).toBe("value a");
  });

  test("swap ciphertexts of two users", async () => {
    const eve = await registerDevice(villain.link, `eve ${count}`, PASSWORD);
    devices.push(eve);
    const hers = await store(eve, "a", "value of eve");
    await store(ada, "a", "value of ada");
    await detected(villain, ada, serving(await sealedOf(eve, hers, 1)), fresh(ada, "a"));
    expect(await textOf(ada.client, "a")).toBe("value of ada");
  });

  test("replay an old version as the newest, and the newest as an old one", async () => {
    const keyId = await store(ada, "a", "first");
    await store(ada, "a", "second");
    await detected(villain, ada, serving(await sealedOf(ada, keyId, 1)), fresh(ada, "a"));
    await detected(villain, ada, serving(await sealedOf(ada, keyId, 2)), fresh(ada, "a", 1));
    expect(await textOf(ada.client, "a")).toBe("second");
    expect(await textOf(ada.client, "a", 1)).toBe("first");
  });

  test("change, cut or lengthen a ciphertext", async () => {
    const good = await sealedOf(ada, await store(ada, "a", "value"), 1);
    const flipped = good.slice();
    flipped[80] = (flipped[80] ?? 0) ^ 1;
    for (const sealed of [flipped, good.slice(0, -1), Uint8Array.of(...good, 0), Uint8Array.of(0)]) {
      await detected(villain, ada, serving(sealed), fresh(ada, "a"));
    }
  });

  test("answer with another id or version than was asked for, with none, or with more", async () => {
    await store(ada, "a", "value a");
    const other = await store(ada, "b", "value b");
    await store(ada, "a", "value a2");
    const attacks: Middle[] = [
      editing(villain, { "secret.get": ({ items }) => ({ items: items.map((one) => ({ ...one, keyId: other })) }) }),
      editing(villain, { "secret.get": ({ items }) => ({ items: items.map((one) => ({ ...one, version: 1 })) }) }),
      editing(villain, { "secret.get": ({ items }) => ({ items: [...items, ...items] }) }),
      editing(villain, { "secret.get": () => ({ items: [] }) }),
    ];
    for (const attack of attacks) await detected(villain, ada, attack, fresh(ada, "a"));
  });

  test("mix up several values in one answer", async () => {
    for (const name of ["a", "b", "c"]) await store(ada, name, `value ${name}`);
    const refs = ["a", "b", "c"].map((name) => ({ name, version: null }));
    const many = (purpose: "get" | "export") => () => ada.client.getMany({ refs, fresh: true, purpose });
    for (const purpose of ["get", "export"] as const) {
      const operation = `secret.${purpose}` as const;
      const turned = editing(villain, {
        [operation]: ({ items }: { items: readonly unknown[] }) => ({ items: items.toReversed() }),
      });
      await detected(villain, ada, turned, many(purpose));
      const rotated = editing(villain, {
        [operation]: ({ items }: { items: readonly { sealed: Uint8Array }[] }) => ({
          items: items.map((item, i) => ({ ...item, sealed: items[(i + 1) % items.length]?.sealed })),
        }),
      });
      await detected(villain, ada, rotated, many(purpose));
    }
    const got = await ada.client.getMany({ refs, fresh: true, purpose: "export" });
    expect(got.map(({ value }) => new TextDecoder().decode(value ?? undefined))).toEqual([
      "value a",
      "value b",
      "value c",
    ]);
  });

  test("a server that sends values one by one is slow, not wrong", async () => {
    for (const name of ["a", "b", "c"]) await store(ada, name, `value ${name}`);
    const refs = ["a", "b", "c"].map((name) => ({ name, version: null }));
    const slow = editing(villain, { "secret.get": ({ items }) => ({ items: items.slice(0, 1) }) });
    const got = await villain.during(slow, () => ada.client.getMany({ refs, fresh: true, purpose: "get" }));
    expect(got.map(({ info }) => info.name)).toEqual(["a", "b", "c"]);
  });

  test("hide one secret from get: sealed not_found for what the signed state holds", async () => {
    await store(ada, "a", "first");
    await store(ada, "a", "second");
    const hiding = inventing(villain, "secret.get", () => ({ error: "not_found" }));
    await detected(villain, ada, hiding, fresh(ada, "a"));
    await detected(villain, ada, hiding, fresh(ada, "a", 1));
    const refs = [{ name: "a", version: null }];
    await detected(villain, ada, hiding, () => ada.client.getMany({ refs, fresh: true, purpose: "get" }));
    const noHistory = inventing(villain, "secret.history", () => ({ error: "not_found" }));
    await detected(villain, ada, noHistory, () => ada.client.history({ name: "a" }));
  });

  test("hide one secret from get: not_found in clear", async () => {
    await store(ada, "a", "value");
    const hiding: Middle = async (operation, body, forward) =>
      operation === "secret.get" ? unsealed("not_found", 404) : forward(operation, body);
    await detected(villain, ada, hiding, fresh(ada, "a"));
  });

  test("a secret that another device purged meanwhile is not found, which is no attack", async () => {
    await store(ada, "a", "value");
    const second = await further();
    await ada.client.remove({ name: "a", purge: true });
    await rejected(second.client.get(asking("a", { fresh: true })), "not_found");
  });
});

/** What a device that was away gets to see in its next synchronisation. */
async function away(): Promise<{ device: TestDevice; ids: KeyId[] }> {
  await store(ada, "known", "value");
  const device = await further();
  const ids = [await store(ada, "a", "value a"), await store(ada, "b", "value b"), await store(ada, "c", "value c")];
  await ada.client.remove({ name: "known", purge: false });
  return { device, ids };
}

const leaves = (edit: (all: readonly LeafRecord[]) => readonly LeafRecord[]): Middle => {
  const both = (output: { leaves: readonly LeafRecord[] }) => ({ ...output, leaves: edit(output.leaves) });
  return editing(villain, { "state.sync": both as never, "secret.list": both as never });
};

const LEAF_ATTACKS: Record<string, (all: readonly LeafRecord[]) => readonly LeafRecord[]> = {
  "hide one secret": (all) => all.slice(1),
  "hide all changes": () => [],
  "hide a removal: the secret stays live": (all) =>
    all.map((leaf) => (leaf.status === "removed" ? { ...leaf, status: "live" as const } : leaf)),
  "show a live secret as removed": (all) => all.map((leaf) => ({ ...leaf, status: "removed" as const })),
  "show a live secret as purged": (all) => all.map((leaf) => ({ ...leaf, status: "purged" as const, meta: null })),
  "raise a version": (all) => all.map((leaf) => ({ ...leaf, version: leaf.version + 1 })),
  "change a serial": (all) => all.map((leaf) => ({ ...leaf, serial: leaf.serial + 1 })),
  "change the public key": (all) => all.map((leaf) => ({ ...leaf, publicKey: new Uint8Array(32).fill(9) })),
  "change the hash of a value": (all) => all.map((leaf) => ({ ...leaf, sealedHash: new Uint8Array(32).fill(9) })),
  "drop the metadata": (all) => all.map((leaf) => ({ ...leaf, meta: null })),
  "swap the metadata of two secrets": (all) =>
    all.map((leaf, i) => ({ ...leaf, meta: all[(i + 1) % all.length]?.meta ?? null })),
  "swap metadata and its hash of two secrets": (all) =>
    all.map((leaf, i) => {
      const other = all[(i + 1) % all.length] ?? leaf;
      return { ...leaf, meta: other.meta, metaHash: other.metaHash };
    }),
  "swap the ids of two secrets": (all) =>
    all
      .map((leaf, i) => ({ ...leaf, keyId: (all[(i + 1) % all.length] ?? leaf).keyId }))
      .sort((a, b) => (a.keyId < b.keyId ? -1 : 1)),
  "invent a secret": (all) =>
    [...all, { ...(all[0] as LeafRecord), keyId: newId<KeyId>(random) }].sort((a, b) => (a.keyId < b.keyId ? -1 : 1)),
  "send pages out of order": (all) => all.toReversed(),
  "send a secret twice": (all) => all.flatMap((leaf) => [leaf, leaf]),
};

describe("lists", () => {
  for (const [name, edit] of Object.entries(LEAF_ATTACKS)) {
    test(name, async () => {
      const { device } = await away();
      await detected(villain, device, leaves(edit), () => device.client.sync());
      const listed = await device.client.list(EVERYTHING);
      expect(listed.items.map((item) => item.name)).toEqual(["a", "b", "c"]);
    });
  }

  test("every attack fails against list as against sync, and nothing of it stays in memory", async () => {
    const { device } = await away();
    const before = device.open.box.model.map.root().toHex();
    for (const edit of Object.values(LEAF_ATTACKS)) {
      await villain.during(leaves(edit), () => rejected(device.client.list(EVERYTHING), "integrity"));
      expect(device.open.box.model.map.root().toHex()).toBe(before);
      expect(device.open.box.model.secrets.size).toBe(1);
    }
  });

  test("a new device's first synchronisation is held to the signed root too", async () => {
    await away();
    for (const edit of [LEAF_ATTACKS["hide one secret"], LEAF_ATTACKS["invent a secret"]]) {
      if (!edit) throw new Error("no attack");
      await villain.during(leaves(edit), () => rejected(further(), "integrity"));
    }
    const late = await further();
    expect((await late.client.list(EVERYTHING)).items.length).toBe(3);
  });

  test("put an old change of a secret back in place of the newest", async () => {
    const keyId = await store(ada, "a", "first");
    const device = await further();
    await store(ada, "a", "second");
    const { owner } = ada.open.box.model;
    const [old] = await villain.server.store.transaction((tx) => tx.history(owner, keyId, 0, 10));
    if (!old) throw new Error("no history");
    await detected(
      villain,
      device,
      leaves(() => [old]),
      () => device.client.sync(),
    );
    expect(await textOf(device.client, "a")).toBe("second");
  });

  test("withhold newer states that its own answer names", async () => {
    const { device } = await away();
    const nothing = editing(villain, {
      "state.sync": (output) => ({ ...output, leaves: [], states: [] }),
      "secret.list": (output) => ({ ...output, leaves: [], states: [] }),
    });
    await villain.during(nothing, () => rejected(device.client.list(EVERYTHING), "integrity"));
    await detected(villain, device, nothing, () => device.client.sync());
  });

  test("pages without end: ever new secrets", async () => {
    const { device } = await away();
    let pages = 0;
    const endless = editing(villain, {
      "state.sync": (output, { request }) => {
        pages += 1;
        const from = request.after === null ? 0n : BigInt(`0x${request.after}`);
        const made = Array.from({ length: 200 }, (_, i) => ({
          ...(output.leaves[0] ?? (device.open.box.model.secrets.values().next().value?.leaf as LeafRecord)),
          keyId: (from + BigInt(i) + 1n).toString(16).padStart(32, "0") as KeyId,
        }));
        return { leaves: made, more: true, states: [], settings: null };
      },
    });
    await detected(villain, device, endless, () => device.client.sync());
    expect(pages).toBeLessThan(100);
  });

  test("pages without end: empty ones", async () => {
    const { device } = await away();
    const empty = editing(villain, { "state.sync": () => ({ leaves: [], more: true, states: [], settings: null }) });
    await detected(villain, device, empty, () => device.client.sync());
  });

  test("withhold the settings", async () => {
    const { device } = await away();
    const none = editing(villain, { "state.sync": (output) => ({ ...output, settings: null }) });
    await detected(villain, device, none, () => device.client.sync());
  });
});

describe("history", () => {
  const historyOf = (edit: (all: readonly LeafRecord[]) => readonly LeafRecord[]): Middle =>
    editing(villain, { "secret.history": (output) => ({ ...output, leaves: edit(output.leaves) }) });

  const ATTACKS: Record<string, (all: readonly LeafRecord[]) => readonly LeafRecord[]> = {
    "drop the first change": (all) => all.slice(1),
    "drop one in the middle": (all) => all.toSpliced(1, 1),
    "drop the last": (all) => all.slice(0, -1),
    reorder: (all) => all.toReversed(),
    "exchange the metadata of two versions": (all) =>
      all.map((leaf, i) => ({ ...leaf, meta: all[(i + 1) % all.length]?.meta ?? null })),
    "another hash for an old value": (all) =>
      all.map((leaf, i) => (i === 0 ? { ...leaf, sealedHash: new Uint8Array(32) } : leaf)),
    "re-chain after an edit": (all) => {
      const out: LeafRecord[] = [];
      for (const [i, leaf] of all.entries()) {
        const before = out.at(-1);
        const base = before ? { ...leaf, previous: leafHash(before) } : leaf;
        out.push(i === 0 ? { ...base, sealedHash: new Uint8Array(32).fill(1) } : base);
      }
      return out;
    },
    "another secret's history": (all) => all.map((leaf) => ({ ...leaf, keyId: newId<KeyId>(random) })),
    nothing: () => [],
  };
  for (const [name, edit] of Object.entries(ATTACKS)) {
    test(`of a secret: ${name}`, async () => {
      for (const value of ["first", "second", "third"]) await store(ada, "a", value);
      await detected(villain, ada, historyOf(edit), () => ada.client.history({ name: "a" }));
      await detected(villain, ada, historyOf(edit), fresh(ada, "a", 1));
      expect((await ada.client.history({ name: "a" })).items.map(({ version }) => version)).toEqual([1, 2, 3]);
    });
  }

  test("of a secret: pages without end", async () => {
    for (const value of ["first", "second"]) await store(ada, "a", value);
    let pages = 0;
    const endless = editing(villain, {
      "secret.history": (output) => {
        if (++pages > 50) throw new Error("asked on and on");
        return { ...output, more: true };
      },
    });
    const listed = await villain.during(endless, () => ada.client.history({ name: "a" }));
    expect(listed.items.length).toBe(2);
    const first: LeafRecord[] = [];
    const same = editing(villain, {
      "secret.history": (output) => {
        if (++pages > 50) throw new Error("asked on and on");
        if (first.length === 0) first.push(...output.leaves.slice(0, 1));
        return { leaves: first, more: true };
      },
    });
    await store(ada, "a", "third");
    await detected(villain, ada, same, () => ada.client.history({ name: "a" }));
  });
});

describe("reserved ids", () => {
  const ids = (make: (index: number) => KeyId): Middle =>
    editing(villain, {
      "secret.reserve": ({ items }) => ({ items: items.map((item, i) => ({ ...item, keyId: make(i) })) }),
    });

  test("hand out the id of a secret that exists, to have it overwritten", async () => {
    const keyId = await store(ada, "a", "value");
    const work = [
      () => ada.client.store(storing("b", "other")),
      () => ada.client.generate({ name: "b", type: "bytes", length: null, tags: [], replace: false, where: null }),
    ];
    for (const one of work)
      await detected(
        villain,
        ada,
        ids(() => keyId),
        one,
      );
    expect(await textOf(ada.client, "a")).toBe("value");
  });

  test("hand out the id of a removed or purged secret", async () => {
    const removed = await store(ada, "a", "value");
    await ada.client.remove({ name: "a", purge: false });
    const purged = await store(ada, "b", "value");
    await ada.client.remove({ name: "b", purge: true });
    for (const keyId of [removed, purged]) {
      await detected(
        villain,
        ada,
        ids(() => keyId),
        () => ada.client.store(storing("c", "other")),
      );
    }
  });

  test("hand out another number of ids", async () => {
    const none = editing(villain, { "secret.reserve": ({ items }) => ({ items: [...items, ...items] }) });
    await detected(villain, ada, none, () => ada.client.store(storing("b", "other")));
  });

  test("hand out an id of its own choice: the owner still gets a secret under it or nothing", async () => {
    const chosen = newId<KeyId>(random);
    await villain.during(
      ids(() => chosen),
      () => rejected(ada.client.store(storing("b", "x")), "not_found"),
    );
    expect((await ada.client.list(EVERYTHING)).items).toEqual([]);
  });

  test("constant random bytes from the server leave a generated secret as good as the client's own", async () => {
    const zeros = editing(villain, {
      "secret.reserve": ({ items }) => ({ items: items.map((item) => ({ ...item, random: new Uint8Array(32) })) }),
    });
    const made = new Set<string>();
    for (const name of ["a", "b", "c"]) {
      const input = { name, type: "bytes", length: null, tags: [], replace: false, where: null } as const;
      await villain.during(zeros, () => ada.client.generate(input));
      made.add((await ada.client.get(asking(name))).value?.toHex() ?? "");
    }
    expect(made.size).toBe(3);
  });
});
