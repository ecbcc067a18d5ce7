import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import { signMessage } from "../../../src/protocol/federation/message.ts";
import { combineRelease } from "../../../src/protocol/federation/release.ts";
import { requestIdOf, type SignedRequest } from "../../../src/protocol/federation/request.ts";
import { openPartial } from "../../../src/protocol/federation/use.ts";
import { KEY, readStored } from "../../../src/server/federation/documents.ts";
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

const statusAt = async (party: Party, { request }: SignedRequest) =>
  (await party.call("federation.request", { requestId: requestIdOf(request) })).status;

/** Actions of the owner's log at one server, in order. */
const logAt = (party: Party, userId = world.owner.userId) =>
  party.store.transaction(async (tx) => {
    const filter = { after: 0, limit: 500, keyId: null, action: null, fromMs: null, untilMs: null, requestId: null };
    return (await tx.audit(userId, filter)).map(({ entry }) => `${entry.action} ${entry.status}`);
  });

const signBody = (certificate: { keyId: never; generation: number } | object, message = "m") =>
  ({
    kind: "sign",
    form: "message" as const,
    input: 0,
    ...(({ keyId, generation }: { keyId: never; generation: number }) => ({ keyId, generation }))(certificate as never),
    message: new TextEncoder().encode(message),
    amount: null,
    recipient: world.enclaves.recipient.publicKey,
  }) as const;

