import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import type { PolicyId } from "../../../src/ids.ts";
import {
  type PolicyDocument,
  type PolicyRule,
  type PolicyTree,
  policyHash,
  policyIdOf,
  type SignedVote,
} from "../../../src/protocol/federation/policy.ts";
import { signPolicy } from "../../../src/protocol/federation/policychain.ts";
import { requestIdOf, type SignedRequest } from "../../../src/protocol/federation/request.ts";
import { signVote } from "../../../src/protocol/federation/votes.ts";
import { POLICY, putStored, readStored } from "../../../src/server/federation/documents.ts";
import {
  accept,
  acceptance,
  cancellation,
  codeOf,
  drive,
  type FederationWorld,
  federationWorld,
  generateBody,
  keyAt,
  orderFor,
  type Party,
  type Person,
  submit,
} from "./world.ts";

let world: FederationWorld;
beforeEach(async () => {
  world = await federationWorld();
});
afterEach(() => world.close());

const TWO: PolicyTree = { kind: "group", name: "board", atLeast: 2 };
const ENGINE = signerFromSeed(new Uint8Array(32).fill(9));
const NAMES = ["ann", "bob", "cleo"];

function documentOf(require: PolicyTree, more: Partial<PolicyRule> = {}): PolicyDocument {
  return {
    federationId: world.enclaves.manifest.federationId,
    name: "test",
    version: 1,
    previous: new Uint8Array(32),
    approvers: world.approvers.map(({ approval }, i) => ({ name: NAMES[i] ?? "", key: approval.publicKey })),
    groups: [{ name: "board", members: NAMES }],
    remotes: [{ name: "opa", url: "https://127.0.0.1:1/", key: ENGINE.publicKey, timeoutMs: 1_000 }],
    admins: { kind: "approver", name: "ann" },
    rules: [
      {
        name: "all",
        effect: "allow",
        actions: [],
        types: [],
        rate: null,
        amount: null,
        recipients: null,
        time: null,
        require,
        requesterMayApprove: false,
        voteMs: 3_600_000,
        ...more,
      },
    ],
    createdAtMs: world.enclaves.nowMs,
  };
}

/** Adds a link at every server, signed by the first approver. */
async function addPolicy(document: PolicyDocument, id: PolicyId = policyIdOf(document)): Promise<PolicyId> {
  const signer = world.approvers[0]?.approval;
  if (!signer) throw new Error("no approver");
  const link = { document, signatures: [signPolicy(signer, document)] };
  for (const { store } of world.parties) {
    await store.transaction(async (tx) => {
      const before = await readStored(tx, POLICY, id);
      const value = { chain: [...(before?.value.chain ?? []), link] };
      await putStored(tx, POLICY, { id, owner: document.federationId, place: 1, value }, before?.version ?? 0);
    });
  }
  return id;
}

const sharedBody = (policy: PolicyId) => ({ ...generateBody(), control: "shared", policy }) as const;

/** A request for a shared key that waits at every server. */
async function waiting(require: PolicyTree = TWO, more: Partial<PolicyRule> = {}) {
  const document = documentOf(require, more);
  const request = world.request(sharedBody(await addPolicy(document)));
  return { document, request, views: await submit(world, request) };
}

function voteOf(
  person: Person,
  { request }: SignedRequest,
  document: PolicyDocument,
  verdict: "approve" | "reject" = "approve",
  change: Partial<SignedVote["vote"]> = {},
): SignedVote {
  const { nowMs } = world.enclaves;
  return signVote(person.approval, {
    federationId: request.federationId,
    epoch: request.epoch,
    requestId: requestIdOf(request),
    verdict,
    policyHash: policyHash(document),
    castAtMs: nowMs,
    expiresAtMs: nowMs + 3_600_000,
    reason: verdict === "reject" ? "not today" : "",
    ...change,
  });
}
const [ann, bob, cleo] = [0, 1, 2].map((i) => () => world.approvers[i] as Person) as [
  () => Person,
  () => Person,
  () => Person,
];
const cast = (party: Party, who: Person, vote: SignedVote) => party.call("federation.vote", { vote }, who);
const waitingFor = async (party: Party, who: Person) =>
  (
    await party.call(
      "federation.requests",
      { federationId: world.enclaves.manifest.federationId, role: "approver", after: null },
      who,
    )
  ).items.map(({ requestId }) => requestId);

