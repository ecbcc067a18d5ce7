import { equalBytes } from "../../crypto/bytes.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import { DEFAULTS } from "../defaults.ts";
import { type SignedVote, type Vote, voteBytes } from "./policy.ts";

/** UTF-8 bytes of a vote's reason at most. */
export const REASON_MAX = 512;

/** What a vote must name to count. */
export type VoteSubject = Pick<Vote, "federationId" | "epoch" | "requestId" | "policyHash">;

/**
 * Signs a vote with an approval key, or a verdict with an engine's.
 *
 * @param vote Its `key` is the signer's.
 * @throws Fault bad_input for a rejection without a reason, one that is too long, or a vote that ends before it begins.
 */
export function signVote(signer: Signer, vote: Omit<Vote, "key">): SignedVote {
  if (vote.verdict === "reject" && vote.reason.trim() === "") {
    throw new Fault("bad_input", "a rejection gives its reason", { hint: "add --reason" });
  }
  if (new TextEncoder().encode(vote.reason).length > REASON_MAX) {
    throw new Fault("bad_input", `a reason has at most ${REASON_MAX} bytes`);
  }
  if (vote.expiresAtMs <= vote.castAtMs) throw new Fault("bad_input", "this vote would expire before it is cast");
  const own: Vote = { ...vote, key: signer.publicKey };
  return { vote: own, signature: signer.sign(voteBytes(own)) };
}

/** True when the key that a vote names has signed it; whether that key counts is the policy's matter. */
export function verifyVote({ vote, signature }: SignedVote): boolean {
  return verifySignature(vote.key, voteBytes(vote), signature);
}

const isAbout = (vote: Vote, subject: VoteSubject): boolean =>
  vote.federationId === subject.federationId &&
  vote.epoch === subject.epoch &&
  vote.requestId === subject.requestId &&
  equalBytes(vote.policyHash, subject.policyHash);

/** Of two votes of one key the later; of two cast at once the stricter: the rejection, then the one that ends first. */
function laterOf(a: Vote, b: Vote): Vote {
  if (a.castAtMs !== b.castAtMs) return a.castAtMs > b.castAtMs ? a : b;
  if (a.verdict !== b.verdict) return a.verdict === "reject" ? a : b;
  return a.expiresAtMs <= b.expiresAtMs ? a : b;
}

/**
 * The votes that count now: of each key the newest one about this request under this policy, if it has not expired. An
 * older vote never comes back because a newer one ran out. What claims to come from the future is ignored.
 *
 * @returns At most one of each key, ascending by key.
 */
export function liveVotes(votes: readonly SignedVote[], subject: VoteSubject, nowMs: number): readonly Vote[] {
  const newest = new Map<string, Vote>();
  for (const signed of votes) {
    const { vote } = signed;
    if (!isAbout(vote, subject) || vote.castAtMs > nowMs + DEFAULTS.clockSkewMs || !verifyVote(signed)) continue;
    const id = vote.key.toHex();
    const known = newest.get(id);
    newest.set(id, known === undefined ? vote : laterOf(known, vote));
  }
  return [...newest]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, vote]) => vote)
    .filter(({ castAtMs, expiresAtMs }) => nowMs < expiresAtMs && castAtMs < expiresAtMs);
}
