import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { concat } from "../../../src/crypto/bytes.ts";
import type { FederatedKeyId, PolicyId } from "../../../src/ids.ts";
import { signManifest } from "../../../src/protocol/federation/manifest.ts";
import {
  type RequestBody,
  requestIdOf,
  type SignedRequest,
  signDecision,
} from "../../../src/protocol/federation/request.ts";
import { FEDERATION, putStored, readStored } from "../../../src/server/federation/documents.ts";
import { evmBytes, evmPayment, psbtOf } from "../../support/transactions.ts";
import {
  cancellation,
  codeOf,
  type FederationWorld,
  federationWorld,
  generateBody,
  makeKey,
  orderFor,
  type Person,
  submit,
} from "./world.ts";

let world: FederationWorld;
beforeEach(async () => {
  world = await federationWorld({ limits: { openRequests: 20 } });
});
afterEach(() => world.close());

const UNKNOWN = "f".repeat(64);
const list = async (who: Person, after: string | null = null) => {
  const { federationId } = world.enclaves.manifest;
  const input = { federationId, role: "requester", after: after as never } as const;
  const { items, more } = await world.party(1).call("federation.requests", input, who);
  return { ids: items.map(({ requestId }) => requestId), more };
};

describe("a request", () => {
  test("is kept once, whoever sends it how often", async () => {
    const request = world.request(generateBody());
    const party = world.party(1);
    const label = new Uint8Array([1, 2, 3]);
    const [one, two] = await Promise.all([
      party.call("federation.submit", { request, label }),
      party.call("federation.submit", { request, label }),
    ]);
    expect(one).toEqual(two);
    expect([one.status, one.label, one.attempt]).toEqual(["pending", label, 0]);
    expect((await list(world.owner)).ids).toEqual([one.requestId]);
    // also when its time is over meanwhile
    world.enclaves.nowMs += 700_000;
    expect(await party.call("federation.submit", { request, label })).toEqual(one);
  });

  test("is signed by the account that brings it", async () => {
    const request = world.request(generateBody());
    const party = world.party(1);
    const bring = (given: SignedRequest, who?: Person) =>
      codeOf(party.call("federation.submit", { request: given, label: null }, who));
    expect(await bring({ ...request, signature: request.signature.map((b) => b ^ 1) })).toBe("integrity");
    expect(await bring(request, world.neighbour)).toBe("denied");
    await submit(world, request);
    expect(await bring(request, world.neighbour)).toBe("denied");
    expect((await list(world.neighbour)).ids).toEqual([]);
  });

  test("is of the newest epoch, of now, and for a day at most", async () => {
    const { nowMs } = world.enclaves;
    const party = world.party(1);
    const code = (change: Parameters<typeof world.request>[1]) =>
      codeOf(party.call("federation.submit", { request: world.request(generateBody(), change), label: null }));
    const day = 86_400_000;
    expect(await code({ epoch: 2 })).toBe("stale");
    expect(await code({ createdAtMs: nowMs + 61_000 })).toBe("bad_input");
    expect(await code({ createdAtMs: nowMs - 2 * day, expiresAtMs: nowMs - 1 })).toBe("bad_input");
    expect(await code({ expiresAtMs: nowMs })).toBe("bad_input");
    expect(await code({ expiresAtMs: nowMs + day + 1 })).toBe("bad_input");
    expect(await code({ createdAtMs: nowMs + 60_000, expiresAtMs: nowMs + day })).toBe("ok");
    expect(await code({ federationId: UNKNOWN as never })).toBe("not_found");
  });

  test("ends with its epoch", async () => {
    const request = world.request(generateBody());
    const [party] = world.parties;
    if (!party) throw new Error("no server");
    await submit(world, request, [party]);
    const { manifest } = world.enclaves;
    const next = { ...manifest, epoch: 2, previous: new Uint8Array(32).fill(1) };
    const signatures = world.enclaves.servers.map(({ keys }) => signManifest(keys.signer, next));
    await party.store.transaction(async (tx) => {
      const held = await readStored(tx, FEDERATION, manifest.federationId);
      if (!held) throw new Error("no federation");
      const epochs = [...held.value.epochs, { manifest: next, signatures }];
      await putStored(tx, FEDERATION, { ...held, value: { ...held.value, epochs } }, held.version);
    });
    const order = await orderFor(world, request, [1, 2, 3]);
    expect(await codeOf(party.call("federation.begin", { order }))).not.toBe("ok");
  });

  test("has a body that makes sense", async () => {
    const { certificate } = await makeKey(world);
    const { certificate: bytes } = await makeKey(world, { ...generateBody("bytes"), length: 8 });
    const use = { keyId: certificate.certificate.keyId, generation: 0, amount: null };
    const recipient = world.enclaves.recipient.publicKey;
    const sign = {
      ...use,
      kind: "sign",
      form: "message" as const,
      input: 0,
      message: new Uint8Array(1),
      recipient,
    } as const;
    const release = {
      ...use,
      kind: "release",
      form: "message" as const,
      input: 0,
      purpose: "export",
      message: null,
      recipient,
    } as const;
    const reshare = { kind: "reshare", keyId: use.keyId, generation: 0, threshold: 2, holders: [1, 2, 3] } as const;
    const owner = { point: certificate.certificate.publicKey, proof: new Uint8Array(64) };
    const cases: readonly [string, RequestBody, string][] = [
      ["a length that is no key's", { ...generateBody(), length: 31 }, "bad_input"],
      ["shared without a policy", { ...generateBody(), control: "shared" }, "bad_input"],
      ["a policy without shared", { ...generateBody(), policy: UNKNOWN as PolicyId }, "denied"],
      ["an unknown policy", { ...generateBody(), control: "shared", policy: UNKNOWN as PolicyId }, "denied"],
      ["self without a part", { ...generateBody(), custody: "self" }, "bad_input"],
      ["a part without self", { ...generateBody(), owner }, "bad_input"],
      ["a part that is not the owner's", { ...generateBody(), custody: "self", owner }, "integrity"],
      ["an unknown key", { ...sign, keyId: UNKNOWN as FederatedKeyId }, "not_found"],
      ["an unknown key to let out", { ...release, keyId: UNKNOWN as FederatedKeyId }, "not_found"],
      ["an unknown key to reshare", { ...reshare, mode: "refresh", keyId: UNKNOWN as FederatedKeyId }, "not_found"],
      ["a generation to come", { ...sign, generation: 1 }, "stale"],
      ["bytes that sign", { ...sign, keyId: bytes.certificate.keyId }, "bad_input"],
      ["a key that is retrieved", { ...release, purpose: "retrieve" }, "bad_input"],
      [
        "an Ed25519 key that is let out to sign",
        { ...release, purpose: "sign", message: new Uint8Array(1) },
        "bad_input",
      ],
      ["a digest for Ed25519", { ...sign, form: "digest", message: new Uint8Array(32) }, "bad_input"],
      ["an EVM transaction for Ed25519", { ...sign, form: "evm", message: evmBytes(evmPayment()) }, "bad_input"],
      ["an input of a message", { ...sign, input: 1 }, "bad_input"],
      ["a release of a digest that signs nothing", { ...release, form: "digest" }, "bad_input"],
      ["a release of an input that signs nothing", { ...release, input: 1 }, "bad_input"],
      ["a message that is not signed", { ...release, message: new Uint8Array(1) }, "bad_input"],
      ["a refresh of fewer", { ...reshare, mode: "refresh", holders: [1, 2] }, "bad_input"],
      ["a refresh to another threshold", { ...reshare, mode: "refresh", threshold: 3 }, "bad_input"],
      ["a repair that leaves one out", { ...reshare, mode: "repair", holders: [1, 2] }, "bad_input"],
      ["a holder that is no member", { ...reshare, mode: "reshare", holders: [1, 2, 4] }, "bad_input"],
      ["one holder twice", { ...reshare, mode: "reshare", holders: [1, 2, 2] }, "bad_input"],
      ["a threshold of half", { ...reshare, mode: "reshare", threshold: 2, holders: [1, 2, 3, 4] }, "bad_input"],
      ["a sound use", sign, "ok"],
      ["a sound release", release, "ok"],
      ["a sound reshare", { ...reshare, mode: "reshare", threshold: 3 }, "ok"],
    ];
    for (const [what, body, code] of cases) {
      const input = { request: world.request(body), label: null };
      expect([what, await codeOf(world.party(1).call("federation.submit", input))]).toEqual([what, code]);
    }
  });

  test("to sign a transaction is read: its bytes, its key, and the amount that is declared", async () => {
    const { certificate } = await makeKey(world, { ...generateBody("schnorr"), length: 32 });
    const { certificate: ecdsa } = await makeKey(world, { ...generateBody("secp256k1"), length: 32 });
    const script = concat(Uint8Array.of(0x51, 0x20), certificate.certificate.publicKey.subarray(1));
    const pay = (to: Uint8Array) =>
      psbtOf({ inputs: [{ script: to, amount: 9_000n }], outputs: [{ script: new Uint8Array(22), amount: 8_000n }] });
    const common = { generation: 0, input: 0, amount: null, recipient: world.enclaves.recipient.publicKey };
    const { keyId } = certificate.certificate;
    const sign = { ...common, kind: "sign", form: "bitcoin", keyId, message: pay(script).toPSBT() } as const;
    const id = ecdsa.certificate.keyId;
    const message = evmBytes(evmPayment());
    const release = { ...common, kind: "release", purpose: "sign", form: "evm", keyId: id, message } as const;
    const cases: readonly [string, RequestBody, string][] = [
      ["a sound PSBT", sign, "ok"],
      ["its amount", { ...sign, amount: { unit: "sat", value: "9000" } }, "ok"],
      ["another amount", { ...sign, amount: { unit: "sat", value: "1" } }, "bad_input"],
      ["another key's PSBT", { ...sign, message: pay(new Uint8Array(22)).toPSBT() }, "bad_input"],
      ["an input that it has not", { ...sign, input: 1 }, "bad_input"],
      ["a byte more", { ...sign, message: concat(sign.message, Uint8Array.of(0)) }, "bad_input"],
      ["an EVM transaction by a Taproot key", { ...sign, form: "evm", message }, "bad_input"],
      ["a sound EVM transaction", release, "ok"],
      ["another amount of it", { ...release, amount: { unit: "wei.1", value: "1" } }, "bad_input"],
      ["half of it", { ...release, message: message.subarray(1) }, "bad_input"],
    ];
    for (const [what, body, code] of cases) {
      const input = { request: world.request(body), label: null };
      expect([what, await codeOf(world.party(1).call("federation.submit", input))]).toEqual([what, code]);
    }
  });

  test("is one of a bounded number that are open; ended ones do not count", async () => {
    const [party] = world.parties;
    if (!party) throw new Error("no server");
    const open: SignedRequest[] = [];
    const bring = () => {
      const request = world.request(generateBody());
      open.push(request);
      return codeOf(party.call("federation.submit", { request, label: null }));
    };
    for (let i = 0; i < 20; i++) expect(await bring()).toBe("ok");
    expect(await bring()).toBe("rate_limited");
    const [first] = open;
    if (!first) throw new Error("none");
    const decision = cancellation(world, requestIdOf(first.request));
    await party.call("federation.decide", { decision, certificate: null });
    expect(await bring()).toBe("ok");
    // newest first, in pages, each once
    world.enclaves.nowMs += 1;
    const page = await list(world.owner);
    expect([page.ids.length, page.more]).toEqual([16, true]);
    const rest = await list(world.owner, page.ids.at(-1) as string);
    expect([rest.ids.length, rest.more]).toEqual([5, false]);
    expect(new Set([...page.ids, ...rest.ids]).size).toBe(21);
  });
});

