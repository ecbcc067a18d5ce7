import { expect, test } from "bun:test";
import type { WorkspaceId } from "../../../src/ids.ts";
import { policyHash, type SignedPolicy } from "../../../src/protocol/federation/policy.ts";
import { signPolicy } from "../../../src/protocol/federation/policychain.ts";
import { rejected } from "../../support/hostile.ts";
import { type Person, REGISTRY_URL, type Scripted, scripted } from "./scripted.ts";

async function two(quorums = { admin: 2, sign: 2 }) {
  const world = await scripted();
  const [ada, bob] = [world.person("ada"), world.person("bob")];
  const owners = [{ name: "bob", keyHex: (await bob.client.keyringOwner()).keyHex }];
  const made = await ada.client.createWorkspace({ name: "treasury", owners, self: "ada", ...quorums });
  return { world, ada, bob, made };
}

const show = (who: Person) => who.client.workspace({ workspace: "treasury" });

/** What the registry shows as a chain. */
function chainOf(world: Scripted): SignedPolicy[] {
  const [chain] = world.chains.values();
  if (!chain) throw new Error("no chain");
  return chain;
}

test("an owner is enrolled with a key of the federation secret, the same on every device", async () => {
  const world = await scripted();
  const ada = world.person("ada");
  const first = await ada.client.keyringOwner();
  expect(first).toMatchObject({ keyHex: ada.owner.publicKey.toHex(), registryHex: world.registry.publicKey.toHex() });
  expect(first.words).toHaveLength(6);
  expect(await world.device(ada).client.keyringOwner()).toEqual(first);
});

test("a registry that names another identity than the pinned one is told", async () => {
  const world = await scripted();
  world.meddle = (name, output) =>
    name === "keyring.info" ? { ...(output as object), registry: new Uint8Array(32).fill(1) } : output;
  const fault = await rejected(world.person("ada").client.keyringOwner(), "integrity");
  expect(fault.culprits).toEqual([REGISTRY_URL]);
  expect(world.calls.map(({ name }) => name)).toEqual(["keyring.info"]);
});

test("a server that is no registry says so", async () => {
  const world = await scripted();
  world.meddle = (name, output) => (name === "keyring.info" ? { ...(output as object), enabled: false } : output);
  await rejected(world.person("ada").client.keyringOwner(), "unsupported");
});

test("a workspace of two owners who change it together begins with both of them", async () => {
  const { world, bob, made } = await two();
  expect(made).toMatchObject({
    name: "treasury",
    version: 2,
    admins: "2 of ada, bob",
    signers: "2 of ada, bob for generate, sign, release",
    drafts: [],
    owners: [
      { name: "ada", own: true },
      { name: "bob", own: false },
    ],
  });
  expect(chainOf(world).map(({ document }) => document.approvers.length)).toEqual([1, 2]);
  expect((await show(bob)).owners.map(({ own }) => own)).toEqual([false, true]);
  expect(await bob.client.workspaces()).toHaveLength(1);
});

test("making the same workspace again goes on where it was cut short, and never changes another one", async () => {
  const { world, ada, bob, made } = await two();
  const owners = [{ name: "bob", keyHex: bob.owner.publicKey.toHex() }];
  const again = { name: "treasury", owners, self: "ada", admin: 2, sign: 2 };
  expect(await ada.client.createWorkspace(again)).toEqual(made);
  await rejected(ada.client.createWorkspace({ ...again, sign: 1 }), "exists");
  await rejected(
    ada.client.createWorkspace({ name: "treasury", owners: [], self: "ada", admin: 1, sign: 1 }),
    "exists",
  );
  world.chains.clear();
  ada.held = { ...ada.held, workspacePins: [] };
  let cut = true;
  world.before = (name) => {
    if (name === "workspace.policy.set" && cut) throw new Error("killed");
  };
  await expect(ada.client.createWorkspace(again)).rejects.toThrow("killed");
  cut = false;
  expect(await ada.client.createWorkspace(again)).toEqual(made);
});

