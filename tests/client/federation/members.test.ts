import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { auditFederation } from "../../../src/client/federation/auditing.ts";
import { checkFederation } from "../../../src/client/federation/checking.ts";
import { createFederation } from "../../../src/client/federation/creating.ts";
import { joinFederation } from "../../../src/client/federation/joining.ts";
import { heldIn, joinedFederation, newestOf } from "../../../src/client/federation/keeping.ts";
import { type Members, openMembers } from "../../../src/client/federation/members.ts";
import type { Open } from "../../../src/client/opened.ts";
import { createServerSetup } from "../../../src/crypto/opaque.ts";
import { Fault } from "../../../src/errors.ts";
import { signManifest } from "../../../src/protocol/federation/manifest.ts";
import { createInvite } from "../../../src/server/administration.ts";
import { decodeJson, encodeJson } from "../../../src/wire/codec.ts";
import { type OutputOf, operations } from "../../../src/wire/operations.ts";
import { rejected } from "../../support/hostile.ts";
import { acceptAll, type ClientWorld, clientWorld, createInput, formed, join1, type TestVault } from "./world.ts";

setDefaultTimeout(60_000);

/** Sessions with servers of which some fail or lie (docs/protocol.md §8.2). */

const membersOf = (world: ClientWorld, open: Open, name = "trio"): Members =>
  openMembers(open, joinedFederation(open, name), world);

const checked = (world: ClientWorld, open: Open) =>
  checkFederation(open, joinedFederation(open, "trio"), (federation) => openMembers(open, federation, world), world);

/** Rewrites what a server says of itself. */
function saying(
  world: ClientWorld,
  index: number,
  change: (honest: OutputOf<"federation.info">) => OutputOf<"federation.info">,
): void {
  const { output } = operations["federation.info"];
  world.server(index).middle = async (operation, body, forward) => {
    const reply = await forward(operation, body);
    if (operation !== "federation.info") return reply;
    const bytes = typeof reply.body === "string" ? new TextEncoder().encode(reply.body) : reply.body;
    return { ...reply, body: encodeJson(output, change(decodeJson(output, bytes))) };
  };
}

async function faultOf(work: Promise<unknown>): Promise<Fault> {
  const error: unknown = await work.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (error instanceof Fault) return error;
  throw new Error(`no Fault: ${String(error)}`);
}

