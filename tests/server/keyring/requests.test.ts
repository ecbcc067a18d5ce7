import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { hpkeKeyPair } from "../../../src/crypto/hpke.ts";
import type { Certificate } from "../../../src/protocol/federation/certificate.ts";
import { signEcdsa } from "../../../src/protocol/federation/ecdsa.ts";
import { combineRelease } from "../../../src/protocol/federation/release.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { openPartial } from "../../../src/protocol/federation/use.ts";
import { verifyFulfilment } from "../../../src/protocol/keyring/fulfilment.ts";
import { checkLedger } from "../../../src/server/keyring/balances.ts";
import type { KeyringRequestView } from "../../../src/wire/keyring/views.ts";
import type { InputOf } from "../../../src/wire/operations.ts";
import { faultOf, type KeyringRun, keyringRun, type RunOptions } from "../../support/keyringrun.ts";
import { HOUR, rule, seedOf } from "../../support/policies.ts";
import { approver, nextLink } from "../../support/registryworld.ts";

setDefaultTimeout(60_000);

let run: KeyringRun | undefined;
const start = async (options: RunOptions = {}): Promise<KeyringRun> => {
  run = await keyringRun(options);
  return run;
};
afterEach(async () => {
  // whatever happened
  if (run) expect((await run.world.store.transaction(checkLedger)).problems).toEqual([]);
  await run?.close();
  run = undefined;
});

const both = { kind: "group", name: "owners", atLeast: 2 } as const;
const twoOfTwo: RunOptions = {
  policy: {
    rules: [rule({ name: "use", actions: ["generate", "sign", "release"], require: both, requesterMayApprove: true })],
  },
};

for (const type of ["ed25519", "schnorr", "secp256k1", "p256"] as const) {
  test(`a request for a ${type} key goes from approval to its key, and is paid once`, async () => {
    const r = await start();
    const first = await r.submit([r.generate(type)]);
    expect(first).toMatchObject({ status: "pending", approved: false, fee: 30, kind: "key" });
    expect(await r.balance()).toEqual({ balance: 970, escrowed: 30 });
    expect(await r.party(1).tasks()).toEqual([]);
    const approved = await r.vote(first, r.ben);
    expect(approved).toMatchObject({ status: "pending", approved: true });
    await r.work();
    const done = await r.view(first);
    expect(done).toMatchObject({ status: "fulfilled", why: "" });
    expect(await r.balance()).toEqual({ balance: 970, escrowed: 0 });
    const certificate = done.items[0]?.certificate;
    if (!certificate || !done.items[0]) throw new Error("no key");
    const names = verifyFulfilment({
      registry: r.world.registry.publicKey,
      manifest: r.manifest,
      keyringId: r.keyringId,
      workspaceId: r.workspaceId,
      requestId: done.requestId,
      item: done.items[0].request,
      snapshot: done,
      certificate,
      responses: done.items[0].responses,
    });
    expect(names).toEqual(["p1", "p2", "p3"]);
    const key = await r.world.call("keyring.key", { keyId: certificate.certificate.keyId }, r.ben);
    expect(key).toMatchObject({ released: false, requestId: first.requestId });
    expect(new Set(r.parties.map(({ decisions }) => decisions.get(done.items[0]?.itemId as never))).size).toBe(1);
  });
}

const holds = (certificate: Certificate, message: string, signature: Uint8Array | null | undefined): boolean =>
  signature != null && signatureHolds(certificate, new TextEncoder().encode(message), signature);

test("a batch of signatures with ed25519 and schnorr keys is signed, verified and paid", async () => {
  const r = await start();
  const ed = (await r.key("ed25519")).certificate;
  const schnorr = (await r.key("schnorr")).certificate;
  const items = [r.use(ed, "one"), r.use(ed, "two"), r.use(schnorr, "three")];
  const first = await r.submit(items);
  expect(first).toMatchObject({ kind: "signature", fee: 9 });
  await r.vote(first, r.ann);
  await r.work();
  const done = await r.view(first);
  expect(done.status).toBe("fulfilled");
  const results = done.items.map(({ result }) => result);
  expect(holds(ed.certificate, "one", results[0])).toBe(true);
  expect(holds(ed.certificate, "two", results[1])).toBe(true);
  expect(holds(schnorr.certificate, "three", results[2])).toBe(true);
  expect(await r.balance()).toEqual({ balance: 1_000 - 60 - 9, escrowed: 0 });
});

