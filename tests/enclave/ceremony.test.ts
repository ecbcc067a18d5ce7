import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { hpkeSeal } from "../../src/crypto/hpke.ts";
import { verifySignature } from "../../src/crypto/identity.ts";
import type { EnclaveOutput } from "../../src/enclave/frames.ts";
import { openLive } from "../../src/enclave/sealedshare.ts";
import type { Fault } from "../../src/errors.ts";
import type { Certificate, SignedCertificate } from "../../src/protocol/federation/certificate.ts";
import { certificateHash } from "../../src/protocol/federation/certificate.ts";
import { groupOf, interpolate } from "../../src/protocol/federation/groups.ts";
import { FEDERATED_TYPES } from "../../src/protocol/federation/kinds.ts";
import { type SignedMessage, signMessage } from "../../src/protocol/federation/message.ts";
import {
  contributionInfo,
  requestIdOf,
  type SignedOrder,
  type SignedRequest,
  signDecision,
} from "../../src/protocol/federation/request.ts";
import { completeSignature } from "../../src/protocol/federation/signing.ts";
import { assembleCertificate } from "../../src/protocol/federation/transcript.ts";
import { openPartial } from "../../src/protocol/federation/use.ts";
import { type EnclaveWorld, enclaveWorld, type PlantedKey, purposeOf } from "../support/enclaveworld.ts";

type Step = EnclaveOutput<"begin">;
let world: EnclaveWorld;
beforeEach(async () => {
  world = await enclaveWorld();
});
afterEach(() => world.close());

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (error: Fault) => error.code,
  );

/** An order with 32 bytes, or what `of` gives, sealed to each of `givers`. */
async function orderOf(
  request: SignedRequest,
  roster: readonly number[],
  attempt = 1,
  givers = roster,
  of?: (index: number) => Uint8Array,
) {
  const requestId = requestIdOf(request.request);
  const contributions = await Promise.all(
    givers.map(async (index) => ({
      index,
      sealed: await hpkeSeal(
        world.server(index).keys.hpke.publicKey,
        contributionInfo(requestId, attempt, index),
        of?.(index) ?? world.random.bytes(32),
        (length) => world.random.bytes(length),
      ),
    })),
  );
  return world.order(request, roster, attempt, { contributions });
}

interface Before {
  readonly certificate: SignedCertificate;
  readonly sealed: ReadonlyMap<number, Uint8Array>;
}

const beginAt = (index: number, request: SignedRequest, order: SignedOrder, before: Before | null = null) =>
  world.server(index).enclave.handle("begin", {
    evidence: world.evidence(
      request,
      null,
      before ? { certificate: before.certificate, certificateManifest: world.signed } : {},
    ),
    order,
    share: before?.sealed.get(index) ?? null,
  });
const relayAt = (index: number, { order }: SignedOrder, messages: readonly SignedMessage[]) =>
  world.server(index).enclave.handle("relay", { requestId: order.requestId, attempt: order.attempt, messages });

/** Relays everything to everyone until nobody says anything new. */
async function relayAll(order: SignedOrder, first: readonly Step[], alter = (_: SignedMessage) => _): Promise<Step[]> {
  let steps = [...first];
  for (let round = 0; round < 8; round++) {
    const all = steps.flatMap((step) => step.messages).map(alter);
    steps = await Promise.all(order.order.roster.map((index) => relayAt(index, order, all)));
    if (steps.every(({ outcome }) => outcome !== null)) break;
  }
  return steps;
}