describe("a request under shared control", () => {
  test("waits for its approvers, at each server, and then makes the key", async () => {
    const { document, request, views } = await waiting();
    const id = requestIdOf(request.request);
    expect(views.map(({ status }) => status)).toEqual(Array(3).fill("awaiting_approval"));
    expect(views[0]?.policyHash).toEqual(policyHash(document));
    expect(await codeOf(drive(world, request, [1, 2, 3]))).toBe("pending");
    for (const party of world.parties) {
      expect(party.notices).toEqual([expect.objectContaining({ event: "federation.approval", requestId: id })]);
      expect(await waitingFor(party, ann())).toEqual([id]);
      const once = await cast(party, ann(), voteOf(ann(), request, document));
      expect([once.status, once.votes.length, once.label]).toEqual(["awaiting_approval", 1, null]);
      // whoever has voted is asked no more; the others still are
      expect([await waitingFor(party, ann()), await waitingFor(party, bob())]).toEqual([[], [id]]);
      expect((await cast(party, bob(), voteOf(bob(), request, document))).status).toBe("pending");
      expect(await waitingFor(party, cleo())).toEqual([]);
    }
    const certificate = acceptance(world, await drive(world, request, [1, 2, 3], 2));
    await accept(world, certificate);
    expect((await keyAt(world.party(1), certificate)).held).toBe(true);
  });

  test("is rejected once it cannot be approved any more; a later vote changes nothing", async () => {
    const { document, request } = await waiting();
    const party = world.party(1);
    const first = await cast(party, ann(), voteOf(ann(), request, document, "reject"));
    expect(first.status).toBe("awaiting_approval");
    const second = await cast(party, bob(), voteOf(bob(), request, document, "reject"));
    expect(second.status).toBe("rejected");
    expect(second.why).toContain("not today");
    expect(await codeOf(cast(party, cleo(), voteOf(cleo(), request, document)))).toBe("conflict");
    expect(await waitingFor(party, cleo())).toEqual([]);
    expect(await codeOf(drive(world, request, [1, 2, 3]))).toBe("denied");
  });

  test("counts a vote again only when it is newer; an old one does not come back", async () => {
    const { document, request } = await waiting();
    const party = world.party(1);
    const yes = voteOf(ann(), request, document);
    await cast(party, ann(), yes);
    // the same again: the same answer
    expect((await cast(party, ann(), yes)).votes).toEqual([yes]);
    world.enclaves.nowMs += 1_000;
    const no = voteOf(ann(), request, document, "reject");
    expect((await cast(party, ann(), no)).votes).toEqual([no]);
    expect(await codeOf(cast(party, ann(), yes))).toBe("conflict");
    await cast(party, bob(), voteOf(bob(), request, document));
    const view = await party.call("federation.request", { requestId: requestIdOf(request.request) });
    expect([view.status, view.votes.length]).toEqual(["awaiting_approval", 2]);
  });

  test("takes no vote that is not its approver's own, about it, now, under the newest policy", async () => {
    const { document, request } = await waiting();
    const party = world.party(1);
    const good = voteOf(ann(), request, document);
    const { nowMs } = world.enclaves;
    const cases: readonly [string, Person, SignedVote, string][] = [
      ["another account's", bob(), good, "denied"],
      ["forged", ann(), { ...good, signature: good.signature.map((b) => b ^ 1) }, "integrity"],
      ["altered", ann(), { ...good, vote: { ...good.vote, verdict: "reject", reason: "x" } }, "integrity"],
      ["of a key that nobody named", world.neighbour, voteOf(world.neighbour, request, document), "not_found"],
      [
        "expired",
        ann(),
        voteOf(ann(), request, document, "approve", { castAtMs: nowMs - 9, expiresAtMs: nowMs - 1 }),
        "bad_input",
      ],
      ["of the future", ann(), voteOf(ann(), request, document, "approve", { castAtMs: nowMs + 120_000 }), "bad_input"],
      ["of another epoch", ann(), voteOf(ann(), request, document, "approve", { epoch: 2 }), "bad_input"],
      [
        "under another policy",
        ann(),
        voteOf(ann(), request, document, "approve", { policyHash: new Uint8Array(32) }),
        "stale",
      ],
    ];
    for (const [what, who, vote, code] of cases) {
      const got = await codeOf(cast(party, who, vote));
      expect([what, got]).toEqual([what, code]);
    }
    const view = await party.call("federation.request", { requestId: requestIdOf(request.request) });
    expect([view.status, view.votes]).toEqual(["awaiting_approval", []]);
  });

  test("needs votes under the new policy when it changes; the old ones do not count", async () => {
    const { document, request } = await waiting();
    const party = world.party(1);
    await cast(party, ann(), voteOf(ann(), request, document));
    await cast(party, bob(), voteOf(bob(), request, document));
    const next = { ...document, version: 2, previous: policyHash(document), createdAtMs: document.createdAtMs + 1 };
    await addPolicy(next, policyIdOf(document));
    for (const one of world.parties.slice(1)) {
      await cast(one, ann(), voteOf(ann(), request, next));
      await cast(one, bob(), voteOf(bob(), request, next));
    }
    // it was approved under the policy before: at execution that is not enough
    expect(await codeOf(drive(world, request, [1, 2, 3]))).toBe("pending");
    expect(await codeOf(cast(party, cleo(), voteOf(cleo(), request, document)))).toBe("stale");
    const view = await cast(party, cleo(), voteOf(cleo(), request, next));
    expect([view.status, view.policyHash]).toEqual(["awaiting_approval", policyHash(next)]);
    expect((await cast(party, ann(), voteOf(ann(), request, next))).status).toBe("pending");
  });

  test("goes on no further once a vote or the policy has changed, whatever has begun", async () => {
    for (const change of ["vote", "policy"] as const) {
      const { document, request } = await waiting({ kind: "approver", name: "bob" });
      const party = world.party(1);
      for (const one of world.parties) await cast(one, bob(), voteOf(bob(), request, document));
      const order = await orderFor(world, request, [1, 2, 3]);
      await party.call("federation.begin", { order });
      const requestId = requestIdOf(request.request);
      const relay = () => party.call("federation.relay", { requestId, attempt: 1, messages: [] });
      expect(await codeOf(relay())).toBe("ok");
      world.enclaves.nowMs += 1;
      if (change === "vote") await cast(party, bob(), voteOf(bob(), request, document, "reject"));
      else
        await addPolicy({ ...document, version: 2, previous: policyHash(document), rules: [] }, policyIdOf(document));
      expect(await codeOf(relay())).toBe("denied");
      expect(await codeOf(relay())).toBe("unavailable");
      expect(
        await codeOf(party.call("federation.begin", { order: await orderFor(world, request, [1, 2, 3], 2) })),
      ).toBe("denied");
      expect((await party.call("federation.request", { requestId })).status).toBe("rejected");
    }
  });

  test("runs out of approval when its votes expire before it begins", async () => {
    const { document, request } = await waiting(TWO, { voteMs: 60_000 });
    for (const party of world.parties)
      for (const who of [ann(), bob()]) await cast(party, who, voteOf(who, request, document));
    world.enclaves.nowMs += 60_000;
    expect(await codeOf(drive(world, request, [1, 2, 3]))).toBe("pending");
    const view = await world.party(1).call("federation.request", { requestId: requestIdOf(request.request) });
    expect(view.status).toBe("awaiting_approval");
    // those who would have to vote again are asked again
    expect(await waitingFor(world.party(1), ann())).toEqual([requestIdOf(request.request)]);
  });

  test("stands in the log of its owner and of whoever voted", async () => {
    const { document, request } = await waiting();
    const party = world.party(1);
    await cast(party, ann(), voteOf(ann(), request, document));
    await cast(party, bob(), voteOf(bob(), request, document, "reject"));
    const log = (who: Person) =>
      party.store.transaction(async (tx) => {
        const filter = { after: 0, limit: 99, keyId: null, action: null, fromMs: null, untilMs: null, requestId: null };
        return (await tx.audit(who.userId, filter)).map(({ entry }) => `${entry.action} ${entry.status}`);
      });
    expect(await log(world.owner)).toEqual(["federation.vote ok", "federation.vote denied"]);
    expect(await log(ann())).toEqual(["federation.vote ok"]);
    expect(await log(bob())).toEqual(["federation.vote denied"]);
    expect(await log(cleo())).toEqual([]);
  });

  test("is nobody's to see but its owner's and its approvers'", async () => {
    const { request } = await waiting({ kind: "approver", name: "ann" });
    const party = world.party(1);
    const requestId = requestIdOf(request.request);
    const unknown = "f".repeat(64) as typeof requestId;
    const ask = (who: Person, id = requestId) => party.call("federation.request", { requestId: id }, who);
    expect((await ask(ann())).requestId).toBe(requestId);
    for (const id of [requestId, unknown]) expect(await codeOf(ask(world.neighbour, id))).toBe("not_found");
    await party.call("federation.decide", { decision: cancellation(world, requestId), certificate: null });
    expect(await waitingFor(party, ann())).toEqual([]);
  });
});

