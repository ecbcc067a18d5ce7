import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { perform } from "../../src/connector/duties.ts";
import { isSameResponse } from "../../src/connector/outbox.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedRequestId } from "../../src/ids.ts";
import { certificateHash, type SignedCertificate } from "../../src/protocol/federation/certificate.ts";
import { requestIdOf, signDecision, signOrder, signRequest } from "../../src/protocol/federation/request.ts";
import { responseBytes, signResponse, verifyResponse } from "../../src/protocol/keyring/response.ts";
import { eachStored, KEY } from "../../src/server/federation/documents.ts";
import type { Task } from "../../src/wire/keyring/views.ts";
import { keyringVote, makeWorkspacePolicy } from "../support/keyringrequests.ts";
import { denial, signerOf } from "../support/policies.ts";
import { type ConnectorWorld, connectorWorld, type TestConnector, work } from "./world.ts";

setDefaultTimeout(60_000);

let world: ConnectorWorld;
beforeEach(async () => {
  world = await connectorWorld();
});
afterEach(() => world.close());

const keysAt = (index: number) =>
  world.federation.party(index).store.transaction((tx) => eachStored(tx, KEY, world.workspace.scope));

function certificateOf(id: FederatedRequestId): SignedCertificate {
  const { certificate } = world.registry.item(id);
  if (!certificate) throw new Error("no certificate");
  return certificate;
}

async function madeKey(type?: Parameters<ConnectorWorld["askKey"]>[0]) {
  const id = world.askKey(type);
  const responses = await world.settled(id);
  return { id, responses, certificate: certificateOf(id) };
}

/** The task that a party has now. */
function dueTo(id: FederatedRequestId, index: number): Task {
  const task = world.registry.item(id).due.get(signerOf(`party ${index}`).publicKey.toHex());
  if (!task) throw new Error(`party ${index} has nothing to do`);
  return task;
}

/** Lets all work until a party is to do this, and does not do it. */
async function until(id: FederatedRequestId, what: Task["work"]["do"], index = 1): Promise<Task> {
  const { registry } = world;
  let held: Task | null = null;
  registry.tamper = (task, party) => {
    if (party.index === index && task.work.do === what) {
      held = task;
      // nothing that can be done: it stays due
      throw new Fault("unavailable", "held back");
    }
    return task;
  };
  await work(world, () => held !== null);
  registry.tamper = (task) => task;
  return dueTo(id, index);
}

describe("what an owner has asked for", () => {
  test("a key is made, and each party says the same once", async () => {
    const { responses, certificate } = await madeKey();
    expect(responses).toHaveLength(3);
    for (const one of responses) {
      const said = verifyResponse(one);
      expect(said).toMatchObject({ verdict: "fulfilled", attempt: 1, keyId: certificate.certificate.keyId });
      expect(said.certificateHash).toEqual(certificateHash(certificate.certificate));
      expect(said.policyHash).toEqual(world.workspace.headHash);
    }
    for (const { index } of world.connectors) expect(await keysAt(index)).toHaveLength(1);
  });

  test("keys sign by FROST and are released for ECDSA, and all parties answer for it", async () => {
    for (const type of ["schnorr", "secp256k1"] as const) {
      const { certificate } = await madeKey(type);
      const use = world.askUse(certificate);
      const responses = await world.settled(use);
      expect(responses.map(({ response }) => response.verdict)).toEqual(Array(3).fill("fulfilled"));
      expect(new Set(responses.map(({ response }) => response.keyId))).toEqual(
        new Set([certificate.certificate.keyId]),
      );
    }
  });

  test("a policy that has grown is brought link by link", async () => {
    await madeKey();
    for (const name of ["cleo", "dora", "emil"]) {
      const { approvers } = world.workspace.head;
      world.workspace = world.workspace.extend({ approvers: [...approvers, { name, key: signerOf(name).publicKey }] });
    }
    const { responses } = await madeKey();
    expect(responses.map(({ response }) => response.policyHash)).toEqual(Array(3).fill(world.workspace.headHash));
  });

  test("a policy that refuses makes a signed rejection, which is the party's word for good", async () => {
    world.workspace = world.workspace.extend({ rules: [denial({ name: "frozen" })] });
    const id = world.askKey();
    const responses = await world.settled(id);
    expect(responses.map(({ response }) => [response.verdict, response.attempt])).toEqual(
      Array(3).fill(["rejected", 0]),
    );
    expect(responses[0]?.response.reason).toContain("frozen");
    // now the policy would allow it, and the registry orders it: the word stands
    const [first] = world.connectors;
    if (!first) throw new Error("no connector");
    const order = { requestId: id, attempt: 1, roster: [1, 2, 3], contributions: [], ownerNonces: null };
    const { request } = world.registry.item(id);
    first.calls.length = 0;
    const task = {
      ...baseTask(id),
      work: { do: "begin" as const, order: signOrder(world.registry.signer, order), votes: [] },
    };
    const done = await perform(first.desk, task);
    expect(done).toMatchObject({
      at: "report",
      report: { did: "response", response: { response: { verdict: "rejected" } } },
    });
    expect(first.calls).toEqual([]);
    expect(requestIdOf(request.request)).toBe(id);
  });

  test("while the own server waits for somebody, nothing is said for good", async () => {
    const { registry } = world;
    const id = world.askKey();
    // without votes the policy waits
    registry.tamper = (task) => (task.work.do === "prepare" ? { ...task, work: { do: "prepare", votes: [] } } : task);
    await work(world, () => registry.item(id).reports.length >= 6);
    const { reports, responses } = registry.item(id);
    expect(responses).toEqual([]);
    expect(new Set(reports.map(({ report }) => report.did))).toEqual(new Set(["missed"]));
    registry.tamper = (task) => task;
    expect(await world.settled(id)).toHaveLength(3);
  });
});

