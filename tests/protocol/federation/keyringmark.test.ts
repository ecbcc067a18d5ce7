import { describe, expect, test } from "bun:test";
import type { PolicyId } from "../../../src/ids.ts";
import type { Certificate } from "../../../src/protocol/federation/certificate.ts";
import { keyringRefusal } from "../../../src/protocol/federation/keyringmark.ts";
import { FEDERATED_TYPES, type FederatedType } from "../../../src/protocol/federation/kinds.ts";
import type { Manifest } from "../../../src/protocol/federation/manifest.ts";
import {
  type EvaluateRequestInput,
  evaluateRequest,
  type RequestEvaluation,
} from "../../../src/protocol/federation/policydecision.ts";
import {
  coordinatorOf,
  type FederatedRequest,
  policyScopeOf,
  type RequestBody,
  registryScope,
  requestIdOf,
} from "../../../src/protocol/federation/request.ts";
import {
  type KEYRING,
  keyringCertificate,
  keyringGenerateBody,
  keyringUseBody,
  keyringVote,
  makeKeyringRequest,
  makeWorkspacePolicy,
} from "../../support/keyringrequests.ts";
import { bodies, certificate, FEDERATION, keyOf, NOON, recipient, rule, signerOf } from "../../support/policies.ts";

const REGISTRY = keyOf("registry");
const space = makeWorkspacePolicy({ registry: REGISTRY });
const other = makeWorkspacePolicy({ registry: REGISTRY, name: "other" });

const asked = (body: RequestBody, change: Partial<FederatedRequest> = {}, signer = signerOf("ann")) =>
  makeKeyringRequest({
    federationId: FEDERATION,
    epoch: 3,
    workspace: space,
    body,
    nonce: new Uint8Array(32).fill(7),
    nowMs: NOON,
    signer,
    change,
  });

const key = (type: FederatedType, change: Partial<Certificate> = {}): Certificate =>
  certificate({ type, ...keyringCertificate(space), ...change });

const refusal = (body: RequestBody, of: Certificate | null = null, change: Partial<FederatedRequest> = {}) =>
  keyringRefusal(asked(body, change).request, of);

describe("the mark of a keyring", () => {
  test("names who orders, who owns, and which policies count", () => {
    const { request } = asked(keyringGenerateBody(space.workspaceId));
    expect(coordinatorOf(request)).toEqual(REGISTRY);
    expect(policyScopeOf(request)).toBe(registryScope(REGISTRY));
    expect(policyScopeOf({ ...request, keyring: null })).toBe(FEDERATION);
    expect(coordinatorOf({ ...request, keyring: null })).toEqual(keyOf("ann"));
  });

  test("is part of what the owner signs and of the request's id", () => {
    const { request } = asked(keyringGenerateBody(space.workspaceId));
    const mark = request.keyring;
    if (!mark) throw new Error("no mark");
    const ids = [
      request,
      { ...request, keyring: null },
      { ...request, keyring: { ...mark, registry: keyOf("another") } },
      { ...request, keyring: { ...mark, keyringId: "0".repeat(64) as typeof KEYRING } },
      { ...request, keyring: { ...mark, workspaceId: other.workspaceId } },
    ].map(requestIdOf);
    expect(new Set(ids).size).toBe(ids.length);
  });
});

