import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type Signer, signerFromSeed } from "../../../src/crypto/identity.ts";
import { OPERATOR_SCOPE, policyHash, policyIdOf } from "../../../src/protocol/federation/policy.ts";
import { signPolicy } from "../../../src/protocol/federation/policychain.ts";
import {
  type FederatedRequest,
  type RequestBody,
  registryScope,
  requestIdOf,
  type SignedRequest,
  signDecision,
  signOrder,
} from "../../../src/protocol/federation/request.ts";
import { CONNECTOR } from "../../../src/server/federation/connectors.ts";
import {
  KEY,
  MEMBER,
  memberId,
  POLICY,
  REQUEST,
  readStored,
  removeStored,
} from "../../../src/server/federation/documents.ts";
import { eraseFederated } from "../../../src/server/federation/erasing.ts";
import { account } from "../../storage/rows.ts";
import {
  keyringGenerateBody,
  keyringUseBody,
  keyringVote,
  makeKeyringRequest,
  makeWorkspacePolicy,
  type TestWorkspace,
} from "../../support/keyringrequests.ts";
import { policy, rule, signerOf } from "../../support/policies.ts";
import {
  accept,
  acceptance,
  allow,
  codeOf,
  drive,
  type FederationWorld,
  federationWorld,
  generateBody,
  makeKey,
  orderFor,
  type Party,
  type Person,
  put,
  submit,
} from "./world.ts";

let world: FederationWorld;
let space: TestWorkspace;
let first: Party;

beforeEach(async () => {
  world = await federationWorld({ limits: { registryRequests: 4, registryWorkspaces: 3, openRequests: 2 } });
  space = makeWorkspacePolicy({ registry: world.enclaves.registry.publicKey });
  first = world.party(1);
  await bring(space);
});
afterEach(() => world.close());

/** The connector brings a workspace's newest link to all servers. */
async function bring({ chain }: TestWorkspace, at = world.parties, who = world.connector): Promise<void> {
  const policy = chain.at(-1);
  if (!policy) throw new Error("no link");
  for (const party of at) await party.call("federation.policy.set", { policy }, who);
}

const asked = (
  body: RequestBody = keyringGenerateBody(space.workspaceId),
  change: Partial<FederatedRequest> = {},
  signer: Signer = signerOf("ann"),
  workspace = space,
): SignedRequest =>
  makeKeyringRequest({
    federationId: world.enclaves.manifest.federationId,
    workspace,
    body,
    nonce: world.enclaves.random.bytes(32),
    nowMs: world.enclaves.nowMs,
    signer,
    change,
  });

const bringVotes = (request: SignedRequest, names: readonly string[] = ["ann"], at = world.parties, of = space) =>
  Promise.all(
    at.map(async (party) => {
      for (const name of names) {
        const vote = keyringVote(request, of, world.enclaves.nowMs, signerOf(name));
        await party.call("federation.vote", { vote }, world.connector);
      }
    }),
  );

/** A second account that acts for a registry; without one an account that acts for none. */
async function another(n: number, registry: Uint8Array | null): Promise<Person> {
  const person: Person = {
    userId: account(n).userId,
    request: signerFromSeed(new Uint8Array(32).fill(n)),
    approval: signerFromSeed(new Uint8Array(32).fill(n + 100)),
  };
  for (const { store } of world.parties) {
    await store.transaction(async (tx) => {
      await tx.insertAccount(account(n));
      if (registry) await allow(tx, person, registry);
    });
  }
  return person;
}

async function revoke({ userId }: Person, at = world.parties): Promise<void> {
  const id = `${userId}:${registryScope(world.enclaves.registry.publicKey)}`;
  for (const { store } of at) await store.transaction((tx) => removeStored(tx, CONNECTOR, id));
}

async function workspaceKey(roster: readonly number[] = [1, 2, 3], type?: "secp256k1") {
  const request = asked(keyringGenerateBody(space.workspaceId, type));
  await submit(world, request);
  await bringVotes(request);
  const certificate = acceptance(world, await drive(world, request, roster));
  await accept(world, certificate);
  return { request, certificate, body: keyringUseBody(certificate.certificate, world.enclaves.recipient.publicKey) };
}

