import { describe, expect, test } from "bun:test";
import { verify } from "node:crypto";
import { p256 } from "@noble/curves/nist.js";
import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import { spkiOf } from "../../../src/crypto/identity.ts";
import { certificateHash, keyIdOf } from "../../../src/protocol/federation/certificate.ts";
import { evaluateCommitments, groupOf, identifier, interpolate } from "../../../src/protocol/federation/groups.ts";
import { FEDERATED_TYPES, type FederatedType } from "../../../src/protocol/federation/kinds.ts";
import { assembleCertificate } from "../../../src/protocol/federation/transcript.ts";
import {
  ceremonyWorld,
  confirmedOf,
  generateBody,
  generateTerms,
  importTerms,
  orderOf,
  type Run,
  requestOf,
  reshareTerms,
  runCeremony,
  sharesOf,
} from "../../support/ceremonyworld.ts";
import { seeded } from "../../support/seeded.ts";

const message = new TextEncoder().encode("a message");

/** The one certificate of all servers. */
function certificateIn(run: Run) {
  const all = [...confirmedOf(run).values()].map((o) => o.certificate);
  expect(new Set(all.map((c) => certificateHash(c).toHex())).size).toBe(1);
  const [certificate] = all;
  if (!certificate) throw new Error("no certificate");
  return certificate;
}

/** Signs with the last `threshold` holders' shares, as the library has it. */
function frostSign(run: Run) {
  const certificate = certificateIn(run);
  const group = groupOf(certificate.type);
  const { frost } = group;
  const { threshold, holders, commitments } = certificate;
  const verifyingShares = Object.fromEntries(
    holders.map((i) => [identifier(group, i), new Uint8Array(evaluateCommitments(group, commitments, i))]),
  );
  const pub = {
    signers: { min: threshold, max: holders.length },
    commitments: commitments.map((c) => new Uint8Array(c)),
    verifyingShares,
  };
  const signers = [...sharesOf(run)].slice(-threshold).map(([index, share]) => {
    const secret = { identifier: identifier(group, index), signingShare: new Uint8Array(share) };
    return { secret, ...frost.commit(secret) };
  });
  const list = signers.map((s) => s.commitments);
  const parts = Object.fromEntries(
    signers.map((s) => [s.secret.identifier, frost.signShare(s.secret, pub, s.nonces, list, message)]),
  );
  return frost.aggregate(pub, list, message, parts);
}

/** Whether the key works, by an implementation that is not the one that made it where there is one. */
function keyWorks(run: Run): boolean {
  const { type, publicKey, threshold } = certificateIn(run);
  const group = groupOf(type);
  switch (type) {
    case "ed25519": {
      const key = { key: Buffer.from(spkiOf(publicKey)), format: "der", type: "spki" } as const;
      return verify(null, message, key, frostSign(run));
    }
    case "schnorr":
      return schnorr.verify(frostSign(run), message, publicKey.subarray(1));
    case "secp256k1":
    case "p256": {
      const shares = [...sharesOf(run)].slice(0, threshold).map(([index, share]) => ({ index, share }));
      const secret = group.encodeScalar(interpolate(group, shares));
      const curve = type === "p256" ? p256 : secp256k1;
      return curve.verify(curve.sign(message, secret), message, publicKey);
    }
    case "bytes":
    case "ristretto255": {
      const shares = [...sharesOf(run)].slice(-threshold).map(([index, share]) => ({ index, share }));
      return group.encodePoint(group.base.multiply(interpolate(group, shares))).toHex() === publicKey.toHex();
    }
  }
}

const SIZES: readonly (readonly [number, number])[] = [
  [2, 2],
  [2, 3],
  [3, 5],
];

async function generated(type: FederatedType, indices: readonly number[], threshold: number, seed = 1) {
  const world = ceremonyWorld(indices, threshold, seed);
  const terms = generateTerms(world, type, indices);
  return { world, terms, run: await runCeremony(world, terms) };
}