describe("what a keyring serves", () => {
  test("keys of four types under the workspace's policy", () => {
    const made = FEDERATED_TYPES.filter((type) => refusal(keyringGenerateBody(space.workspaceId, type)) === null);
    expect(made).toEqual(["ed25519", "schnorr", "secp256k1", "p256"]);
  });

  const generate = keyringGenerateBody(space.workspaceId);
  test.each([
    ["another custody", { custody: "self" }, "custody"],
    ["an owner's part", { owner: { point: new Uint8Array(32), proof: new Uint8Array(64) } }, "custody"],
    ["unilateral control", { control: "unilateral", policy: null }, "policy"],
    ["shared control without a policy", { policy: null }, "policy"],
    ["another workspace's policy", { policy: other.workspaceId }, "policy"],
    ["another length", { length: 16 }, "32 bytes"],
  ] as const)("no key with %s", (_, change, why) => {
    expect(refusal({ ...generate, ...change })).toContain(why);
  });

  test("signatures by the servers, or by released shares, as the type demands", () => {
    for (const type of FEDERATED_TYPES) {
      const sign = refusal(keyringUseBody({ ...key(type), type: "ed25519" }, recipient), key(type));
      const release = refusal(keyringUseBody({ ...key(type), type: "p256" }, recipient), key(type));
      const served = [sign === null, release === null];
      const wanted = [["ed25519", "schnorr"].includes(type), ["secp256k1", "p256"].includes(type)];
      expect([type, ...served]).toEqual([type, ...wanted]);
    }
  });

  test.each(["import", "retrieve", "export", "reshare"] as const)("no request to %s", (kind) => {
    expect(refusal(bodies[kind], "keyId" in bodies[kind] ? key("secp256k1") : null)).toContain(`to ${kind}`);
  });

  test("no request of the registry itself", () => {
    expect(refusal(generate, null, { requester: REGISTRY })).toContain("registry");
  });

  test.each([
    ["another's", { owner: keyOf("ann") }],
    ["another workspace's", { policy: other.workspaceId }],
    ["under unilateral control", { control: "unilateral", policy: null }],
    ["in the owner's own custody", { custody: "self" }],
  ] as const)("no key that is %s", (_, change) => {
    const of = key("ed25519", change);
    expect(refusal(keyringUseBody(of, recipient), of)).toContain("not the workspace's");
  });

  test("a request without the mark is none of its business", () => {
    expect(refusal(bodies.export, null, { keyring: null })).toBeNull();
  });
});

const MANIFEST = {
  federationId: FEDERATION,
  epoch: 3,
  servers: [{ index: 1, policy: null }],
} as unknown as Manifest;

function evaluated(over: Partial<EvaluateRequestInput> & Pick<EvaluateRequestInput, "request">): RequestEvaluation {
  return evaluateRequest({
    manifest: MANIFEST,
    index: 1,
    requestId: requestIdOf(over.request),
    certificate: null,
    serverPolicy: null,
    keyPolicy: space.chain,
    requesterApproval: null,
    votes: [],
    uses: () => 0,
    nowMs: NOON,
    ...over,
  });
}

