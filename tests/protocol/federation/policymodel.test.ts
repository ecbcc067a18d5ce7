import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { asHashId } from "../../../src/ids.ts";
import {
  type PolicyDocument,
  type PolicyTree,
  policyHash,
  type SignedVote,
} from "../../../src/protocol/federation/policy.ts";
import type { FederatedRequest } from "../../../src/protocol/federation/request.ts";
import { bodies, HOUR, idOf, keyOf, NOON, PEOPLE, policy, request, rule, voteOf } from "../../support/policies.ts";
import { admins, all, any, ask, people, remote, threshold } from "../../support/policyask.ts";

setDefaultTimeout(60_000);

/** An independent model: a tree is what it says of each set of parties that agree, tried out one by one. */
describe("against a model by exhaustion", () => {
  const parties = [...PEOPLE, "risk"];

  function holds(tree: PolicyTree, yes: ReadonlySet<string>): boolean {
    switch (tree.kind) {
      case "requester":
        return true;
      case "approver":
      case "remote":
        return yes.has(tree.name);
      case "group":
        return ["alice", "bob", "carol"].filter((name) => yes.has(name)).length >= tree.atLeast;
      case "all":
        return !tree.of.some((branch) => !holds(branch, yes));
      case "any":
        return tree.of.some((branch) => holds(branch, yes));
      case "threshold": {
        let count = 0;
        for (const branch of tree.of) if (holds(branch, yes)) count += 1;
        return count >= tree.atLeast;
      }
    }
  }

  const subsets = (of: readonly string[]): string[][] =>
    Array.from({ length: 2 ** of.length }, (_, mask) => of.filter((_name, bit) => (mask >> bit) & 1));

  const tree: fc.Arbitrary<PolicyTree> = fc.letrec<{ tree: PolicyTree }>((tie) => {
    const of = fc.array(tie("tree"), { minLength: 1, maxLength: 4 });
    return {
      tree: fc.oneof(
        { depthSize: "small" },
        fc.constantFrom(...people(...PEOPLE), remote, { kind: "requester" } as const, admins(1), admins(2), admins(3)),
        of.map((branches) => all(...branches)),
        of.map((branches) => any(...branches)),
        fc.tuple(of, fc.nat(3)).map(([branches, n]) => threshold(Math.min(n + 1, branches.length), ...branches)),
      ),
    };
  }).tree;

  type Word = "approve" | "reject" | "nothing";
  const word: fc.Arbitrary<Word> = fc.constantFrom("approve", "reject", "nothing");
  const words = fc.tuple(word, word, word, word, word);

  const asked = request(bodies.sign);
  const cast = (document: PolicyDocument, said: readonly Word[]): SignedVote[] =>
    parties.flatMap((name, at) => {
      const verdict = said[at] ?? "nothing";
      return verdict === "nothing" ? [] : [voteOf(name, asked, document, { verdict })];
    });

  test("allows, denies and waits as the model does, and names everyone who matters", () => {
    fc.assert(
      fc.property(tree, words, (require, said) => {
        const document = policy({ rules: [rule({ require })] });
        const found = ask({ rules: [], document, asked, votes: cast(document, said) });
        const yes = parties.filter((_, at) => said[at] === "approve");
        const open = parties.filter((_, at) => said[at] === "nothing");
        const outcomes = subsets(open).map((more) => holds(require, new Set([...yes, ...more])));
        const expected = holds(require, new Set(yes)) ? "allow" : outcomes.includes(true) ? "wait" : "deny";
        expect(found.decision).toBe(expected);
        const named = [...found.missing, ...found.remotes].map(({ name }) => name);
        expect(named.filter((name) => !open.includes(name))).toEqual([]);
        if (expected !== "wait") return expect(named).toEqual([]);
        // who could turn some outcome must be named
        const pivotal = open.filter((name) =>
          subsets(open.filter((one) => one !== name)).some((more) => {
            const without = new Set([...yes, ...more]);
            return !holds(require, without) && holds(require, new Set([...without, name]));
          }),
        );
        expect(pivotal.filter((name) => !named.includes(name))).toEqual([]);
      }),
      { numRuns: 250 },
    );
  });

  const rank = { deny: 0, wait: 1, allow: 2 } as const;

  test("one more approval never makes it worse, one more rejection never better", () => {
    fc.assert(
      fc.property(tree, words, fc.nat(4), (require, said, who) => {
        const document = policy({ rules: [rule({ require })] });
        const decision = (all: readonly Word[]) =>
          rank[ask({ rules: [], document, asked, votes: cast(document, all) }).decision];
        const now = decision(said);
        expect(decision(said.with(who, "approve"))).toBeGreaterThanOrEqual(now);
        expect(decision(said.with(who, "reject"))).toBeLessThanOrEqual(now);
      }),
      { numRuns: 150 },
    );
  });

  test("keys that the policy does not name, and votes about anything else, never count", () => {
    const elsewhere = fc.constantFrom(
      { federationId: asHashId<typeof asked.federationId>("0f".repeat(32)) },
      { epoch: asked.epoch + 1 },
      { epoch: asked.epoch - 1 },
      { requestId: idOf(request(bodies.export)) },
      { requestId: idOf({ ...asked, nonce: new Uint8Array(32) }) },
      { policyHash: policyHash(policy({ rules: [] })) },
      { castAtMs: NOON + HOUR },
      { expiresAtMs: NOON - 1 },
    );
    const noise = fc.array(
      fc.oneof(
        fc.record({ who: fc.constantFrom("mallory", "trent", "owner", "owner-approval"), over: fc.constant({}) }),
        fc.record({ who: fc.constantFrom(...parties), over: elsewhere }),
      ),
      { minLength: 1, maxLength: 4 },
    );
    fc.assert(
      fc.property(tree, words, noise, fc.constantFrom("approve", "reject"), (require, said, others, verdict) => {
        const document = policy({ rules: [rule({ require })] });
        const votes = cast(document, said);
        const heard = new Set(votes.map(({ vote }) => vote.key.toHex()));
        // a later vote of the same key about the same thing would count: those stay out
        const stray = others
          .filter(({ who, over }) => !("expiresAtMs" in over) || !heard.has(keyOf(who).toHex()))
          .map(({ who, over }) => voteOf(who, asked, document, { verdict, ...over }));
        expect(ask({ rules: [], document, asked, votes: [...stray, ...votes] })).toEqual(
          ask({ rules: [], document, asked, votes }),
        );
      }),
      { numRuns: 150 },
    );
  });

  test("a vote on one body is no vote on another that differs anywhere", () => {
    const base = request({ ...bodies.sign, amount: { unit: "sat", value: "1" } });
    const document = policy({ rules: [rule({ require: admins(1) })] });
    const vote = voteOf("alice", base, document);
    expect(ask({ rules: [], document, asked: base, votes: [vote] }).decision).toBe("allow");
    const message = new Uint8Array(5);
    message[4] = 1;
    const { body } = base;
    if (body.kind !== "sign") throw new Error("a request to sign was meant");
    const others: FederatedRequest[] = [
      { ...base, body: { ...body, message } },
      { ...base, body: { ...body, amount: { unit: "sat", value: "2" } } },
      { ...base, body: { ...body, amount: null } },
      { ...base, body: { ...body, generation: 1 } },
      { ...base, body: { ...body, recipient: new Uint8Array(32) } },
      { ...base, body: { ...bodies.export, amount: body.amount } },
      { ...base, requester: keyOf("another") },
      { ...base, nonce: new Uint8Array(32) },
      { ...base, expiresAtMs: base.expiresAtMs + 1 },
    ];
    for (const asked of others) {
      expect(idOf(asked)).not.toBe(idOf(base));
      const rules = [rule({ require: admins(1), actions: ["sign", "export"] })];
      const same = { ...document, rules };
      const late = voteOf("alice", base, same);
      expect(ask({ rules: [], document: same, asked, votes: [late] }).decision).toBe("wait");
    }
  });
});
