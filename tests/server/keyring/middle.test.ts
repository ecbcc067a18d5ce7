import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { FederationId, KeyringRequestId, WorkspaceId } from "../../../src/ids.ts";
import { requestIdOf, signRequest } from "../../../src/protocol/federation/request.ts";
import { signVote } from "../../../src/protocol/federation/votes.ts";
import type { KeyringRequestView, KeyringView, WorkspaceView } from "../../../src/wire/keyring/views.ts";
import { rule, seedOf } from "../../support/policies.ts";
import {
  approver,
  codeOf,
  nextLink,
  partyOf,
  type RegistryPerson,
  type RegistryWorld,
  registryWorld,
} from "../../support/registryworld.ts";

/** Workspaces and keyrings that change while a request is open (docs/protocol.md §9.1). */

let world: RegistryWorld;
let ada: RegistryPerson;
let bob: RegistryPerson;
let admin: RegistryPerson;
let parties: RegistryPerson[];
let workspace: WorkspaceView;
let keyring: KeyringView;
/** ada's, which waits for bob. */
let open: KeyringRequestView;

const people = () => ({
  approvers: [ada, bob].map(approver),
  groups: [{ name: "owners", members: ["ada", "bob"] }],
  admins: { kind: "group", name: "owners", atLeast: 1 } as const,
  rules: [rule({ require: { kind: "approver", name: "bob" }, requesterMayApprove: true })],
});

function ask(who: RegistryPerson, name = "request") {
  const federationId: FederationId = keyring.manifest.manifest.federationId;
  const policy: WorkspaceId = workspace.workspaceId;
  const { keyringId } = keyring;
  const request = signRequest(who.owner, {
    federationId,
    epoch: 1,
    requester: who.owner.publicKey,
    nonce: seedOf(name),
    createdAtMs: world.nowMs,
    expiresAtMs: world.nowMs + 3_600_000,
    keyring: { registry: world.registry.publicKey, keyringId, workspaceId: policy },
    body: {
      ...{ kind: "generate", type: "ed25519", length: 32, custody: "delegated", control: "shared", owner: null },
      policy,
    },
  });
  return world.call("keyring.request", { workspaceId: policy, keyringId, items: [request], feeMax: null }, who);
}

const get = (who: RegistryPerson, requestId: KeyringRequestId = open.requestId) =>
  world.call("keyring.request.get", { requestId }, who);
const vote = (who: RegistryPerson, view: KeyringRequestView = open) =>
  world.call(
    "keyring.vote",
    {
      requestId: view.requestId,
      votes: view.items.map(({ request }) =>
        signVote(who.owner, {
          federationId: request.request.federationId,
          epoch: 1,
          requestId: requestIdOf(request.request),
          verdict: "approve",
          policyHash: view.policyHash,
          castAtMs: world.nowMs,
          expiresAtMs: world.nowMs + 60_000,
          reason: "",
        }),
      ),
    },
    who,
  );
const credits = async (who: RegistryPerson) => {
  const { balance, escrowed } = await world.call("workspace.get", { workspaceId: workspace.workspaceId }, who);
  return { balance, escrowed };
};

beforeEach(async () => {
  world = await registryWorld();
  ada = await world.person("ada");
  bob = await world.person("bob");
  admin = await world.stranger("admin");
  parties = [await world.connector("north"), await world.connector("south"), await world.connector("west")];
  keyring = await world.keyring(admin, parties);
  workspace = await world.workspace([ada, bob], people());
  await world.control["registry.credit"]({ workspaceId: workspace.workspaceId, amount: 100, note: "" });
  open = await ask(ada);
});
afterEach(() => world.close());

const change = (given: Parameters<typeof world.call<"keyring.change">>[1]["change"]) =>
  world.call("keyring.change", { keyringId: keyring.keyringId, change: given }, admin);