describe("a connector serves the workspaces of its registry", () => {
  test("from the request over the votes to a key, and its use", async () => {
    const { certificate, body } = await workspaceKey();
    expect(certificate.certificate).toMatchObject({ control: "shared", policy: space.workspaceId });
    expect(certificate.certificate.owner).toEqual(world.enclaves.registry.publicKey);
    const { keyId } = certificate.certificate;
    expect(await first.call("federation.key", { keyId }, world.connector)).toMatchObject({ held: true, frozen: false });
    const use = asked(body);
    expect((await submit(world, use)).map(({ status }) => status)).toEqual(Array(3).fill("awaiting_approval"));
    await bringVotes(use);
    const { outcomes } = await drive(world, use, [1, 2]);
    expect([...outcomes.values()].map(({ result }) => result)).toEqual(["done", "done"]);
  });

  test("releases of an ECDSA key mark it", async () => {
    const { certificate, body } = await workspaceKey([1, 2, 3], "secp256k1");
    const use = asked(body);
    await submit(world, use);
    await bringVotes(use);
    await drive(world, use, [1, 2]);
    const { keyId } = certificate.certificate;
    expect(await first.call("federation.key", { keyId }, world.connector)).toMatchObject({ released: true });
  });

  test("votes come in any order, many times, and after they are needed", async () => {
    const request = asked();
    const [submitted] = await submit(world, request, [first]);
    expect(submitted?.status).toBe("awaiting_approval");
    const cast = (name: string, ms = 0) => keyringVote(request, space, world.enclaves.nowMs - ms, signerOf(name));
    const give = (vote = cast("ann")) => first.call("federation.vote", { vote }, world.connector);
    const late = cast("ann");
    expect((await give(late)).status).toBe("pending");
    expect((await give(late)).status).toBe("pending");
    expect((await give(cast("ann", 1_000))).votes).toHaveLength(1);
    expect((await give(cast("ben"))).votes).toHaveLength(2);
  });

  test("a rejection that comes after the approval counts", async () => {
    const request = asked();
    await submit(world, request, [first]);
    await bringVotes(request, ["ann"], [first]);
    const at = world.enclaves.nowMs;
    for (const [name, ms] of [
      ["ann", 1],
      ["ben", 1],
    ] as const) {
      const vote = keyringVote(request, space, at + ms, signerOf(name), "reject");
      await first.call("federation.vote", { vote }, world.connector);
    }
    const order = await orderFor(world, request, [1, 2, 3]);
    expect(await codeOf(first.call("federation.begin", { order }, world.connector))).toBe("denied");
  });

  test("only votes that hold: of owners whom the newest link names, over this request", async () => {
    const request = asked();
    await submit(world, request, [first]);
    const give = (vote: ReturnType<typeof keyringVote>) =>
      codeOf(first.call("federation.vote", { vote }, world.connector));
    const vote = keyringVote(request, space, world.enclaves.nowMs);
    expect(await give({ ...vote, signature: new Uint8Array(64) })).toBe("integrity");
    expect(await give(keyringVote(request, space, world.enclaves.nowMs, signerOf("eve")))).toBe("denied");
    const now = space.extend({ rules: space.head.rules });
    await bring(now, [first]);
    expect(await give(vote)).toBe("stale");
    expect(await give(keyringVote(request, now, world.enclaves.nowMs))).toBe("ok");
  });

  test("a server outside the roster learns of the key through it", async () => {
    const absent = world.party(3);
    const { certificate, body } = await workspaceKey();
    // as if it had heard of neither
    await absent.store.transaction(async (tx) => {
      await removeStored(tx, KEY, certificate.certificate.keyId);
      await removeStored(tx, REQUEST, certificate.certificate.requestId);
    });
    for (let twice = 0; twice < 2; twice++) {
      const view = await absent.call("federation.inform", { certificate, erasures: [] }, world.connector);
      expect(view.certificate.certificate.keyId).toBe(certificate.certificate.keyId);
    }
    const use = asked(body);
    expect(await codeOf(absent.call("federation.submit", { request: use, label: null }, world.connector))).toBe("ok");
  });

  test("it lists what its registry has here, page by page", async () => {
    const { federationId } = world.enclaves.manifest;
    const requests = [asked(), asked(), asked()];
    for (const request of requests) {
      world.enclaves.nowMs += 10;
      await submit(world, request, [first]);
    }
    const list = async (who: Person, after: (typeof requests)[number] | null = null) => {
      const input = { federationId, role: "requester", after: after && requestIdOf(after.request) } as const;
      const { items } = await first.call("federation.requests", input, who);
      return items.map(({ requestId }) => requestId);
    };
    const ids = requests.map(({ request }) => requestIdOf(request)).reverse();
    expect(await list(world.connector)).toEqual(ids);
    expect(await list(world.connector, requests[1])).toEqual(ids.slice(2));
    expect(await list(world.owner)).toEqual([]);
    const input = { federationId, role: "approver", after: null } as const;
    for (const who of [world.connector, ...world.approvers])
      expect((await first.call("federation.requests", input, who)).items).toEqual([]);
  });
});

