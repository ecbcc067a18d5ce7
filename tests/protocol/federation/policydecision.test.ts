import { describe, expect, test } from "bun:test";
import { asHashId, type PolicyId } from "../../../src/ids.ts";
import type { Certificate } from "../../../src/protocol/federation/certificate.ts";
import type { Manifest } from "../../../src/protocol/federation/manifest.ts";
import {
  OPERATOR_SCOPE,
  type PolicyChain,
  type PolicyRule,
  policyIdOf,
  type SignedVote,
} from "../../../src/protocol/federation/policy.ts";
import { POLICY_ACTIONS } from "../../../src/protocol/federation/policyaction.ts";
import { evaluateRequest } from "../../../src/protocol/federation/policydecision.ts";
import type { RequestBody } from "../../../src/protocol/federation/request.ts";
import {
  bodies,
  certificateFor,
  denial,
  extended,
  FEDERATION,
  idOf,
  keyOf,
  NOON,
  policy,
  request,
  rule,
  signedBy,
  voteOf,
} from "../../support/policies.ts";

const manifest = (policyId: PolicyId | null): Manifest => ({
  federationId: FEDERATION,
  name: "three",
  epoch: 3,
  threshold: 2,
  servers: [1, 2, 3].map((index) => ({
    index,
    identity: keyOf(`server ${index}`),
    sealing: keyOf(`sealing ${index}`),
    url: `https://s${index}.example`,
    pin: `pin ${index}`,
    policy: index === 1 ? policyId : null,
  })),
  createdAtMs: 0,
  nonce: new Uint8Array(32),
  previous: new Uint8Array(32),
});

const chainOf = (rules: readonly PolicyRule[], over: Parameters<typeof policy>[0] = {}): PolicyChain => [
  signedBy(policy({ rules, ...over }), "alice", "bob"),
];
const operatorChain = (rules: readonly PolicyRule[]) =>
  chainOf(rules, { name: "operator", federationId: OPERATOR_SCOPE });
const idOfChain = ([first]: PolicyChain): PolicyId => policyIdOf(first?.document ?? policy());
const yes = [rule({ actions: [...POLICY_ACTIONS] })];
const no = [denial()];
const wait = [rule({ actions: [...POLICY_ACTIONS], require: { kind: "approver", name: "alice" } })];

interface World {
  readonly body?: RequestBody;
  readonly index?: number | null;
  readonly server?: PolicyChain | null;
  /** What the manifest names, where it is not `server`. */
  readonly named?: PolicyId | null;
  readonly key?: PolicyChain | null;
  readonly certificate?: Partial<Certificate> | null;
  readonly votes?: readonly SignedVote[];
  readonly epoch?: number;
}

function ask(world: World) {
  const { server = null, key = null, body = bodies.sign } = world;
  const shared = key === null ? {} : ({ control: "shared", policy: idOfChain(key) } as const);
  const named = world.named === undefined ? server && idOfChain(server) : world.named;
  const owned = "keyId" in body ? body : { ...body, ...shared };
  const asked = request(owned, { epoch: world.epoch ?? 3 });
  return evaluateRequest({
    manifest: manifest(named),
    index: world.index === undefined ? 1 : world.index,
    request: asked,
    requestId: idOf(asked),
    certificate: world.certificate === null ? null : certificateFor(owned, { ...shared, ...world.certificate }),
    serverPolicy: server,
    keyPolicy: key,
    requesterApproval: keyOf("owner-approval"),
    votes: world.votes ?? [],
    uses: () => 0,
    nowMs: NOON,
  });
}

