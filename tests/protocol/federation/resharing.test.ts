import { describe, expect, test } from "bun:test";
import { verify } from "node:crypto";
import { schnorr } from "@noble/curves/secp256k1.js";
import fc from "fast-check";
import { spkiOf } from "../../../src/crypto/identity.ts";
import { blameHolds, dealerContext, payloadOf } from "../../../src/protocol/federation/blame.ts";
import { type Certificate, certificateHash } from "../../../src/protocol/federation/certificate.ts";
import { evaluateCommitments, groupOf, identifier, interpolate } from "../../../src/protocol/federation/groups.ts";
import { FEDERATED_TYPES, type FederatedType } from "../../../src/protocol/federation/kinds.ts";
import { planCeremony } from "../../../src/protocol/federation/plan.ts";
import { proveScalar } from "../../../src/protocol/federation/proof.ts";
import { shareSecret } from "../../../src/protocol/federation/sharing.ts";
import { assembleCertificate } from "../../../src/protocol/federation/transcript.ts";
import {
  type CeremonyWorld,
  ceremonyWorld,
  confirmedOf,
  generateTerms,
  lie,
  type Run,
  type RunOptions,
  reshareTerms,
  runCeremony,
  sharesOf,
} from "../../support/ceremonyworld.ts";

type Shares = ReadonlyMap<number, Uint8Array>;
interface Generation {
  readonly certificate: Certificate;
  readonly shares: Shares;
  readonly run: Run;
}

function generationOf(run: Run): Generation {
  const all = [...confirmedOf(run).values()];
  const [certificate] = all.map((o) => o.certificate);
  if (!certificate) throw new Error("no certificate");
  expect(new Set(all.map((o) => certificateHash(o.certificate).toHex())).size).toBe(1);
  return { certificate, shares: sharesOf(run), run };
}

const generate = async (world: CeremonyWorld, type: FederatedType, roster: readonly number[]) =>
  generationOf(await runCeremony(world, generateTerms(world, type, roster)));

async function reshare(
  world: CeremonyWorld,
  { certificate, shares }: Generation,
  body: Parameters<typeof reshareTerms>[2],
  roster: readonly number[],
  options: RunOptions = {},
) {
  const terms = reshareTerms(world, certificate, body, roster);
  const run = await runCeremony(world, terms, { oldShares: shares, ...options });
  return { terms, run };
}

const secretOf = (type: FederatedType, shares: readonly (readonly [number, Uint8Array])[]) =>
  interpolate(
    groupOf(type),
    shares.map(([index, share]) => ({ index, share })),
  );

/** Signs with these shares under that certificate. */
function sign({ certificate, shares }: Generation, who: readonly number[], message: Uint8Array): Uint8Array {
  const group = groupOf(certificate.type);
  const { frost } = group;
  const { commitments, holders, threshold } = certificate;
  const pub = {
    signers: { min: threshold, max: holders.length },
    commitments: commitments.map((c) => new Uint8Array(c)),
    verifyingShares: Object.fromEntries(
      holders.map((i) => [identifier(group, i), new Uint8Array(evaluateCommitments(group, commitments, i))]),
    ),
  };
  const parties = who.map((index) => {
    const secret = { identifier: identifier(group, index), signingShare: new Uint8Array(shares.get(index) ?? []) };
    return { secret, ...frost.commit(secret) };
  });
  const list = parties.map((p) => p.commitments);
  const parts = Object.fromEntries(
    parties.map((p) => [p.secret.identifier, frost.signShare(p.secret, pub, p.nonces, list, message)]),
  );
  return frost.aggregate(pub, list, message, parts);
}

const message = new TextEncoder().encode("after the resharing");
const ALL = [1, 2, 3, 4, 5, 6, 7];

