import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { FederationId, PolicyId } from "../../../src/ids.ts";
import type { SignedManifest } from "../../../src/protocol/federation/manifest.ts";
import {
  OPERATOR_NAME,
  OPERATOR_SCOPE,
  type PolicyDocument,
  policyHash,
  policyIdOf,
  type SignedPolicy,
} from "../../../src/protocol/federation/policy.ts";
import { signPolicy, verifyChain } from "../../../src/protocol/federation/policychain.ts";
import { rejection } from "../../storage/rejection.ts";
import { call, errorOf, output, outputOf, postInput, type RawSession } from "../../support/attacker.ts";
import {
  accountAt,
  draftOf,
  enrolment,
  type FederatedServer,
  federate,
  lineOf,
  propose,
  startFederated,
} from "../../support/federatedserver.ts";
import { policy, rule, signerOf } from "../../support/policies.ts";

let servers: FederatedServer[];
let a: FederatedServer;
let federation: SignedManifest;
let federationId: FederationId;
let ada: RawSession;

beforeEach(async () => {
  a = await startFederated();
  servers = [a, await startFederated()];
  federation = await federate(servers);
  federationId = federation.manifest.federationId;
  ada = await member("ada", 1);
});
afterEach(async () => {
  for (const one of servers) {
    expect(one.server.faults).toEqual([]);
    await one.close();
  }
});

async function member(name: string, seed: number): Promise<RawSession> {
  const session = await accountAt(a, name);
  const { input } = enrolment(federationId, 1, session, new Uint8Array([seed]));
  expect((await call(a.server, session, "federation.enrol", input)).code).toBe("ok");
  return session;
}

const ADMINS = {
  kind: "threshold",
  atLeast: 2,
  of: ["alice", "bob", "carol"].map((name) => ({ kind: "approver", name })),
};
const document = (over: Partial<PolicyDocument> = {}): PolicyDocument =>
  policy({ federationId, admins: ADMINS as PolicyDocument["admins"], ...over });
const signed = (of: PolicyDocument, ...names: string[]): SignedPolicy => ({
  document: of,
  signatures: names.map((name) => signPolicy(signerOf(name), of)),
});
const following = (before: PolicyDocument, over: Partial<PolicyDocument> = {}): PolicyDocument => ({
  ...before,
  version: before.version + 1,
  previous: policyHash(before),
  ...over,
});
const set = (link: SignedPolicy, session = ada) => call(a.server, session, "federation.policy.set", { policy: link });
const read = (policyId: PolicyId, from = 0, session = ada) =>
  call(a.server, session, "federation.policy", { policyId, after: from });
const chain = async (policyId: PolicyId) => output("federation.policy", await read(policyId)).chain;