test("a change to what is so already is done at once, and leaves nothing to agree to", async () => {
  const { ada, made } = await two();
  const workspace = made.workspaceId;
  const same = { kind: "quorums", admin: 2, sign: 2 } as const;
  expect(await ada.client.changeWorkspace({ workspace, change: same })).toEqual({ ...made, complete: true });
  const document = { kind: "document", document: made.document } as const;
  expect(await ada.client.changeWorkspace({ workspace, change: document })).toMatchObject({
    complete: true,
    version: made.version,
    drafts: [],
  });
  expect(await ada.client.changeWorkspace({ workspace, change: { ...same, sign: 1 } })).toMatchObject({
    complete: false,
    drafts: [{ changes: [expect.stringContaining('"atLeast":1')] }],
  });
});

test("with one admin the first link says everything", async () => {
  const { world, made } = await two({ admin: 1, sign: 2 });
  expect(made.version).toBe(1);
  expect(chainOf(world)).toHaveLength(1);
});

test("quorums that no owners could meet make no workspace", async () => {
  const world = await scripted();
  const { client } = world.person("ada");
  for (const [admin, sign] of [
    [2, 1],
    [1, 2],
    [0, 1],
  ] as const) {
    await rejected(client.createWorkspace({ name: "w", owners: [], self: "ada", admin, sign }), "bad_input");
  }
  await rejected(
    client.createWorkspace({ name: "w", owners: [{ name: "b", keyHex: "xy" }], self: "ada", admin: 1, sign: 1 }),
    "bad_input",
  );
  expect(world.chains.size).toBe(0);
});

test("a change counts once both have signed it; the other sees in words what it changes", async () => {
  const { world, ada, bob } = await two();
  const carol = world.person("carol");
  const { keyHex } = await carol.client.keyringOwner();
  const change = { kind: "ownerAdded", name: "carol", keyHex } as const;
  const begun = await ada.client.changeWorkspace({ workspace: "treasury", change });
  expect(begun).toMatchObject({ complete: false, version: 2, drafts: [{ version: 3, signedBy: ["ada"] }] });
  const [draft] = (await show(bob)).drafts;
  expect(draft?.changes).toEqual([
    `adds the owner carol (${keyHex})`,
    "changes of the workspace: 2 of ada, bob, carol (was: 2 of ada, bob)",
    "groups: owners (ada, bob, carol) (was: owners (ada, bob))",
  ]);
  const approve = { kind: "approve", hashHex: draft?.hashHex.slice(0, 12) ?? "" } as const;
  const done = await bob.client.changeWorkspace({ workspace: "treasury", change: approve });
  expect(done).toMatchObject({ complete: true, version: 3, drafts: [] });
  expect(done.owners.map(({ name }) => name)).toEqual(["ada", "bob", "carol"]);
});

test("the same change asked for by both is one link", async () => {
  const { ada, bob } = await two();
  const change = { kind: "quorums", admin: null, sign: 1 } as const;
  expect((await ada.client.changeWorkspace({ workspace: "treasury", change })).complete).toBe(false);
  const done = await bob.client.changeWorkspace({ workspace: "treasury", change });
  expect(done).toMatchObject({
    complete: true,
    admins: "2 of ada, bob",
    signers: "1 of ada, bob for generate, sign, release",
  });
});

test("an owner is not removed below a quorum, and is removed after it was lowered", async () => {
  const { ada, bob } = await two({ admin: 1, sign: 2 });
  const removal = { workspace: "treasury", change: { kind: "ownerRemoved", name: "bob" } } as const;
  expect((await rejected(ada.client.changeWorkspace(removal), "bad_input")).hint).toContain("--sign");
  await rejected(
    ada.client.changeWorkspace({ workspace: "treasury", change: { kind: "ownerRemoved", name: "eve" } }),
    "not_found",
  );
  const change = { kind: "quorums", admin: null, sign: 1 } as const;
  await ada.client.changeWorkspace({ workspace: "treasury", change });
  const done = await ada.client.changeWorkspace(removal);
  expect(done).toMatchObject({ complete: true, owners: [{ name: "ada" }] });
  await rejected(bob.client.changeWorkspace({ workspace: done.workspaceId, change }), "denied");
});