describe("servers of a federation", () => {
  let world: ClientWorld;
  let owner: TestVault;
  beforeAll(async () => {
    world = await clientWorld();
    owner = await world.vault();
    await formed(world, owner.open);
    await join1(world, owner.open);
  });
  afterAll(() => world.close());

  test("an absent one is absent, and the others answer", async () => {
    const members = membersOf(world, owner.open);
    world.server(2).away = true;
    const answers = await members.callAll("session.check", () => ({}));
    expect(answers.map((one) => (one.ok ? "ok" : one.absent))).toEqual(["ok", true, "ok"]);
    const fault = await faultOf(members.call(2, "session.check", {}));
    expect(fault.code).toBe("unreachable");
    expect(fault.message).toContain("server 2 (https://s2.example.org:7443)");
    world.server(2).away = false;
    expect((await members.openAll()).map(({ ok }) => ok)).toEqual([true, true, true]);
    await members.end();
    await rejected(members.call(1, "session.check", {}), "session_invalid", "locked");
  });

  test("one that answers nonsense spoils nothing, and is named", async () => {
    const members = membersOf(world, owner.open);
    world.server(3).middle = async (operation, body, forward) => {
      const reply = await forward(operation, body);
      if (typeof reply.body === "string" || reply.contentType !== "application/octet-stream") return reply;
      return { ...reply, body: reply.body.map((byte, i, all) => (i === all.length - 1 ? byte ^ 1 : byte)) };
    };
    const answers = await members.callAll("session.check", () => ({}));
    expect(answers.map(({ ok }) => ok)).toEqual([true, true, false]);
    const third = answers[2];
    if (!third || third.ok) throw new Error("it answered");
    expect(third.absent).toBe(false);
    expect(third.fault.code).toBe("integrity");
    expect(third.fault.culprits).toEqual(["https://s3.example.org:7443"]);
    world.server(3).middle = undefined;
    await members.end();
  });

  test("a session that has ended is opened again", async () => {
    const members = membersOf(world, owner.open);
    await members.callAll("session.check", () => ({}));
    world.server(1).skew(13 * 3_600_000);
    try {
      const logins = world.calls.filter((name) => name === "session.login").length;
      await members.call(1, "session.check", {});
      expect(world.calls.filter((name) => name === "session.login").length).toBe(logins + 1);
    } finally {
      world.server(1).skew(-13 * 3_600_000);
    }
    await members.end();
  });

  test("a rotation of the server's OPAQUE set-up is followed in its window", async () => {
    const { ctx } = world.server(1).at.server;
    const { opaque } = ctx.keys;
    const useKeys = (change: Partial<typeof ctx.keys>) => Object.assign(ctx, { keys: { ...ctx.keys, ...change } });
    useKeys({ opaque: { id: "2", setup: createServerSetup() }, previousOpaque: opaque });
    const within = membersOf(world, owner.open);
    expect((await within.openAll()).map(({ ok }) => ok)).toEqual([true, true, true]);
    expect(world.calls).toContain("account.reregister");
    await within.end();
    useKeys({ previousOpaque: null });
    const registrations = world.calls.filter((name) => name === "account.register").length;
    const after = membersOf(world, owner.open);
    expect((await after.openAll()).map(({ ok }) => ok)).toEqual([true, true, true]);
    expect(world.calls.filter((name) => name === "account.register").length).toBe(registrations);
    const audit = await auditFederation(owner.open, joinedFederation(owner.open, "trio"), after);
    expect(audit.findings).toEqual([]);
    await after.end();
  });

  test("one that lost the account takes its owner in anew", async () => {
    const before = joinedFederation(owner.open, "trio").servers[1]?.userId;
    const { store } = world.server(2).at.server;
    await store.transaction(async (tx) => {
      if (!before) throw new Error("no account");
      await tx.removeAccount(before);
    });
    const members = membersOf(world, owner.open);
    expect((await members.openAll()).map(({ ok }) => ok)).toEqual([true, true, true]);
    const after = joinedFederation(owner.open, "trio").servers[1];
    expect(after?.enrolled).toBe(true);
    expect(after?.userId).not.toBe(before ?? null);
    expect(owner.notices.join()).toContain("has lost this account");
    await members.end();
  });

  test("check tells clocks that are off, other enclave keys and servers that are away", async () => {
    world.server(2).skew(300_000);
    const clock = await checked(world, owner.open);
    world.server(2).skew(-300_000);
    expect(clock.ok).toBe(false);
    expect(clock.servers[1]?.state).toContain("clock is 300 s off");
    saying(world, 3, (honest) => ({ ...honest, identity: new Uint8Array(32).fill(1) }));
    const other = await checked(world, owner.open);
    world.server(3).middle = undefined;
    expect(other.servers[2]?.state).toContain("other keys than the manifest names");
    world.server(1).away = true;
    const away = await checked(world, owner.open);
    world.server(1).away = false;
    expect(away.servers.map(({ state }) => state === "ok")).toEqual([false, true, true]);
    expect(away.servers[0]?.latencyMs).toBeNull();
    expect((await checked(world, owner.open)).ok).toBe(true);
  });

  test("another manifest of a pinned epoch is a lie, whoever signed it; an audit keeps how far it came", async () => {
    const [pinned] = joinedFederation(owner.open, "trio").manifests;
    if (!pinned) throw new Error("nothing pinned");
    const manifest = { ...pinned.manifest, threshold: 3 };
    const signatures = world.servers.map(({ at }) => signManifest(at.enclaveKeys.signer, manifest));
    saying(world, 2, (honest) => ({ ...honest, federations: [{ manifest, signatures }] }));
    const fault = await faultOf(join1(world, owner.open));
    expect([fault.code, fault.culprits]).toEqual(["integrity", ["https://s2.example.org:7443"]]);
    const check = await checked(world, owner.open);
    expect(check.servers[1]?.state).toContain("another manifest of epoch 1");
    world.server(2).middle = undefined;

    const federation = () => joinedFederation(owner.open, "trio");
    const members = membersOf(world, owner.open);
    expect((await auditFederation(owner.open, federation(), members)).findings).toEqual([]);
    await members.end();
    const verified = federation().servers[0]?.verified;
    expect(verified?.seq).toBeGreaterThan(0);
  });
});