describe("who may act for a registry", () => {
  test("another account that the operator allowed goes on with what the first one brought", async () => {
    const next = await another(7, world.enclaves.registry.publicKey);
    const request = asked();
    await submit(world, request);
    await bringVotes(request);
    await revoke(world.connector);
    const id = requestIdOf(request.request);
    expect(await codeOf(first.call("federation.request", { requestId: id }, world.connector))).toBe("not_found");
    const order = await orderFor(world, request, [1, 2, 3]);
    for (const party of world.parties) await party.call("federation.begin", { order }, next);
    expect(await first.call("federation.submit", { request, label: null }, next)).toMatchObject({ attempt: 1 });
    const cancel = signDecision(world.enclaves.registry, {
      requestId: id,
      verdict: "cancel",
      attempt: 0,
      certificateHash: null,
    });
    const decided = await first.call("federation.decide", { decision: cancel, certificate: null }, next);
    expect(decided.status).toBe("cancelled");
  });

  test("its keys and requests outlast the account that brought them", async () => {
    const { certificate, body } = await workspaceKey();
    const next = await another(7, world.enclaves.registry.publicKey);
    for (const { store } of world.parties)
      await store.transaction(async (tx) => {
        await eraseFederated(tx, world.connector.userId);
        await tx.removeAccount(world.connector.userId);
      });
    const { keyId } = certificate.certificate;
    expect(await first.call("federation.key", { keyId }, next)).toMatchObject({ held: true });
    expect(await codeOf(first.call("federation.key", { keyId }, world.connector))).toBe("not_found");
    const use = asked(body);
    expect(await codeOf(first.call("federation.submit", { request: use, label: null }, next))).toBe("ok");
  });

  test("not an account that was allowed for another registry, nor one that was allowed for none", async () => {
    const foreign = await another(7, signerOf("another").publicKey);
    const stranger = await another(8, null);
    const known = asked();
    await submit(world, known);
    await bringVotes(known);
    const requestId = requestIdOf(known.request);
    const order = await orderFor(world, known, [1, 2, 3]);
    const vote = keyringVote(known, space, world.enclaves.nowMs, signerOf("ben"));
    const cancel = signDecision(world.enclaves.registry, {
      requestId,
      verdict: "cancel",
      attempt: 0,
      certificateHash: null,
    });
    const { certificate } = await workspaceKey();
    const { keyId } = certificate.certificate;
    const policy = space.chain[0];
    if (!policy) throw new Error("no link");
    for (const who of [foreign, stranger, world.owner, world.neighbour]) {
      const code = (work: Promise<unknown>) => codeOf(work);
      const member = who === world.owner || who === world.neighbour;
      expect(await code(first.call("federation.request", { requestId }, who))).toBe("not_found");
      expect(await code(first.call("federation.begin", { order }, who))).toBe("not_found");
      expect(await code(first.call("federation.relay", { requestId, attempt: 1, messages: [] }, who))).toBe(
        "not_found",
      );
      expect(await code(first.call("federation.vote", { vote }, who))).toBe("not_found");
      expect(await code(first.call("federation.decide", { decision: cancel, certificate: null }, who))).toBe(
        "not_found",
      );
      expect(await code(first.call("federation.key", { keyId }, who))).toBe("not_found");
      expect(await code(first.call("federation.inform", { certificate, erasures: [] }, who))).toBe(
        member ? "not_found" : "denied",
      );
      expect(await code(first.call("federation.policy", { policyId: space.workspaceId, after: 0 }, who))).toBe(
        "not_found",
      );
      expect(await code(first.call("federation.policy.set", { policy }, who))).toBe("not_found");
    }
  });

  test("others learn nothing of whether a request is here", async () => {
    const stranger = await another(8, null);
    const [known, unknown] = [asked(), asked()];
    await submit(world, known);
    for (const who of [stranger, world.owner]) {
      const answer = async (request: SignedRequest) => {
        try {
          await first.call("federation.submit", { request, label: null }, who);
          return "ok";
        } catch (error) {
          return error instanceof Error ? error.message : "";
        }
      };
      // the same as for another's request without a mark
      const others = asked(generateBody(), { keyring: null });
      expect(new Set([await answer(known), await answer(unknown), await answer(others)]).size).toBe(1);
    }
  });

  test("an account that was revoked in the middle brings nothing more", async () => {
    const request = asked();
    await submit(world, request);
    await bringVotes(request);
    const order = await orderFor(world, request, [1, 2, 3]);
    await first.call("federation.begin", { order }, world.connector);
    await revoke(world.connector, [first]);
    const requestId = requestIdOf(request.request);
    const relay = { requestId, attempt: 1, messages: [] };
    expect(await codeOf(first.call("federation.relay", relay, world.connector))).toBe("not_found");
    expect(await codeOf(first.call("federation.submit", { request, label: null }, world.connector))).toBe("denied");
    expect(await codeOf(first.call("federation.submit", { request: asked(), label: null }, world.connector))).toBe(
      "denied",
    );
    expect(await codeOf(world.party(2).call("federation.begin", { order }, world.connector))).toBe("ok");
  });
});