test("a whole document replaces the policy, and keeps its name", async () => {
  const { ada } = await two({ admin: 1, sign: 1 });
  const { document } = await show(ada);
  const rules = [{ name: "sundays", effect: "deny", actions: [], time: { days: ["sun"] } }];
  const policy = document as { readonly rules: readonly unknown[]; readonly name: string };
  const next = { ...policy, rules: [...rules, ...policy.rules] };
  const change = { kind: "document", document: next } as const;
  const done = await ada.client.changeWorkspace({ workspace: "treasury", change });
  expect(done).toMatchObject({ complete: true, version: 2 });
  expect(done.signers).toStartWith("nobody for");
  const renamed = { kind: "document", document: { ...next, name: "other" } } as const;
  await rejected(ada.client.changeWorkspace({ workspace: "treasury", change: renamed }), "bad_input");
});

test("a chain that was rolled back is noticed by whoever saw more of it", async () => {
  const { world, ada, bob } = await two({ admin: 1, sign: 1 });
  const change = { kind: "quorums", admin: null, sign: 2 } as const;
  await ada.client.changeWorkspace({ workspace: "treasury", change });
  expect(await show(ada)).toMatchObject({ version: 2 });
  chainOf(world).pop();
  const fault = await rejected(show(ada), "integrity");
  expect(fault).toMatchObject({ culprits: [REGISTRY_URL], why: "version 2 was seen, and it shows 1" });
  await rejected(ada.client.workspaces(), "integrity");
  // who never saw the newer one cannot know
  expect(await show(bob)).toMatchObject({ version: 1 });
});

test("a forked chain is noticed, even where both forks are signed by all admins", async () => {
  const { world, ada } = await two({ admin: 1, sign: 1 });
  const change = { kind: "quorums", admin: null, sign: 2 } as const;
  await ada.client.changeWorkspace({ workspace: "treasury", change });
  const chain = chainOf(world);
  const [first, second] = chain;
  if (!first || !second) throw new Error("no links");
  const other = { ...second.document, previous: policyHash(first.document), createdAtMs: 9 };
  chain[1] = { document: other, signatures: [signPolicy(ada.owner, other)] };
  expect((await rejected(show(ada), "integrity")).message).toContain("another version 2");
});

test("a link that its admins have not signed, a chain of another registry and another workspace are refused", async () => {
  const { world, ada, bob } = await two({ admin: 1, sign: 1 });
  const eve = world.person("eve");
  const [link] = chainOf(world);
  if (!link) throw new Error("no link");
  const forged = { ...link.document, approvers: [{ name: "eve", key: eve.owner.publicKey }] };
  for (const shown of [
    { document: forged, signatures: [signPolicy(eve.owner, forged)] },
    { document: link.document, signatures: [] },
    { document: { ...link.document, federationId: world.manifest.manifest.federationId }, signatures: link.signatures },
  ]) {
    world.meddle = (name, output) => (name === "workspace.policy" ? { chain: [shown], more: false } : output);
    await rejected(show(bob), "integrity");
    expect(bob.held.workspacePins).toEqual([]);
  }
  world.meddle = (name, output) => (name === "workspace.get" ? { ...(output as object), name: "other" } : output);
  await rejected(ada.client.workspace({ workspace: [...world.chains.keys()][0] ?? "" }), "integrity");
});