async function accept(
  request: SignedRequest,
  order: SignedOrder,
  steps: readonly Step[],
  before: Certificate | null = null,
): Promise<Before> {
  const views = steps.flatMap(({ outcome }) => (outcome?.certificate ? [{ certificate: outcome.certificate }] : []));
  const messages = steps.flatMap((step) => step.messages);
  const made = assembleCertificate(
    { manifest: world.manifest, request: request.request, order: order.order, before },
    views,
    messages,
  );
  if (!made) throw new Error(`no certificate: ${JSON.stringify(steps.map((s) => s.outcome?.result))}`);
  const certificate: SignedCertificate = {
    ...made,
    acceptance: signDecision(world.owner, {
      requestId: made.certificate.requestId,
      verdict: "accept",
      attempt: made.certificate.attempt,
      certificateHash: certificateHash(made.certificate),
    }),
  };
  const sealed = new Map<number, Uint8Array>();
  for (const [i, index] of order.order.roster.entries()) {
    const pending = steps[i]?.sealed;
    if (!pending) continue;
    const confirmed = await world
      .server(index)
      .enclave.handle("confirm", { manifest: world.signed, certificate, sealed: pending });
    sealed.set(index, confirmed.sealed);
  }
  return { certificate, sealed };
}

async function generate(type: (typeof FEDERATED_TYPES)[number] = "ed25519", roster = [1, 2, 3]) {
  const request = world.request({ kind: "generate", ...purposeOf(type) });
  const order = await orderOf(request, roster);
  const steps = await relayAll(order, await Promise.all(roster.map((index) => beginAt(index, request, order))));
  return { request, order, steps, key: await accept(request, order, steps) };
}

/** Opens shares as only their enclaves can, and puts the key together. */
function secretOf({ certificate: { certificate: c }, sealed }: Before, indices: readonly number[]): bigint {
  const shares = indices.map((index) => ({
    index,
    share: openLive(world.server(index).keys, c, sealed.get(index) ?? new Uint8Array(0)),
  }));
  return interpolate(groupOf(c.type), shares);
}

