import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { FederatedRequestId, KeyringId } from "../../../src/ids.ts";
import { keyringIdOf } from "../../../src/protocol/keyring/keyring.ts";
import { signResponse } from "../../../src/protocol/keyring/response.ts";
import { partyHeard, quarantine, readKeyring, snapshotOf } from "../../../src/server/keyring/keyrings.ts";
import type { KeyringView } from "../../../src/wire/keyring/views.ts";
import type { InputOf } from "../../../src/wire/operations.ts";
import { seedOf } from "../../support/policies.ts";
import {
  codeOf,
  manifestOf,
  nextManifest,
  partyOf,
  type RegistryPerson,
  type RegistryWorld,
  registryWorld,
  serverKey,
} from "../../support/registryworld.ts";

let world: RegistryWorld;
let admin: RegistryPerson;
let owner: RegistryPerson;
let stranger: RegistryPerson;
let north: RegistryPerson;
let south: RegistryPerson;
let west: RegistryPerson;
beforeEach(async () => {
  world = await registryWorld({ rest: { backlogOf: async (_tx, _keyring, key) => key[0] ?? 0 } });
  admin = await world.stranger("admin");
  owner = await world.person("owner");
  stranger = await world.stranger("sam");
  north = await world.connector("north");
  south = await world.connector("south");
  west = await world.stranger("west");
});
afterEach(() => world.close());

type Change = InputOf<"keyring.change">["change"];
const make = () => world.keyring(admin, [north, south, west]);
const change = (view: KeyringView, given: Change, who = admin) =>
  world.call("keyring.change", { keyringId: view.keyringId, change: given }, who);
const get = (view: KeyringView, who = admin) => world.call("keyring.get", { keyringId: view.keyringId }, who);
const stored = (view: KeyringView) => world.store.transaction((tx) => readKeyring(tx, view.keyringId));
const snapshot = async (view: KeyringView, kind: "key" | "signature" = "key", items = 1) =>
  snapshotOf((await stored(view)).value, kind, items);
const NOBODY = "ab".repeat(32) as KeyringId;

/** Two responses of a party to one item. */
function contradiction(keyringId: KeyringId, who: RegistryPerson) {
  const base = {
    keyringId,
    requestId: "cd".repeat(32) as FederatedRequestId,
    verdict: "rejected",
    attempt: 0,
    keyId: null,
    publicKey: null,
    certificateHash: null,
    policyHash: new Uint8Array(32),
  } as const;
  return [
    signResponse(who.party, { ...base, reason: "no" }),
    signResponse(who.party, { ...base, reason: "never" }),
  ] as const;
}
async function contradict(view: KeyringView, who: RegistryPerson): Promise<boolean> {
  const [first, second] = contradiction(view.keyringId, who);
  const { publicKey } = who.party;
  return world.store.transaction((tx) => quarantine(tx, view.keyringId, publicKey, first, second, world.nowMs));
}

