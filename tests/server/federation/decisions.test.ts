import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hpkeSeal } from "../../../src/crypto/hpke.ts";
import {
  type Certificate,
  certificateHash,
  keyIdOf,
  type SignedCertificate,
  signCertificate,
} from "../../../src/protocol/federation/certificate.ts";
import { shareOut } from "../../../src/protocol/federation/custody.ts";
import {
  contributionInfo,
  requestIdOf,
  type SignedRequest,
  signDecision,
} from "../../../src/protocol/federation/request.ts";
import { eachStored, PENDING_SHARE, REQUEST, readStored, SHARE } from "../../../src/server/federation/documents.ts";
import { purposeOf } from "../../support/enclaveworld.ts";
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
  makeKey,
  orderFor,
  type Party,
  submit,
} from "./world.ts";

let world: FederationWorld;
beforeEach(async () => {
  world = await federationWorld();
});
afterEach(() => world.close());

const decide = (party: Party, certificate: SignedCertificate, decision = certificate.acceptance) =>
  party.call("federation.decide", { decision, certificate });
const cancel = (party: Party, request: SignedRequest) =>
  party.call("federation.decide", {
    decision: cancellation(world, requestIdOf(request.request)),
    certificate: null,
  });
const pendingAt = (party: Party, request: SignedRequest) =>
  party.store.transaction((tx) => eachStored(tx, PENDING_SHARE, requestIdOf(request.request)));
const sharesAt = (party: Party, { certificate }: SignedCertificate) =>
  party.store.transaction((tx) => eachStored(tx, SHARE, certificate.keyId));
const rowAt = (party: Party, request: SignedRequest) =>
  party.store.transaction((tx) => readStored(tx, REQUEST, requestIdOf(request.request)));

/** A key that all have confirmed and nobody has decided on. */
async function confirmed(attempt = 1, request = world.request(generateBody())) {
  await submit(world, request);
  const certificate = acceptance(world, await drive(world, request, [1, 2, 3], attempt));
  return { request, certificate };
}