describe("generation", () => {
  for (const type of FEDERATED_TYPES) {
    test(`${type}: 2 of 2, 2 of 3, 3 of 5: one certificate, and the key works`, async () => {
      for (const [threshold, n] of SIZES) {
        const indices = Array.from({ length: n }, (_, i) => 3 * i + 1);
        const { terms, run } = await generated(type, indices, threshold);
        expect(run.outcomes.size).toBe(n);
        const c = certificateIn(run);
        expect(c).toMatchObject({
          type,
          threshold,
          holders: indices,
          generation: 0,
          predecessor: null,
          origin: "generated",
        });
        expect(c.keyId).toBe(keyIdOf(c.federationId, c.requestId, 1, c.transcript, c.publicKey));
        expect(c.untweaked !== null).toBe(type === "schnorr");
        expect(keyWorks(run)).toBe(true);
        const views = [...confirmedOf(run).values()];
        const assembled = assembleCertificate(terms, views, run.said);
        expect(assembled?.signatures.map((s) => s.index)).toEqual(indices);
      }
    }, 60_000);
  }

  for (const type of ["ed25519", "schnorr"] as const) {
    test(`${type}: 7 of 10`, async () => {
      const { run } = await generated(type, [1, 2, 3, 4, 5, 6, 7, 8, 9, 255], 7);
      expect(confirmedOf(run).size).toBe(10);
      expect(keyWorks(run)).toBe(true);
    }, 60_000);
  }

  test("min(n, t + 1) servers are enough, and one fewer is not", async () => {
    const world = ceremonyWorld([1, 2, 3, 4, 5], 3);
    const run = await runCeremony(world, generateTerms(world, "p256", [1, 2, 4, 5]));
    expect(certificateIn(run).holders).toEqual([1, 2, 4, 5]);
    expect(keyWorks(run)).toBe(true);
    await expect(runCeremony(world, generateTerms(world, "p256", [1, 2, 5]))).rejects.toMatchObject({
      code: "bad_input",
    });
  });

  test("a self-custodial key is D + C, and the servers' part stays D", async () => {
    const world = ceremonyWorld([1, 2], 2);
    const group = groupOf("ed25519");
    const c = group.reduceScalar(world.random.bytes(64));
    const point = group.encodePoint(group.base.multiply(c));
    const body = generateBody("ed25519", { custody: "self", owner: { point, proof: new Uint8Array(64) } });
    const request = requestOf(world, body);
    const run = await runCeremony(world, {
      manifest: world.manifest,
      request,
      order: orderOf(request, [1, 2]),
      before: null,
    });
    const certificate = certificateIn(run);
    const d = interpolate(
      group,
      [...sharesOf(run)].map(([index, share]) => ({ index, share })),
    );
    expect(group.encodePoint(group.base.multiply(d))).toEqual(certificate.commitments[0] ?? new Uint8Array());
    expect(group.encodePoint(group.base.multiply(group.add(d, c)))).toEqual(certificate.publicKey);
  });

  test("the order in which messages arrive, and how often, makes no difference", async () => {
    const world = ceremonyWorld([1, 2, 3], 2);
    for (let seed = 0; seed < 8; seed++) {
      const run = await runCeremony(world, generateTerms(world, "secp256k1", [1, 2, 3]), {
        shuffle: seeded(seed),
        tamper: (m) => [m, m],
      });
      expect(confirmedOf(run).size).toBe(3);
      expect(keyWorks(run)).toBe(true);
    }
  });

  test("the client's bytes matter: a generator that repeats itself still gives another key", async () => {
    const made = async (client: number, os: number) => {
      const world = ceremonyWorld([1, 2], 2);
      const run = await runCeremony(world, generateTerms(world, "ed25519", [1, 2]), {
        randomFor: () => (n) => new Uint8Array(n).fill(os),
        contributions: new Map([1, 2].map((i) => [i, new Uint8Array(32).fill(client)])),
      });
      const coefficients = run.said.flatMap(({ message: { payload } }) =>
        payload.round === "commit" ? [...payload.commitments, payload.proof, payload.sealing] : [],
      );
      return coefficients.map((one) => one.toHex());
    };
    const first = await made(1, 7);
    const otherClient = await made(2, 7);
    const otherServer = await made(1, 8);
    const twoServers = new Set(first);
    expect(twoServers.size).toBe(first.length);
    for (const other of [otherClient, otherServer]) {
      expect(other.length).toBe(first.length);
      expect(other.filter((one) => first.includes(one))).toEqual([]);
    }
    expect(await made(1, 7)).toEqual(first);
  });

  test("two attempts of one request share nothing", async () => {
    const world = ceremonyWorld([1, 2], 2);
    const terms = generateTerms(world, "ed25519", [1, 2]);
    const options = {
      randomFor: () => (n: number) => new Uint8Array(n).fill(7),
      contributions: new Map([1, 2].map((i) => [i, new Uint8Array(32)])),
    };
    const first = certificateIn(await runCeremony(world, terms, options));
    const order = { ...terms.order, attempt: 2 };
    const second = certificateIn(await runCeremony(world, { ...terms, order }, options));
    expect(second.publicKey).not.toEqual(first.publicKey);
    expect(second.keyId).not.toBe(first.keyId);
  });

  test("who is not in the roster, gives no bytes or signs with another key does not begin", async () => {
    const world = ceremonyWorld([1, 2, 3], 2);
    const terms = generateTerms(world, "ed25519", [1, 2, 3]);
    const { beginCeremony } = await import("../../../src/protocol/federation/ceremony.ts");
    const signer = world.signers.get(1) ?? world.requester;
    const random = (n: number) => world.random.bytes(n);
    const good = { ...terms, self: 1, signer, beforeShare: null, contribution: new Uint8Array(32), random };
    for (const bad of [
      { ...good, self: 4 },
      { ...good, self: 0 },
      { ...good, signer: world.requester },
      { ...good, contribution: null },
      { ...good, contribution: new Uint8Array(31) },
      { ...good, order: { ...terms.order, roster: [1, 1, 2] } },
      { ...good, order: { ...terms.order, roster: [0, 1, 2] } },
      { ...good, order: { ...terms.order, roster: [1, 2, 9] } },
      { ...good, order: { ...terms.order, attempt: 0 } },
      { ...good, order: { ...terms.order, requestId: generateTerms(world, "ed25519", [1]).order.requestId } },
      { ...good, manifest: { ...world.manifest, epoch: 2 } },
    ])
      await expect(beginCeremony(bad)).rejects.toMatchObject({ code: "bad_input" });
    expect((await beginCeremony(good)).step.messages.length).toBe(1);
  });

  test("the share is given once, and abort leaves nothing to give", async () => {
    const { run } = await generated("ed25519", [1, 2], 2);
    const again = await run.ceremonies.get(1)?.receive([]);
    expect(again?.outcome).toMatchObject({ result: "confirmed", share: null });
    run.ceremonies.get(1)?.abort();
    expect((await run.ceremonies.get(1)?.receive(run.said))?.outcome).toBeNull();
  });
});

