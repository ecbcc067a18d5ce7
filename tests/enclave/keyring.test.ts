import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hpkeSeal } from "../../src/crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { ATTEMPTS_MAX } from "../../src/enclave/attempts.ts";
import type { Evidence } from "../../src/enclave/evidence.ts";
import { Fault } from "../../src/errors.ts";
import type { SignedVote } from "../../src/protocol/federation/policy.ts";
import {
  contributionInfo,
  type FederatedRequest,
  type RequestBody,
  requestIdOf,
  type SignedOrder,
  type SignedRequest,
  signDecision,
  signOrder,
} from "../../src/protocol/federation/request.ts";
import { certify, type EnclaveWorld, enclaveWorld, type PlantedKey } from "../support/enclaveworld.ts";
import {
  keyringCertificate,
  keyringGenerateBody,
  keyringUseBody,
  keyringVote,
  makeKeyringRequest,
  makeWorkspacePolicy,
  type TestWorkspace,
} from "../support/keyringrequests.ts";
import { signerOf } from "../support/policies.ts";

let world: EnclaveWorld;
let space: TestWorkspace;
let key: PlantedKey;

beforeEach(async () => {
  world = await enclaveWorld();
  space = makeWorkspacePolicy({ registry: world.registry.publicKey });
  key = await world.plant("ed25519", keyringCertificate(space));
});
afterEach(() => world.close());

const asked = (body: RequestBody, change: Partial<FederatedRequest> = {}, signer: Signer = signerOf("ann")) =>
  makeKeyringRequest({
    federationId: world.manifest.federationId,
    workspace: space,
    body,
    nonce: world.random.bytes(32),
    nowMs: world.nowMs,
    signer,
    change,
  });
const sign = (change: Partial<FederatedRequest> = {}, signer?: Signer) =>
  asked(keyringUseBody(key.certificate, world.recipient.publicKey), change, signer);
const vote = (request: SignedRequest, of = space, name = "ann", verdict?: "approve" | "reject") =>
  keyringVote(request, of, world.nowMs, signerOf(name), verdict);

interface Given {
  readonly of?: PlantedKey | null;
  readonly by?: TestWorkspace;
  readonly votes?: readonly SignedVote[];
  readonly order?: SignedOrder;
  readonly change?: Partial<Evidence>;
}

function evidenceOf(request: SignedRequest, { of = key, by = space, votes, change = {} }: Given): Evidence {
  const keyPolicy = [...by.chain];
  return world.evidence(request, of, { keyPolicy, votes: [...(votes ?? [vote(request, by)])], ...change });
}

const outcomeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (error: unknown) => (error instanceof Fault ? error.code : String(error)),
  );

function begin(request: SignedRequest, given: Given = {}): Promise<string> {
  const { of = key } = given;
  const { enclave } = world.server(1);
  const order = given.order ?? world.order(request, [1, 2]);
  const share = of?.sealed.get(1) ?? null;
  return outcomeOf(enclave.handle("begin", { evidence: evidenceOf(request, given), order, share }));
}

describe("an enclave serves a workspace through its keyring", () => {
  test("once the workspace's policy allows it", async () => {
    const request = sign();
    expect(await begin(request, { votes: [] })).toBe("pending");
    expect(await begin(request, { votes: [vote(request, space, "ben", "reject"), vote(request)] })).toBe("ok");
    const denied = sign();
    const rejections = ["ann", "ben"].map((name) => vote(denied, space, name, "reject"));
    expect(await begin(denied, { votes: rejections })).toBe("denied");
  });

  test.each(["ed25519", "schnorr", "secp256k1", "p256"] as const)("makes a key of type %s", async (type) => {
    const request = asked(keyringGenerateBody(space.workspaceId, type));
    const id = requestIdOf(request.request);
    const random = (length: number) => world.random.bytes(length);
    const { publicKey } = world.server(1).keys.hpke;
    const sealed = await hpkeSeal(publicKey, contributionInfo(id, 1, 1), random(32), random);
    const order = world.order(request, [1, 2, 3], 1, { contributions: [{ index: 1, sealed }] });
    expect(await begin(request, { of: null, order })).toBe("ok");
  });

  test("releases its share of an ECDSA key to sign", async () => {
    const of = await world.plant("secp256k1", keyringCertificate(space));
    const body = keyringUseBody(of.certificate, world.recipient.publicKey);
    expect(await begin(asked(body), { of })).toBe("ok");
  });
});