describe("resharing", () => {
  test("3 of 5 to 4 of 7 and back: the same key, other shares, and signatures of Ed25519 by another implementation", async () => {
    const world = ceremonyWorld(ALL, 4);
    const first = await generate(ceremonyWorldOf(world, [1, 2, 3, 4, 5], 3), "ed25519", [1, 2, 3, 4, 5]);
    const wide = await reshare(world, first, { threshold: 4, holders: ALL }, ALL);
    const second = generationOf(wide.run);
    const { certificate: c } = second;
    expect(c).toMatchObject({ generation: 1, threshold: 4, holders: ALL, keyId: first.certificate.keyId });
    expect(c.publicKey).toEqual(first.certificate.publicKey);
    expect(c.predecessor).toEqual(certificateHash(first.certificate));
    expect(assembleCertificate(wide.terms, [{ certificate: c }], wide.run.said)?.signatures.length).toBe(7);
    const back = await reshare(world, second, { threshold: 3, holders: [2, 3, 5, 6, 7] }, ALL);
    const third = generationOf(back.run);
    expect(third.certificate).toMatchObject({ generation: 2, threshold: 3, holders: [2, 3, 5, 6, 7] });
    expect([...third.shares.keys()]).toEqual([2, 3, 5, 6, 7]);
    // who leaves helps and signs, but gets nothing
    expect(confirmedOf(back.run).get(1)).toMatchObject({ share: null });
    const key = { key: Buffer.from(spkiOf(first.certificate.publicKey)), format: "der", type: "spki" } as const;
    for (const [generation, who] of [
      [first, [1, 3, 5]],
      [second, [1, 2, 6, 7]],
      [third, [2, 6, 7]],
    ] as const)
      expect(verify(null, message, key, sign(generation, who, message))).toBe(true);
  }, 60_000);

  test("each type keeps its key; a taproot key stays tweaked, and is not tweaked again", async () => {
    for (const type of FEDERATED_TYPES) {
      const world = ceremonyWorld([1, 2, 3], 2);
      const first = await generate(world, type, [1, 2, 3]);
      const { run } = await reshare(world, first, { mode: "refresh", threshold: 2, holders: [1, 2, 3] }, [1, 2, 3]);
      const second = generationOf(run);
      expect(second.certificate.publicKey).toEqual(first.certificate.publicKey);
      expect(second.certificate.untweaked).toEqual(first.certificate.untweaked);
      expect(second.certificate.commitments[1]).not.toEqual(first.certificate.commitments[1] ?? new Uint8Array());
      if (type === "schnorr")
        expect(schnorr.verify(sign(second, [1, 3], message), message, first.certificate.publicKey.subarray(1))).toBe(
          true,
        );
    }
  }, 30_000);

  test("repair: a server that was absent gets a share of the same key and signs", async () => {
    const world = ceremonyWorld([1, 2, 3, 4], 3);
    const first = await generate(ceremonyWorldOf(world, [1, 2, 3], 2), "ed25519", [1, 2, 3]);
    const lost = { ...first, shares: new Map([...first.shares].filter(([index]) => index !== 3)) };
    const { run } = await reshare(world, lost, { mode: "repair", threshold: 2, holders: [1, 2, 3] }, [1, 2, 3]);
    const second = generationOf(run);
    const key = { key: Buffer.from(spkiOf(first.certificate.publicKey)), format: "der", type: "spki" } as const;
    expect(verify(null, message, key, sign(second, [2, 3], message))).toBe(true);
  });

  test("killed in the middle, the old group still works", async () => {
    const world = ceremonyWorld([1, 2, 3], 2);
    const first = await generate(world, "ed25519", [1, 2, 3]);
    const { run } = await reshare(world, first, { threshold: 2, holders: [1, 2, 3] }, [1, 2, 3], { silent: [3] });
    expect(run.outcomes.size).toBe(0);
    const key = { key: Buffer.from(spkiOf(first.certificate.publicKey)), format: "der", type: "spki" } as const;
    expect(verify(null, message, key, sign(first, [1, 2], message))).toBe(true);
  });

  test("old and new shares do not mix: no set of t across two generations makes the key", async () => {
    const world = ceremonyWorld([1, 2, 3, 4, 5], 3);
    const roster = [1, 2, 3, 4, 5];
    const first = await generate(world, "ristretto255", roster);
    const { run } = await reshare(world, first, { mode: "refresh", threshold: 3, holders: roster }, roster);
    const second = generationOf(run);
    const secret = secretOf("ristretto255", [...first.shares].slice(0, 3));
    fc.assert(
      fc.property(fc.subarray(roster, { minLength: 3 }), fc.nat(62), (who, pick) => {
        const from = who.map((index, i) => ((pick >> i) & 1 ? second : first).shares.get(index) ?? new Uint8Array(32));
        const made = secretOf(
          "ristretto255",
          who.map((index, i) => [index, from[i] ?? new Uint8Array(32)]),
        );
        const sides = new Set(who.map((_, i) => (pick >> i) & 1));
        expect(made === secret).toBe(sides.size === 1);
      }),
      { numRuns: 200 },
    );
  });
});