describe("a neighbour", () => {
  test("gets for another's request and key what it gets for none", async () => {
    const { request, certificate } = await makeKey(world);
    const open = world.request(generateBody());
    await submit(world, open);
    const party = world.party(1);
    const { neighbour } = world;
    const order = await orderFor(world, open, [1, 2, 3]);
    const answers = async (requestId: string, keyId: string) => {
      const id = requestId as never;
      const decision = signDecision(neighbour.request, {
        requestId: id,
        verdict: "cancel",
        attempt: 0,
        certificateHash: null,
      });
      const told = async (work: Promise<unknown>) =>
        work.then(
          () => "ok",
          (error: Error) => `${(error as unknown as { code: string }).code}: ${error.message}`,
        );
      const other = { order: { ...order.order, requestId: id }, signature: order.signature };
      const use: RequestBody = {
        kind: "sign",
        form: "message" as const,
        input: 0,
        keyId: keyId as never,
        generation: 0,
        message: new Uint8Array(1),
        amount: null,
        recipient: new Uint8Array(32).fill(9),
      };
      const own = world.enclaves.request(use, {}, neighbour.request);
      return [
        await told(party.call("federation.request", { requestId: id }, neighbour)),
        await told(party.call("federation.begin", { order: other }, neighbour)),
        await told(party.call("federation.relay", { requestId: id, attempt: 1, messages: [] }, neighbour)),
        await told(party.call("federation.decide", { decision, certificate: null }, neighbour)),
        await told(party.call("federation.key", { keyId: keyId as never }, neighbour)),
        await told(party.call("federation.submit", { request: own, label: null }, neighbour)),
        await told(
          party.call(
            "federation.requests",
            { federationId: world.enclaves.manifest.federationId, role: "requester", after: id },
            neighbour,
          ),
        ),
        await told(
          party.call(
            "federation.keys",
            { federationId: world.enclaves.manifest.federationId, after: keyId as never },
            neighbour,
          ),
        ),
      ];
    };
    const none = await answers(UNKNOWN, UNKNOWN);
    expect(none.every((answer) => answer.startsWith("not_found: "))).toBe(true);
    const { keyId } = certificate.certificate;
    expect(await answers(requestIdOf(open.request), keyId)).toEqual(none);
    expect(await answers(requestIdOf(request.request), keyId)).toEqual(none);
  });
});
