import { expect, test } from "bun:test";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import { Fault } from "../../../src/errors.ts";
import { certificateHash, signCertificate } from "../../../src/protocol/federation/certificate.ts";
import { type SignedManifest, signManifest } from "../../../src/protocol/federation/manifest.ts";
import { requestIdOf, signDecision, signRequest } from "../../../src/protocol/federation/request.ts";
import { signResponse } from "../../../src/protocol/keyring/response.ts";
import type { KeyringKeyView, KeyringRequestView } from "../../../src/wire/keyring/views.ts";
import type { InputOf } from "../../../src/wire/operations.ts";
import { rejected } from "../../support/hostile.ts";
import { seedOf, signerOf } from "../../support/policies.ts";
import { type Person, REGISTRY_URL, respond, type Scripted, scripted } from "./scripted.ts";

async function two(sign = 2) {
  const world = await scripted();
  const [ada, bob] = [world.person("ada"), world.person("bob")];
  const owners = [{ name: "bob", keyHex: (await bob.client.keyringOwner()).keyHex }];
  await ada.client.createWorkspace({ name: "treasury", owners, self: "ada", admin: 2, sign });
  return { world, ada, bob };
}

const ask = ({ client }: Person, type: "ed25519" | "schnorr" | "secp256k1" | "p256" = "ed25519") =>
  client.requestKey({ workspace: "treasury", keyring: "vault", type });

const approve = ({ client }: Person, requestId: string) =>
  client.voteKeyring({ requestId, verdict: "approve", reason: "" });

/** A key of the workspace, fulfilled. */
async function withKey(type: "ed25519" | "schnorr" | "secp256k1" | "p256" = "ed25519") {
  const made = await two();
  const { requestId } = await ask(made.ada, type);
  await approve(made.bob, requestId);
  const { certificate } = await made.world.makeKey(requestId);
  return { ...made, requestId, certificate };
}

/** Alters one item of every request that the registry shows. */
function altered(world: Scripted, alter: (view: KeyringRequestView) => KeyringRequestView): void {
  world.meddle = (name, output) => (name === "keyring.request.get" ? alter(output as KeyringRequestView) : output);
}

test("two owners: one asks and has approved with that, the other sees it in the inbox and approves", async () => {
  const { world, ada, bob } = await two();
  const asked = await ask(ada);
  expect(asked).toMatchObject({
    workspace: "treasury",
    keyring: "vault",
    kind: "key",
    status: "pending",
    approved: false,
    requester: "ada",
    fee: 5,
    threshold: 2,
    votes: [{ owner: "ada", verdict: "approve" }],
    parties: [
      { name: "p1", state: "waiting" },
      { name: "p2", state: "waiting" },
      { name: "p3", state: "waiting" },
    ],
    items: [{ keyId: null, type: "ed25519", publicKeyHex: null, signatureHex: null }],
  });
  expect(asked.words).toHaveLength(6);
  expect(await ada.client.keyringInbox()).toEqual([]);
  const [waiting] = await bob.client.keyringInbox();
  expect(waiting).toEqual(asked);
  const approved = await approve(bob, asked.requestId.slice(0, 8));
  expect(approved).toMatchObject({ approved: true, votes: [{ owner: "ada" }, { owner: "bob" }] });
  expect(await bob.client.keyringInbox()).toEqual([]);
  const { certificate } = await world.makeKey(asked.requestId);
  const done = await ada.client.keyringRequest({ requestId: asked.requestId });
  expect(done).toMatchObject({ status: "fulfilled", items: [{ keyId: certificate.keyId }] });
  expect(done.parties.map(({ state }) => state)).toEqual(["answered", "answered", "answered"]);
  expect(await ada.client.keyringRequests({ workspace: "treasury", status: "fulfilled" })).toEqual([done]);
  const keys = await bob.client.keyringKeys({ workspace: "treasury", keyring: "vault", type: null });
  expect(keys).toMatchObject([
    { keyId: certificate.keyId, type: "ed25519", shown: "delegated", confirmedBy: ["p1", "p2", "p3"], threshold: 2 },
  ]);
  expect(keys[0]?.publicKeyHex).toBe(certificate.publicKey.toHex());
});