/** A smaller federation of the same servers, as it was before others joined. */
function ceremonyWorldOf(world: CeremonyWorld, indices: readonly number[], threshold: number): CeremonyWorld {
  const servers = world.manifest.servers.filter((s) => indices.includes(s.index));
  return { ...world, manifest: { ...world.manifest, servers, threshold } };
}

describe("terms that are refused", () => {
  test("other generation, key, threshold, holders or helpers than there are; index 0 and strangers", async () => {
    const world = ceremonyWorld([1, 2, 3, 4], 3);
    const first = await generate(ceremonyWorldOf(world, [1, 2, 3], 2), "p256", [1, 2, 3]);
    const { certificate: before } = first;
    const good = reshareTerms(world, before, { threshold: 2, holders: [1, 2, 3] }, [1, 2, 3]);
    expect(planCeremony(good).dealers).toEqual([1, 2]);
    const refused = [
      reshareTerms(world, { ...before, generation: 1 }, { threshold: 2, holders: [1, 2, 3] }, [1, 2, 3]),
      reshareTerms(world, before, { threshold: 1, holders: [1, 2] }, [1, 2, 3]),
      reshareTerms(world, before, { threshold: 2, holders: [1, 2, 3, 4] }, [1, 2, 3, 4]),
      reshareTerms(world, before, { threshold: 4, holders: [1, 2, 3] }, [1, 2, 3]),
      reshareTerms(world, before, { threshold: 3, holders: [1, 2, 3], mode: "repair" }, [1, 2, 3]),
      reshareTerms(world, before, { threshold: 2, holders: [0, 1, 2] }, [0, 1, 2]),
      reshareTerms(world, before, { threshold: 2, holders: [1, 2, 9] }, [1, 2, 9]),
      reshareTerms(world, before, { threshold: 2, holders: [1, 1, 2] }, [1, 2, 3]),
      reshareTerms(world, before, { threshold: 2, holders: [1, 2, 4] }, [1, 2, 3]),
      reshareTerms(world, before, { threshold: 2, holders: [1, 4] }, [1, 4]),
      reshareTerms(world, before, { threshold: 2, holders: [1, 2, 3] }, [1, 2, 3, 4]),
    ];
    for (const [i, terms] of refused.entries()) {
      const real = i === 0 ? { ...terms, before } : terms;
      expect(() => planCeremony(real)).toThrow(expect.objectContaining({ code: "bad_input" }));
    }
    expect(() => planCeremony({ ...good, before: null })).toThrow(expect.objectContaining({ code: "bad_input" }));
    expect(() => planCeremony({ ...generateTerms(world, "p256", [1, 2, 3, 4]), before })).toThrow();
  });

  test("a helper whose share is not the certificate's does not begin", async () => {
    const world = ceremonyWorld([1, 2, 3], 2);
    const first = await generate(world, "p256", [1, 2, 3]);
    const wrong = first.shares.get(2) ?? new Uint8Array(32);
    for (const oldShares of [new Map([...first.shares, [1, wrong] as const]), new Map<number, Uint8Array>()])
      await expect(
        reshare(world, first, { threshold: 2, holders: [1, 2, 3] }, [1, 2, 3], { oldShares }),
      ).rejects.toMatchObject({ code: "corrupt" });
  });
});