describe("a remote engine", () => {
  const engine = (verdict: "approve" | "reject") => {
    world.engines = async (asked, request, requestId) => [
      signVote(ENGINE, {
        federationId: request.request.federationId,
        epoch: request.request.epoch,
        requestId,
        verdict,
        policyHash: asked.policyHash,
        castAtMs: world.enclaves.nowMs,
        expiresAtMs: world.enclaves.nowMs + 60_000,
        reason: verdict === "reject" ? "over the limit" : "",
      }),
    ];
  };

  test("that says yes lets a request go on", async () => {
    engine("approve");
    const { views, request } = await waiting({ kind: "remote", name: "opa" });
    expect(views.map(({ status, votes }) => [status, votes.length])).toEqual(Array(3).fill(["pending", 1]));
    expect((await drive(world, request, [1, 2, 3])).outcomes.size).toBe(3);
  });

  test("that says no rejects it", async () => {
    engine("reject");
    const { views } = await waiting({ kind: "remote", name: "opa" });
    expect(views[0]?.status).toBe("rejected");
    expect(views[0]?.why).toContain("over the limit");
  });

  test("that does not answer leaves it waiting; it is asked again when the attempt begins", async () => {
    const { views, request } = await waiting({ kind: "remote", name: "opa" });
    expect(views[0]?.status).toBe("awaiting_approval");
    expect(await codeOf(drive(world, request, [1, 2, 3]))).toBe("pending");
    engine("approve");
    expect((await drive(world, request, [1, 2, 3])).outcomes.size).toBe(3);
  });

  test("whose signature does not hold has not spoken", async () => {
    engine("approve");
    const honest = world.engines;
    world.engines = async (...question) =>
      (await honest(...question)).map((vote) => ({ ...vote, signature: vote.signature.map((b) => b ^ 1) }));
    const { views } = await waiting({ kind: "remote", name: "opa" });
    expect([views[0]?.status, views[0]?.votes]).toEqual(["awaiting_approval", []]);
  });
});