test("votes by a policy of before count no more: the request is in the inbox again", async () => {
  const { ada, bob } = await two();
  const { requestId } = await ask(ada);
  expect(await ada.client.keyringInbox()).toEqual([]);
  const { document } = await ada.client.workspace({ workspace: "treasury" });
  const { rules, ...rest } = document as { readonly rules: readonly object[] };
  const longer = { ...rest, rules: rules.map((rule) => ({ ...rule, votesLast: "2h" })) };
  const change = { kind: "document", document: longer } as const;
  for (const who of [ada, bob]) await who.client.changeWorkspace({ workspace: "treasury", change });
  expect((await ada.client.keyringInbox()).map((one) => one.requestId)).toEqual([requestId]);
  await approve(ada, requestId);
  expect(await ada.client.keyringInbox()).toEqual([]);
  expect(await approve(bob, requestId)).toMatchObject({ approved: true });
});

test("a party that answers before the owners have agreed hides the request from no inbox", async () => {
  const { world, ada, bob } = await two();
  const { requestId } = await ask(ada);
  const early = (view: KeyringRequestView): KeyringRequestView => ({ ...view, status: "partial" });
  world.put(early(world.view(requestId)));
  expect(await bob.client.keyringInbox()).toMatchObject([{ requestId, status: "partial", approved: false }]);
  expect(await approve(bob, requestId)).toMatchObject({ approved: true });
});

test("what its owner agreed to pay goes with the request", async () => {
  const { world, ada } = await two();
  const wish = { workspace: "treasury", keyring: "vault", type: "ed25519" } as const;
  await ada.client.requestKey({ ...wish, feeMax: 5 });
  await ada.client.requestKey({ ...wish, type: "schnorr" });
  const sent = world.calls.filter(({ name }) => name === "keyring.request");
  expect(sent.map(({ input }) => (input as InputOf<"keyring.request">).feeMax)).toEqual([5, null]);
});

test("one owner who alone decides asks, and that is enough", async () => {
  const { ada } = await two(1);
  expect(await ask(ada)).toMatchObject({ approved: true });
});

test("a rejection needs its reason, and ends the request", async () => {
  const { ada, bob } = await two();
  const { requestId } = await ask(ada);
  await rejected(bob.client.voteKeyring({ requestId, verdict: "reject", reason: " " }), "bad_input");
  const done = await bob.client.voteKeyring({ requestId, verdict: "reject", reason: "too dear" });
  expect(done).toMatchObject({ status: "rejected", votes: [{ owner: "ada" }, { owner: "bob", reason: "too dear" }] });
});

test("who is no owner can neither ask nor vote", async () => {
  const { world, ada } = await two();
  const { requestId } = await ask(ada);
  const eve = world.person("eve");
  const workspace = [...world.chains.keys()][0] ?? "";
  await rejected(eve.client.requestKey({ workspace, keyring: "vault", type: "ed25519" }), "denied");
  await rejected(approve(eve, requestId), "denied");
  expect(
    world.calls.filter(({ who, name }) => who === "eve" && name !== "workspace.get" && !name.includes("policy")),
  ).not.toContainEqual(expect.objectContaining({ name: "keyring.vote" }));
});

test("types that workspaces have no keys of are refused before anything is asked", async () => {
  const { world, ada } = await two();
  const before = world.calls.length;
  for (const type of ["bytes", "ristretto255"] as const) {
    await rejected(ada.client.requestKey({ workspace: "treasury", keyring: "vault", type }), "bad_input");
  }
  expect(world.calls).toHaveLength(before);
});