describe("a lying helper", () => {
  test("that deals another secret than its part, proves nothing, or deals without being asked is named", async () => {
    const world = ceremonyWorld([1, 2, 3], 2);
    const group = groupOf("p256");
    const first = await generate(world, "p256", [1, 2, 3]);
    const terms = reshareTerms(world, first.certificate, { threshold: 2, holders: [1, 2, 3] }, [1, 2, 3]);
    const random = (n: number) => world.random.bytes(n);
    const secret = group.encodeScalar(group.reduceScalar(random(64)));
    const { commitments } = shareSecret(group, secret, 2, [1, 2, 3], random);
    const proof = proveScalar(group, secret, dealerContext(planCeremony(terms), 2), random);
    const none = new Uint8Array(0);
    for (const [liar, reason, change] of [
      [2, "bad_commitments", { commitments, proof }],
      [2, "bad_proof", { proof }],
      [2, "bad_proof", { proof: none }],
      [2, "bad_commitments", { commitments: [], proof: none }],
      [3, "bad_commitments", { commitments, proof }],
    ] as const) {
      const run = await runCeremony(world, terms, {
        oldShares: first.shares,
        tamper: (m) => {
          const commit = payloadOf(m, "commit");
          return commit && m.message.from === liar ? [lie(world, m, { ...commit, ...change })] : [m];
        },
      });
      const honest = [...run.outcomes].filter(([index]) => index !== liar);
      expect(honest.length).toBe(2);
      for (const [, outcome] of honest) {
        expect(outcome).toMatchObject({ result: "failed", culprits: [{ index: liar, reason }] });
        if (outcome.result === "failed")
          expect(outcome.culprits.every((culprit) => blameHolds(terms, culprit))).toBe(true);
      }
    }
  });
});

/** The same sums in plain bigints: Shamir's scheme, with no code of the project in it. */
describe("a slow model agrees", () => {
  const P = groupOf("p256").order;
  const mod = (a: bigint) => ((a % P) + P) % P;
  const power = (base: bigint, exponent: bigint): bigint => {
    let result = 1n;
    let factor = mod(base);
    for (let e = exponent; e > 0n; e >>= 1n) {
      if (e & 1n) result = mod(result * factor);
      factor = mod(factor * factor);
    }
    return result;
  };
  const atZero = (points: readonly (readonly [bigint, bigint])[]) =>
    points.reduce((sum, [x, y]) => {
      const [over, under] = points
        .filter(([other]) => other !== x)
        .reduce(([a, b], [other]) => [mod(a * other), mod(b * (other - x))], [1n, 1n]);
      return mod(sum + y * over * power(under, P - 2n));
    }, 0n);
  const big = (bytes: Uint8Array) => BigInt(`0x${bytes.toHex()}`);

  test("on generation and on any chain of resharings: every t shares make the one secret, no t − 1 of them do", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 1_000 }),
        fc.array(fc.subarray([1, 4, 9, 200, 255], { minLength: 3 }), { minLength: 1, maxLength: 3 }),
        async (seed, steps) => {
          const world = ceremonyWorld([1, 4, 9, 200, 255], 3, seed);
          let now = await generate(world, "p256", [1, 4, 9, 200]);
          const points = (g: Generation) => [...g.shares].map(([x, y]) => [BigInt(x), big(y)] as const);
          const secret = atZero(points(now).slice(0, 3));
          for (const holders of steps) {
            const threshold = Math.floor(holders.length / 2) + 1;
            const roster = [...new Set([...now.certificate.holders, ...holders])].toSorted((a, b) => a - b);
            now = generationOf((await reshare(world, now, { threshold, holders }, roster)).run);
            expect([...now.shares.keys()]).toEqual(holders);
            const all = points(now);
            for (let i = 0; i + threshold <= all.length; i++) expect(atZero(all.slice(i, i + threshold))).toBe(secret);
            expect(atZero(all.slice(0, threshold - 1))).not.toBe(secret);
          }
        },
      ),
      { numRuns: 8 },
    );
  }, 60_000);
});