test("a view that shows another newest link than the chain is refused", async () => {
  const { world, ada } = await two({ admin: 1, sign: 1 });
  const [link] = chainOf(world);
  if (!link) throw new Error("no link");
  const policy = { ...link, document: { ...link.document, createdAtMs: 5 } };
  world.meddle = (name, output) =>
    name === "workspace.list"
      ? { items: (output as { items: object[] }).items.map((one) => ({ ...one, policy })), more: false }
      : name === "workspace.get"
        ? { ...(output as object), policy }
        : output;
  await rejected(show(ada), "integrity");
  await rejected(ada.client.workspaces(), "integrity");
});

test("drafts that nobody has signed, or that follow nothing, are not shown and not signed", async () => {
  const { world, ada, bob } = await two();
  const head = chainOf(world).at(-1)?.document;
  if (!head) throw new Error("no head");
  const next = { ...head, version: head.version + 1, previous: policyHash(head) };
  const eve = world.person("eve");
  for (const link of [
    { document: next, signatures: [] },
    { document: next, signatures: [signPolicy(eve.owner, next)] },
    { document: { ...next, previous: new Uint8Array(32).fill(1) }, signatures: [] },
    { document: { ...next, version: 9 }, signatures: [signPolicy(ada.owner, { ...next, version: 9 })] },
  ]) {
    world.drafts.clear();
    world.drafts.set("x", link);
    expect((await show(bob)).drafts).toEqual([]);
    const hashHex = policyHash(link.document).toHex();
    const change = { kind: "approve", hashHex } as const;
    await rejected(bob.client.changeWorkspace({ workspace: "treasury", change }), "not_found");
  }
});

test("a registry that calls a change complete is not believed", async () => {
  const { world, ada } = await two();
  const change = { kind: "quorums", admin: 1, sign: null } as const;
  const begun = await ada.client.changeWorkspace({ workspace: "treasury", change });
  expect(begun).toMatchObject({ complete: false, admins: "2 of ada, bob" });
  // it shows the half-signed link in the chain
  const [draft] = world.drafts.values();
  if (!draft) throw new Error("no draft");
  world.meddle = (name, output, input) =>
    name === "workspace.policy" && (input as { after: number }).after === 0
      ? { chain: [...chainOf(world), draft], more: false }
      : output;
  await rejected(show(ada), "integrity");
});

test("a name that two workspaces share is told with both ids", async () => {
  const { world, ada, bob } = await two({ admin: 1, sign: 1 });
  const owners = [{ name: "ada", keyHex: ada.owner.publicKey.toHex() }];
  await bob.client.createWorkspace({ name: "treasury", owners, self: "bob", admin: 1, sign: 1 });
  const ids = [...world.chains.keys()];
  // to a device that knows one of them the name means that one
  expect((await show(ada)).workspaceId).toBe(ids[0] ?? "");
  const fresh = await rejected(show(world.device(ada)), "ambiguous");
  for (const id of ids) expect(fresh.why).toContain(id);
  expect((await ada.client.workspace({ workspace: ids[1]?.slice(0, 10) ?? "" })).owners[0]?.name).toBe("bob");
  await rejected(ada.client.workspace({ workspace: "nothing" }), "not_found");
  const fault = await rejected(show(ada), "ambiguous");
  for (const id of ids) expect(fault.why).toContain(id);
});

test("another workspace in the place of the one that a device knows is not taken for it", async () => {
  const { world, ada, bob, made } = await two({ admin: 1, sign: 1 });
  await show(ada);
  const owners = [{ name: "ada", keyHex: ada.owner.publicKey.toHex() }];
  await bob.client.createWorkspace({ name: "treasury", owners, self: "bob", admin: 1, sign: 1 });
  world.chains.delete(made.workspaceId as WorkspaceId);
  const fault = await rejected(show(ada), "not_found");
  expect(fault.why).toContain(made.workspaceId);
  await rejected(ada.client.requestKey({ workspace: "treasury", keyring: "vault", type: "ed25519" }), "not_found");
  expect(world.requests.size).toBe(0);
});