test("joining by a server that shows a manifest which not all members signed fails, and pins nothing", async () => {
  const world = await clientWorld();
  try {
    const { open } = await world.vault();
    await formed(world, open);
    saying(world, 1, (honest) => ({
      ...honest,
      federations: honest.federations.map((one) => ({ ...one, signatures: one.signatures.slice(0, 2) })),
    }));
    await rejected(join1(world, open), "integrity");
    saying(world, 1, (honest) => ({ ...honest, federations: [] }));
    await rejected(join1(world, open), "not_found");
    expect(heldIn(open).federations).toEqual([]);
    expect(heldIn(open).federationSecret).toBeNull();
  } finally {
    await world.close();
  }
});

test("a server that lets in whoever has an invite is joined with one", async () => {
  const world = await clientWorld(3, { registration: "invite" });
  try {
    const { open } = await world.vault();
    await formed(world, open);
    await rejected(join1(world, open), "denied");
    expect(joinedFederation(open, "trio").servers.every(({ userId }) => userId === null)).toBe(true);
    const invites: { url: string; code: string }[] = [];
    for (const { url, at } of world.servers) {
      invites.push({ url, code: (await createInvite(at.server.ctx, 60_000)).code });
    }
    const { url, pin } = world.server(1);
    await joinFederation(open, { url, pin, name: null, invites }, world);
    expect(joinedFederation(open, "trio").servers.every(({ enrolled }) => enrolled)).toBe(true);
  } finally {
    await world.close();
  }
});

test("a federation of the next epoch: whoever stays keeps the index, whoever comes gets a new one, members follow", async () => {
  const world = await clientWorld(4);
  try {
    const [owner, friend] = [await world.vault(), await world.vault()];
    const three = { ...createInput(world), threshold: 2, servers: createInput(world).servers.slice(0, 3) };
    await createFederation(owner.open, three, world);
    await acceptAll(world, [1, 2, 3]);
    expect((await createFederation(owner.open, three, world)).complete).toBe(true);
    for (const { open } of [owner, friend]) await join1(world, open);
    const four = { ...createInput(world), threshold: 3, servers: createInput(world).servers.slice(1) };
    const drafted = await createFederation(owner.open, four, world);
    expect(drafted.roster.map(({ state }) => state)).toEqual(["waiting", "waiting", "waiting", "waiting"]);
    await acceptAll(world);
    const done = await createFederation(owner.open, four, world);
    expect(done).toMatchObject({ complete: true, federationId: drafted.federationId });
    const now = newestOf(joinedFederation(owner.open, "trio"));
    expect([now.epoch, now.servers.map(({ index }) => index)]).toEqual([2, [2, 3, 4]]);
    // the friend hears of it by a check, and verifies it against the pinned epoch
    const check = await checked(world, friend.open);
    expect(check.servers.map(({ index, state }) => [index, state])).toEqual([
      [2, "ok"],
      [3, "ok"],
      [4, "ok"],
    ]);
    expect(newestOf(joinedFederation(friend.open, "trio")).epoch).toBe(2);
    const late = await world.vault();
    const { url, pin } = world.server(4);
    const info = await joinFederation(late.open, { url, pin, name: "trio", invites: [] }, world);
    expect(info.epoch).toBe(2);
    expect(joinedFederation(late.open, "trio").manifests.length).toBe(2);
  } finally {
    await world.close();
  }
});