describe("a federation's policy", () => {
  test("grows link by link, and the same link twice is one", async () => {
    const first = document();
    const id = policyIdOf(first);
    const made = output("federation.policy.set", await set(signed(first, "alice", "bob")));
    expect(made).toEqual({ policyId: id, hash: policyHash(first) });
    expect((await set(signed(first, "alice", "bob"))).code).toBe("ok");
    const second = following(first, { rules: [rule({ name: "other" })] });
    expect(output("federation.policy.set", await set(signed(second, "bob", "carol")))).toEqual({
      policyId: id,
      hash: policyHash(second),
    });
    expect((await set(signed(second, "bob", "carol"))).code).toBe("ok");
    expect((await set(signed(first, "alice", "bob"))).code).toBe("ok");
    const held = await chain(id);
    expect(held.length).toBe(2);
    expect(verifyChain(held, federationId).headHash).toEqual(policyHash(second));
    expect(output("federation.policy", await read(id, 1)).chain.length).toBe(1);
    expect(output("federation.policy", await read(id, 2))).toEqual({ chain: [], more: false });
  });

  test("is told to whom its newest version names, and to nobody else", async () => {
    const mine = enrolment(federationId, 1, ada, new Uint8Array([1])).approval.publicKey;
    const named = async (session: RawSession, after: PolicyId | null = null) =>
      output("federation.policies", await call(a.server, session, "federation.policies", { federationId, after }));
    const approvers = document().approvers;
    const without = document();
    const withAda = document({ name: "with-ada", approvers: [...approvers, { name: "ada", key: mine }] });
    await set(signed(without, "alice", "bob"));
    await set(signed(withAda, "alice", "bob"));
    const id = policyIdOf(withAda);
    expect(await named(ada)).toEqual({ items: [id], more: false });
    expect(await named(ada, id)).toEqual({ items: [], more: false });
    expect(await named(await member("bert", 9))).toEqual({ items: [], more: false });
    await set(signed(following(withAda, { approvers }), "alice", "bob"));
    expect(await named(ada)).toEqual({ items: [], more: false });
    const eve = await accountAt(a, "eve");
    const asked = await call(a.server, eve, "federation.policies", { federationId, after: null });
    expect(asked.code).toBe("denied");
  });

  test("takes one of two versions that follow the same one", async () => {
    const first = document();
    await set(signed(first, "alice", "bob"));
    const [one, other] = [following(first), following(first, { rules: [rule({ name: "other" })] })];
    expect((await set(signed(one, "alice", "bob"))).code).toBe("ok");
    expect((await set(signed(other, "alice", "bob"))).code).toBe("conflict");
    expect((await set(signed(following(other), "alice", "bob"))).code).toBe("not_found");
    expect((await set(signed(following(one), "alice", "bob"))).code).toBe("ok");
    expect((await chain(policyIdOf(first))).map((link) => policyHash(link.document))).toEqual(
      [first, one, following(one)].map(policyHash),
    );
  });

  test("gathers its admins' signatures, one after another", async () => {
    const first = document();
    expect((await set(signed(first, "alice"))).code).toBe("pending");
    expect((await read(policyIdOf(first))).code).toBe("not_found");
    expect((await set(signed(first, "alice"))).code).toBe("pending");
    expect((await set(signed(first, "bob"))).code).toBe("ok");
    const second = following(first);
    expect((await set(signed(second, "carol"))).code).toBe("pending");
    expect((await set(signed(second, "alice"))).code).toBe("ok");
    const [, link] = await chain(policyIdOf(first));
    expect(link?.signatures.length).toBe(2);
  });

  test("keeps no signature that does not count", async () => {
    const first = document();
    expect((await set(signed(first, "mallory"))).code).toBe("integrity");
    expect((await set(signed(first))).code).toBe("integrity");
    const moved = { document: first, signatures: signed(document({ name: "other" }), "alice", "bob").signatures };
    expect((await set(moved)).code).toBe("integrity");
    const crowd = signed(first, "alice", "mallory", "alice", "bob");
    expect((await set(crowd)).code).toBe("ok");
    expect((await chain(policyIdOf(first)))[0]?.signatures.length).toBe(2);
    // those of whom the last version names, not those of whom the new one would
    const coup = following(first, { approvers: [{ name: "mallory", key: signerOf("mallory").publicKey }] });
    const admins = { kind: "approver", name: "mallory" } as const;
    const taken = { ...coup, groups: [], rules: [], admins };
    expect((await set(signed(taken, "mallory"))).code).toBe("pending");
    expect((await chain(policyIdOf(first))).length).toBe(1);
  });

  test("waits for its admins whatever others lay before the server", async () => {
    const mallory = await member("mallory", 7);
    const codes = new Set<string>();
    for (let n = 0; n < 70; n++)
      codes.add((await set(signed(document({ name: `flood-${n}` }), "alice"), mallory)).code);
    expect([...codes]).toEqual(["pending", "too_large"]);
    expect((await set(signed(document(), "alice"))).code).toBe("pending");
    expect((await set(signed(document(), "bob"))).code).toBe("ok");
  });

  test("that cannot be is refused", async () => {
    expect((await set(signed(document({ rules: [rule(), rule()] }), "alice", "bob"))).code).toBe("bad_input");
    const elsewhere = document({ federationId: "ab".repeat(32) as FederationId });
    expect((await set(signed(elsewhere, "alice", "bob"))).code).toBe("not_found");
    expect((await set(signed(document({ federationId: OPERATOR_SCOPE }), "alice", "bob"))).code).toBe("not_found");
  });

  test("is nobody's business who has not joined", async () => {
    const first = document();
    await set(signed(first, "alice", "bob"));
    const eve = await accountAt(a, "eve");
    const unknown = "ab".repeat(32) as PolicyId;
    expect((await set(signed(first, "alice", "bob"), eve)).code).toBe("denied");
    const [hers, nobodys] = [await read(policyIdOf(first), 0, eve), await read(unknown, 0, eve)];
    expect(hers.code).toBe("not_found");
    expect(hers.text).toBe(nobodys.text);
    const bob = await member("bob", 8);
    expect((await read(policyIdOf(first), 0, bob)).code).toBe("ok");
  });

  test("comes in pages", async () => {
    let newest = document();
    for (let n = 0; n < 10; n++) {
      expect((await set(signed(newest, "alice", "bob"))).code).toBe("ok");
      newest = following(newest);
    }
    const id = policyIdOf(document());
    const links: SignedPolicy[] = [];
    for (let more = true; more; ) {
      const page = output("federation.policy", await read(id, links.length));
      links.push(...page.chain);
      more = page.more;
    }
    expect(links.map((link) => link.document.version)).toEqual(Array.from({ length: 10 }, (_, n) => n + 1));
  });

  test("is begun by one account a limited number of times", async () => {
    const codes: string[] = [];
    for (let n = 0; n < 33; n++) codes.push((await set(signed(document({ name: `p${n}` }), "alice", "bob"))).code);
    expect(codes.slice(0, 32)).toEqual(Array.from({ length: 32 }, () => "ok"));
    expect(codes[32]).toBe("too_large");
    const bob = await member("bob", 8);
    expect((await set(signed(document({ name: "of-bob" }), "alice", "bob"), bob)).code).toBe("ok");
  });
});