describe("an attempt", () => {
  test("begun twice with one order says the same twice; with another order it is refused", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const order = await orderFor(world, request, [1, 2, 3]);
    const party = world.party(1);
    const [once, twice] = await Promise.all([
      party.call("federation.begin", { order }),
      party.call("federation.begin", { order }),
    ]);
    expect(once).toEqual(twice);
    expect(once.messages.length).toBe(1);
    const other = await orderFor(world, request, [1, 2, 3]);
    expect(await codeOf(party.call("federation.begin", { order: other }))).toBe("stale");
    expect(await party.call("federation.begin", { order })).toEqual(once);
  });

  test("of two different orders at once exactly one begins", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const orders = await Promise.all([orderFor(world, request, [1, 2, 3]), orderFor(world, request, [1, 2, 3])]);
    const codes = await Promise.all(orders.map((order) => codeOf(world.party(1).call("federation.begin", { order }))));
    expect(codes.toSorted()).toEqual(["ok", "stale"]);
  });

  test("needs the requester's signature, this server in its roster, and a number that counts up", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const party = world.party(1);
    const good = await orderFor(world, request, [1, 2, 3]);
    const forged = { ...good, signature: good.signature.map((b) => b ^ 1) };
    expect(await codeOf(party.call("federation.begin", { order: forged }))).toBe("integrity");
    const without = await orderFor(world, request, [2, 3]);
    expect(await codeOf(party.call("federation.begin", { order: without }))).toBe("bad_input");
    expect(await statusAt(party, request)).toBe("pending");
    const third = await orderFor(world, request, [1, 2, 3], 3);
    expect(await codeOf(party.call("federation.begin", { order: third }))).toBe("ok");
    const second = await orderFor(world, request, [1, 2, 3], 2);
    expect(await codeOf(party.call("federation.begin", { order: second }))).toBe("stale");
    const { requestId } = third.order;
    for (const [attempt, code] of [
      [2, "stale"],
      [4, "conflict"],
    ] as const)
      expect(await codeOf(party.call("federation.relay", { requestId, attempt, messages: [] }))).toBe(code);
  });

  test("is lost with the enclave in every round; the next one makes the key", async () => {
    const party = world.party(2);
    let lost = 0;
    for (let after = 2; ; after++) {
      const request = world.request(generateBody());
      await submit(world, request);
      const requestId = requestIdOf(request.request);
      let asked = 0;
      party.before = (operation) => {
        if (operation !== "begin" && operation !== "relay") return;
        asked += 1;
        if (asked === after) party.crash();
      };
      const code = await codeOf(drive(world, request, [1, 2, 3]));
      party.before = () => undefined;
      const { status, attempt } = await party.call("federation.request", { requestId });
      if (code === "ok") break;
      lost += 1;
      expect([code, status, attempt]).toEqual(["unavailable", "pending", 1]);
      // the same order again does not begin the same attempt again
      const relay = party.call("federation.relay", { requestId, attempt, messages: [] });
      expect(await codeOf(relay)).toBe("unavailable");
      const driven = await drive(world, request, [1, 2, 3], 2);
      await accept(world, acceptance(world, driven));
      for (const one of world.parties) expect(await statusAt(one, request)).toBe("fulfilled");
    }
    // echo, shares, confirmation
    expect(lost).toBeGreaterThanOrEqual(3);
  });

  test("that is lost later leaves what an earlier one has signed", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const certificate = acceptance(world, await drive(world, request, [1, 2, 3]));
    const party = world.party(2);
    await party.call("federation.begin", { order: await orderFor(world, request, [1, 2, 3], 2) });
    expect(await statusAt(party, request)).toBe("committing");
    party.crash();
    const messages = { requestId: requestIdOf(request.request), attempt: 2, messages: [] };
    expect(await codeOf(party.call("federation.relay", messages))).toBe("unavailable");
    expect(await statusAt(party, request)).toBe("confirming");
    await accept(world, certificate);
    for (const one of world.parties) expect((await keyAt(one, certificate)).held).toBe(true);
  });

  test("whose answer was lost is answered from what was stored, also after a crash", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const { order, outcomes } = await drive(world, request, [1, 2, 3]);
    const party = world.party(1);
    party.crash();
    const again = await party.call("federation.begin", { order });
    expect(again.outcome).toEqual(outcomes.get(1) as NonNullable<typeof again.outcome>);
    const rounds = again.messages.map(({ message }) => message.payload.round);
    expect(rounds).toContain("confirm");
    // and the share that was kept makes the key live
    const certificate = acceptance(world, await drive(world, request, [1, 2, 3], 1, order));
    await accept(world, certificate);
    expect((await keyAt(party, certificate)).held).toBe(true);
  });

  test("is refused where the enclave refuses, and the log tells", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const party = world.party(3);
    party.before = (operation) => {
      if (operation === "begin") throw new Fault("denied", "the enclave says no");
    };
    const order = await orderFor(world, request, [1, 2, 3]);
    expect(await codeOf(party.call("federation.begin", { order }))).toBe("denied");
    const view = await party.call("federation.request", { requestId: requestIdOf(request.request) });
    expect([view.status, view.why]).toEqual(["pending", "the enclave says no"]);
    expect(await logAt(party)).toContain("federation.refusal denied");
  });

  test("leaves its trace in the owner's log: rounds, seals, and nothing twice", async () => {
    await makeKey(world);
    const log = await logAt(world.party(1));
    const count = (entry: string) => log.filter((one) => one === entry).length;
    expect(count("federation.round ok")).toBe(5);
    // once as pending, once as live
    expect(count("federation.seal ok")).toBe(2);
    expect(count("federation.refusal integrity")).toBe(0);
  });

  test("with a liar fails with its name and the proof; without it the request is fulfilled", async () => {
    await world.close();
    world = await federationWorld({ n: 5, threshold: 3 });
    const request = world.request(generateBody());
    await submit(world, request);
    const order = await orderFor(world, request, [1, 2, 3, 4, 5]);
    const requestId = requestIdOf(request.request);
    const party = world.party(1);
    await party.call("federation.begin", { order });
    const { messages } = await world.party(5).call("federation.begin", { order });
    const [{ message: said } = { message: undefined }] = messages;
    if (said?.payload.round !== "commit") throw new Error("no commit");
    const payload = { ...said.payload, sealing: world.enclaves.recipient.publicKey };
    const other = signMessage(world.enclaves.server(5).keys.signer, { ...said, payload });
    const told = { requestId, attempt: 1, messages: [...messages, other] };
    const reply = await party.call("federation.relay", told);
    expect([reply.outcome?.result, reply.outcome?.culprits.map(({ index }) => index)]).toEqual(["failed", [5]]);
    const view = await party.call("federation.request", { requestId });
    expect([view.status, view.why]).toEqual(["failed", "server 5: equivocation"]);
    expect(view.culprits[0]?.evidence.length).toBe(2);
    expect(await party.call("federation.relay", told)).toEqual(reply);
    expect(await logAt(party)).toContain("federation.refusal integrity");
    // one faulty server does not spoil what enough others can do
    const certificate = acceptance(world, await drive(world, request, [1, 2, 3, 4], 2));
    await accept(world, certificate);
    expect((await keyAt(party, certificate)).held).toBe(true);
    const after = await party.call("federation.request", { requestId });
    expect([after.status, after.culprits.map(({ index }) => index)]).toEqual(["fulfilled", [5]]);
  });

  test("takes no message that was altered on its way", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const order = await orderFor(world, request, [1, 2, 3]);
    const party = world.party(1);
    const begun = await party.call("federation.begin", { order });
    const others = await Promise.all([2, 3].map((i) => world.party(i).call("federation.begin", { order })));
    const altered = others
      .flatMap((one) => one.messages)
      .map((one) => ({ ...one, signature: one.signature.map((b) => b ^ 1) }));
    const told = { requestId: requestIdOf(request.request), attempt: 1, messages: altered };
    expect(await party.call("federation.relay", told)).toEqual(begun);
    expect(await statusAt(party, request)).toBe("committing");
  });

  test("after a cancellation does not begin", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const order = await orderFor(world, request, [1, 2, 3]);
    const party = world.party(1);
    await party.call("federation.begin", { order });
    const requestId = requestIdOf(request.request);
    await party.call("federation.decide", { decision: cancellation(world, requestId), certificate: null });
    expect(await codeOf(party.call("federation.relay", { requestId, attempt: 1, messages: [] }))).toBe("conflict");
    expect(await codeOf(party.call("federation.begin", { order }))).toBe("conflict");
    const next = await orderFor(world, request, [1, 2, 3], 2);
    expect(await codeOf(party.call("federation.begin", { order: next }))).toBe("conflict");
  });
});