/** What the owner's client makes of released shares. */
async function ownerSigns(r: KeyringRun, view: KeyringRequestView, seed: Uint8Array): Promise<Uint8Array> {
  const [item] = view.items;
  if (!item?.certificate || !item.order) throw new Error("nothing was let out");
  const { certificate } = item.certificate;
  const { request } = item.request;
  const { body } = request;
  if (body.kind !== "release" || !body.message) throw new Error("no release");
  const use = { manifest: r.manifest, certificate, request, order: item.order.order };
  const pair = await hpkeKeyPair(seed);
  const partials = await Promise.all(item.partials.map((one) => openPartial(use, pair, one)));
  const done = combineRelease({ ...use, partials, ownerScalar: null });
  if (done.result !== "combined") throw new Error("wrong shares");
  return signEcdsa("secp256k1", done.scalar, body.message).compact;
}

test("a signature is told once its request is fulfilled and paid, not before, and never of one that is not", async () => {
  const r = await start();
  const { certificate } = await r.key("schnorr");
  const first = await r.submit([r.use(certificate)]);
  await r.vote(first, r.ann);
  const { twist } = r.party(1);
  for (const one of r.parties) one.twist = (task, report) => (task.work.do === "respond" ? null : report);
  await r.work(20);
  const signed = await r.view(first);
  expect(signed).toMatchObject({ status: "pending", items: [{ attempt: 1, result: null }] });
  const listed = await r.world.call(
    "keyring.requests",
    { workspaceId: r.workspaceId, status: null, after: null },
    r.ann,
  );
  expect(listed.items.map(({ items }) => items.map(({ result }) => result))).toEqual([[null], [null]]);
  for (const one of r.parties) one.twist = twist;
  await r.work();
  const done = await r.view(first);
  expect(done.status).toBe("fulfilled");
  expect(holds(certificate.certificate, "message", done.items[0]?.result)).toBe(true);

  const second = await r.submit([r.use(certificate, "another")]);
  await r.vote(second, r.ann);
  for (const one of r.parties) one.twist = (task, report) => (task.work.do === "respond" ? null : report);
  await r.work(20);
  r.world.nowMs += 2 * HOUR;
  expect(await r.view(second)).toMatchObject({ status: "expired", items: [{ attempt: 1, result: null }] });
});

test("shares of an ECDSA key go to the client that asked alone, which finishes the request; the key is released", async () => {
  const r = await start();
  const { certificate } = await r.key("secp256k1");
  const { keyId } = certificate.certificate;
  const seed = seedOf("client");
  const { publicKey } = await hpkeKeyPair(seed);
  const first = await r.submit([r.use(certificate, "pay", publicKey)]);
  await r.vote(first, r.ben);
  await r.work();
  const let_out = await r.view(first);
  expect(let_out.status).toBe("partial");
  expect(let_out.items[0]?.partials).toHaveLength(2);
  expect((await r.view(first, r.ben)).items[0]).toMatchObject({ partials: [], order: null });
  expect((await r.world.call("keyring.key", { keyId }, r.ann)).released).toBe(true);

  const signature = await ownerSigns(r, let_out, seed);
  const itemId = let_out.items[0]?.itemId;
  if (!itemId) throw new Error("no item");
  const finish = (bytes: Uint8Array, who = r.ann) =>
    r.world.call("keyring.finish", { requestId: first.requestId, results: [{ itemId, signature: bytes }] }, who);
  const wrong = signature.with(5, (signature[5] ?? 0) ^ 1);
  expect(await faultOf(finish(wrong))).toStartWith("integrity");
  expect(await faultOf(finish(signature, r.ben))).toStartWith("denied");
  expect((await finish(signature)).status).toBe("fulfilled");
  expect((await finish(signature)).status).toBe("fulfilled");
  const other = signEcdsa("secp256k1", secp256k1.utils.randomSecretKey(), seed).compact;
  expect(await faultOf(finish(other))).toStartWith("conflict");
  expect(await r.balance()).toEqual({ balance: 1_000 - 30 - 3, escrowed: 0 });
});

test("nothing is let out before the owners have approved, and nothing can be finished that was not", async () => {
  const r = await start(twoOfTwo);
  const first = await r.submit([r.generate()]);
  const one = await r.vote(first, r.ann);
  expect(one).toMatchObject({ approved: false, status: "pending" });
  expect(one.why).not.toBe("");
  await r.work();
  expect((await r.view(first)).status).toBe("pending");
  const results = [{ itemId: first.items[0]?.itemId as never, signature: new Uint8Array(64) }];
  const finish = r.world.call("keyring.finish", { requestId: first.requestId, results }, r.ann);
  expect(await faultOf(finish)).toStartWith("conflict");
  expect((await r.vote(first, r.ben)).approved).toBe(true);
  await r.work();
  expect((await r.view(first)).status).toBe("fulfilled");
});