describe("the owner's decision", () => {
  test("is taken once; the same again changes nothing", async () => {
    const { request, certificate } = await confirmed();
    const party = world.party(1);
    expect((await pendingAt(party, request)).length).toBe(1);
    const first = await decide(party, certificate);
    expect([first.status, first.certificate]).toEqual(["fulfilled", certificate]);
    expect((await pendingAt(party, request)).length).toBe(0);
    const [before] = await sharesAt(party, certificate);
    expect(await decide(party, certificate)).toEqual(first);
    expect(await sharesAt(party, certificate)).toEqual(before ? [before] : []);
  });

  test("at once from two connections is one", async () => {
    const { request, certificate } = await confirmed();
    const party = world.party(1);
    const codes = await Promise.all([codeOf(decide(party, certificate)), codeOf(cancel(party, request))]);
    expect(codes.toSorted()).toEqual(["conflict", "ok"]);
    const row = await rowAt(party, request);
    // whichever came first, both are kept
    const kept = [row?.value.decision?.decision.verdict, row?.value.contradiction?.decision.verdict];
    expect(kept.toSorted()).toEqual(["accept", "cancel"]);
  });

  test("to cancel drops the confirmed share and is final", async () => {
    const { request, certificate } = await confirmed();
    const party = world.party(1);
    expect((await cancel(party, request)).status).toBe("cancelled");
    expect(await pendingAt(party, request)).toEqual([]);
    expect((await cancel(party, request)).status).toBe("cancelled");
    // an acceptance afterwards contradicts it: no share, and the key is known as frozen
    expect(await codeOf(decide(party, certificate))).toBe("conflict");
    const key = await keyAt(party, certificate);
    expect([key.held, key.frozen]).toEqual([false, true]);
  });

  test("to cancel after an acceptance freezes the key; both decisions are kept", async () => {
    const { request, certificate } = await confirmed();
    const party = world.party(1);
    await decide(party, certificate);
    expect(await codeOf(cancel(party, request))).toBe("conflict");
    expect((await keyAt(party, certificate)).frozen).toBe(true);
    const row = await rowAt(party, request);
    expect(row?.value.decision).toEqual(certificate.acceptance);
    expect(row?.value.contradiction?.decision.verdict).toBe("cancel");
    // the key serves nothing any more
    const { keyId, generation } = certificate.certificate;
    const use = world.request({
      kind: "sign",
      form: "message" as const,
      input: 0,
      keyId,
      generation,
      message: new Uint8Array(1),
      amount: null,
      recipient: world.enclaves.recipient.publicKey,
    });
    expect(await codeOf(submit(world, use, [party]))).toBe("conflict");
    // at servers that saw one decision it goes on
    expect((await decide(world.party(2), certificate)).status).toBe("fulfilled");
    expect(await codeOf(submit(world, use, [world.party(2)]))).toBe("ok");
  });

  test("for two attempts of one request freezes both keys", async () => {
    const { request, certificate } = await confirmed();
    const other = acceptance(world, await drive(world, request, [1, 2, 3], 2));
    expect(other.certificate.keyId).not.toBe(certificate.certificate.keyId);
    const party = world.party(1);
    await decide(party, certificate);
    expect(await codeOf(decide(party, other))).toBe("conflict");
    for (const one of [certificate, other]) expect((await keyAt(party, one)).frozen).toBe(true);
    expect(party.notices.map(({ event }) => event)).toEqual(["federation.frozen"]);
    expect((await keyAt(party, other)).held).toBe(false);
    // the same again is no third thing
    expect(await codeOf(decide(party, other))).toBe("conflict");
    expect(party.notices.length).toBe(1);
  });

  test("takes either of two attempts that were confirmed", async () => {
    const { request, certificate: first } = await confirmed();
    const second = acceptance(world, await drive(world, request, [1, 2, 3], 2));
    expect((await pendingAt(world.party(1), request)).length).toBe(2);
    await accept(world, first);
    for (const party of world.parties) {
      expect((await keyAt(party, first)).held).toBe(true);
      expect(await codeOf(keyAt(party, second))).toBe("not_found");
      expect(await pendingAt(party, request)).toEqual([]);
    }
  });

  test("needs the owner's signature, the certificate, and enough servers' signatures", async () => {
    const { request, certificate } = await confirmed();
    const party = world.party(1);
    const { acceptance: decision } = certificate;
    const forged = { ...decision, signature: decision.signature.map((b) => b ^ 1) };
    expect(await codeOf(decide(party, certificate, forged))).toBe("integrity");
    const stranger = signDecision(world.neighbour.request, decision.decision);
    expect(await codeOf(decide(party, certificate, stranger))).toBe("integrity");
    expect(await codeOf(party.call("federation.decide", { decision, certificate: null }))).toBe("bad_input");
    const few = { ...certificate, signatures: certificate.signatures.slice(0, 2) };
    expect(await codeOf(decide(party, few))).toBe("integrity");
    const odd = signDecision(world.owner.request, { ...decision.decision, attempt: 0 });
    expect(await codeOf(decide(party, certificate, odd))).toBe("bad_input");
    expect((await rowAt(party, request))?.value.decision).toBeNull();
    expect((await decide(party, certificate)).status).toBe("fulfilled");
  });

  test("accepts no certificate but what was asked for", async () => {
    const { request, certificate } = await confirmed();
    const party = world.party(1);
    const { certificate: c } = certificate;
    for (const change of [
      { type: "ristretto255" },
      { custody: "self" },
      { control: "shared" },
      { generation: 1 },
      { epoch: 2 },
      { attempt: 2 },
      { threshold: 3 },
      { length: 31 },
      { origin: "imported" },
      { origin: "custodial" },
      { publicKey: c.commitments[1] as Uint8Array },
      { keyId: "0".repeat(64) },
      { owner: world.neighbour.request.publicKey },
      { predecessor: new Uint8Array(32) },
    ]) {
      const forged = { ...c, ...change } as typeof c;
      const decision = acceptance(world, {
        order: undefined as never,
        messages: [],
        outcomes: new Map([[1, { result: "confirmed", certificate: forged, signature: null, culprits: [] }]]),
      } as never).acceptance;
      // all servers lie together, and still it is not what was asked for
      const signatures = [1, 2, 3].map((i) => signCertificate(world.enclaves.server(i).keys.signer, i, forged));
      const code = await codeOf(decide(party, { certificate: forged, signatures, acceptance: decision }, decision));
      expect([JSON.stringify(change), code]).toEqual([JSON.stringify(change), "integrity"]);
    }
    expect((await rowAt(party, request))?.value.decision).toBeNull();
  });

  test("accepts no certificate but the one that this server has signed in that attempt", async () => {
    const { request, certificate } = await confirmed();
    const { certificate: c } = certificate;
    const transcript = new Uint8Array(32).fill(7);
    const keyId = keyIdOf(c.federationId, c.requestId, c.attempt, transcript, c.publicKey);
    const twin = { ...c, transcript, keyId };
    const signed: SignedCertificate = {
      certificate: twin,
      signatures: [1, 2, 3].map((i) => signCertificate(world.enclaves.server(i).keys.signer, i, twin)),
      acceptance: signDecision(world.owner.request, {
        ...certificate.acceptance.decision,
        certificateHash: certificateHash(twin),
      }),
    };
    const party = world.party(1);
    expect(await codeOf(decide(party, signed))).toBe("integrity");
    expect((await rowAt(party, request))?.value.decision).toBeNull();
    expect((await decide(party, certificate)).status).toBe("fulfilled");
  });

  test("is not stored while the enclave cannot seal the share; then it is", async () => {
    const { request, certificate } = await confirmed();
    const party = world.party(1);
    party.before = (operation) => {
      if (operation !== "confirm") return;
      party.before = () => undefined;
      party.crash();
      throw new Error("gone");
    };
    expect(await codeOf(decide(party, certificate))).toBe("no fault: Error: gone");
    expect((await rowAt(party, request))?.value.status).toBe("confirming");
    await decide(party, certificate);
    expect((await keyAt(party, certificate)).held).toBe(true);
  });

  test("takes an import among those who were there: they are its holders", async () => {
    await world.close();
    world = await federationWorld({ n: 5, threshold: 3 });
    const random = (length: number) => world.enclaves.random.bytes(length);
    const holders = [1, 2, 3, 4, 5];
    const dealt = shareOut({ type: "p256", threshold: 3, holders, scalar: random(32), ownerScalar: null, random });
    const { commitments } = dealt;
    const body = {
      ...purposeOf("p256"),
      kind: "import",
      origin: "custodial",
      threshold: 3,
      holders,
      commitments,
      sealedValue: null,
    } as const;
    const request = world.request(body);
    await submit(world, request);
    const id = requestIdOf(request.request);
    const roster = [1, 2, 3, 5];
    const contributions = await Promise.all(
      roster.map(async (index) => {
        const { publicKey } = world.enclaves.server(index).keys.hpke;
        const share = dealt.shares.find((one) => one.index === index)?.share ?? new Uint8Array(0);
        return { index, sealed: await hpkeSeal(publicKey, contributionInfo(id, 1, index), share, random) };
      }),
    );
    const order = world.enclaves.order(request, roster, 1, { contributions });
    const driven = await drive(world, request, roster, 1, order);
    const certificate = acceptance(world, driven);
    expect(certificate.certificate.origin).toBe("custodial");
    // the owner said so when it asked: not even all servers and the owner together say otherwise afterwards
    const washed: Certificate = { ...certificate.certificate, origin: "imported" };
    const outcome = { result: "confirmed", certificate: washed, signature: null, culprits: [] } as const;
    const { acceptance: word } = acceptance(world, { ...driven, outcomes: new Map([[1, outcome]]) } as never);
    const signatures = roster.map((i) => signCertificate(world.enclaves.server(i).keys.signer, i, washed));
    const forged = { certificate: washed, signatures, acceptance: word };
    for (const index of [1, 4]) expect(await codeOf(decide(world.party(index), forged, word))).toBe("integrity");
    await accept(world, certificate);
    expect(await Promise.all(holders.map(async (i) => (await keyAt(world.party(i), certificate)).held))).toEqual([
      true,
      true,
      true,
      false,
      true,
    ]);
  });

  test("also reaches a server that took no part: it keeps the certificate without a share", async () => {
    await world.close();
    world = await federationWorld({ n: 5, threshold: 3 });
    const request = world.request(generateBody());
    await submit(world, request);
    const certificate = acceptance(world, await drive(world, request, [1, 2, 3, 4]));
    await accept(world, certificate);
    expect((await keyAt(world.party(4), certificate)).held).toBe(true);
    const away = await keyAt(world.party(5), certificate);
    expect([away.held, away.certificate]).toEqual([false, certificate]);
    expect((await rowAt(world.party(5), request))?.value.status).toBe("fulfilled");
  });
});

