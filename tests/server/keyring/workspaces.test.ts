import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { WorkspaceId } from "../../../src/ids.ts";
import { policyHash, policyIdOf } from "../../../src/protocol/federation/policy.ts";
import { verifyChain } from "../../../src/protocol/federation/policychain.ts";
import { demandOwner, headOf } from "../../../src/server/keyring/workspaces.ts";
import type { WorkspaceView } from "../../../src/wire/keyring/views.ts";
import { FEDERATION, rule, signerOf } from "../../support/policies.ts";
import {
  approver,
  codeOf,
  nextLink,
  type RegistryPerson,
  type RegistryWorld,
  registryWorld,
} from "../../support/registryworld.ts";

let world: RegistryWorld;
let ada: RegistryPerson;
let bob: RegistryPerson;
let eve: RegistryPerson;
let stranger: RegistryPerson;
/** Keys of parties that have an open request. */
let open: Uint8Array[];
beforeEach(async () => {
  open = [];
  world = await registryWorld({
    rest: { hasOpenRequest: async (_tx, _workspace, key) => open.some((one) => one.toHex() === key.toHex()) },
  });
  ada = await world.person("ada");
  bob = await world.person("bob");
  eve = await world.person("eve");
  stranger = await world.stranger("sam");
});
afterEach(() => world.close());

const get = (view: Pick<WorkspaceView, "workspaceId">, who: RegistryPerson) =>
  world.call("workspace.get", { workspaceId: view.workspaceId }, who);
const set = (policy: ReturnType<typeof nextLink>, who: RegistryPerson) =>
  world.call("workspace.policy.set", { policy }, who);
const eventsOf = async (view: WorkspaceView, who = ada) =>
  (await world.call("workspace.events", { workspaceId: view.workspaceId, after: 0 }, who)).items.map((e) => e.event);
/** Owners under whom one is enough for everything. */
const anyone = (owners: readonly RegistryPerson[]) => ({
  approvers: owners.map(approver),
  groups: [{ name: "owners", members: owners.map(({ name }) => name) }],
  admins: { kind: "group", name: "owners", atLeast: 1 } as const,
  rules: [rule()],
});
const NOBODY = "ab".repeat(32) as WorkspaceId;

describe("a new workspace", () => {
  test("is named by its policy, and its owners see it", async () => {
    const view = await world.workspace([ada, bob]);
    expect(view.workspaceId).toBe(policyIdOf(view.policy.document));
    expect(view).toMatchObject({ name: "treasury", version: 1, balance: 0, escrowed: 0, drafts: [] });
    expect(await get(view, bob)).toEqual(view);
    expect((await world.call("workspace.list", { after: null }, bob)).items).toEqual([view]);
    expect(await eventsOf(view)).toEqual(["workspace.created"]);
    expect(world.notices).toMatchObject([{ event: "workspace.created", workspaceId: view.workspaceId, seq: 1 }]);
  });

  test("again is the same one", async () => {
    const view = await world.workspace([ada, bob]);
    expect(await world.workspace([ada, bob])).toEqual(view);
    expect(await eventsOf(view)).toEqual(["workspace.created"]);
    expect(await codeOf(world.call("workspace.create", { name: "treasury", policy: view.policy }, eve))).toBe(
      "not_found",
    );
  });

  const make = (change: object, who: RegistryPerson = ada, name = "treasury") =>
    codeOf(world.call("workspace.create", { name, policy: world.policy([ada, bob], change) }, who));

  test("is made by one of its owners, who is enrolled", async () => {
    expect(await make({}, eve)).toBe("denied");
    expect(await make({}, stranger)).toBe("denied");
    expect(await make({})).toBe("ok");
  });

  test.each<[string, object, string]>([
    ["of another registry or federation", { federationId: FEDERATION }, "bad_input"],
    ["of another name", { name: "other" }, "bad_input"],
    ["that is no first version", { version: 2 }, "bad_input"],
    ["that follows something", { previous: new Uint8Array(32).fill(1) }, "bad_input"],
    ["without owners", { approvers: [] }, "bad_input"],
    ["with an admin who is no owner", { admins: { kind: "approver", name: "eve" } }, "bad_input"],
    ["whose group is too small", { admins: { kind: "group", name: "owners", atLeast: 3 } }, "bad_input"],
    [
      "that asks a remote engine",
      {
        remotes: [{ name: "risk", url: "https://r.example", key: signerOf("r").publicKey, timeoutMs: 1_000 }],
        rules: [rule({ require: { kind: "remote", name: "risk" } })],
      },
      "bad_input",
    ],
    [
      "whose rule nobody can satisfy, for both must agree and the requester's word does not count",
      { rules: [rule({ require: { kind: "group", name: "owners", atLeast: 2 } })] },
      "bad_input",
    ],
  ])("is none %s", async (_, change, code) => {
    expect(await make(change)).toBe(code);
    expect((await world.call("workspace.list", { after: null }, ada)).items).toEqual([]);
  });

  test("needs its admins' signatures", async () => {
    const whole = world.policy([ada, bob]);
    const half = { ...whole, signatures: whole.signatures.slice(0, 1) };
    expect(await codeOf(world.call("workspace.create", { name: "treasury", policy: half }, ada))).toBe("integrity");
  });

  test("is one of 32 that an account makes", async () => {
    for (let i = 0; i < 32; i += 1) await world.workspace([ada], { name: `room-${i}`, ...anyone([ada]) });
    const more = (who: RegistryPerson) => codeOf(world.workspace([who], { name: "one-more", ...anyone([who]) }));
    expect(await more(ada)).toBe("too_large");
    expect(await more(bob)).toBe("ok");
    const seen: string[] = [];
    for (let after: WorkspaceId | null = null, more = true; more; ) {
      const page: { items: readonly WorkspaceView[]; more: boolean } = await world.call(
        "workspace.list",
        { after },
        ada,
      );
      seen.push(...page.items.map(({ name }) => name));
      after = page.items.at(-1)?.workspaceId ?? null;
      more = page.more;
    }
    expect(seen.toSorted()).toEqual(Array.from({ length: 32 }, (_, i) => `room-${i}`).toSorted());
  });
});