describe("import", () => {
  for (const type of FEDERATED_TYPES) {
    test(`${type}: the servers hold shares of the very secret`, async () => {
      const world = ceremonyWorld([1, 2, 3], 2);
      const group = groupOf(type);
      const secret = group.encodeScalar(group.reduceScalar(world.random.bytes(64)));
      const { terms, shares } = importTerms(world, type, 2, [1, 2, 3], secret);
      const run = await runCeremony(world, terms, { contributions: shares });
      const c = certificateIn(run);
      expect(c).toMatchObject({ origin: "imported", untweaked: null, generation: 0, threshold: 2 });
      expect(c.value !== null).toBe(type === "bytes");
      expect(group.encodePoint(group.base.multiply(group.parseScalar(secret)))).toEqual(c.publicKey);
      expect(keyWorks(run)).toBe(true);
      expect(run.said.some((m) => m.message.payload.round === "share")).toBe(false);
    }, 30_000);
  }

  test("of what a ceremony's server has seen is custodial, and stays so whatever becomes of its shares", async () => {
    const world = ceremonyWorld([1, 2, 3], 2);
    const group = groupOf("secp256k1");
    const secret = group.encodeScalar(group.reduceScalar(world.random.bytes(64)));
    const { terms, shares } = importTerms(world, "secp256k1", 2, [1, 2, 3], secret, "custodial");
    const run = await runCeremony(world, terms, { contributions: shares });
    const before = certificateIn(run);
    expect(before.origin).toBe("custodial");
    for (const mode of ["repair", "refresh", "reshare"] as const) {
      const next = reshareTerms(world, before, { mode, threshold: 2, holders: [1, 2, 3] }, [1, 2, 3]);
      const after = certificateIn(await runCeremony(world, next, { oldShares: sharesOf(run) }));
      expect(after).toMatchObject({ origin: "custodial", publicKey: before.publicKey, generation: 1 });
    }
  }, 30_000);

  test("a share that does not fit is the requester's fault: nobody is named and nothing begins", async () => {
    const world = ceremonyWorld([1, 2, 3], 2);
    const group = groupOf("p256");
    const secret = group.encodeScalar(group.reduceScalar(world.random.bytes(64)));
    const { terms, shares } = importTerms(world, "p256", 2, [1, 2, 3], secret);
    for (const bad of [
      secret,
      shares.get(2) ?? secret,
      new Uint8Array(32),
      new Uint8Array(31),
      new Uint8Array(32).fill(255),
    ])
      await expect(runCeremony(world, terms, { contributions: new Map([...shares, [1, bad]]) })).rejects.toMatchObject({
        code: "bad_input",
      });
    await expect(
      runCeremony(world, terms, { contributions: new Map([...shares].filter(([i]) => i !== 1)) }),
    ).rejects.toMatchObject({ code: "bad_input" });
  });
});