describe("a connector continues what an owner signed, and starts nothing", () => {
  const given = (request: SignedRequest) =>
    codeOf(first.call("federation.submit", { request, label: null }, world.connector));

  test("requests are signed by owners whom the newest link names", async () => {
    expect(await given(asked(undefined, {}, world.enclaves.registry))).toBe("bad_input");
    const [stranger] = await submit(world, asked(undefined, {}, signerOf("eve")), [first]);
    expect([stranger?.status, stranger?.why]).toEqual(["rejected", expect.stringContaining("does not name who asks")]);
    const { request, signature } = asked();
    expect(await given({ request: { ...request, nonce: new Uint8Array(32) }, signature })).toBe("integrity");
    // an account's own requests still need a membership
    expect(await given(world.request(generateBody()))).toBe("denied");
  });

  test("orders and decisions are the registry's, not the requester's", async () => {
    const request = asked();
    await submit(world, request);
    await bringVotes(request);
    const { order } = await orderFor(world, request, [1, 2, 3]);
    for (const signer of [signerOf("ann"), world.owner.request]) {
      const forged = signOrder(signer, order);
      expect(await codeOf(first.call("federation.begin", { order: forged }, world.connector))).toBe("integrity");
      const decision = signDecision(signer, {
        requestId: order.requestId,
        verdict: "cancel",
        attempt: 0,
        certificateHash: null,
      });
      const decide = first.call("federation.decide", { decision, certificate: null }, world.connector);
      expect(await codeOf(decide)).toBe("integrity");
    }
  });

  test("an owner who was removed ends what runs for it", async () => {
    const request = asked();
    await submit(world, request);
    await bringVotes(request);
    const order = await orderFor(world, request, [1, 2, 3]);
    await first.call("federation.begin", { order }, world.connector);
    await bring(space.without("ann"), [first]);
    const relay = { requestId: order.order.requestId, attempt: 1, messages: [] };
    expect(await codeOf(first.call("federation.relay", relay, world.connector))).toBe("denied");
    const now = await orderFor(world, request, [1, 2, 3], 2);
    expect(await codeOf(first.call("federation.begin", { order: now }, world.connector))).toBe("denied");
  });

  test("a policy of another scope, and another workspace's key, serve nothing", async () => {
    const { certificate } = await workspaceKey();
    const other = makeWorkspacePolicy({ registry: space.registry, name: "other" });
    await bring(other, [first]);
    const body = keyringUseBody(certificate.certificate, world.enclaves.recipient.publicKey);
    expect(await given(asked(body, {}, signerOf("ann"), other))).toBe("bad_input");
    expect(await given(asked(keyringGenerateBody(other.workspaceId)))).toBe("bad_input");
    const foreign = makeWorkspacePolicy({ registry: signerOf("another").publicKey });
    const mark = { ...space.mark, workspaceId: foreign.workspaceId };
    const stranger = await another(7, signerOf("another").publicKey);
    await bring(foreign, [first], stranger);
    expect(await given(asked(keyringGenerateBody(foreign.workspaceId), { keyring: mark }))).toBe("bad_input");
  });

  test("keys of members and of workspaces never meet", async () => {
    const { certificate: members } = await makeKey(world);
    const body = keyringUseBody(members.certificate, world.enclaves.recipient.publicKey);
    expect(await given(asked(body))).toBe("not_found");
    const { body: use, certificate } = await workspaceKey();
    const unmarked = world.request(use);
    expect(await codeOf(first.call("federation.submit", { request: unmarked, label: null }))).toBe("not_found");
    const keyId = certificate.certificate.keyId;
    expect(await codeOf(first.call("federation.key", { keyId }))).toBe("not_found");
    const { keyId: own } = members.certificate;
    expect(await codeOf(first.call("federation.key", { keyId: own }, world.connector))).toBe("not_found");
  });

  test("a second, contradictory decision freezes the key for its next connector too", async () => {
    const { certificate, body } = await workspaceKey();
    const next = await another(7, world.enclaves.registry.publicKey);
    const use = asked(body);
    await first.call("federation.submit", { request: use, label: null }, next);
    const decision = signDecision(world.enclaves.registry, {
      requestId: certificate.certificate.requestId,
      verdict: "cancel",
      attempt: 0,
      certificateHash: null,
    });
    expect(await codeOf(first.call("federation.decide", { decision, certificate: null }, next))).toBe("conflict");
    const { keyId } = certificate.certificate;
    expect(await first.call("federation.key", { keyId }, world.connector)).toMatchObject({ frozen: true });
    expect(await given(asked(body))).toBe("conflict");
  });
});

