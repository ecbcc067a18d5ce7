import { afterEach, beforeEach, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import type { FederatedKeyId, FederatedRequestId } from "../../../src/ids.ts";
import type { SignedCertificate } from "../../../src/protocol/federation/certificate.ts";
import {
  requestIdOf,
  type SignedOrder,
  type SignedRequest,
  signDecision,
} from "../../../src/protocol/federation/request.ts";
import { signVote } from "../../../src/protocol/federation/votes.ts";
import { type FederationWorld, federationWorld, generateBody, makeKey, orderFor, submit } from "./world.ts";

/**
 * Another member (docs/threat-model.md, adversary E), with every federated operation of a session: requests and keys
 * of hers and ones that nobody has are answered alike, in code and text, and nothing of hers moves.
 */

let world: FederationWorld;
let made: { readonly request: SignedRequest; readonly certificate: SignedCertificate };
let open: SignedRequest;
let order: SignedOrder;

beforeEach(async () => {
  world = await federationWorld();
  made = await makeKey(world);
  open = world.request(generateBody());
  await submit(world, open);
  order = await orderFor(world, open, [1, 2, 3]);
});
afterEach(() => world.close());

const NOBODYS = "ab".repeat(32);

async function said(work: Promise<unknown>): Promise<readonly [string, string]> {
  try {
    return ["ok", JSON.stringify(await work)];
  } catch (error) {
    if (error instanceof Fault) return [error.code, error.message];
    throw error;
  }
}

const server = () => world.party(1);
const ask = <N extends Parameters<ReturnType<typeof server>["call"]>[0]>(name: N, input: never) =>
  said(server().call(name, input, world.neighbour));
/** Everything that is hers, as the server shows it to her. */
const hers = async () =>
  JSON.stringify([
    await server().call("federation.request", { requestId: requestIdOf(open.request) }),
    await server().call("federation.key", { keyId: made.certificate.certificate.keyId }),
  ]);

test("hers and nobody's are answered alike", async () => {
  const before = await hers();
  const { federationId } = open.request;
  const id = requestIdOf(open.request);
  const { keyId } = made.certificate.certificate;
  const request = (requestId: string) => ask("federation.request", { requestId } as never);
  const relay = (requestId: string) => ask("federation.relay", { requestId, attempt: 1, messages: [] } as never);
  const key = (of: string) => ask("federation.key", { keyId: of } as never);
  const decide = (requestId: FederatedRequestId, signer = world.neighbour.request) => {
    const decision = { requestId, verdict: "cancel", attempt: 0, certificateHash: null } as const;
    return ask("federation.decide", { decision: signDecision(signer, decision), certificate: null } as never);
  };
  const vote = (requestId: string) => {
    const { approval } = world.neighbour;
    const times = { castAtMs: world.enclaves.nowMs, expiresAtMs: world.enclaves.nowMs + 1_000 };
    const what = { federationId, epoch: 1, verdict: "approve", policyHash: new Uint8Array(32), reason: "" } as const;
    const of = { ...what, ...times, requestId: requestId as FederatedRequestId, key: approval.publicKey };
    return ask("federation.vote", { vote: signVote(approval, of) } as never);
  };
  for (const one of [request, relay, vote]) expect(await one(id)).toEqual(await one(NOBODYS));
  expect(await decide(id)).toEqual(await decide(NOBODYS as FederatedRequestId));
  // also with her own words, which went through other servers and clients
  expect(await decide(id, world.owner.request)).toEqual(
    await decide(NOBODYS as FederatedRequestId, world.owner.request),
  );
  expect(await key(keyId)).toEqual(await key(NOBODYS));
  const elsewhere = { ...order, order: { ...order.order, requestId: NOBODYS as FederatedRequestId } };
  expect(await ask("federation.begin", { order } as never)).toEqual(
    await ask("federation.begin", { order: elsewhere } as never),
  );
  for (const answer of [await request(id), await relay(id), await key(keyId), await vote(id), await decide(id)])
    expect(answer[0]).toBe("not_found");
  expect(await hers()).toBe(before);
});

test("a request of hers cannot be handed in again by another", async () => {
  const fresh = world.request(generateBody());
  const submitted = (request: SignedRequest) => ask("federation.submit", { request, label: null } as never);
  const before = await hers();
  expect(await submitted(open)).toEqual(await submitted(fresh));
  expect((await submitted(fresh))[0]).toBe("denied");
  expect(await hers()).toBe(before);
});

test("lists show nothing of hers, wherever they begin", async () => {
  const { federationId } = open.request;
  const id = requestIdOf(open.request);
  for (const role of ["requester", "approver"]) {
    for (const after of [null, id, NOBODYS]) {
      const answer = await ask("federation.requests", { federationId, role, after } as never);
      if (after === null) expect(answer).toEqual(["ok", '{"items":[],"more":false}']);
      expect(answer[1]).not.toContain(id);
    }
    expect(await ask("federation.requests", { federationId, role, after: id } as never)).toEqual(
      await ask("federation.requests", { federationId, role, after: NOBODYS } as never),
    );
  }
  const { keyId } = made.certificate.certificate;
  const keys = (after: string | null) => ask("federation.keys", { federationId, after } as never);
  expect(await keys(null)).toEqual(["ok", '{"items":[],"more":false}']);
  expect(await keys(keyId)).toEqual(await keys(NOBODYS));
  expect((await keys(keyId))[1]).not.toContain(keyId);
});

test("a certificate of hers, brought by another, tells nothing and changes nothing", async () => {
  const before = await hers();
  const { certificate } = made;
  const unknown = { ...certificate, certificate: { ...certificate.certificate, keyId: NOBODYS as FederatedKeyId } };
  const inform = (of: SignedCertificate) => ask("federation.inform", { certificate: of, erasures: [] } as never);
  expect((await inform(certificate))[0]).not.toBe("ok");
  expect((await inform(unknown))[0]).not.toBe("ok");
  expect(await hers()).toBe(before);
});