describe("who is no owner", () => {
  test.each(["eve", "sam"])("%s learns nothing of a workspace", async (name) => {
    const who = name === "eve" ? eve : stranger;
    const { workspaceId, ...view } = await world.workspace([ada, bob]);
    const next = nextLink(view, { rules: [] }, [ada, bob]);
    const asks = (id: WorkspaceId) => [
      world.call("workspace.get", { workspaceId: id }, who),
      world.call("workspace.policy", { workspaceId: id, after: 0 }, who),
      world.call("workspace.ledger", { workspaceId: id, after: 0 }, who),
      world.call("workspace.events", { workspaceId: id, after: 0 }, who),
    ];
    const messages = async (id: WorkspaceId) =>
      Promise.all(
        asks(id).map((ask) =>
          ask.then(
            () => "answered",
            (error: Error) => error.message,
          ),
        ),
      );
    const said = await messages(workspaceId);
    expect(said).toEqual(await messages(NOBODY));
    expect(new Set(said)).toEqual(new Set(["no such workspace"]));
    expect(await codeOf(set(next, who))).toBe("not_found");
    expect((await world.call("workspace.list", { after: null }, who)).items).toEqual([]);
    expect(await codeOf(world.store.transaction((tx) => demandOwner(tx, workspaceId, who.userId)))).toBe("not_found");
  });

  test("a party reads the policy while it has an open request, and nothing else", async () => {
    const { workspaceId, policy } = await world.workspace([ada, bob]);
    const party = await world.connector("north");
    const links = () => world.call("workspace.policy", { workspaceId, after: 0 }, party);
    expect(await codeOf(links())).toBe("not_found");
    open = [party.party.publicKey];
    expect(await links()).toEqual({ chain: [policy], more: false });
    expect(await codeOf(world.call("workspace.get", { workspaceId }, party))).toBe("not_found");
    expect(await codeOf(world.call("workspace.ledger", { workspaceId, after: 0 }, party))).toBe("not_found");
    // an owner key is no party key
    open = [eve.owner.publicKey];
    expect(await codeOf(world.call("workspace.policy", { workspaceId, after: 0 }, eve))).toBe("not_found");
  });
});

