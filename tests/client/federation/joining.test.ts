import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { auditFederation } from "../../../src/client/federation/auditing.ts";
import { checkFederation } from "../../../src/client/federation/checking.ts";
import { createFederation } from "../../../src/client/federation/creating.ts";
import { heldIn, joinedFederation } from "../../../src/client/federation/keeping.ts";
import { openMembers } from "../../../src/client/federation/members.ts";
import { rejected } from "../../support/hostile.ts";
import { acceptAll, type ClientWorld, clientWorld, createInput, formed, join1, type TestVault } from "./world.ts";

setDefaultTimeout(60_000);

describe("setting a federation up", () => {
  let world: ClientWorld;
  let owner: TestVault;
  beforeAll(async () => {
    world = await clientWorld();
    owner = await world.vault();
  });
  afterAll(() => world.close());

  test("a live roster until every operator has accepted; the same call goes on, and repeats its result", async () => {
    const drafted = await createFederation(owner.open, createInput(world), world);
    expect(drafted.complete).toBe(false);
    expect(drafted.roster.map(({ state }) => state)).toEqual(["waiting", "waiting", "waiting"]);
    await acceptAll(world, [2]);
    world.server(3).away = true;
    const partly = await createFederation(owner.open, createInput(world), world);
    expect(partly).toMatchObject({ federationId: drafted.federationId, complete: false });
    expect(partly.roster.map(({ state }) => state)).toEqual(["waiting", "accepted", "away"]);
    world.server(3).away = false;
    await acceptAll(world);
    const done = await createFederation(owner.open, createInput(world), world);
    expect(done.complete).toBe(true);
    expect(done.roster.map(({ state }) => state)).toEqual(["member", "member", "member"]);
    expect(heldIn(owner.open).federationDrafts).toEqual([]);
    const stranger = await world.vault();
    expect(await createFederation(stranger.open, createInput(world), world)).toEqual(done);
  });

  test("joining pins what all members signed, and registers with each", async () => {
    const info = await join1(world, owner.open);
    expect(info).toMatchObject({ name: "trio", epoch: 1, threshold: 2 });
    expect(info.requestKeyHex).not.toBe(info.approvalKeyHex);
    const federation = joinedFederation(owner.open, "trio");
    expect(federation.servers.map(({ enrolled, userId }) => enrolled && userId !== null)).toEqual([true, true, true]);
    expect(await join1(world, owner.open, { server: 2 })).toEqual(info);
    const check = await checkFederation(owner.open, federation, (f) => openMembers(owner.open, f, world), world);
    expect(check.servers.map(({ state }) => state)).toEqual(["ok", "ok", "ok"]);
    expect(check).toMatchObject({ ok: true, keys: [] });
    const members = openMembers(owner.open, joinedFederation(owner.open, "trio"), world);
    const audit = await auditFederation(owner.open, federation, members);
    expect(audit).toMatchObject({ ok: true, findings: [] });
    expect(audit.servers.map(({ size }) => size > 0)).toEqual([true, true, true]);
    for (const { at } of world.servers) expect(at.server.faults).toEqual([]);
  });
});

test("a server that is away is left for later, too few are too few", async () => {
  const world = await clientWorld(4);
  try {
    const { open } = await world.vault();
    await formed(world, open);
    world.server(2).away = true;
    world.server(3).away = true;
    await rejected(join1(world, open), "unavailable");
    world.server(3).away = false;
    world.server(2).away = false;
    world.server(4).away = true;
    await rejected(join1(world, open), "unavailable");
  } finally {
    await world.close();
  }
});