test("the same request again is the same answer, and is paid once", async () => {
  const r = await start();
  const item = r.generate();
  const first = await r.submit([item]);
  expect(await r.submit([item])).toEqual(first);
  expect(await r.submit([item], r.ben)).toEqual(first);
  expect(await r.balance()).toEqual({ balance: 970, escrowed: 30 });
});

test("a request that the policy denies is rejected at once, with its fee back", async () => {
  const r = await start({ policy: { rules: [rule({ name: "sign", actions: ["sign"] })] } });
  const view = await r.submit([r.generate()]);
  expect(view).toMatchObject({ status: "rejected", approved: false });
  expect(view.why).toContain("no rule allows generate");
  expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
  expect(await r.party(1).tasks()).toEqual([]);
});

test("a vote that comes again is no second event", async () => {
  const r = await start(twoOfTwo);
  const first = await r.submit([r.generate()]);
  for (let times = 0; times < 3; times++) await r.vote(first, r.ann);
  const { items } = await r.world.call("workspace.events", { workspaceId: r.workspaceId, after: 0 }, r.ann);
  expect(items.filter(({ event }) => event === "request.vote")).toHaveLength(1);
});

test("a rejection that makes approval impossible ends the request with its fee back", async () => {
  const r = await start(twoOfTwo);
  const first = await r.submit([r.generate()]);
  const over = await r.vote(first, r.ben, "reject");
  expect(over.status).toBe("rejected");
  expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
  expect(await faultOf(r.vote(first, r.ann))).toStartWith("conflict");
});

test("an owner who was removed in the middle asks for nothing any more: the newest head denies", async () => {
  const r = await start({ owners: 3, ...twoOfTwo });
  const first = await r.submit([r.generate()]);
  await r.vote(first, r.ann);
  await r.vote(first, r.ben);
  const space = await r.world.call("workspace.get", { workspaceId: r.workspaceId }, r.ben);
  const [, ben, cid] = r.owners;
  if (!ben || !cid) throw new Error("no owners");
  const approvers = [ben, cid].map(approver);
  const change = { approvers, groups: [{ name: "owners", members: ["ben", "cid"] }], admins: both };
  await r.world.call("workspace.policy.set", { policy: nextLink(space, change, r.owners) }, ben);
  await r.work();
  const over = await r.view(first, ben);
  expect(over.status).toBe("rejected");
  expect(await faultOf(r.view(first, r.ann))).toStartWith("not_found");
  expect(await faultOf(r.submit([r.generate()], r.ann))).toStartWith("not_found");
  expect((await r.world.call("workspace.get", { workspaceId: r.workspaceId }, ben)).balance).toBe(1_000);
});

test("a new link is asked about open requests at once: they end, or wait for votes again, without anybody's look", async () => {
  const r = await start({ owners: 3, ...twoOfTwo });
  const [open, approved] = [await r.submit([r.generate()]), await r.submit([r.generate("schnorr", r.ben)], r.ben)];
  for (const owner of [r.ann, r.ben]) await r.vote(approved, owner);
  expect((await r.view(approved)).approved).toBe(true);
  const space = await r.world.call("workspace.get", { workspaceId: r.workspaceId }, r.ben);
  const [, ben, cid] = r.owners;
  if (!ben || !cid) throw new Error("no owners");
  const approvers = [ben, cid].map(approver);
  const change = { approvers, groups: [{ name: "owners", members: ["ben", "cid"] }], admins: both };
  await r.world.call("workspace.policy.set", { policy: nextLink(space, change, r.owners) }, ben);
  const listed = await r.world.call("keyring.requests", { workspaceId: r.workspaceId, status: null, after: null }, ben);
  const states = new Map(listed.items.map((one) => [one.requestId, [one.status, one.approved]]));
  expect(states.get(open.requestId)).toEqual(["rejected", false]);
  expect(states.get(approved.requestId)).toEqual(["pending", false]);
  const inbox = await r.world.call("workspace.inbox", { after: null }, cid);
  expect(inbox.items.map(({ requestId }) => requestId)).toEqual([approved.requestId]);
});