describe("a new link of the policy", () => {
  test("waits for the quorum of admins, and then holds for all at once", async () => {
    const view = await world.workspace([ada, bob]);
    const change = { rules: [rule({ name: "fewer" })] };
    const first = await set(nextLink(view, change, [ada]), ada);
    expect(first.version).toBe(1);
    expect(first.drafts.map(({ signatures }) => signatures.length)).toEqual([1]);
    expect((await get(view, bob)).drafts).toEqual(first.drafts);
    const done = await set(nextLink(view, change, [bob]), bob);
    expect(done).toMatchObject({ version: 2, drafts: [] });
    const { chain, more } = await world.call("workspace.policy", { workspaceId: view.workspaceId, after: 0 }, ada);
    expect(more).toBe(false);
    expect(verifyChain(chain, world.scope)).toMatchObject({ policyId: view.workspaceId, head: { version: 2 } });
    expect(await eventsOf(view)).toEqual(["workspace.created", "workspace.policy.proposed", "workspace.policy"]);
    // the same again changes nothing
    expect((await set(nextLink(view, change, [ada, bob]), ada)).version).toBe(2);
    expect(await codeOf(set(nextLink(view, { rules: [] }, [ada, bob]), ada))).toBe("conflict");
  });

  test("is begun by an owner's signature only", async () => {
    const view = await world.workspace([ada, bob]);
    const change = { ...anyone([ada, bob, eve]) };
    expect(await codeOf(set(nextLink(view, change, [eve]), ada))).toBe("integrity");
    expect(await codeOf(set(nextLink(view, change, [ada]), eve))).toBe("not_found");
    expect((await get(view, ada)).drafts).toEqual([]);
  });

  test("removes an owner, who from then on may nothing", async () => {
    const view = await world.workspace([ada, bob], anyone([ada, bob]));
    const next = await set(nextLink(view, anyone([ada]), [ada]), ada);
    expect(next.version).toBe(2);
    expect(await codeOf(get(view, bob))).toBe("not_found");
    expect((await world.call("workspace.list", { after: null }, bob)).items).toEqual([]);
    expect(await codeOf(set(nextLink(next, anyone([bob]), [bob]), bob))).toBe("not_found");
    expect(await codeOf(set(nextLink(next, anyone([bob]), [bob]), ada))).toBe("integrity");
    expect((await world.call("workspace.list", { after: null }, ada)).items.map((w) => w.version)).toEqual([2]);
  });

  test("adds an owner, who from then on may everything", async () => {
    const view = await world.workspace([ada, bob], anyone([ada, bob]));
    const next = await set(nextLink(view, anyone([ada, bob, eve]), [bob]), bob);
    expect((await world.call("workspace.list", { after: null }, eve)).items).toEqual([next]);
    expect((await set(nextLink(next, anyone([eve]), [eve]), eve)).version).toBe(3);
    expect(await codeOf(get(view, ada))).toBe("not_found");
  });

  test("lets whoever signs itself out see what it has done, and no more", async () => {
    const view = await world.workspace([ada, bob], anyone([ada, bob]));
    expect((await set(nextLink(view, anyone([bob]), [ada]), ada)).version).toBe(2);
    expect(await codeOf(get(view, ada))).toBe("not_found");
  });

  test.each<[string, (view: WorkspaceView) => Parameters<typeof nextLink>[1]]>([
    ["the last owner", () => ({ approvers: [], groups: [], rules: [] })],
    ["an admin whom nobody is", () => ({ admins: { kind: "approver", name: "zoe" } })],
    ["rules that nobody satisfies", () => ({ rules: [rule({ require: { kind: "approver", name: "ada" } })] })],
    ["another scope", () => ({ federationId: FEDERATION })],
  ])("cannot take away or bring in %s", async (_, change) => {
    const view = await world.workspace([ada], anyone([ada]));
    expect(await codeOf(set(nextLink(view, change(view), [ada]), ada))).toBe("bad_input");
    expect((await get(view, ada)).version).toBe(1);
  });

  test("of another name or a version too far is none", async () => {
    const view = await world.workspace([ada], anyone([ada]));
    expect(await codeOf(set(nextLink(view, { name: "other" }, [ada]), ada))).toBe("integrity");
    expect(await codeOf(set(nextLink(view, { version: 3 }, [ada]), ada))).toBe("conflict");
    expect(await codeOf(set(nextLink(view, { previous: new Uint8Array(32) }, [ada]), ada))).toBe("not_found");
  });

  test("is one of 16 drafts that one owner lays there; nobody keeps others' out", async () => {
    const view = await world.workspace([ada, bob]);
    const draft = (i: number, who: RegistryPerson) =>
      set(nextLink(view, { rules: [rule({ name: `r${i}` })] }, [who]), who);
    for (let i = 0; i < 16; i += 1) await draft(i, ada);
    expect(await codeOf(draft(16, ada))).toBe("too_large");
    const shown = (await draft(17, bob)).drafts;
    expect(shown).toHaveLength(8);
    expect(shown.some(({ document }) => document.rules[0]?.name === "r17")).toBe(true);
    // bob completes one of hers
    expect((await draft(3, bob)).version).toBe(2);
    expect((await get(view, ada)).drafts).toEqual([]);
    world.nowMs += world.site.ctx.limits.approvalMs;
    const next = await get(view, ada);
    expect((await set(nextLink(next, { rules: [] }, [ada]), ada)).drafts).toHaveLength(1);
  });

  test("always the newest head counts", async () => {
    const view = await world.workspace([ada], anyone([ada]));
    await set(nextLink(view, { rules: [] }, [ada]), ada);
    const head = await world.store.transaction((tx) => headOf(tx, view.workspaceId));
    expect(head.version).toBe(2);
    expect(head.hash).toEqual(policyHash(head.document));
    expect(head.chain).toHaveLength(2);
    expect(await codeOf(world.store.transaction((tx) => headOf(tx, NOBODY)))).toBe("not_found");
  });

  test("comes in pages", async () => {
    let view = await world.workspace([ada], anyone([ada]));
    for (let i = 0; i < 9; i += 1) view = await set(nextLink(view, { createdAtMs: i }, [ada]), ada);
    const { workspaceId } = view;
    const first = await world.call("workspace.policy", { workspaceId, after: 0 }, ada);
    expect(first).toMatchObject({ more: true });
    const rest = await world.call("workspace.policy", { workspaceId, after: first.chain.length }, ada);
    expect(rest.more).toBe(false);
    expect(verifyChain([...first.chain, ...rest.chain], world.scope).head.version).toBe(10);
  });
});