describe("the operator's own policy", () => {
  const own = (over: Partial<PolicyDocument> = {}): PolicyDocument =>
    policy({
      federationId: OPERATOR_SCOPE,
      name: "house",
      approvers: [{ name: OPERATOR_NAME, key: a.site.operator.publicKey }],
      groups: [],
      admins: { kind: "approver", name: OPERATOR_NAME },
      rules: [rule()],
      ...over,
    });
  const control = () => a.service.control;

  test("is signed by the server and named by the next manifest", async () => {
    expect(await control()["policy.show"]({})).toEqual({
      policyId: null,
      policy: null,
      remotes: [],
      operator: a.site.operator.publicKey,
    });
    const first = own();
    const id = policyIdOf(first);
    const remotes = [
      { url: "https://opa.example.org/v1", ca: "/etc/opa.pem", cert: "/etc/own.pem", key: "/etc/own.key" },
    ];
    expect(await control()["policy.set"]({ document: first, drop: false, remotes })).toEqual({
      policyId: id,
      version: 1,
    });
    const shown = await control()["policy.show"]({});
    expect(shown).toMatchObject({ policyId: id, remotes });
    expect(shown.policy && verifyChain([shown.policy], OPERATOR_SCOPE).policyId).toBe(id);
    expect(outputOf("federation.info", await postInput(a.server, "federation.info", {})).policy).toBe(id);
    // a draft names it or is refused
    const [, b] = servers;
    if (!b) throw new Error("no second server");
    expect(errorOf(await propose(a, draftOf(servers))).code).toBe("bad_input");
    const naming = draftOf(servers, { servers: [lineOf(a, 1, id), lineOf(b, 2)] });
    expect((await propose(a, naming)).status).toBe(200);
    // members may read it
    expect((await chain(id)).length).toBe(1);
    expect((await read(id, 0, await accountAt(a, "eve"))).code).toBe("not_found");
  });

  test("goes on, and can be dropped", async () => {
    const first = own();
    await control()["policy.set"]({ document: first, drop: false, remotes: [] });
    const second = following(first, { rules: [rule({ name: "other" })] });
    expect(await control()["policy.set"]({ document: second, drop: false, remotes: [] })).toMatchObject({ version: 2 });
    expect((await chain(policyIdOf(first))).length).toBe(2);
    // the files of engines change by themselves
    const remotes = [
      { url: "https://opa.example.org/v1", ca: "/etc/opa.pem", cert: "/etc/own.pem", key: "/etc/own.key" },
    ];
    const kept = { policyId: policyIdOf(first), version: 2 };
    expect(await control()["policy.set"]({ document: null, drop: false, remotes })).toEqual(kept);
    expect(await control()["policy.set"]({ document: null, drop: false, remotes: null })).toEqual(kept);
    expect((await control()["policy.show"]({})).remotes).toEqual(remotes);
    expect(
      await rejection(control()["policy.set"]({ document: following(first), drop: false, remotes: [] })),
    ).toMatchObject({
      code: "integrity",
    });
    expect(await control()["policy.set"]({ document: null, drop: true, remotes: [] })).toEqual({
      policyId: null,
      version: 0,
    });
    expect((await control()["policy.show"]({})).policyId).toBeNull();
    // manifests that name it still find it
    expect((await chain(policyIdOf(first))).length).toBe(2);
  });

  test("is no federation's, and has this server among its admins", async () => {
    const set = (of: PolicyDocument) => rejection(control()["policy.set"]({ document: of, drop: false, remotes: [] }));
    expect(await set(own({ federationId }))).toMatchObject({ code: "bad_input" });
    const others = own({ approvers: [{ name: OPERATOR_NAME, key: signerOf("alice").publicKey }] });
    expect(await set(others)).toMatchObject({ code: "integrity" });
    expect((await control()["policy.show"]({})).policyId).toBeNull();
  });
});
