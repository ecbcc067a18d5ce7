import { type RandomSource, wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { shareFits } from "./blame.ts";
import type { Dealing } from "./dealing.ts";
import { frostRandom, type Group, identifier } from "./groups.ts";
import type { CeremonyPlan } from "./plan.ts";

/** A polynomial that one party has drawn: commitments are public, shares are not. */
export interface SharedSecret {
  /** `threshold` points; the first one is the secret's. */
  readonly commitments: readonly Uint8Array[];
  /** 32 bytes each, the caller's to wipe. */
  readonly shares: ReadonlyMap<number, Uint8Array>;
}

/**
 * Shares a secret scalar out with Feldman commitments; by the library (docs/protocol.md §8.5).
 *
 * @param secret 32 bytes in the suite's byte order, not zero; stays the caller's.
 * @param holders Indices of servers, each once, at least `threshold` of them.
 * @throws Fault bad_input
 */
export function shareSecret(
  group: Group,
  secret: Uint8Array,
  threshold: number,
  holders: readonly number[],
  random: RandomSource,
): SharedSecret {
  if (new Set(holders).size !== holders.length || threshold < 2 || threshold > holders.length)
    throw new Fault("bad_input", "a secret is shared among different servers, 2 or more of which restore it");
  if (group.parseScalar(secret) === 0n) throw new Fault("bad_input", "zero cannot be shared");
  const names = new Map(holders.map((index) => [index, identifier(group, index)]));
  const signers = { min: threshold, max: holders.length };
  const all = [...names.values()];
  const dealt = group.frost.trustedDealer(signers, all, new Uint8Array(secret), frostRandom(random));
  const shareOf = (name: string) => dealt.secretShares[name]?.signingShare ?? new Uint8Array(0);
  return {
    commitments: dealt.public.commitments,
    shares: new Map([...names].map(([index, name]) => [index, shareOf(name)])),
  };
}

/**
 * One server's part in an import: the requester dealt, it only verifies what it got.
 *
 * @param dealt Its share as the requester sealed it, 32 bytes; copied.
 * @throws Fault bad_input where it does not fit the commitments of the request: the requester's fault, no server's
 */
export function beginReceiving(plan: CeremonyPlan, self: number, dealt: Uint8Array | null): Dealing {
  const { body, group } = plan;
  if (body.kind !== "import") throw new RangeError("only an import has an outside dealer");
  if (!dealt || !shareFits(group, body.commitments, self, dealt))
    throw new Fault("bad_input", "the share that came with this request does not fit its commitments");
  const share = dealt.slice();
  return {
    commitments: [],
    proof: new Uint8Array(0),
    deal: () => new Map(),
    finish: () => ({ commitments: body.commitments, untweaked: null, share: share.slice() }),
    wipe: () => wipe(share),
  };
}