test("votes under an older head count no more: the approval is gone until the owners vote again", async () => {
  const r = await start(twoOfTwo);
  const first = await r.submit([r.generate()]);
  await r.vote(first, r.ann);
  expect((await r.vote(first, r.ben)).approved).toBe(true);
  const space = await r.world.call("workspace.get", { workspaceId: r.workspaceId }, r.ann);
  await r.world.call("workspace.policy.set", { policy: nextLink(space, { createdAtMs: 5 }, r.owners) }, r.ann);
  await r.work();
  const again = await r.view(first);
  expect(again).toMatchObject({ approved: false, status: "pending" });
  expect(await faultOf(r.vote(first, r.ann))).toStartWith("stale");
  const inbox = await r.world.call("workspace.inbox", { after: null }, r.ben);
  expect(inbox.items.map(({ requestId }) => requestId)).toEqual([first.requestId]);
  await r.vote(again, r.ann);
  await r.vote(again, r.ben);
  await r.work();
  expect((await r.view(first)).status).toBe("fulfilled");
});

test("parties, threshold and fees of a request are those of its creation", async () => {
  const r = await start();
  const first = await r.submit([r.generate()]);
  type Change = InputOf<"keyring.change">["change"];
  const change = (set: Change) => r.world.call("keyring.change", { keyringId: r.keyringId, change: set }, r.admin);
  await change({ set: "threshold", threshold: 3 });
  await change({ set: "fees", fees: { key: 500, signature: 5 } });
  await change({ set: "active", active: false });
  await r.vote(first, r.ben);
  r.party(3).twist = (task, report) => (task.work.do === "decide" ? null : report);
  await r.work(30);
  expect(await r.view(first)).toMatchObject({ status: "fulfilled", threshold: 2, fee: 30 });
  expect(await faultOf(r.submit([r.generate()]))).toStartWith("conflict");
});

test("a fee that was raised after it was shown is not held: the request is refused", async () => {
  const r = await start();
  const { workspaceId, keyringId } = r;
  const items = [r.generate()];
  const ask = (feeMax: number) => r.world.call("keyring.request", { workspaceId, keyringId, items, feeMax }, r.ann);
  const fees = { key: 1_000, signature: 3 };
  await r.world.call("keyring.change", { keyringId, change: { set: "fees", fees } }, r.admin);
  expect(await faultOf(ask(30))).toBe("conflict: this request costs 1000 credits by now, more than the 30 agreed to");
  expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
  expect((await ask(1_000)).fee).toBe(1_000);
  // what is there is there, whatever is asked again
  expect((await ask(0)).fee).toBe(1_000);
});

test("an expired request is expired for whoever looks, without any sweep, and its fee is back", async () => {
  const r = await start();
  const first = await r.submit([r.generate()]);
  r.world.nowMs += HOUR - 1;
  expect((await r.view(first)).status).toBe("pending");
  r.world.nowMs += 1;
  expect((await r.view(first)).status).toBe("expired");
  expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
  expect(await faultOf(r.vote(first, r.ben))).toStartWith("conflict");
});

test("the sweep expires what nobody looks at", async () => {
  const r = await start();
  const first = await r.submit([r.generate()]);
  r.world.nowMs += HOUR;
  await r.world.service.sweep();
  expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
  const listed = await r.world.call(
    "keyring.requests",
    { workspaceId: r.workspaceId, status: "expired", after: null },
    r.ben,
  );
  expect(listed.items.map(({ requestId }) => requestId)).toEqual([first.requestId]);
});

test("owners cancel a request until something of it cannot be taken back; servers are told once", async () => {
  const r = await start();
  const first = await r.submit([r.generate()]);
  await r.vote(first, r.ann);
  await r.party(1).poll();
  const cancel = (of: KeyringRequestView, who = r.ben) =>
    r.world.call("keyring.cancel", { requestId: of.requestId }, who);
  expect((await cancel(first)).status).toBe("cancelled");
  expect((await cancel(first)).status).toBe("cancelled");
  expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
  await r.work();
  expect(r.parties.map(({ decisions }) => [...decisions.values()])).toEqual([["cancel "], ["cancel "], ["cancel "]]);
  const { view } = await r.key();
  expect(await faultOf(cancel(view))).toStartWith("conflict");
  const second = await r.submit([r.generate()]);
  await r.vote(second, r.ann);
  for (const one of r.parties) one.twist = (task, report) => (task.work.do === "decide" ? null : report);
  await r.work(20);
  expect((await r.view(second)).status).toBe("pending");
  expect(await faultOf(cancel(second))).toStartWith("conflict");
});

