import type { DKG_Round1 } from "@noble/curves/abstract/frost.js";
import { type RandomSource, wipe } from "../../crypto/bytes.ts";
import type { Dealing, Received } from "./dealing.ts";
import { frostRandom, type Group, identifier } from "./groups.ts";
import type { CeremonyPlan } from "./plan.ts";

const own = (bytes: Uint8Array) => new Uint8Array(bytes);

const packages = (group: Group, commits: Received["commits"]): DKG_Round1[] =>
  commits.map(({ from, commitments, proof }) => ({
    identifier: identifier(group, from),
    commitment: commitments.map(own),
    proofOfKnowledge: own(proof),
  }));

/** Σ of the constants: D before any tweak. */
const sumOfConstants = (group: Group, all: readonly (readonly Uint8Array[])[]): Uint8Array => {
  const points = all.map((commitments) => group.parsePoint(commitments[0] ?? new Uint8Array(0)));
  return group.encodePoint(points.reduce((sum, point) => sum.add(point)));
};

/**
 * One server's part in FROST's distributed key generation, by the library (docs/protocol.md §8.5).
 *
 * @param rng Source of every coefficient and of the proof's nonce.
 */
export function beginDkg(plan: CeremonyPlan, self: number, rng: RandomSource): Dealing {
  const { group, threshold, roster } = plan;
  const { DKG } = group.frost;
  const signers = { min: threshold, max: roster.length };
  const round1 = DKG.round1(identifier(group, self), signers, undefined, frostRandom(rng));
  const dealt = new Map<number, Uint8Array>();
  const clean = () => {
    wipe(...dealt.values());
    DKG.clean(round1.secret);
  };
  return {
    commitments: round1.public.commitment,
    proof: round1.public.proofOfKnowledge,
    deal(commits) {
      const shares = DKG.round2(round1.secret, packages(group, commits));
      for (const index of roster) {
        const share = shares[identifier(group, index)];
        if (index !== self && share) dealt.set(index, share.signingShare);
      }
      return dealt;
    },
    finish({ commits, shares }) {
      const given = [...shares].map(([from, signingShare]) => ({
        identifier: identifier(group, from),
        signingShare: own(signingShare),
      }));
      try {
        const key = DKG.round3(round1.secret, packages(group, commits), given);
        const all = [round1.public.commitment, ...commits.map((c) => c.commitments)];
        const untweaked = group.type === "schnorr" ? sumOfConstants(group, all) : null;
        return { commitments: key.public.commitments, untweaked, share: key.secret.signingShare };
      } finally {
        wipe(...given.map((g) => g.signingShare));
      }
    },
    wipe: clean,
  };
}