describe("a generation", () => {
  test.each([...FEDERATED_TYPES])("of %s ends with one certificate and a sealed share at each server", async (type) => {
    const { steps, key } = await generate(type);
    expect(new Set(steps.map(({ outcome }) => certificateHash(outcome?.certificate as Certificate).toHex())).size).toBe(
      1,
    );
    const c = key.certificate.certificate;
    const group = groupOf(type);
    for (const pair of [
      [1, 2],
      [2, 3],
      [1, 3],
    ]) {
      expect(group.encodePoint(group.base.multiply(secretOf(key, pair)))).toEqual(c.publicKey);
    }
  });

  test("a key that was made signs", async () => {
    const { key } = await generate();
    const planted: PlantedKey = {
      certificate: key.certificate.certificate,
      signed: key.certificate,
      sealed: key.sealed,
      shares: new Map(),
    };
    const request = world.request(world.signBody(planted));
    const order = world.order(request, [2, 3]);
    const begun = await Promise.all([2, 3].map((index) => beginAt(index, request, order, key)));
    const steps = await relayAll(order, begun);
    expect(steps.map(({ outcome }) => outcome?.result)).toEqual(["done", "done"]);
    const use = {
      manifest: world.manifest,
      certificate: planted.certificate,
      request: request.request,
      order: order.order,
    };
    const said = steps.flatMap((step) => step.messages);
    const of = (round: string) => said.filter(({ message }) => message.payload.round === round);
    const partials = await Promise.all(of("partial").map((m) => openPartial(use, world.recipient, m)));
    const result = completeSignature({ ...use, nonces: of("nonces"), partials, owner: null });
    if (result.result !== "signed") throw new Error("not signed");
    const message = new TextEncoder().encode("message");
    expect(verifySignature(planted.certificate.publicKey, message, result.signature)).toBe(true);
  });

  test("without the requester's bytes, or with bytes that are sealed to another, nothing begins", async () => {
    const request = world.request({ kind: "generate", ...purposeOf("ed25519") });
    expect(await codeOf(beginAt(1, request, await orderOf(request, [1, 2, 3], 1, [2, 3])))).toBe("bad_input");
    const order = await orderOf(request, [1, 2, 3]);
    const [one, two, three] = order.order.contributions;
    if (!one || !two || !three) throw new Error("contributions");
    const swapped = world.order(request, [1, 2, 3], 1, { contributions: [{ ...one, sealed: two.sealed }, two, three] });
    expect(await codeOf(beginAt(1, request, swapped))).toBe("integrity");
    const moved = await orderOf(request, [1, 2, 3], 2);
    const other = world.order(request, [1, 2, 3], 1, { contributions: moved.order.contributions });
    expect(await codeOf(beginAt(1, request, other))).toBe("integrity");
    expect(await codeOf(beginAt(1, request, order))).toBe("ok");
  });

  test("among too few nothing begins, and nothing is written", async () => {
    const request = world.request({ kind: "generate", ...purposeOf("ed25519") });
    const before = readFileSync(world.server(1).journalPath, "utf8");
    expect(await codeOf(beginAt(1, request, await orderOf(request, [1, 2])))).toBe("bad_input");
    expect(readFileSync(world.server(1).journalPath, "utf8")).toBe(before);
  });

  test.each([0, 1, 2, 3])(
    "a crash after round %i: the attempt is over, no half key, and the next makes one",
    async (round) => {
      const request = world.request({ kind: "generate", ...purposeOf("ed25519") });
      const order = await orderOf(request, [1, 2, 3]);
      let steps = await Promise.all([1, 2, 3].map((index) => beginAt(index, request, order)));
      for (let n = 0; n < round; n++) {
        const all = steps.flatMap((step) => step.messages);
        steps = await Promise.all([1, 2, 3].map((index) => relayAt(index, order, all)));
      }
      expect(steps.some(({ sealed }) => sealed !== null)).toBe(false);
      world.server(2).restart();
      expect(
        await codeOf(
          relayAt(
            2,
            order,
            steps.flatMap((step) => step.messages),
          ),
        ),
      ).toBe("unavailable");
      expect(await codeOf(beginAt(2, request, order))).toBe("unavailable");
      const again = await orderOf(request, [1, 2, 3], 2);
      const done = await relayAll(again, await Promise.all([1, 2, 3].map((index) => beginAt(index, request, again))));
      await accept(request, again, done);
    },
  );

  test("a server that tells two things is named with proof, and no key is left", async () => {
    const request = world.request({ kind: "generate", ...purposeOf("ed25519") });
    const order = await orderOf(request, [1, 2, 3]);
    const steps = await Promise.all([1, 2, 3].map((index) => beginAt(index, request, order)));
    // a second life of server 3 whose journal was put back: what a malicious parent could do
    const { journalPath } = world.server(3);
    world.server(3).enclave.close();
    writeFileSync(journalPath, "");
    world.server(3).restart();
    const second = await beginAt(3, request, order);
    const all = [...steps.flatMap((step) => step.messages), ...second.messages];
    const ends = await Promise.all([1, 2].map((index) => relayAt(index, order, all)));
    for (const { outcome, sealed } of ends) {
      expect([outcome?.result, outcome?.culprits.map(({ index, reason }) => [index, reason]), sealed]).toEqual([
        "failed",
        [[3, "equivocation"]],
        null,
      ]);
    }
  });

  test("that has failed takes the proof against another server too", async () => {
    const request = world.request({ kind: "generate", ...purposeOf("ed25519") });
    const order = await orderOf(request, [1, 2, 3]);
    const steps = await Promise.all([1, 2, 3].map((index) => beginAt(index, request, order)));
    const twice = (index: number) => {
      const said = steps[index - 1]?.messages[0];
      if (said?.message.payload.round !== "commit") throw new Error("no commit");
      const payload = { ...said.message.payload, sealing: world.recipient.publicKey };
      return [said, signMessage(world.server(index).keys.signer, { ...said.message, payload })];
    };
    const first = await relayAt(1, order, twice(2));
    expect(first.outcome?.culprits.map(({ index }) => index)).toEqual([2]);
    const second = await relayAt(1, order, twice(3));
    expect(second.outcome?.culprits.map(({ index }) => index)).toEqual([2, 3]);
  });

  test("expires only before its confirmation: what is confirmed stays until the owner's word", async () => {
    const request = world.request({ kind: "generate", ...purposeOf("ed25519") });
    const order = await orderOf(request, [1, 2, 3]);
    const begun = await Promise.all([1, 2, 3].map((index) => beginAt(index, request, order)));
    const steps = await relayAll(order, begun);
    world.nowMs += 10_000_000;
    expect(await relayAt(1, order, [])).toEqual(steps[0] as Step);
    const key = await accept(request, order, steps);
    expect(key.sealed.size).toBe(3);
    const late = world.request({ kind: "generate", ...purposeOf("ed25519") });
    const waiting = await orderOf(late, [1, 2, 3]);
    await beginAt(1, late, waiting);
    world.nowMs += 600_000;
    expect(await codeOf(relayAt(1, waiting, []))).toBe("conflict");
  });

  test("two confirmed attempts: the owner accepts one, the other is worth nothing for good", async () => {
    const request = world.request({ kind: "generate", ...purposeOf("ed25519") });
    const run = async (attempt: number) => {
      const order = await orderOf(request, [1, 2, 3], attempt);
      return {
        order,
        steps: await relayAll(order, await Promise.all([1, 2, 3].map((index) => beginAt(index, request, order)))),
      };
    };
    const [one, two] = [await run(1), await run(2)];
    await accept(request, one.order, one.steps);
    expect(await codeOf(accept(request, two.order, two.steps))).toBe("conflict");
    world.server(1).restart();
    expect(await codeOf(accept(request, two.order, two.steps))).toBe("conflict");
    expect(await codeOf(beginAt(1, request, await orderOf(request, [1, 2, 3], 3)))).toBe("conflict");
  });
});