describe("a new keyring", () => {
  test("has its maker as admin and its parties by index", async () => {
    const view = await world.keyring(admin, [], {
      parties: [partyOf(west, 3), partyOf(north, 1), partyOf(south, 2)],
    });
    expect(view.keyringId).toBe(keyringIdOf(world.registry.publicKey, "vaults", seedOf("keyring")));
    expect(view).toMatchObject({ name: "vaults", threshold: 2, active: true, own: true, admins: [admin.userId] });
    expect(view.parties.map(({ party, enrolled }) => [party.name, enrolled])).toEqual([
      ["north", true],
      ["south", true],
      ["west", false],
    ]);
    expect(view.parties[0]).toMatchObject({ quarantined: false, lastSeenAtMs: null, version: "", deadLetters: 0 });
    expect(view.parties[0]?.backlog).toBe(north.party.publicKey[0] ?? -1);
    expect(world.notices).toMatchObject([{ event: "keyring.created", keyringId: view.keyringId }]);
  });

  test("again is the same one, and nobody else's", async () => {
    const view = await make();
    expect(await make()).toEqual(view);
    expect(await codeOf(world.keyring(stranger, [north, south, west]))).toBe("conflict");
    expect(world.notices).toHaveLength(1);
  });

  const federation = manifestOf();
  const unsigned = { ...federation, signatures: federation.signatures.slice(1) };
  const other = serverKey(9);
  const forged = {
    ...federation,
    signatures: federation.signatures.map((one) => ({ ...one, signature: other.sign(new Uint8Array(1)) })),
  };
  const renamed = { ...federation, manifest: { ...federation.manifest, name: "other" } };
  const next = nextManifest(federation.manifest, {});

  test.each<[string, Partial<InputOf<"keyring.create">>, string]>([
    ["whose manifest a server has not signed", { manifest: unsigned }, "integrity"],
    ["whose manifest's signatures do not hold", { manifest: forged }, "integrity"],
    ["whose manifest is another one than its id says", { manifest: renamed }, "bad_input"],
    [
      "of a later epoch that not all have signed",
      { manifest: { ...next, signatures: next.signatures.slice(1) } },
      "integrity",
    ],
    ["of a later epoch that all have signed", { manifest: next }, "ok"],
    ["with fewer to agree than the federation's threshold", { threshold: 1 }, "bad_input"],
    ["with more to agree than there are parties", { threshold: 4 }, "bad_input"],
    ["where all must agree", { threshold: 3 }, "ok"],
  ])("%s", async (_, given, code) => {
    expect(await codeOf(world.keyring(admin, [north, south, west], given))).toBe(code);
  });

  test.each<[string, () => InputOf<"keyring.create">["parties"]]>([
    ["one name", () => [partyOf(north, 1), { ...partyOf(south, 2), name: "north" }]],
    ["one server", () => [partyOf(north, 1), partyOf(south, 1)]],
    ["one key", () => [partyOf(north, 1), { ...partyOf(south, 2), key: north.party.publicKey }]],
    ["no server", () => [partyOf(north, 1), partyOf(south, 4)]],
  ])("is none where two parties have %s", async (_, parties) => {
    expect(await codeOf(world.keyring(admin, [], { parties: parties() }))).toBe("bad_input");
  });

  test("is one of 32 that an account makes; lists come in pages", async () => {
    for (let i = 0; i < 32; i += 1) await world.keyring(admin, [north, south, west], { name: `k-${i}` });
    const more = (who: RegistryPerson) => codeOf(world.keyring(who, [north, south, west], { name: "one-more" }));
    expect(await more(admin)).toBe("too_large");
    expect(await more(owner)).toBe("ok");
    const seen: string[] = [];
    for (let after: KeyringId | null = null, more = true; more; ) {
      const page: { items: readonly KeyringView[]; more: boolean } = await world.call("keyring.list", { after }, owner);
      expect(page.items.length).toBeLessThanOrEqual(8);
      seen.push(...page.items.map(({ name }) => name));
      after = page.items.at(-1)?.keyringId ?? null;
      more = page.more;
    }
    expect(new Set(seen).size).toBe(33);
  });
});

describe("who may see and change it", () => {
  test("any account with a key sees it, without its admins' accounts", async () => {
    const view = await make();
    for (const who of [owner, north]) {
      expect(await get(view, who)).toEqual({ ...view, own: false, admins: [] });
      expect((await world.call("keyring.list", { after: null }, who)).items).toEqual([await get(view, who)]);
    }
    expect(await codeOf(get(view, stranger))).toBe("denied");
    expect(await codeOf(world.call("keyring.get", { keyringId: NOBODY }, stranger))).toBe("denied");
    expect(await world.call("keyring.list", { after: null }, stranger)).toEqual({ items: [], more: false });
    expect(await codeOf(world.call("keyring.get", { keyringId: NOBODY }, owner))).toBe("not_found");
  });

  const changes: readonly Change[] = [
    { set: "partyAdded", party: { name: "east", index: 3, key: seedOf("east") } },
    { set: "partyRemoved", name: "west" },
    { set: "partyCleared", name: "west" },
    { set: "threshold", threshold: 3 },
    { set: "fees", fees: { key: 0, signature: 0 } },
    { set: "active", active: false },
    { set: "adminAdded", userId: "1".repeat(32) as never },
    { set: "adminRemoved", userId: "1".repeat(32) as never },
    { set: "manifest", manifest: manifestOf() },
  ];
  test.each(changes.map((one) => [one.set, one] as const))("only its admins change it: %s", async (_, given) => {
    const view = await make();
    // an admin of another keyring, an owner, a party
    await world.keyring(owner, [north, south, west], { name: "others" });
    for (const who of [owner, north]) expect(await codeOf(change(view, given, who))).toBe("denied");
    expect(await codeOf(change(view, given, stranger))).toBe("denied");
    const nobody = (who: RegistryPerson) =>
      codeOf(world.call("keyring.change", { keyringId: NOBODY, change: given }, who));
    expect([await nobody(stranger), await nobody(owner)]).toEqual(["denied", "not_found"]);
    expect(await get(view)).toEqual(view);
  });

  test("a removed admin may nothing; the last one stays", async () => {
    const view = await make();
    const two = await change(view, { set: "adminAdded", userId: owner.userId });
    expect(two.admins).toEqual([admin.userId, owner.userId]);
    expect((await change(view, { set: "adminAdded", userId: owner.userId })).admins).toEqual(two.admins);
    expect(await codeOf(change(view, { set: "adminAdded", userId: "f".repeat(32) as never }))).toBe("not_found");
    await change(view, { set: "adminRemoved", userId: admin.userId }, owner);
    expect(await codeOf(change(view, { set: "active", active: false }))).toBe("denied");
    expect(await codeOf(change(view, { set: "adminRemoved", userId: owner.userId }, owner))).toBe("conflict");
    expect(await codeOf(change(view, { set: "adminRemoved", userId: admin.userId }, owner))).toBe("not_found");
  });
});