test("a registry that is a member too has its own keys apart from the workspaces'", async () => {
  const { registry } = world.enclaves;
  const asMember = await member(7, signerOf("registry's approval"), registry);
  const { certificate, body } = await workspaceKey();
  const { keyId, requestId } = certificate.certificate;
  const unmarked = world.enclaves.request(body, {}, registry);
  const given = (who: Person) => codeOf(first.call("federation.submit", { request: unmarked, label: null }, who));
  expect([await given(asMember), await given(world.connector)]).toEqual(["not_found", "denied"]);
  const inform = (who: Person) => codeOf(first.call("federation.inform", { certificate, erasures: [] }, who));
  expect([await inform(asMember), await inform(world.connector)]).toEqual(["not_found", "ok"]);
  // nor where neither the key nor its policy is known
  await first.store.transaction(async (tx) => {
    await removeStored(tx, KEY, keyId);
    await removeStored(tx, REQUEST, requestId);
  });
  expect(await inform(asMember)).toBe("not_found");
  await first.store.transaction((tx) => removeStored(tx, POLICY, space.workspaceId));
  expect(await inform(world.connector)).toBe("not_found");
});

test("an engine that the workspace's policy names is asked, under that policy", async () => {
  const engine = signerOf("engine");
  const withEngine = space.extend({
    remotes: [{ name: "risk", url: "https://127.0.0.1:1/", key: engine.publicKey, timeoutMs: 1_000 }],
    rules: [rule({ actions: ["generate"], require: { kind: "remote", name: "risk" } })],
  });
  await bring(withEngine, [first]);
  const request = asked();
  const asking: string[] = [];
  world.engines = async ({ policyId, remotes }) => {
    asking.push(policyId, ...remotes.map(({ name }) => name));
    return [keyringVote(request, withEngine, world.enclaves.nowMs, engine)];
  };
  const [submitted] = await submit(world, request, [first]);
  expect([asking, submitted?.status]).toEqual([[space.workspaceId, "risk"], "pending"]);
});

test("the operator's own policy has its say, and its approvers see what it asks them about", async () => {
  await world.close();
  const [ada, bea] = [signerOf("ada"), signerOf("bea")];
  const tree = { kind: "approver", name: "ada" } as const;
  const document = policy({
    federationId: OPERATOR_SCOPE,
    approvers: [{ name: "ada", key: ada.publicKey }],
    groups: [],
    remotes: [],
    admins: tree,
    rules: [rule({ require: tree })],
  });
  world = await federationWorld({ policies: (index) => (index === 1 ? policyIdOf(document) : null) });
  first = world.party(1);
  const value = { chain: [{ document, signatures: [signPolicy(ada, document)] }] };
  await first.store.transaction((tx) =>
    put(tx, POLICY, { id: policyIdOf(document), owner: OPERATOR_SCOPE, place: 1, value }, 0),
  );
  space = makeWorkspacePolicy({ registry: world.enclaves.registry.publicKey, owners: ["ann", "bea"] });
  await bring(space);
  const [operators, owner] = [await member(7, ada), await member(8, bea)];
  const request = asked();
  const [submitted] = await submit(world, request, [first]);
  expect(submitted?.status).toBe("awaiting_approval");
  const { federationId } = world.enclaves.manifest;
  const list = (who: Person) => first.call("federation.requests", { federationId, role: "approver", after: null }, who);
  expect((await list(operators)).items.map(({ requestId }) => requestId)).toEqual([requestIdOf(request.request)]);
  // an owner of the workspace is a stranger here, whatever else its key is
  expect((await list(owner)).items).toEqual([]);
  const by = (signer: Signer, of: { headHash: Uint8Array }) =>
    keyringVote(request, { ...space, headHash: of.headHash }, world.enclaves.nowMs, signer);
  expect(await codeOf(first.call("federation.vote", { vote: by(bea, space) }, owner))).toBe("not_found");
  expect((await first.call("federation.vote", { vote: by(bea, space) }, world.connector)).status).toBe(
    "awaiting_approval",
  );
  const operator = { headHash: policyHash(document) };
  expect((await first.call("federation.vote", { vote: by(ada, operator) }, operators)).status).toBe("pending");
  expect(first.notices.map(({ event }) => event)).toEqual(["federation.approval"]);
});

