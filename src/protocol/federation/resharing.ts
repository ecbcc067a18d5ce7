import { type RandomSource, wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { dealerContext, shareFits } from "./blame.ts";
import type { Dealing } from "./dealing.ts";
import { type GroupPoint, lagrangeAtZero } from "./groups.ts";
import type { CeremonyPlan } from "./plan.ts";
import { proveScalar } from "./proof.ts";
import { type SharedSecret, shareSecret } from "./sharing.ts";

/** Deals λ·s, the additive part of the key that an old holder's share is among these dealers. */
function dealShare(plan: CeremonyPlan, self: number, old: Uint8Array, random: RandomSource) {
  const { group } = plan;
  const part = group.encodeScalar(group.multiply(lagrangeAtZero(group, plan.dealers, self), group.parseScalar(old)));
  try {
    const proof = proveScalar(group, part, dealerContext(plan, self), random);
    return { ...shareSecret(group, part, plan.threshold, plan.receivers, random), proof };
  } finally {
    wipe(part);
  }
}

/** Sums, coefficient by coefficient, of what the dealers committed to. */
function sumOf(plan: CeremonyPlan, all: readonly (readonly Uint8Array[])[]): readonly Uint8Array[] {
  const { group, threshold } = plan;
  const parsed = all.map((commitments) => commitments.map((c) => group.parsePoint(c)));
  return Array.from({ length: threshold }, (_, j) => {
    const points = parsed.map((one) => one[j]).filter((point): point is GroupPoint => point !== undefined);
    return group.encodePoint(points.reduce((sum, point) => sum.add(point)));
  });
}

/**
 * One server's part in a resharing (docs/protocol.md §8.9): old holder that deals, next holder that receives, or both.
 *
 * @param oldShare Its share of the generation that is left, 32 bytes; needed where it deals, and the caller's.
 * @throws Fault corrupt where that share is not the certificate's
 */
export function beginResharing(
  plan: CeremonyPlan,
  self: number,
  oldShare: Uint8Array | null,
  random: RandomSource,
): Dealing {
  const { group, before, dealers, receivers } = plan;
  if (!before) throw new RangeError("a resharing follows a certificate");
  let dealt: (SharedSecret & { readonly proof: Uint8Array }) | null = null;
  if (dealers.includes(self)) {
    if (!oldShare || !shareFits(group, before.commitments, self, oldShare))
      throw new Fault("corrupt", "the share kept here is not the one of the certificate");
    dealt = dealShare(plan, self, oldShare, random);
  }
  const own = dealt;
  const others = new Map([...(own?.shares ?? [])].filter(([index]) => index !== self));
  return {
    commitments: own?.commitments ?? [],
    proof: own?.proof ?? new Uint8Array(0),
    deal: () => others,
    finish({ commits, shares }) {
      const all = [...(own ? [own.commitments] : []), ...commits.map((c) => c.commitments)];
      const commitments = sumOf(plan, all);
      if (!receivers.includes(self)) return { commitments, untweaked: null, share: null };
      const parts = [...shares.values()];
      const mine = own?.shares.get(self);
      if (mine) parts.push(mine);
      const sum = parts.reduce((total, part) => group.add(total, group.parseScalar(part)), 0n);
      return { commitments, untweaked: null, share: group.encodeScalar(sum) };
    },
    wipe: () => wipe(...(own?.shares.values() ?? [])),
  };
}