describe("a resharing", () => {
  const reshare = async (before: Before, mode: "repair" | "refresh", givers: readonly number[], roster = [1, 2, 3]) => {
    const { keyId, generation } = before.certificate.certificate;
    const request = world.request({ kind: "reshare", keyId, generation, mode, threshold: 2, holders: [1, 2, 3] });
    const order = await orderOf(request, roster, 1, givers);
    const begun = await Promise.all(roster.map((index) => beginAt(index, request, order, before)));
    return { request, order, steps: await relayAll(order, begun) };
  };

  test("keeps the key; old and new shares do not mix; the old generation serves no more", async () => {
    const { key } = await generate();
    const { request, order, steps } = await reshare(key, "refresh", [1, 2, 3]);
    const next = await accept(request, order, steps, key.certificate.certificate);
    expect(next.certificate.certificate.publicKey).toEqual(key.certificate.certificate.publicKey);
    expect(secretOf(next, [1, 3])).toBe(secretOf(key, [1, 2]));
    const mixed = [
      {
        index: 1,
        share: openLive(world.server(1).keys, key.certificate.certificate, key.sealed.get(1) ?? new Uint8Array(0)),
      },
      {
        index: 2,
        share: openLive(world.server(2).keys, next.certificate.certificate, next.sealed.get(2) ?? new Uint8Array(0)),
      },
    ];
    expect(interpolate(groupOf("ed25519"), mixed)).not.toBe(secretOf(key, [1, 2]));
    const old: PlantedKey = {
      certificate: key.certificate.certificate,
      signed: key.certificate,
      sealed: key.sealed,
      shares: new Map(),
    };
    const sign = world.request(world.signBody(old));
    expect(await codeOf(beginAt(1, sign, world.order(sign, [1, 2]), key))).toBe("stale");
  });

  test("gives a server that lost its share one again", async () => {
    const { key } = await generate();
    const lost: Before = { ...key, sealed: new Map([...key.sealed].filter(([index]) => index !== 3)) };
    const { request, order, steps } = await reshare(lost, "repair", [1, 2]);
    const next = await accept(request, order, steps, key.certificate.certificate);
    expect(secretOf(next, [2, 3])).toBe(secretOf(key, [1, 2]));
  });

  test("until the owner accepts, the old generation works", async () => {
    const { key } = await generate();
    await reshare(key, "refresh", [1, 2, 3]);
    const planted: PlantedKey = {
      certificate: key.certificate.certificate,
      signed: key.certificate,
      sealed: key.sealed,
      shares: new Map(),
    };
    const sign = world.request(world.signBody(planted));
    expect(await codeOf(beginAt(1, sign, world.order(sign, [1, 2]), key))).toBe("ok");
  });
});