describe("evaluateRequest", () => {
  test.each(Object.entries(bodies))("the owner alone, no server policy: %s is allowed", (_name, body) => {
    const found = ask({ body });
    expect(found.decision).toBe("allow");
    expect(found.explanations.map(({ policy: of, why }) => [of, why])).toEqual([
      [null, "this server's operator leaves it to the owner"],
      [null, "the owner alone decides"],
    ]);
  });

  test("both policies must allow: one denial denies, else one that waits waits", () => {
    const policies = { allow: yes, wait, deny: no } as const;
    const worst = (a: string, b: string) => ["deny", "wait", "allow"].find((one) => one === a || one === b) as never;
    for (const [own, serverRules] of Object.entries(policies)) {
      for (const [keys, keyRules] of Object.entries(policies)) {
        const found = ask({ server: operatorChain(serverRules), key: chainOf(keyRules) });
        expect([own, keys, found.decision]).toEqual([own, keys, worst(own, keys)]);
        expect(found.explanations.map(({ decision }) => decision)).toEqual([own, keys] as never);
        expect(found.waiting).toHaveLength(
          found.decision === "wait" ? [own, keys].filter((one) => one === "wait").length : 0,
        );
      }
    }
  });

  test("the policy of another server is not asked", () => {
    expect(ask({ server: operatorChain(no), index: 2 }).decision).toBe("allow");
    expect(ask({ server: operatorChain(no), index: 1 }).decision).toBe("deny");
  });

  test("who asks for all servers, as a registry does, asks no server's policy, and the key's all the same", () => {
    const server = operatorChain(no);
    const found = ask({ server, index: null, key: chainOf(wait) });
    expect(found.explanations.map(({ decision }) => decision)).toEqual(["wait"]);
    expect(found.waiting).toHaveLength(1);
    expect(ask({ server, index: null, key: chainOf(no) }).decision).toBe("deny");
    expect(ask({ server: operatorChain(yes), index: null, key: chainOf(yes), certificate: null }).decision).toBe(
      "deny",
    );
  });

  test("one approver of two policies votes for each", () => {
    const server = operatorChain(wait);
    const key = chainOf(wait);
    const asked = request(bodies.sign);
    const [ownLink, keyLink] = [server[0]?.document ?? policy(), key[0]?.document ?? policy()];
    const forServer = voteOf("alice", asked, ownLink);
    const forKey = voteOf("alice", asked, keyLink);
    expect(ask({ server, key, votes: [forServer] }).waiting.map(({ policyId }) => policyId)).toEqual([idOfChain(key)]);
    expect(ask({ server, key, votes: [forKey] }).waiting.map(({ policyId }) => policyId)).toEqual([idOfChain(server)]);
    expect(ask({ server, key, votes: [forServer, forKey] }).decision).toBe("allow");
  });

  test("a vote under the version before does not count, even if that version allowed it", () => {
    const key = chainOf(wait);
    const asked = request(bodies.sign);
    const vote = voteOf("alice", asked, key[0]?.document ?? policy());
    const first = idOfChain(key);
    expect(ask({ key, votes: [vote] }).decision).toBe("allow");
    const next = extended(key, { createdAtMs: NOON + 1 });
    const found = ask({ key: next, certificate: { policy: first }, votes: [vote] });
    expect(found.decision).toBe("wait");
    expect(found.waiting[0]?.policyHash).not.toEqual(vote.vote.policyHash);
  });

  test("a denying version counts at once", () => {
    const key = chainOf(yes);
    const found = ask({ key: extended(key, { rules: no }), certificate: { policy: idOfChain(key) } });
    expect(found.decision).toBe("deny");
  });

  test.each([
    ["another owner's key", { certificate: { owner: keyOf("another") } }, "only the owner of a key asks for it"],
    ["a missing certificate", { certificate: null }, "the certificate of the request's key is missing"],
    [
      "another key's certificate",
      { certificate: { keyId: asHashId<Certificate["keyId"]>("01".repeat(32)) } },
      "the certificate of the request's key is missing",
    ],
    [
      "another federation's key",
      { certificate: { federationId: asHashId<Certificate["federationId"]>("02".repeat(32)) } },
      "the key belongs to another federation",
    ],
    ["another epoch", { epoch: 2 }, "the request belongs to another federation or epoch"],
    [
      "shared control without a policy",
      { certificate: { control: "shared", policy: null } },
      "the key's certificate does not say who decides",
    ],
    [
      "a policy without shared control",
      { certificate: { control: "unilateral", policy: "03".repeat(32) as PolicyId } },
      "the key's certificate does not say who decides",
    ],
  ] as const)("denies %s, whatever the policies say", (_what, world, why) => {
    for (const body of [bodies.sign, bodies.release, bodies.retrieve, bodies.export, bodies.reshare]) {
      const found = ask({ body, ...world });
      expect([found.decision, found.explanations.map((one) => one.why)]).toEqual(["deny", [why]]);
    }
  });

  test.each(["generate", "import"] as const)("%s names its policy under shared control, and only there", (kind) => {
    const chain = chainOf(wait);
    expect(ask({ body: bodies[kind], key: chain }).decision).toBe("wait");
    const without = { ...bodies[kind], control: "shared" } as const;
    expect(ask({ body: without }).decision).toBe("deny");
    const stray = { ...bodies[kind], policy: idOfChain(chain) } as const;
    expect(ask({ body: stray }).decision).toBe("deny");
  });

  test.each([
    ["is missing", null],
    ["is another one", chainOf(yes, { createdAtMs: 5 })],
    ["is not signed", [signedBy(policy({ rules: yes }), "alice")]],
    ["belongs to another federation", chainOf(yes, { federationId: asHashId("04".repeat(32)) })],
    ["cannot be", chainOf([rule({ require: null })])],
    ["is empty", []],
  ] as const)("a key's policy that %s denies", (_what, chain) => {
    const policyId = idOfChain(chain?.length === 1 && _what !== "is another one" ? chain : chainOf(yes));
    const asked = { control: "shared", policy: policyId } as const;
    const found = evaluateRequest({
      manifest: manifest(null),
      index: 1,
      request: request(bodies.sign),
      requestId: idOf(request(bodies.sign)),
      certificate: certificateFor(bodies.sign, asked),
      serverPolicy: null,
      keyPolicy: chain,
      requesterApproval: null,
      votes: [],
      uses: () => 0,
      nowMs: NOON,
    });
    expect(found.decision).toBe("deny");
    expect(found.explanations[1]?.policy).toBe(policyId);
  });

  test("a server's policy that is missing or another's denies; a key's policy stands for none", () => {
    const named = idOfChain(operatorChain(yes));
    expect(ask({ named }).decision).toBe("deny");
    expect(ask({ named, server: operatorChain(no) }).decision).toBe("deny");
    expect(ask({ named, server: operatorChain(yes) }).decision).toBe("allow");
    const key = chainOf(yes);
    expect(ask({ named: idOfChain(key), server: key }).decision).toBe("deny");
  });

  test("under shared control, release has to be named by the key's policy, and by the server's own where it has one", () => {
    const any = [rule()];
    for (const body of [bodies.release, bodies.retrieve, bodies.export]) {
      expect(ask({ body, key: chainOf(any) }).decision).toBe("deny");
      expect(ask({ body, key: chainOf(yes) }).decision).toBe("allow");
      expect(ask({ body, key: chainOf(yes), server: operatorChain(any) }).decision).toBe("deny");
      expect(ask({ body, server: operatorChain(any) }).decision).toBe("deny");
    }
  });
});