describe("changes", () => {
  test("of threshold and fees hold for what comes after, not for a snapshot", async () => {
    const view = await make();
    const before = await snapshot(view);
    expect(before).toEqual({
      parties: [partyOf(north, 1), partyOf(south, 2), partyOf(west, 3)],
      threshold: 2,
      fee: 30,
    });
    await change(view, { set: "threshold", threshold: 3 });
    await change(view, { set: "fees", fees: { key: 7, signature: 2 } });
    expect(before).toMatchObject({ threshold: 2, fee: 30 });
    expect(await snapshot(view)).toMatchObject({ threshold: 3, fee: 7 });
    expect(await snapshot(view, "signature", 16)).toMatchObject({ threshold: 3, fee: 32 });
    expect(await codeOf(change(view, { set: "threshold", threshold: 4 }))).toBe("bad_input");
    expect(await codeOf(change(view, { set: "threshold", threshold: 1 }))).toBe("bad_input");
    expect(world.notices.map(({ detail }) => detail)).toEqual(["vaults", "threshold 3", "fees 7 a key, 2 a signature"]);
  });

  test("a keyring that is not active takes no requests", async () => {
    const view = await make();
    expect((await change(view, { set: "active", active: false })).active).toBe(false);
    expect(await codeOf(snapshot(view))).toBe("conflict");
    await change(view, { set: "active", active: true });
    expect(await codeOf(snapshot(view))).toBe("ok");
  });

  test("parties come and go; names stay with their keys", async () => {
    const view = await make();
    expect((await change(view, { set: "partyRemoved", name: "west" })).parties.map((p) => p.party.name)).toEqual([
      "north",
      "south",
    ]);
    // two signatures' worth, but no key: a ceremony takes three servers
    expect(await codeOf(snapshot(view, "signature"))).toBe("ok");
    expect(await codeOf(snapshot(view, "key"))).toBe("conflict");
    expect(await codeOf(change(view, { set: "partyRemoved", name: "south" }))).toBe("conflict");
    expect(await codeOf(change(view, { set: "partyRemoved", name: "west" }))).toBe("not_found");
    const another = { ...partyOf(west, 3), key: seedOf("another") };
    expect(await codeOf(change(view, { set: "partyAdded", party: another }))).toBe("conflict");
    expect(await codeOf(change(view, { set: "partyAdded", party: { ...another, name: "east", index: 1 } }))).toBe(
      "bad_input",
    );
    const again = await change(view, { set: "partyAdded", party: partyOf(west, 3) });
    expect(again.parties.map((p) => p.party)).toEqual([partyOf(north, 1), partyOf(south, 2), partyOf(west, 3)]);
    expect(await change(view, { set: "partyAdded", party: partyOf(west, 3) })).toEqual(again);
  });

  test("the next epoch's manifest follows the one before and keeps the parties' servers", async () => {
    const view = await make();
    const { manifest } = view.manifest;
    const set = (given: typeof view.manifest) => change(view, { set: "manifest", manifest: given });
    const next = nextManifest(manifest, { name: "renamed" });
    expect(await codeOf(set({ ...next, signatures: [] }))).toBe("integrity");
    expect(await codeOf(set(nextManifest(next.manifest, {})))).toBe("integrity");
    const without = manifest.servers.filter(({ index }) => index !== 3);
    expect(await codeOf(set(nextManifest(manifest, { servers: without })))).toBe("bad_input");
    expect((await set(next)).manifest).toEqual(next);
    expect((await set(next)).manifest).toEqual(next);
    expect(await codeOf(set(view.manifest))).toBe("integrity");
  });
});