describe("time", () => {
  test("ends a request that nobody has signed, whatever has begun", async () => {
    const waiting = world.request(generateBody());
    const begun = world.request(generateBody());
    for (const one of [waiting, begun]) await submit(world, one);
    const party = world.party(1);
    const order = await orderFor(world, begun, [1, 2, 3]);
    await party.call("federation.begin", { order });
    world.enclaves.nowMs += 600_000;
    expect(await party.sweep()).toBe(0);
    world.enclaves.nowMs += 1;
    const late = await orderFor(world, waiting, [1, 2, 3]);
    expect(await codeOf(party.call("federation.begin", { order: late }))).toBe("conflict");
    expect(await party.sweep()).toBe(2);
    expect(await party.sweep()).toBe(0);
    for (const one of [waiting, begun]) expect((await rowAt(party, one))?.value.status).toBe("expired");
    const relay = { requestId: requestIdOf(begun.request), attempt: 1, messages: [] };
    expect(await codeOf(party.call("federation.relay", relay))).toBe("conflict");
  });

  test("does not end what was signed: the owner's word still does", async () => {
    const { request, certificate } = await confirmed();
    world.enclaves.nowMs += 10 * 24 * 3_600_000;
    for (const party of world.parties) expect(await party.sweep()).toBe(0);
    await accept(world, certificate);
    for (const party of world.parties) {
      expect((await rowAt(party, request))?.value.status).toBe("fulfilled");
      expect((await keyAt(party, certificate)).held).toBe(true);
    }
  });

  test("that ran out here does not part this server from the others' key", async () => {
    await world.close();
    world = await federationWorld({ n: 5, threshold: 3 });
    const request = world.request(generateBody());
    await submit(world, request);
    const certificate = acceptance(world, await drive(world, request, [1, 2, 3, 4]));
    world.enclaves.nowMs += 700_000;
    expect(await world.party(5).sweep()).toBe(1);
    await accept(world, certificate);
    expect((await keyAt(world.party(5), certificate)).certificate).toEqual(certificate);
  });
});