test("a request whose answer was lost is the same request when it is asked for again", async () => {
  const { world, ada } = await two();
  let lost = true;
  world.meddle = (name, output) => {
    if (name === "keyring.request" && lost) throw new Fault("outcome_unknown", "the answer was lost");
    return output;
  };
  await rejected(ask(ada), "outcome_unknown");
  expect(ada.held.keyringDrafts).toHaveLength(1);
  lost = false;
  const first = await ask(ada);
  expect(world.requests.size).toBe(1);
  expect(ada.held.keyringDrafts).toEqual([]);
  // answered: the same again is another key
  const second = await ask(ada);
  expect(second.requestId).not.toBe(first.requestId);
});

test("a request that was refused is not kept, and one that expired is not sent again", async () => {
  const { world, ada } = await two();
  world.before = (name) => {
    if (name === "keyring.request") throw new Fault("conflict", "too few credits");
  };
  await rejected(ask(ada), "conflict");
  expect(ada.held.keyringDrafts).toEqual([]);
  world.before = (name) => {
    if (name === "keyring.request") throw new Fault("unreachable", "nobody answers");
  };
  await rejected(ask(ada), "unreachable");
  world.before = () => undefined;
  world.nowMs += 90_000_000;
  const { createdAt } = await ask(ada);
  expect(Date.parse(createdAt)).toBe(world.nowMs);
});

test("a key that does not verify is never shown, and the registry is named", async () => {
  const { world, ada, requestId, certificate } = await withKey();
  const view = world.keys.get(certificate.keyId);
  if (!view) throw new Error("no key");
  const { signers } = await import("../../protocol/federation/keyworld.ts").then(({ keyWorld }) =>
    keyWorld({ type: "ed25519", seed: 7 }),
  );
  const other = signerFromSeed(seedOf("another owner"));
  const resigned = (change: object, by: readonly number[] = [1, 2, 3]): Partial<KeyringKeyView> => {
    const forged = { ...certificate, ...change };
    const decision = { requestId: forged.requestId, verdict: "accept", attempt: 1 } as const;
    const acceptance = signDecision(world.registry, { ...decision, certificateHash: certificateHash(forged) });
    const signatures = [...signers]
      .filter(([index]) => by.includes(index))
      .map(([index, signer]) => signCertificate(signer, index, forged));
    return { certificate: { certificate: forged, signatures, acceptance } };
  };
  const request = world.view(requestId);
  const [item] = request.items;
  const [first, second] = world.parties;
  if (!item || !first || !second) throw new Error("no item");
  const word = (party: typeof first) => respond(request, item, party, certificate, 1);
  const elsewhere = signResponse(signerOf("eve"), { ...word(first).response });
  const lies: readonly Partial<KeyringKeyView>[] = [
    // another public key, with too few servers' signatures and with the signatures of before
    { certificate: { ...view.certificate, certificate: { ...certificate, publicKey: other.publicKey } } },
    resigned({}, [1, 2]),
    // what servers and registry have signed for somebody else, or for another workspace
    resigned({ owner: other.publicKey }),
    resigned({ policy: "ab".repeat(32) }),
    resigned({ control: "unilateral", policy: null }),
    resigned({ custody: "self" }),
    resigned({ type: "schnorr" }),
    resigned({ requestId: "cd".repeat(32) }),
    // too few parties, one party twice, and a stranger
    { responses: [word(first)] },
    { responses: [word(first), word(first)] },
    { responses: [word(first), elsewhere] },
    { responses: [word(first), { ...word(second), signature: new Uint8Array(64) }] },
  ];
  for (const [i, change] of lies.entries()) {
    const shown = { ...view, ...change };
    world.meddle = (name, output) => {
      if (name === "keyring.key") return shown;
      if (name === "keyring.keys") return { items: [shown], more: false };
      if (name !== "keyring.request.get") return output;
      const said = output as KeyringRequestView;
      const items = said.items.map((one) => ({ ...one, certificate: shown.certificate, responses: shown.responses }));
      return { ...said, items };
    };
    const { keyId } = certificate;
    const seen = [
      ada.client.keyringKey({ key: keyId }),
      ada.client.keyringKeys({ workspace: "treasury", keyring: null, type: null }),
      ada.client.keyringAddress({ key: keyId, kind: "solana", network: null, prefix: null }),
      ada.client.keyringRequest({ requestId }),
    ];
    const results = await Promise.allSettled(seen);
    for (const one of results) {
      const fault = one.status === "rejected" ? one.reason : null;
      expect(fault, `lie ${i}`).toMatchObject({ code: "integrity", culprits: [REGISTRY_URL] });
    }
  }
});