/** A task about an item, as the registry would make it. */
const baseTask = (id: FederatedRequestId): Omit<Task, "work"> => ({
  keyringId: world.workspace.mark.keyringId,
  requestId: String(id) as Task["requestId"],
  itemId: id,
  seq: 99,
  policyHash: world.workspace.headHash,
  request: world.registry.item(id).request,
});

describe("what the registry could do", () => {
  const stranger = signerOf("somebody");
  const one = (): TestConnector => world.connector(1);

  /** It is refused, and the own server hears nothing of it. */
  async function refused(task: Task): Promise<string> {
    one().calls.length = 0;
    const done = await perform(one().desk, task);
    expect(one().calls).toEqual([]);
    expect(one().outbox.response(task.itemId)).toBeNull();
    if (done.at !== "dead") throw new Error(`it was not refused: ${JSON.stringify(done)}`);
    return done.why;
  }

  test("requests that no owner signed, of others, or of another kind never reach the own server", async () => {
    const id = world.askKey();
    const good: Task = dueTo(id, 1);
    const { request } = good.request;
    const signed = (change: Partial<typeof request>): Task => {
      const other = signRequest(signerOf("ann"), { ...request, ...change });
      return { ...good, request: other, itemId: requestIdOf(other.request) };
    };
    const mark = world.workspace.mark;
    const forged = { ...good, request: { ...good.request, signature: good.request.signature.toReversed() } };
    const cases: readonly Task[] = [
      forged,
      { ...good, itemId: "ab".repeat(32) as FederatedRequestId },
      signed({ keyring: null }),
      signed({ keyring: { ...mark, registry: stranger.publicKey } }),
      { ...good, keyringId: "cd".repeat(32) as Task["keyringId"] },
      signed({ federationId: "ef".repeat(32) as typeof request.federationId }),
      signed({ body: { ...request.body, control: "unilateral", policy: null } as typeof request.body }),
      signed({ body: { ...request.body, custody: "self" } as typeof request.body }),
      signed({
        body: {
          ...request.body,
          policy: makeWorkspacePolicy({ registry: mark.registry, name: "other" }).workspaceId,
        } as typeof request.body,
      }),
    ];
    for (const task of cases) expect(await refused(task)).not.toBe("");
    expect(await perform(one().desk, good)).toMatchObject({ at: "report", report: { did: "ready" } });
  });

  test("orders that it has not signed, for others, or two for one attempt are refused", async () => {
    const id = world.askKey();
    const task = await until(id, "begin");
    if (task.work.do !== "begin") throw new Error("not to begin");
    const { order } = task.work.order;
    const begin = (signer: typeof stranger, change: Partial<typeof order>): Task => ({
      ...task,
      work: { do: "begin", order: signOrder(signer, { ...order, ...change }), votes: [] },
    });
    await refused(begin(stranger, {}));
    await refused(begin(world.registry.signer, { requestId: "ab".repeat(32) as FederatedRequestId }));
    await refused(begin(world.registry.signer, { roster: [2, 3] }));
    expect(await perform(one().desk, task)).toMatchObject({ at: "report", report: { did: "said", attempt: 1 } });
    expect(await refused(begin(world.registry.signer, { contributions: [] }))).toContain("two orders");
  });

  test("messages that are forged, of another attempt or for another server are refused", async () => {
    const id = world.askKey();
    const task = await until(id, "relay");
    if (task.work.do !== "relay") throw new Error("not to relay");
    const { attempt, messages } = task.work;
    const [message] = messages;
    if (!message) throw new Error("no message");
    const relay = (one: typeof message, at = attempt): Task => ({
      ...task,
      work: { do: "relay", attempt: at, messages: [one] },
    });
    await refused(relay({ ...message, signature: message.signature.toReversed() }));
    await refused(relay(message, attempt + 1));
    await refused(relay({ ...message, message: { ...message.message, to: 3 } }));
    await refused(relay({ ...message, message: { ...message.message, from: 1 } }));
    await refused(relay({ ...message, message: { ...message.message, from: 77 } }));
    expect(await perform(one().desk, task)).toMatchObject({ at: "report", report: { did: "said" } });
  });

  test("no response without proofs of enough holders, and none for another certificate", async () => {
    const id = world.askKey();
    const task = await until(id, "decide");
    if (task.work.do !== "decide" || !task.work.certificate) throw new Error("not to decide");
    const { work: it } = task;
    const { certificate } = task.work;
    const [first, second] = it.confirmations;
    if (!first || !second || second.message.payload.round !== "confirm") throw new Error("no confirmations");
    const decide = (change: Partial<typeof it>): Task => ({ ...task, work: { ...it, ...change } });
    expect(await refused(decide({ confirmations: [] }))).toContain("proved");
    // one holder twice is one holder
    expect(await refused(decide({ confirmations: [first, first] }))).toContain("1 of the 2");
    const { payload } = second.message;
    const bent = {
      ...second,
      message: { ...second.message, payload: { ...payload, proof: payload.proof.toReversed() } },
    };
    await refused(decide({ confirmations: [first, bent] }));
    await refused(decide({ decision: signDecision(stranger, it.decision.decision) }));
    const other = { ...certificate.certificate, holders: [1, 2] };
    await refused(decide({ certificate: { ...certificate, certificate: other } }));
    await refused(decide({ certificate: { ...certificate, signatures: certificate.signatures.slice(0, 2) } }));
    await refused(decide({ certificate: null }));
    expect(await perform(one().desk, task)).toMatchObject({ at: "report", report: { did: "response" } });
  });

  test("a party is asked once: whatever comes after, it gives the response that it gave", async () => {
    const { id, certificate, responses } = await madeKey();
    const kept = one().outbox.response(id);
    const own = responses.find(({ response }) => response.key.toHex() === one().desk.party.publicKey.toHex());
    if (!kept || !own) throw new Error("no response");
    expect(isSameResponse(kept, own)).toBe(true);
    const { signer } = world.registry;
    const cancel = signDecision(signer, { requestId: id, verdict: "cancel", attempt: 0, certificateHash: null });
    const asks: readonly Task["work"][] = [
      {
        do: "prepare",
        votes: [
          keyringVote(
            world.registry.item(id).request,
            world.workspace,
            world.federation.enclaves.nowMs,
            signerOf("ben"),
            "reject",
          ),
        ],
      },
      { do: "relay", attempt: 2, messages: [] },
      { do: "respond", attempt: 2, certificate },
    ];
    for (const work of asks) {
      const done = await perform(one().desk, { ...baseTask(id), work });
      if (done.at !== "report" || done.report.did !== "response") throw new Error("another answer");
      expect(responseBytes(done.report.response.response)).toEqual(responseBytes(kept.response));
    }
    // two decisions: the own server freezes the key, and the party says nothing more
    const second = await perform(one().desk, {
      ...baseTask(id),
      work: { do: "decide", decision: cancel, certificate: null, confirmations: [] },
    });
    expect(second.at === "dead" || second.at === "wait").toBe(true);
    expect(one().outbox.response(id)).toEqual(kept);
    // not even where the outbox is asked to keep another
    const other = signResponse(one().desk.party, { ...kept.response, attempt: 9 });
    expect(isSameResponse(one().outbox.keepResponse(other, 1), kept)).toBe(true);
    expect(isSameResponse(other, kept)).toBe(false);
  });

  test("two decisions freeze the key at the own server, before a response as after one", async () => {
    const id = world.askKey();
    const task = await until(id, "decide");
    if (task.work.do !== "decide") throw new Error("not to decide");
    const decision = { requestId: id, verdict: "cancel", attempt: 0, certificateHash: null } as const;
    const cancel = signDecision(world.registry.signer, decision);
    const said = await perform(one().desk, {
      ...task,
      work: { do: "decide", decision: cancel, certificate: null, confirmations: [] },
    });
    // a cancellation after the servers have signed is the registry's right
    expect(said).toMatchObject({ at: "report", report: { did: "decided" } });
    const after = await perform(one().desk, task);
    expect(after.at).not.toBe("report");
    expect(one().outbox.response(id)).toBeNull();
  });

  test("a use that is cancelled after the own server has done its part leaves no dead letter", async () => {
    const { certificate } = await madeKey("schnorr");
    const id = world.askUse(certificate);
    const { work: _, ...task } = await until(id, "respond");
    const decision = { requestId: id, verdict: "cancel", attempt: 0, certificateHash: null } as const;
    const cancel = signDecision(world.registry.signer, decision);
    const told = { ...task, work: { do: "decide", decision: cancel, certificate: null, confirmations: [] } } as const;
    expect(await perform(one().desk, told)).toEqual({ at: "report", report: { did: "decided" }, over: true });
    expect(await perform(one().desk, told)).toMatchObject({ at: "report", report: { did: "decided" } });
    // its own server has said what it has said
    expect(one().outbox.response(id)).toBeNull();
  });

  test("a keyring that does not name this party gets nothing done", async () => {
    const id = world.askKey();
    const { desk } = one();
    const strange = { ...desk, party: stranger };
    const done = await perform(strange, dueTo(id, 1));
    expect(done).toMatchObject({ at: "wait" });
    expect(one().calls).toEqual([]);
  });

  test("a keyring that the operator does not serve is refused, once and for good", async () => {
    const id = world.askKey();
    const { desk } = one();
    const done = await perform({ ...desk, serves: new Set() }, dueTo(id, 1));
    expect(done).toMatchObject({
      at: "report",
      report: { did: "response", response: { response: { verdict: "rejected" } } },
    });
    expect(one().calls).toEqual([]);
    expect(await perform(desk, dueTo(id, 1))).toMatchObject({ report: (done as { report: unknown }).report });
  });

  test("a chain of policies that its admins did not sign is not brought", async () => {
    const id = world.askKey();
    const [first] = world.workspace.chain;
    if (!first) throw new Error("no link");
    const bad = {
      ...first,
      signatures: first.signatures.map((one) => ({ ...one, signature: one.signature.toReversed() })),
    };
    const chain = world.workspace.chain;
    world.workspace = { ...world.workspace, chain: [bad] };
    const done = await perform(one().desk, dueTo(id, 1));
    expect(done).toMatchObject({ at: "dead" });
    expect(one().calls).toEqual(["federation.policy"]);
    world.workspace = { ...world.workspace, chain };
  });
});

test("a connector begins nothing: no file of it signs requests, orders, decisions, votes or policies", async () => {
  const files = new Bun.Glob("src/connector/**/*.ts").scanSync();
  let seen = 0;
  for (const file of files) {
    seen += 1;
    const text = await Bun.file(file).text();
    expect([file, /\b(signRequest|signOrder|signDecision|signVote|signPolicy|requestSigner)\b/.exec(text)]).toEqual([
      file,
      null,
    ]);
  }
  expect(seen).toBeGreaterThan(8);
});