describe("a key's next shares", () => {
  /** A refresh of a key by all three servers, confirmed. */
  async function refreshed() {
    const { certificate } = await makeKey(world);
    const { keyId, generation, threshold, holders } = certificate.certificate;
    const request = world.request({ kind: "reshare", keyId, generation, mode: "refresh", threshold, holders });
    await submit(world, request);
    return { before: certificate, request, certificate: acceptance(world, await drive(world, request, [1, 2, 3])) };
  }
  const signing = (generation: number, keyId: SignedCertificate["certificate"]["keyId"]) =>
    world.request({
      kind: "sign",
      form: "message" as const,
      input: 0,
      keyId,
      generation,
      message: new Uint8Array(3),
      amount: null,
      recipient: world.enclaves.recipient.publicKey,
    });

  test("take the place of the old ones, which are deleted; each server signs that", async () => {
    const { before, request, certificate } = await refreshed();
    expect(certificate.certificate.publicKey).toEqual(before.certificate.publicKey);
    for (const party of world.parties) {
      expect((await sharesAt(party, before)).map(({ place }) => place)).toEqual([0]);
      expect((await decide(party, certificate)).status).toBe("fulfilled");
      expect((await sharesAt(party, before)).map(({ place }) => place)).toEqual([1]);
      const view = await keyAt(party, certificate);
      expect([view.held, view.certificate]).toEqual([true, certificate]);
      expect(view.erasures.map(({ index, generation }) => [index, generation])).toEqual([[party.index, 0]]);
    }
    expect((await rowAt(world.party(1), request))?.value.status).toBe("fulfilled");
    const { keyId } = certificate.certificate;
    const next = signing(1, keyId);
    await submit(world, next);
    expect((await drive(world, next, [1, 3])).outcomes.size).toBe(2);
  });

  test("end what is under way with the old ones, in every step", async () => {
    const { before, certificate } = await refreshed();
    const { keyId } = before.certificate;
    const old = signing(0, keyId);
    const running = signing(0, keyId);
    await submit(world, old);
    await submit(world, running);
    const party = world.party(1);
    const order = await orderFor(world, running, [1, 2]);
    await party.call("federation.begin", { order });
    await decide(party, certificate);
    const relay = { requestId: requestIdOf(running.request), attempt: 1, messages: [] };
    expect(await codeOf(party.call("federation.relay", relay))).toBe("stale");
    expect(await codeOf(drive(world, old, [1, 2]))).toBe("stale");
    expect(await codeOf(submit(world, signing(0, keyId), [party]))).toBe("stale");
    // and there are none from the future
    expect(await codeOf(submit(world, signing(1, keyId), [world.party(2)]))).toBe("stale");
  });

  test("that were never accepted leave the old ones working", async () => {
    const { before, request } = await refreshed();
    for (const party of world.parties) await cancel(party, request);
    const use = signing(0, before.certificate.keyId);
    await submit(world, use);
    expect((await drive(world, use, [2, 3])).outcomes.size).toBe(2);
  });

  test("are stated as erased also when a crash came between", async () => {
    const { certificate } = await refreshed();
    const party = world.party(1);
    party.before = (operation) => {
      if (operation !== "erase") return;
      party.before = () => undefined;
      party.crash();
      throw new Error("gone");
    };
    expect(await codeOf(decide(party, certificate))).toBe("no fault: Error: gone");
    expect((await keyAt(party, certificate)).erasures).toEqual([]);
    expect((await sharesAt(party, certificate)).map(({ place }) => place)).toEqual([1]);
    await decide(party, certificate);
    expect((await keyAt(party, certificate)).erasures.length).toBe(1);
  });

  test("repair a server that lost its own", async () => {
    const { certificate: first } = await makeKey(world);
    const { keyId, threshold, holders } = first.certificate;
    const party = world.party(3);
    await party.store.transaction((tx) => tx.removeDocument("share", `${keyId}:0`));
    const request = world.request({ kind: "reshare", keyId, generation: 0, mode: "repair", threshold, holders });
    await submit(world, request);
    const certificate = acceptance(world, await drive(world, request, [1, 2, 3]));
    await accept(world, certificate);
    expect((await keyAt(party, certificate)).held).toBe(true);
    const use = signing(1, keyId);
    await submit(world, use);
    expect((await drive(world, use, [2, 3])).outcomes.size).toBe(2);
  });
});