describe("a registry alone starts nothing", () => {
  test("neither with its own signature nor with a stranger's", async () => {
    for (const name of ["registry", "eve"]) {
      const request = sign({}, signerOf(name));
      const votes = [vote(request), vote(request, space, "ben"), vote(request, space, name)];
      expect([name, await begin(request, { votes })]).toEqual([name, "denied"]);
    }
  });

  test("nor with a request that was changed after its owner signed it", async () => {
    const { request, signature } = sign();
    const nonce = new Uint8Array(32);
    expect(await begin({ request: { ...request, nonce }, signature })).toBe("integrity");
  });

  test("nor without the mark, as the owner that the certificate names", async () => {
    const request = sign({ keyring: null, requester: world.registry.publicKey }, world.registry);
    const order = signOrder(world.registry, world.order(request, [1, 2]).order);
    expect(await begin(request, { order })).toBe("denied");
    expect(await begin(request, { order, change: { keyPolicy: null } })).toBe("denied");
  });

  test("nor by a policy of its own in place of the workspace's", async () => {
    const own = makeWorkspacePolicy({ registry: world.registry.publicKey, owners: ["ann", "eve"], name: "own" });
    const request = sign({}, signerOf("eve"));
    expect(await begin(request, { by: own, votes: [vote(request, own, "eve")] })).toBe("denied");
    const { mark } = own;
    const marked = sign({ keyring: mark }, signerOf("eve"));
    expect(await begin(marked, { by: own, votes: [vote(marked, own, "eve")] })).toBe("denied");
  });
});

describe("attempts are ordered by the registry", () => {
  test("and by nobody else: not the owner who asks, not another registry", async () => {
    const request = sign();
    const { order } = world.order(request, [1, 2]);
    for (const signer of [signerOf("ann"), signerOf("another"), world.owner])
      expect(await begin(request, { order: signOrder(signer, order) })).toBe("integrity");
    expect(await begin(request)).toBe("ok");
  });

  test("the registry accepts a certificate, the requester does not", async () => {
    const accepted = certify(world, key.certificate);
    const byAnn = { ...accepted, acceptance: { ...accepted.acceptance, signature: new Uint8Array(64) } };
    const { decision } = accepted.acceptance;
    const forged = { ...byAnn, acceptance: signDecision(signerOf("ann"), decision) };
    const confirm = (certificate: typeof accepted) =>
      outcomeOf(
        world.server(1).enclave.handle("confirm", {
          manifest: world.signed,
          certificate,
          sealed: key.sealed.get(1) ?? new Uint8Array(0),
        }),
      );
    expect([await confirm(forged), await confirm(byAnn), await confirm(accepted)]).toEqual([
      "integrity",
      "integrity",
      "ok",
    ]);
  });
});