describe("quarantine", () => {
  test("leaves a party that contradicts itself out of what comes, with the evidence", async () => {
    const view = await make();
    expect(await contradict(view, north)).toBe(true);
    expect(await contradict(view, north)).toBe(false);
    const seen = await get(view, owner);
    expect(seen.parties.map(({ quarantined }) => quarantined)).toEqual([true, false, false]);
    const [first, second] = contradiction(view.keyringId, north);
    expect((await get(view)).evidence).toEqual([{ first, second, atMs: world.nowMs }]);
    // it names requests, keys and reasons of workspaces: whose they are reads it in the request
    expect(seen.evidence).toEqual([]);
    const { items } = await world.call("keyring.list", { after: null }, owner);
    expect(items.flatMap(({ evidence }) => evidence)).toEqual([]);
    expect(await snapshot(view, "signature")).toMatchObject({ parties: [partyOf(south, 2), partyOf(west, 3)] });
    expect(await codeOf(snapshot(view, "key"))).toBe("conflict");
    expect(await contradict(view, south)).toBe(true);
    expect(await codeOf(snapshot(view, "signature"))).toBe("conflict");
  });

  test("ends when an admin clears the party; the evidence stays", async () => {
    const view = await make();
    await contradict(view, north);
    const cleared = await change(view, { set: "partyCleared", name: "north" });
    expect(cleared.parties.map(({ quarantined }) => quarantined)).toEqual([false, false, false]);
    expect(cleared.evidence).toHaveLength(1);
    expect(await codeOf(snapshot(view, "key"))).toBe("ok");
    // a second offence counts again
    expect(await contradict(view, north)).toBe(true);
    expect((await get(view)).evidence).toHaveLength(1);
  });

  test("is not shaken off by leaving and coming again, under whatever name", async () => {
    const view = await make();
    await contradict(view, west);
    await change(view, { set: "partyRemoved", name: "west" });
    const back = await change(view, { set: "partyAdded", party: { ...partyOf(west, 3), name: "far-west" } });
    expect(back.parties.map(({ party, quarantined }) => [party.name, quarantined])).toEqual([
      ["north", false],
      ["south", false],
      ["far-west", true],
    ]);
  });

  test("nor by leaving first: who contradicts itself in a request of before comes back into it", async () => {
    const view = await make();
    await change(view, { set: "partyRemoved", name: "west" });
    expect(await contradict(view, west)).toBe(true);
    expect(await contradict(view, west)).toBe(false);
    expect((await get(view)).evidence).toHaveLength(1);
    const back = await change(view, { set: "partyAdded", party: { ...partyOf(west, 3), name: "far-west" } });
    expect(back.parties.map(({ quarantined }) => quarantined)).toEqual([false, false, true]);
  });

  test("takes two contradicting responses of that party and keyring, and no less", async () => {
    const view = await make();
    const [first, second] = contradiction(view.keyringId, north);
    const key = north.party.publicKey;
    const run = (...given: [KeyringId, Uint8Array, typeof first, typeof second]) =>
      codeOf(world.store.transaction((tx) => quarantine(tx, ...given, world.nowMs)));
    expect(await run(view.keyringId, key, first, first)).toBe("integrity");
    expect(await run(view.keyringId, south.party.publicKey, first, second)).toBe("integrity");
    expect(await run(view.keyringId, key, first, { ...second, signature: first.signature })).toBe("integrity");
    const others = contradiction(NOBODY, north);
    expect(await run(view.keyringId, key, ...others)).toBe("integrity");
    // somebody who is no party of it is nothing to it
    const [a, b] = contradiction(view.keyringId, owner);
    const none = await world.store.transaction((tx) =>
      quarantine(tx, view.keyringId, owner.party.publicKey, a, b, world.nowMs),
    );
    expect(none).toBe(false);
    expect(await get(view)).toEqual(view);
  });
});

describe("what is heard of a party", () => {
  const health = { version: "1", state: "ok", deadLetters: 2 };
  const hear = (heard: Parameters<typeof partyHeard>[2]) =>
    world.store.transaction((tx) => partyHeard(tx, north.party.publicKey, heard, world.nowMs));
  const first = async (view: KeyringView) => (await get(view)).parties[0];

  test("is shown, and written again only when it is news or ten seconds old", async () => {
    const view = await make();
    const start = world.nowMs;
    await hear({ health });
    expect(await first(view)).toMatchObject({ ...health, lastSeenAtMs: start, lastResponseAtMs: null });
    world.nowMs = start + 9_999;
    await hear({ health });
    expect((await first(view))?.lastSeenAtMs).toBe(start);
    world.nowMs = start + 10_000;
    await hear({ health });
    expect((await first(view))?.lastSeenAtMs).toBe(start + 10_000);
    world.nowMs += 1;
    await hear({ responded: true });
    expect(await first(view)).toMatchObject({ ...health, lastSeenAtMs: world.nowMs, lastResponseAtMs: world.nowMs });
    world.nowMs += 1;
    await hear({ health: { ...health, state: "draining" } });
    expect(await first(view)).toMatchObject({ state: "draining", lastResponseAtMs: world.nowMs - 1 });
  });
});