describe("a use", () => {
  test("may be attempted again after it was done, among others; its nonces are others", async () => {
    const { certificate } = await makeKey(world);
    const request = world.request(signBody(certificate.certificate));
    await submit(world, request);
    const first = await drive(world, request, [1, 2]);
    expect(await statusAt(world.party(1), request)).toBe("fulfilled");
    const second = await drive(world, request, [1, 3], 2);
    expect([...second.outcomes.values()].map(({ result }) => result)).toEqual(["done", "done"]);
    const noncesOf = (driven: typeof first) =>
      driven.messages.flatMap(({ message: { from, payload } }) =>
        from === 1 && payload.round === "nonces" ? [payload.hiding.toHex()] : [],
      );
    expect(noncesOf(first)).not.toEqual(noncesOf(second));
    expect(
      await codeOf(world.party(1).call("federation.begin", { order: await orderFor(world, request, [1, 2], 9) })),
    ).toBe("replayed");
  });

  test("that is done cannot be cancelled; one that has not begun can", async () => {
    const { certificate } = await makeKey(world);
    const [done, open] = [
      world.request(signBody(certificate.certificate)),
      world.request(signBody(certificate.certificate)),
    ];
    for (const one of [done, open]) await submit(world, one);
    await drive(world, done, [1, 2]);
    const cancel = (request: SignedRequest) =>
      world.party(1).call("federation.decide", {
        decision: cancellation(world, requestIdOf(request.request)),
        certificate: null,
      });
    expect(await codeOf(cancel(done))).toBe("conflict");
    expect((await cancel(open)).status).toBe("cancelled");
    expect(await codeOf(drive(world, open, [1, 2]))).toBe("conflict");
  });

  test("is refused where this server has no share", async () => {
    const { certificate } = await makeKey(world);
    const party = world.party(1);
    await party.store.transaction((tx) => tx.removeDocument("share", `${certificate.certificate.keyId}:0`));
    const request = world.request(signBody(certificate.certificate));
    await submit(world, request);
    expect(await codeOf(drive(world, request, [1, 2]))).toBe("not_found");
    expect((await keyAt(party, certificate)).held).toBe(false);
  });

  test("that lets shares out marks the key before the first one leaves, for good", async () => {
    const { certificate } = await makeKey(world, { ...generateBody("bytes"), length: 48 });
    const { keyId, generation } = certificate.certificate;
    const request = world.request({
      kind: "release",
      form: "message" as const,
      input: 0,
      keyId,
      generation,
      purpose: "retrieve",
      message: null,
      amount: null,
      recipient: world.enclaves.recipient.publicKey,
    });
    await submit(world, request);
    const party = world.party(1);
    // the mark is there when the enclave's answer is stored: a store that fails lets nothing out
    const order = await orderFor(world, request, [1, 2]);
    expect((await keyAt(party, certificate)).released).toBe(false);
    const reply = await party.call("federation.begin", { order });
    expect(reply.messages.map(({ message }) => message.payload.round)).toEqual(["partial"]);
    expect((await keyAt(party, certificate)).released).toBe(true);
    expect((await keyAt(world.party(2), certificate)).released).toBe(false);
    expect(await logAt(party)).toContain("federation.release ok");
    const other = await world.party(2).call("federation.begin", { order });
    const use = {
      manifest: world.enclaves.manifest,
      certificate: certificate.certificate,
      request: request.request,
      order: order.order,
    };
    const partials = await Promise.all(
      [...reply.messages, ...other.messages].map((m) => openPartial(use, world.enclaves.recipient, m)),
    );
    expect(combineRelease({ ...use, partials, ownerScalar: null }).result).toBe("combined");
    const stored = await party.store.transaction((tx) => readStored(tx, KEY, keyId));
    expect(stored?.value.released).toBe(true);
  });
});
