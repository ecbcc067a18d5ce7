import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { asHashId } from "../../../src/ids.ts";
import { policyHash, type SignedVote } from "../../../src/protocol/federation/policy.ts";
import { liveVotes, signVote, verifyVote } from "../../../src/protocol/federation/votes.ts";
import { bentFields } from "../../support/arbitraries.ts";
import { bodies, HOUR, idOf, keyOf, NOON, policy, request, signerOf, voteOf } from "../../support/policies.ts";

const document = policy();
const asked = request(bodies.sign);
const subject = {
  federationId: asked.federationId,
  epoch: asked.epoch,
  requestId: idOf(asked),
  policyHash: policyHash(document),
};
const live = (votes: readonly SignedVote[], nowMs = NOON) => liveVotes(votes, subject, nowMs);

describe("signVote", () => {
  const vote = { ...voteOf("alice", asked, document).vote };

  test("signs for its own key and nothing else", () => {
    const signed = signVote(signerOf("bob"), { ...vote });
    expect(signed.vote.key).toEqual(keyOf("bob"));
    expect(verifyVote(signed)).toBe(true);
  });

  test.each([
    ["a rejection without a reason", { verdict: "reject", reason: " " }, "a rejection gives its reason"],
    ["a reason of 513 bytes", { reason: `${"ä".repeat(256)}x` }, "a reason has at most 512 bytes"],
    ["a vote that ends as it begins", { expiresAtMs: vote.castAtMs }, "this vote would expire before it is cast"],
  ] as const)("refuses %s", (_what, over, message) => {
    expect(() => signVote(signerOf("alice"), { ...vote, ...over })).toThrow(message);
  });
});

describe("verifyVote", () => {
  const signed = voteOf("alice", asked, document, { verdict: "reject" });

  test("holds for what was signed", () => {
    expect(verifyVote(signed)).toBe(true);
  });

  test("covers every field of the vote and every bit of the signature", () => {
    const bent = bentFields(signed.vote);
    expect(new Set(bent.map(({ field }) => field)).size).toBe(9);
    for (const { field, value } of bent) {
      expect({ field, holds: verifyVote({ ...signed, vote: value }) }).toEqual({ field, holds: false });
    }
    for (let bit = 0; bit < 512; bit++) {
      const signature = signed.signature.slice();
      signature[bit >> 3] = (signature[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(verifyVote({ ...signed, signature })).toBe(false);
    }
  });
});

describe("liveVotes", () => {
  test("takes a vote from the moment it is cast to the moment it expires", () => {
    const vote = voteOf("alice", asked, document, { castAtMs: NOON, expiresAtMs: NOON + HOUR });
    expect(live([vote], NOON)).toEqual([vote.vote]);
    expect(live([vote], NOON + HOUR - 1)).toEqual([vote.vote]);
    expect(live([vote], NOON + HOUR)).toEqual([]);
  });

  test("allows a minute of clock skew and no more", () => {
    const early = voteOf("alice", asked, document, { castAtMs: NOON + 60_000 });
    const future = voteOf("alice", asked, document, { castAtMs: NOON + 60_001 });
    expect(live([early])).toHaveLength(1);
    expect(live([future])).toEqual([]);
  });

  test("a vote from the future does not hide the one before it", () => {
    const now = voteOf("alice", asked, document);
    const future = voteOf("alice", asked, document, { castAtMs: NOON + HOUR, verdict: "reject" });
    expect(live([now, future])).toEqual([now.vote]);
  });

  test.each([
    ["federation", { federationId: asHashId<typeof subject.federationId>("00".repeat(32)) }],
    ["epoch", { epoch: 4 }],
    ["request", { requestId: asHashId<typeof subject.requestId>("11".repeat(32)) }],
    ["policy", { policyHash: new Uint8Array(32).fill(1) }],
  ] as const)("does not take a vote for another %s", (_what, over) => {
    expect(live([voteOf("alice", asked, document, over)])).toEqual([]);
  });

  test("does not take a vote that another key signed", () => {
    const alice = voteOf("alice", asked, document);
    const bob = voteOf("bob", asked, document);
    expect(live([{ vote: alice.vote, signature: bob.signature }])).toEqual([]);
  });

  test("the newest of a key wins, wherever it stands in the list", () => {
    const first = voteOf("alice", asked, document, { castAtMs: NOON - 3 });
    const second = voteOf("alice", asked, document, { castAtMs: NOON - 2, verdict: "reject" });
    const third = voteOf("alice", asked, document, { castAtMs: NOON - 1 });
    fc.assert(
      fc.property(fc.shuffledSubarray([first, second, third], { minLength: 1 }), (votes) => {
        const newest = votes.toSorted((a, b) => b.vote.castAtMs - a.vote.castAtMs)[0];
        expect(live(votes)).toEqual(newest ? [newest.vote] : []);
      }),
    );
  });

  test("an approval does not come back when the rejection after it expires", () => {
    const approval = voteOf("alice", asked, document, { castAtMs: NOON - 3 });
    const rejection = voteOf("alice", asked, document, {
      castAtMs: NOON - 2,
      expiresAtMs: NOON - 1,
      verdict: "reject",
    });
    expect(live([approval, rejection])).toEqual([]);
  });

  test("of two cast in the same millisecond the rejection counts", () => {
    const approval = voteOf("alice", asked, document);
    const rejection = voteOf("alice", asked, document, { verdict: "reject" });
    for (const votes of [
      [approval, rejection],
      [rejection, approval],
    ]) {
      expect(live(votes)).toEqual([rejection.vote]);
    }
  });

  test("gives each key once, in the order of keys", () => {
    const votes = ["dave", "alice", "bob", "alice"].map((name) => voteOf(name, asked, document));
    const keys = live(votes).map(({ key }) => key.toHex());
    expect(keys).toEqual([...new Set(votes.map(({ vote }) => vote.key.toHex()))].sort());
    expect(keys).toHaveLength(3);
  });
});