test("a key that another account asked for is not the workspace's", async () => {
  const { world, ada, requestId, certificate } = await withKey();
  const eve = world.person("eve");
  const [item] = world.view(requestId).items;
  if (!item) throw new Error("no item");
  const request = signRequest(eve.owner, { ...item.request.request, requester: eve.owner.publicKey });
  altered(world, (view) => ({ ...view, items: [{ ...item, request, itemId: requestIdOf(request.request) }] }));
  await rejected(ada.client.keyringRequest({ requestId }), "integrity");
  await rejected(ada.client.keyringKey({ key: certificate.keyId }), "integrity");
});

test("another request behind an id, and items that do not belong to it, are refused", async () => {
  const { world, ada } = await two();
  const [one, another] = [await ask(ada), await ask(ada, "schnorr")];
  const [mine, theirs] = [world.view(one.requestId), world.view(another.requestId)];
  const [item, strange] = [mine.items[0], theirs.items[0]];
  if (!item || !strange) throw new Error("no items");
  const unsigned = { ...item, request: { ...item.request, signature: new Uint8Array(64) } };
  for (const shown of [
    theirs,
    { ...theirs, requestId: mine.requestId },
    { ...mine, items: [strange] },
    { ...mine, items: [{ ...item, itemId: strange.itemId }] },
    { ...mine, items: [unsigned] },
    { ...mine, items: [item, item] },
    { ...mine, kind: "signature" as const },
    { ...mine, keyringId: "ef".repeat(32) as typeof mine.keyringId },
  ]) {
    altered(world, () => shown);
    await rejected(ada.client.keyringRequest({ requestId: one.requestId }), "integrity");
    await rejected(approve(ada, one.requestId), "integrity");
  }
});

test("an answer about another request than the one that was made is refused", async () => {
  const { world, ada } = await two();
  const first = await ask(ada);
  const before = world.view(first.requestId);
  world.meddle = (name, output) => (name === "keyring.request" ? before : output);
  await rejected(ask(ada, "schnorr"), "integrity");
});

test("votes are bound to their item: those of another request, of strangers and unsigned ones are not shown", async () => {
  const { world, ada, bob } = await two();
  const [one, another] = [await ask(ada), await ask(ada)];
  await approve(bob, another.requestId);
  const strange = world.view(another.requestId).items[0]?.votes ?? [];
  expect(strange).toHaveLength(2);
  const [vote] = world.view(one.requestId).items[0]?.votes ?? [];
  if (!vote) throw new Error("no vote");
  const forged = { ...vote, vote: { ...vote.vote, key: bob.owner.publicKey } };
  altered(world, (view) => ({ ...view, items: view.items.map((item) => ({ ...item, votes: [...strange, forged] })) }));
  expect((await bob.client.keyringRequest({ requestId: one.requestId })).votes).toEqual([]);
  // and what is signed names the request, the policy's newest link and the verdict
  world.meddle = (_name, output) => output;
  await approve(bob, one.requestId);
  const sent = world.calls.findLast(({ name }) => name === "keyring.vote")?.input as InputOf<"keyring.vote">;
  expect(sent.votes.map(({ vote: said }) => `${said.requestId} ${said.verdict}`)).toEqual([
    `${world.view(one.requestId).items[0]?.itemId} approve`,
  ]);
  expect(sent.votes[0]?.vote.policyHash).toEqual(world.view(one.requestId).policyHash);
});