test("the operator's hook is not told of what waits for the owners of a workspace alone, nor of their policies", async () => {
  await submit(world, asked(), [first]);
  expect(first.notices).toEqual([]);
});

/** An account that has joined the federation at the first server with that approval key. */
async function member(n: number, approval: Signer, request = signerOf(`member ${n}`)): Promise<Person> {
  const { federationId } = world.enclaves.manifest;
  const person: Person = { userId: account(n).userId, request, approval };
  const value = {
    federationId,
    userId: person.userId,
    requestKey: request.publicKey,
    approvalKey: approval.publicKey,
    enrolledAtMs: 1,
  };
  await first.store.transaction(async (tx) => {
    await tx.insertAccount(account(n));
    await put(tx, MEMBER, { id: memberId(federationId, person.userId), owner: federationId, place: 1, value }, 0);
  });
  return person;
}

describe("limits", () => {
  test("a registry has its own number of open requests, whoever brings them", async () => {
    const next = await another(7, world.enclaves.registry.publicKey);
    for (const [i, who] of [world.connector, next, world.connector, next].entries())
      expect([i, await codeOf(first.call("federation.submit", { request: asked(), label: null }, who))]).toEqual([
        i,
        "ok",
      ]);
    const more = (who: Person) => codeOf(first.call("federation.submit", { request: asked(), label: null }, who));
    expect([await more(world.connector), await more(next)]).toEqual(["rate_limited", "rate_limited"]);
    const own = world.request(generateBody());
    expect(await codeOf(first.call("federation.submit", { request: own, label: null }))).toBe("ok");
  });

  test("and of workspaces; their links are read and set by those who act for it alone", async () => {
    const registry = space.registry;
    const spaces = ["b", "c", "d"].map((name) => makeWorkspacePolicy({ registry, name }));
    const codes = await Promise.all(spaces.map((one) => codeOf(bring(one, [first]))));
    expect(codes.sort()).toEqual(["ok", "ok", "too_large"]);
    const now = space.extend({ rules: space.head.rules });
    await bring(now, [first]);
    await bring(now, [first]);
    const read = async (after: number) =>
      (await first.call("federation.policy", { policyId: space.workspaceId, after }, world.connector)).chain.length;
    expect([await read(0), await read(1), await read(2)]).toEqual([2, 1, 0]);
    // too few admins; a second version beside the one that is there; one that does not follow
    const unsigned = now.extend({ rules: [] }, ["eve"]);
    const rival = space.extend({ createdAtMs: 1 });
    const far = now.extend({}).extend({});
    const codesOf = [unsigned, rival, far].map((one) => codeOf(bring(one, [first])));
    expect(await Promise.all(codesOf)).toEqual(["integrity", "conflict", "not_found"]);
  });
});

test("what goes through a keyring stands in the logs of the registry's connectors, and in no member's", async () => {
  const lengths = () =>
    first.store.transaction(async (tx) => {
      const seq = async ({ userId }: Person) => (await tx.auditPosition(userId)).seq;
      return [await seq(world.connector), await seq(world.owner), await seq(world.neighbour)] as const;
    });
  const before = await lengths();
  const { certificate } = await workspaceKey();
  const key = await first.store.transaction((tx) => readStored(tx, KEY, certificate.certificate.keyId));
  expect(key?.owner).toBe(registryScope(space.registry));
  const after = await lengths();
  expect(after[0]).toBeGreaterThan(before[0]);
  expect(after.slice(1)).toEqual(before.slice(1));
});
