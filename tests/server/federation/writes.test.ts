import { afterEach, beforeEach, expect, test } from "bun:test";
import { requestIdOf, type SignedRequest } from "../../../src/protocol/federation/request.ts";
import { REQUEST, readStored } from "../../../src/server/federation/documents.ts";
import { type FederationWorld, federationWorld, generateBody, orderFor, submit } from "./world.ts";

let world: FederationWorld;
beforeEach(async () => {
  world = await federationWorld();
});
afterEach(() => world.close());

/** How often the record of a request was written at server 1. */
const writesOf = ({ request }: SignedRequest) =>
  world.party(1).store.transaction(async (tx) => (await readStored(tx, REQUEST, requestIdOf(request)))?.version ?? 0);

test("an exchange writes a request once: where nothing changes, nothing is written", async () => {
  const request = world.request(generateBody());
  await submit(world, request);
  expect(await writesOf(request)).toBe(1);
  const order = await orderFor(world, request, [1, 2, 3]);
  const begun = await Promise.all([1, 2, 3].map((index) => world.party(index).call("federation.begin", { order })));
  // the order before the enclave says anything, then what it has said
  expect(await writesOf(request)).toBe(3);
  const { requestId, attempt } = order.order;
  const relay = (messages: (typeof begun)[number]["messages"]) =>
    world.party(1).call("federation.relay", { requestId, attempt, messages });
  await relay([]);
  expect(await writesOf(request)).toBe(3);
  await relay(begun.slice(1).flatMap(({ messages }) => messages));
  expect(await writesOf(request)).toBe(4);
});