describe("the newest link of the workspace's policy counts", () => {
  test("an owner who was removed starts nothing", async () => {
    const now = space.without("ann");
    const request = sign();
    const votes = [vote(request, now), vote(request, now, "ben")];
    expect(await begin(request, { by: now, votes })).toBe("denied");
  });

  test("nor by the older links, once the enclave has seen the newer one", async () => {
    const before = sign();
    expect(await begin(before)).toBe("ok");
    const now = space.without("ann");
    const bens = sign({}, signerOf("ben"));
    expect(await begin(bens, { by: now, votes: [vote(bens, now, "ben")] })).toBe("ok");
    expect(await begin(sign())).toBe("stale");
    // what runs already ends with its next step
    const { enclave } = world.server(1);
    const relay = { requestId: requestIdOf(before.request), attempt: 1, messages: [] };
    expect(await outcomeOf(enclave.handle("relay", relay))).toBe("stale");
  });

  test("a link counts that its admins have signed, in the registry's scope", async () => {
    const forged = space.extend({ approvers: [{ name: "eve", key: signerOf("eve").publicKey }] }, ["eve"]);
    const request = sign({}, signerOf("eve"));
    expect(await begin(request, { by: forged, votes: [vote(request, forged, "eve")] })).toBe("denied");
    const foreign = makeWorkspacePolicy({ registry: signerOf("another").publicKey });
    const marked = asked(keyringGenerateBody(foreign.workspaceId), {
      keyring: { ...space.mark, workspaceId: foreign.workspaceId },
    });
    const given = { of: null, by: foreign, votes: [vote(marked, foreign)], order: world.order(marked, [1, 2, 3]) };
    expect(await begin(marked, given)).toBe("denied");
  });

  test("the owner's own key is known, whatever the server says", async () => {
    const strict = makeWorkspacePolicy({
      registry: world.registry.publicKey,
      rules: space.head.rules.map((one) => ({ ...one, requesterMayApprove: false })),
    });
    const of = await world.plant("ed25519", keyringCertificate(strict));
    const request = asked(keyringUseBody(of.certificate, world.recipient.publicKey), { keyring: strict.mark });
    const change = { requesterApproval: signerOf("nobody").publicKey };
    expect(await begin(request, { of, by: strict, votes: [vote(request, strict)], change })).toBe("pending");
    const votes = [vote(request, strict, "ben")];
    expect(await begin(request, { of, by: strict, votes, change })).toBe("ok");
  });
});

describe("keys of workspaces and of members never meet", () => {
  test("a member's key serves no keyring", async () => {
    const members = await world.plant("ed25519");
    const request = asked(keyringUseBody(members.certificate, world.recipient.publicKey));
    expect(await begin(request, { of: members })).toBe("denied");
    // nor one of the registry as a member
    const own = await world.plant("ed25519", { owner: world.registry.publicKey });
    const body = keyringUseBody(own.certificate, world.recipient.publicKey);
    expect(await begin(asked(body), { of: own })).toBe("denied");
  });

  test("a workspace's key serves neither its members without the mark nor another workspace", async () => {
    const request = sign({ keyring: null });
    expect(await begin(request, { order: signOrder(signerOf("ann"), world.order(request, [1, 2]).order) })).toBe(
      "denied",
    );
    const other = makeWorkspacePolicy({ registry: world.registry.publicKey, name: "other" });
    const marked = sign({ keyring: other.mark });
    expect(await begin(marked, { by: other, votes: [vote(marked, other)] })).toBe("denied");
  });

  test("nothing takes a workspace's key out or reshapes it", async () => {
    const of = await world.plant("secp256k1", keyringCertificate(space));
    const use = keyringUseBody(of.certificate, world.recipient.publicKey);
    if (use.kind !== "release") throw new Error("no release");
    const bodies: RequestBody[] = [
      { ...use, purpose: "export", message: null },
      { ...use, purpose: "retrieve", message: null },
      { kind: "reshare", keyId: use.keyId, generation: 0, mode: "refresh", threshold: 2, holders: [1, 2, 3] },
    ];
    for (const body of bodies) {
      const request = asked(body);
      expect([body.kind, await begin(request, { of })]).toEqual([body.kind, "denied"]);
    }
  });
});

test("the workspaces of one registry have more room than one requester, and leave some", async () => {
  expect(ATTEMPTS_MAX.ofRegistry).toBeGreaterThan(ATTEMPTS_MAX.ofOne);
  expect(ATTEMPTS_MAX.ofRegistry).toBeLessThan(ATTEMPTS_MAX.all);
  const owners = Array.from({ length: 2 }, (_, i) => signerFromSeed(new Uint8Array(32).fill(90 + i)));
  const approvers = owners.map(({ publicKey }, i) => ({ name: `o${i}`, key: publicKey }));
  const rules = space.head.rules.map((one) => ({ ...one, require: { kind: "requester" } as const }));
  const big = space.extend({ approvers: [...space.head.approvers, ...approvers], rules });
  const codes = new Set<string>();
  for (let n = 0; n <= ATTEMPTS_MAX.ofRegistry; n++) {
    const request = sign({}, owners[n % owners.length]);
    codes.add(`${n < ATTEMPTS_MAX.ofRegistry} ${await begin(request, { by: big, votes: [] })}`);
  }
  expect([...codes]).toEqual(["true ok", "false rate_limited"]);
});