test("nobody votes on a request of somebody who was removed meanwhile", async () => {
  const { world, ada, bob } = await two(1);
  const { requestId } = await ask(bob);
  const lower = { kind: "quorums", admin: 1, sign: null } as const;
  for (const who of [ada, bob]) await who.client.changeWorkspace({ workspace: "treasury", change: lower });
  const removal = { kind: "ownerRemoved", name: "bob" } as const;
  await ada.client.changeWorkspace({ workspace: "treasury", change: removal });
  await rejected(approve(ada, requestId), "denied");
  expect(await ada.client.keyringRequest({ requestId })).toMatchObject({ requester: "bob" });
  expect(world.view(requestId).items[0]?.votes).toHaveLength(1);
});

test("a keyring's federation is pinned on first use: another manifest is refused from then on", async () => {
  const { world, ada } = await two();
  await ask(ada);
  expect(ada.held.keyringPins).toHaveLength(1);
  const servers = [1, 2, 3].map((index) => signerOf(`evil ${index}`));
  const { manifest } = world.manifest;
  const evil = {
    ...manifest,
    servers: manifest.servers.map((one, i) => ({ ...one, identity: servers[i]?.publicKey ?? one.identity })),
  };
  const shown: SignedManifest = { manifest: evil, signatures: servers.map((signer) => signManifest(signer, evil)) };
  world.keyring.view = { ...world.keyring.view, manifest: shown };
  for (const call of [() => ask(ada), () => ada.client.keyring({ keyring: "vault" }), () => ada.client.keyrings()]) {
    expect((await rejected(call(), "integrity")).culprits).toEqual([REGISTRY_URL]);
  }
  // unsigned by its servers it is refused by who sees it first
  world.keyring.view = { ...world.keyring.view, manifest: { manifest: evil, signatures: [] } };
  await rejected(world.person("eve").client.keyrings(), "integrity");
});

test("a keyring shows its parties' health, and evidence only where it proves something", async () => {
  const { world, ada } = await two();
  const { requestId } = await ask(ada);
  const view = world.view(requestId);
  const [item] = view.items;
  const [party] = world.parties;
  if (!item || !party) throw new Error("no item");
  const word = (reason: string) =>
    signResponse(signerOf(party.name), {
      keyringId: view.keyringId,
      requestId: item.itemId,
      verdict: "rejected",
      attempt: 0,
      keyId: null,
      publicKey: null,
      certificateHash: null,
      policyHash: view.policyHash,
      reason,
    });
  const [first, second] = [word("one"), word("two")];
  const parties = world.keyring.view.parties;
  world.keyring.view = {
    ...world.keyring.view,
    parties: parties.map((one, i) => ({
      ...one,
      quarantined: i === 0,
      lastSeenAtMs: i === 1 ? world.nowMs - 600_000 : i === 2 ? null : one.lastSeenAtMs,
    })),
    evidence: [{ first, second, atMs: 5 }],
  };
  const shown = await ada.client.keyring({ keyring: "vault" });
  expect(shown.parties.map(({ state }) => state.split(" ")[0])).toEqual(["quarantined:", "its", "its"]);
  expect(shown.evidence).toMatchObject([
    { party: "p1", proof: { party: party.key.toBase64({ alphabet: "base64url", omitPadding: true }) } },
  ]);
  world.put({ ...view, evidence: [{ first, second, atMs: 5 }], items: [{ ...item, responses: [first] }] });
  const said = await ada.client.keyringRequest({ requestId });
  expect(said.parties[0]).toEqual({ name: "p1", state: "quarantined" });
  world.put({ ...view, items: [{ ...item, responses: [first] }] });
  expect((await ada.client.keyringRequest({ requestId })).parties[0]?.state).toBe("rejected: one");
  world.keyring.view = { ...world.keyring.view, evidence: [{ first, second: first, atMs: 5 }] };
  await rejected(ada.client.keyring({ keyring: "vault" }), "integrity");
});

test("a request can be cancelled, and a status that does not exist is refused", async () => {
  const { ada } = await two();
  const { requestId } = await ask(ada);
  expect(await ada.client.cancelKeyringRequest({ requestId })).toMatchObject({ status: "cancelled" });
  await rejected(ada.client.keyringRequests({ workspace: "treasury", status: "done" }), "bad_input");
  await rejected(ada.client.keyringRequest({ requestId: "ffff" }), "not_found");
});