describe("the workspace's policy", () => {
  const generate = asked(keyringGenerateBody(space.workspaceId));
  const approval = keyringVote(generate, space, NOON);
  const decisions = (over: Parameters<typeof evaluated>[0]) => evaluated(over).decision;

  test("approves, waits and denies by its own rules", () => {
    const { request } = generate;
    expect(decisions({ request })).toBe("wait");
    expect(decisions({ request, votes: [approval] })).toBe("allow");
    const rejections = ["ann", "ben"].map((name) => keyringVote(generate, space, NOON, signerOf(name), "reject"));
    expect(decisions({ request, votes: rejections })).toBe("deny");
  });

  test("names who asks: nobody else does, the registry neither", () => {
    const body = keyringGenerateBody(space.workspaceId);
    for (const [name, why] of [
      ["eve", "does not name who asks"],
      ["registry", "a registry asks for nothing"],
    ] as const) {
      const { request } = asked(body, {}, signerOf(name));
      const { decision, explanations } = evaluated({ request, votes: [approval] });
      expect([decision, explanations.map((one) => one.why).join()]).toEqual(["deny", expect.stringContaining(why)]);
    }
  });

  test("counts in its newest version: an owner who was removed asks and approves nothing", () => {
    const { request } = generate;
    const now = space.without("ann");
    const votes = [approval, keyringVote(generate, now, NOON), keyringVote(generate, now, NOON, signerOf("ben"))];
    const { decision, explanations } = evaluated({ request, votes, keyPolicy: now.chain });
    expect([decision, explanations.at(-1)?.why]).toEqual(["deny", expect.stringContaining("does not name who asks")]);
    const { request: bens } = asked(keyringGenerateBody(space.workspaceId), {}, signerOf("ben"));
    const of = { request: bens, keyPolicy: now.chain };
    const vote = (name: string) =>
      keyringVote({ request: bens, signature: new Uint8Array(64) }, now, NOON, signerOf(name));
    expect(decisions({ ...of, votes: [vote("ann")] })).toBe("wait");
    expect(decisions({ ...of, votes: [vote("ben")] })).toBe("allow");
  });

  test("belongs to the registry: neither a federation's nor another registry's policy of that id counts", () => {
    const { request } = generate;
    const { keyring } = request;
    if (!keyring) throw new Error("no mark");
    const foreign = makeWorkspacePolicy({ registry: keyOf("another") });
    const body = keyringGenerateBody(foreign.workspaceId);
    const marked = asked(body, { keyring: { ...keyring, workspaceId: foreign.workspaceId } });
    expect(
      decisions({ request: marked.request, keyPolicy: foreign.chain, votes: [keyringVote(marked, foreign, NOON)] }),
    ).toBe("deny");
    // under the same head the same vote is good at the registry that it belongs to
    const own = asked(body, { keyring: { ...keyring, registry: keyOf("another"), workspaceId: foreign.workspaceId } });
    expect(
      decisions({ request: own.request, keyPolicy: foreign.chain, votes: [keyringVote(own, foreign, NOON)] }),
    ).toBe("allow");
  });

  test("is that of the key: another workspace's does not do", () => {
    const { request } = generate;
    expect(decisions({ request, keyPolicy: other.chain, votes: [keyringVote(generate, other, NOON)] })).toBe("deny");
    expect(decisions({ request, keyPolicy: null, votes: [approval] })).toBe("deny");
  });

  test("knows the requester by its one key, whatever a server says of it", () => {
    const strict = makeWorkspacePolicy({
      registry: REGISTRY,
      rules: [rule({ actions: ["generate"], require: { kind: "group", name: "owners", atLeast: 1 } })],
    });
    const signed = makeKeyringRequest({
      federationId: FEDERATION,
      epoch: 3,
      workspace: strict,
      body: keyringGenerateBody(strict.workspaceId),
      nonce: new Uint8Array(32),
      nowMs: NOON,
    });
    const by = (name: string, requesterApproval: Uint8Array | null) =>
      decisions({
        request: signed.request,
        keyPolicy: strict.chain,
        votes: [keyringVote(signed, strict, NOON, signerOf(name))],
        requesterApproval,
      });
    for (const claimed of [null, keyOf("ben"), keyOf("nobody")]) {
      expect(by("ann", claimed)).toBe("wait");
      expect(by("ben", claimed)).toBe("allow");
    }
  });
});

describe("marked and unmarked requests never meet", () => {
  const of = key("ed25519");
  const signed = asked(keyringUseBody(of, recipient));
  const votes = [keyringVote(signed, space, NOON)];

  test("a use through the keyring is allowed", () => {
    expect(evaluated({ request: signed.request, certificate: of, votes }).decision).toBe("allow");
  });

  test("a registry does not use a workspace's key as its own: neither without the mark nor with an owner's", () => {
    const unmarked = asked(keyringUseBody(of, recipient), { keyring: null, requester: REGISTRY }, signerOf("registry"));
    const given = { certificate: of, votes: [keyringVote(unmarked, space, NOON)] };
    expect(evaluated({ request: unmarked.request, ...given }).decision).toBe("deny");
    const anns = asked(keyringUseBody(of, recipient), { keyring: null });
    expect(
      evaluated({ request: anns.request, certificate: of, votes: [keyringVote(anns, space, NOON)] }).decision,
    ).toBe("deny");
  });

  test("a keyring does not use a member's key, not even one that belongs to the registry as a member", () => {
    for (const change of [
      { owner: keyOf("ann") },
      { control: "unilateral", policy: null },
      { policy: "ab".repeat(32) as PolicyId },
    ] as const) {
      const members = key("ed25519", change);
      expect(evaluated({ request: signed.request, certificate: members, votes }).decision).toBe("deny");
    }
  });
});