describe("a request that is open", () => {
  test("keeps its parties, threshold and fee, whatever the keyring does", async () => {
    const held = ({ parties: of, threshold, fee }: KeyringRequestView) => ({ of, threshold, fee });
    const before = held(open);
    expect(before).toEqual({ of: parties.map((one, i) => partyOf(one, i + 1)), threshold: 2, fee: 30 });
    expect(await credits(ada)).toEqual({ balance: 70, escrowed: 30 });
    await change({ set: "threshold", threshold: 3 });
    await change({ set: "fees", fees: { key: 99, signature: 99 } });
    expect(held(await get(ada))).toEqual(before);
    await change({ set: "threshold", threshold: 2 });
    await change({ set: "partyRemoved", name: "west" });
    await change({ set: "active", active: false });
    expect(held(await get(ada))).toEqual(before);
    expect(await credits(ada)).toEqual({ balance: 70, escrowed: 30 });
    // whoever comes later takes what is there then
    expect(await codeOf(ask(ada, "later"))).toBe("conflict");
  });

  test("still asks a party that was removed from the keyring", async () => {
    await change({ set: "partyRemoved", name: "north" });
    await vote(bob);
    const [north] = parties;
    if (!north) throw new Error("no party");
    const health = { version: "1", state: "ok", deadLetters: 0 };
    const { tasks } = await world.call("party.tasks", { waitMs: 0, max: 16, health }, north);
    expect(tasks.map(({ requestId }) => requestId)).toEqual([open.requestId]);
    const chain = await world.call("workspace.policy", { workspaceId: workspace.workspaceId, after: 0 }, north);
    expect(chain.chain).toHaveLength(1);
  });
});

describe("an owner who is removed meanwhile", () => {
  const without = (name: "ada" | "bob") => {
    const left = name === "ada" ? bob : ada;
    return {
      approvers: [approver(left)],
      groups: [{ name: "owners", members: [left.name] }],
      rules: [rule({ require: { kind: "approver", name: left.name }, requesterMayApprove: true })],
    };
  };
  const remove = (name: "ada" | "bob") => {
    const left = name === "ada" ? bob : ada;
    return world.call("workspace.policy.set", { policy: nextLink(workspace, without(name), [left]) }, left);
  };

  test("votes, sees and cancels nothing any more", async () => {
    await remove("bob");
    const view = await get(ada);
    expect(await codeOf(vote(bob, view))).toBe("not_found");
    expect(await codeOf(get(bob))).toBe("not_found");
    expect(await codeOf(world.call("keyring.cancel", { requestId: open.requestId }, bob))).toBe("not_found");
    expect((await world.call("workspace.inbox", { after: null }, bob)).items).toEqual([]);
    expect(await codeOf(ask(bob, "another"))).toBe("not_found");
  });

  test("gave votes that count no more", async () => {
    // three owners, two of whom must agree
    const eve = await world.person("eve");
    const three = [ada, bob, eve];
    const link = nextLink(
      workspace,
      {
        approvers: three.map(approver),
        groups: [{ name: "owners", members: three.map(({ name }) => name) }],
        rules: [rule({ require: { kind: "group", name: "owners", atLeast: 2 }, requesterMayApprove: true })],
      },
      [ada],
    );
    workspace = await world.call("workspace.policy.set", { policy: link }, ada);
    const two = await ask(ada, "two");
    const once = await vote(bob, two);
    expect(once.approved).toBe(false);
    const rest = [ada, eve];
    await world.call(
      "workspace.policy.set",
      {
        policy: nextLink(
          workspace,
          { approvers: rest.map(approver), groups: [{ name: "owners", members: rest.map(({ name }) => name) }] },
          [ada],
        ),
      },
      ada,
    );
    const now = await get(ada, two.requestId);
    const after = await vote(eve, now);
    expect(after.approved).toBe(false);
    expect((await vote(ada, after)).approved).toBe(true);
  });

  test("asked for what runs no more; the fee goes back when it ends", async () => {
    await remove("ada");
    const view = await get(bob);
    const voted = await vote(bob, view).catch(() => get(bob));
    expect(voted.approved).toBe(false);
    for (const one of parties) {
      const health = { version: "1", state: "ok", deadLetters: 0 };
      expect((await world.call("party.tasks", { waitMs: 0, max: 16, health }, one)).tasks).toEqual([]);
    }
    world.nowMs += 3_600_001;
    await world.service.sweep();
    const over = await get(bob);
    expect(["expired", "rejected"]).toContain(over.status);
    expect(await credits(bob)).toEqual({ balance: 100, escrowed: 0 });
    expect(await world.control["registry.balances"]({})).toMatchObject({ sound: true });
  });
});
