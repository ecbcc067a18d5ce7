import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { verifySignature } from "../../../src/crypto/identity.ts";
import { verifyCertificate } from "../../../src/protocol/federation/certificate.ts";
import { requestIdOf } from "../../../src/protocol/federation/request.ts";
import { completeSignature } from "../../../src/protocol/federation/signing.ts";
import { openPartial } from "../../../src/protocol/federation/use.ts";
import {
  accept,
  acceptance,
  drive,
  type FederationWorld,
  federationWorld,
  generateBody,
  keyAt,
  makeKey,
  submit,
} from "./world.ts";

let world: FederationWorld;
beforeEach(async () => {
  world = await federationWorld();
});
afterEach(() => world.close());

const statuses = async (request: Parameters<typeof requestIdOf>[0]) => {
  const requestId = requestIdOf(request);
  return Promise.all(world.parties.map(async (p) => (await p.call("federation.request", { requestId })).status));
};

describe("a key of three servers", () => {
  test("is made, accepted and listed at each with one certificate", async () => {
    const request = world.request(generateBody());
    const views = await submit(world, request);
    expect(views.map(({ status }) => status)).toEqual(["pending", "pending", "pending"]);
    const driven = await drive(world, request, [1, 2, 3]);
    expect([...driven.outcomes.values()].map(({ result }) => result)).toEqual(["confirmed", "confirmed", "confirmed"]);
    expect(await statuses(request.request)).toEqual(["confirming", "confirming", "confirming"]);
    const certificate = acceptance(world, driven);
    verifyCertificate(certificate, world.enclaves.manifest);
    await accept(world, certificate);
    expect(await statuses(request.request)).toEqual(["fulfilled", "fulfilled", "fulfilled"]);
    for (const party of world.parties) {
      const { items, more } = await party.call("federation.keys", {
        federationId: world.enclaves.manifest.federationId,
        after: null,
      });
      expect([items.length, more]).toEqual([1, false]);
      expect(items[0]?.certificate).toEqual(certificate);
      expect([items[0]?.held, items[0]?.released, items[0]?.frozen]).toEqual([true, false, false]);
    }
  });

  test("signs with any two of them", async () => {
    const { certificate } = await makeKey(world);
    for (const roster of [
      [1, 2],
      [1, 3],
      [2, 3],
    ]) {
      const message = new TextEncoder().encode(`by ${roster}`);
      const { keyId, generation } = certificate.certificate;
      const { publicKey: recipient } = world.enclaves.recipient;
      const request = world.request({
        kind: "sign",
        form: "message" as const,
        input: 0,
        keyId,
        generation,
        message,
        amount: null,
        recipient,
      });
      await submit(
        world,
        request,
        roster.map((index) => world.party(index)),
      );
      const { order, messages, outcomes } = await drive(world, request, roster);
      expect([...outcomes.values()].map(({ result }) => result)).toEqual(["done", "done"]);
      const use = {
        manifest: world.enclaves.manifest,
        certificate: certificate.certificate,
        request: request.request,
        order: order.order,
      };
      const of = (round: string) => messages.filter((m) => m.message.payload.round === round);
      const partials = await Promise.all(of("partial").map((m) => openPartial(use, world.enclaves.recipient, m)));
      const result = completeSignature({ ...use, nonces: of("nonces"), partials, owner: null });
      if (result.result !== "signed") throw new Error("not signed");
      expect(verifySignature(certificate.certificate.publicKey, message, result.signature)).toBe(true);
    }
    expect((await keyAt(world.party(1), certificate)).released).toBe(false);
  });
});