test("servers that were asked before an approval was gone are told of the end all the same", async () => {
  const r = await start(twoOfTwo);
  const first = await r.submit([r.generate()]);
  await r.vote(first, r.ann);
  await r.vote(first, r.ben);
  await r.party(1).poll();
  const space = await r.world.call("workspace.get", { workspaceId: r.workspaceId }, r.ann);
  await r.world.call("workspace.policy.set", { policy: nextLink(space, { createdAtMs: 5 }, r.owners) }, r.ann);
  await r.work();
  expect(await r.view(first)).toMatchObject({ status: "pending", approved: false });
  await r.world.call("keyring.cancel", { requestId: first.requestId }, r.ben);
  await r.work();
  expect(r.parties.map(({ decisions }) => [...decisions.values()])).toEqual([["cancel "], ["cancel "], ["cancel "]]);
});

test("who is no owner sees no request, no key and no list; the inbox is one's own", async () => {
  const r = await start();
  const { view, certificate } = await r.key();
  const eve = await r.world.person("eve");
  const { requestId } = view;
  const { keyId } = certificate.certificate;
  expect(await faultOf(r.view(view, eve))).toStartWith("not_found");
  expect(await faultOf(r.world.call("keyring.cancel", { requestId }, eve))).toStartWith("not_found");
  expect(await faultOf(r.vote(view, eve))).toStartWith("not_found");
  expect(await faultOf(r.world.call("keyring.key", { keyId }, eve))).toStartWith("not_found");
  const all = { workspaceId: r.workspaceId, status: null, after: null };
  expect(await faultOf(r.world.call("keyring.requests", all, eve))).toStartWith("not_found");
  const keys = { workspaceId: r.workspaceId, keyringId: null, type: null, after: null };
  expect(await faultOf(r.world.call("keyring.keys", keys, eve))).toStartWith("not_found");
  expect((await r.world.call("workspace.inbox", { after: null }, eve)).items).toEqual([]);
  expect(await faultOf(r.submit([r.generate("ed25519", eve)], eve))).toStartWith("not_found");
});

test("keys are listed by keyring and type, and only those of fulfilled requests", async () => {
  const r = await start();
  const { certificate } = await r.key("ed25519");
  r.world.nowMs += 1;
  await r.key("schnorr");
  const open = await r.submit([r.generate("p256")]);
  await r.vote(open, r.ann);
  for (const one of r.parties) one.twist = (task, report) => (task.work.do === "decide" ? null : report);
  await r.work(20);
  const keys = async (change: object) =>
    (
      await r.world.call(
        "keyring.keys",
        { workspaceId: r.workspaceId, keyringId: null, type: null, after: null, ...change },
        r.ben,
      )
    ).items.map((one) => one.certificate.certificate.type);
  expect(await keys({})).toEqual(["schnorr", "ed25519"]);
  expect(await keys({ type: "ed25519" })).toEqual(["ed25519"]);
  expect(await keys({ type: "p256" })).toEqual([]);
  expect(await keys({ keyringId: r.keyringId, type: "schnorr" })).toEqual(["schnorr"]);
  expect(await keys({ keyringId: "7".repeat(64) })).toEqual([]);
  const made = (await r.view(open)).items[0]?.certificate?.certificate.keyId;
  if (!made) throw new Error("the key was not accepted");
  expect(await faultOf(r.world.call("keyring.key", { keyId: made }, r.ann))).toStartWith("not_found");
  expect(
    await faultOf(r.submit([r.use({ ...certificate, certificate: { ...certificate.certificate, keyId: made } })])),
  ).toStartWith("not_found");
});

test("a rate of the policy counts what was begun; a batch counts each of its signatures", async () => {
  const rate = { count: 2, windowMs: HOUR };
  const uses = rule({ name: "uses", actions: ["sign"], require: { kind: "requester" }, rate });
  const keys = rule({ name: "keys", actions: ["generate"], require: { kind: "requester" } });
  const r = await start({ policy: { rules: [uses, keys] } });
  const { certificate } = await r.key();
  const batch = await r.submit([r.use(certificate, "one"), r.use(certificate, "two"), r.use(certificate, "three")]);
  await r.work();
  expect(await r.view(batch)).toMatchObject({ status: "rejected" });
  const next = await r.submit([r.use(certificate, "four")]);
  expect(next.status).toBe("rejected");
  expect(next.why).toContain("used 2 times already");
  r.world.nowMs += HOUR;
  const later = await r.submit([r.use(certificate, "five")]);
  await r.work();
  expect((await r.view(later)).status).toBe("fulfilled");
  expect(await r.balance()).toEqual({ balance: 1_000 - 30 - 3, escrowed: 0 });
});
