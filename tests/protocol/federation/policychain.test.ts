import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { asHashId } from "../../../src/ids.ts";
import {
  type PolicyDocument,
  type PolicyTree,
  policyHash,
  policyIdOf,
  type SignedPolicy,
} from "../../../src/protocol/federation/policy.ts";
import {
  adminsAgree,
  checkDocument,
  signersOf,
  signPolicy,
  verifyChain,
  verifyLink,
} from "../../../src/protocol/federation/policychain.ts";
import { bentFields } from "../../support/arbitraries.ts";
import {
  denial,
  extended,
  FEDERATION,
  keyOf,
  PEOPLE,
  policy,
  rule,
  signedBy,
  signerOf,
} from "../../support/policies.ts";

setDefaultTimeout(60_000);

const alice: PolicyTree = { kind: "approver", name: "alice" };
const bob: PolicyTree = { kind: "approver", name: "bob" };

describe("checkDocument", () => {
  test("takes a sound document, one without rules, and every form of tree", () => {
    checkDocument(policy());
    checkDocument(policy({ rules: [] }));
    const everything: PolicyTree = {
      kind: "all",
      of: [
        { kind: "any", of: [alice, { kind: "requester" }] },
        { kind: "threshold", atLeast: 2, of: [alice, bob, { kind: "remote", name: "risk" }] },
        { kind: "group", name: "admins", atLeast: 3 },
      ],
    };
    const hours = { fromMinute: 1_320, toMinute: 360, days: [0, 6] };
    checkDocument(
      policy({
        rules: [
          rule({
            require: everything,
            rate: { count: 1, windowMs: 1 },
            time: hours,
            amount: { unit: "sat", max: "0" },
          }),
          denial({ time: hours, actions: ["sign"], types: ["p256"] }),
        ],
      }),
    );
  });

  const risk = { name: "risk", url: "https://risk.example/", key: keyOf("risk"), timeoutMs: 1_000 };
  const hours = { fromMinute: 60, toMinute: 120, days: [1] };
  const broken: readonly (readonly [string, Partial<PolicyDocument>])[] = [
    [
      "two of its approvers are called alice",
      { approvers: [...policy().approvers, { name: "alice", key: keyOf("x") }] },
    ],
    ["alice and erin have the same key", { approvers: [...policy().approvers, { name: "erin", key: keyOf("alice") }] }],
    ["alice and risk have the same key", { remotes: [{ ...risk, key: keyOf("alice") }] }],
    ["keys have 32 bytes", { approvers: [{ name: "alice", key: new Uint8Array(31) }] }],
    ["one of its approvers has another", { approvers: [...policy().approvers, { name: "Erin", key: keyOf("erin") }] }],
    ["its name is small letters", { name: "Treasury" }],
    ["the group admins names zoe, who is no approver", { groups: [{ name: "admins", members: ["zoe"] }] }],
    ["the group admins names bob twice", { groups: [{ name: "admins", members: ["bob", "bob"] }] }],
    ["the group admins has no members", { groups: [{ name: "admins", members: [] }] }],
    ["needs an https address", { remotes: [{ ...risk, url: "http://risk.example/" }] }],
    ["needs an https address", { remotes: [{ ...risk, url: "https://user:word@risk.example/" }] }],
    ["has 100 ms to 30 s to answer", { remotes: [{ ...risk, timeoutMs: 30_001 }] }],
    ["admins names zoe, who is no approver", { admins: { kind: "approver", name: "zoe" } }],
    ["admins names the group owners, which is not listed", { admins: { kind: "group", name: "owners", atLeast: 1 } }],
    ["admins asks for 4 of the group admins, which has 3", { admins: { kind: "group", name: "admins", atLeast: 4 } }],
    ["admins asks for 0 of the group admins", { admins: { kind: "group", name: "admins", atLeast: 0 } }],
    ["its admins are approvers", { admins: { kind: "any", of: [alice, { kind: "remote", name: "risk" }] } }],
    [
      "its admins are approvers",
      { admins: { kind: "all", of: [alice, { kind: "any", of: [{ kind: "requester" }] }] } },
    ],
    ["admins has nobody under all", { admins: { kind: "all", of: [] } }],
    ["admins asks for 0 of 2", { admins: { kind: "threshold", atLeast: 0, of: [alice, bob] } }],
    ["admins asks for 3 of 2", { admins: { kind: "threshold", atLeast: 3, of: [alice, bob] } }],
    ["admins names the same twice under threshold", { admins: { kind: "threshold", atLeast: 2, of: [alice, alice] } }],
    ["two of its rules are called rule", { rules: [rule(), rule()] }],
    [
      "the rule rule names the remote engine x, which is not",
      { rules: [rule({ require: { kind: "remote", name: "x" } })] },
    ],
    ["the rule rule does not say who must agree", { rules: [rule({ require: null })] }],
    ["the rule rule lets no vote count", { rules: [rule({ voteMs: 0 })] }],
    ["the rule rule names sign twice", { rules: [rule({ actions: ["sign", "sign"] })] }],
    ["the rule rule has a rate of nothing", { rules: [rule({ rate: { count: 0, windowMs: 1 } })] }],
    ["the rule rule has an amount that is no whole number", { rules: [rule({ amount: { unit: "sat", max: "1.5" } })] }],
    [
      "an amount, which a request to generate never declares",
      { rules: [rule({ actions: ["sign", "generate"], amount: { unit: "sat", max: "1" } })] },
    ],
    ["the rule rule has no such time of day", { rules: [rule({ time: { ...hours, toMinute: 60 } })] }],
    ["the rule rule has no such time of day", { rules: [rule({ time: { ...hours, fromMinute: 1_440 } })] }],
    ["the rule rule names no day, or one twice", { rules: [rule({ time: { ...hours, days: [] } })] }],
    ["the rule denial denies: nobody can agree to it", { rules: [denial({ require: alice })] }],
    ["the rule denial denies and has a limit", { rules: [denial({ rate: { count: 1, windowMs: 1 } })] }],
    ["the rule denial denies and has a limit", { rules: [denial({ amount: { unit: "sat", max: "1" } })] }],
    ["versions count from 1", { version: 0 }],
    ["version 1 follows nothing", { previous: new Uint8Array(32).fill(1) }],
  ];

  test.each(broken)("refuses: %s", (message, over) => {
    expect(() => checkDocument(policy(over))).toThrow(message);
    // and so does everything that verifies
    expect(() => verifyChain([signedBy(policy(over), ...PEOPLE)], FEDERATION)).toThrow(message);
  });
});

describe("adminsAgree", () => {
  test("only who stands in the document before, and has signed this very link, counts", () => {
    const before = policy();
    const link = policy({ version: 2, previous: policyHash(before) });
    expect(adminsAgree(before, signedBy(link, "alice", "carol"))).toBe(true);
    expect(adminsAgree(before, signedBy(link, "alice"))).toBe(false);
    // dave is an approver, but no admin; mallory is nobody
    expect(adminsAgree(before, signedBy(link, "alice", "dave", "mallory"))).toBe(false);
    // one signature is one voice, however often it stands there
    expect(adminsAgree(before, signedBy(link, "alice", "alice"))).toBe(false);
    const other = { ...signPolicy(signerOf("bob"), before) };
    expect(adminsAgree(before, { document: link, signatures: [...signedBy(link, "alice").signatures, other] })).toBe(
      false,
    );
  });

  test("names who has signed", () => {
    expect(signersOf(policy(), signedBy(policy(), "bob", "mallory")).map(({ name }) => name)).toEqual(["bob"]);
  });

  test("agrees with a count by hand for every tree and every set of signers", () => {
    const leaf = fc.oneof(
      fc.constantFrom(...PEOPLE).map((name): PolicyTree => ({ kind: "approver", name })),
      fc.integer({ min: 1, max: 3 }).map((atLeast): PolicyTree => ({ kind: "group", name: "admins", atLeast })),
    );
    const tree: fc.Arbitrary<PolicyTree> = fc.letrec<{ tree: PolicyTree }>((tie) => ({
      tree: fc.oneof(
        { depthSize: "small" },
        leaf,
        fc.array(tie("tree"), { minLength: 1, maxLength: 3 }).map((of): PolicyTree => ({ kind: "all", of })),
        fc.array(tie("tree"), { minLength: 1, maxLength: 3 }).map((of): PolicyTree => ({ kind: "any", of })),
        fc
          .tuple(fc.array(tie("tree"), { minLength: 1, maxLength: 3 }), fc.nat(2))
          .map(([of, n]): PolicyTree => ({ kind: "threshold", atLeast: Math.min(n + 1, of.length), of })),
      ),
    })).tree;
    const byHand = (node: PolicyTree, signed: readonly string[]): boolean => {
      if (node.kind === "approver") return signed.includes(node.name);
      if (node.kind === "group")
        return ["alice", "bob", "carol"].filter((n) => signed.includes(n)).length >= node.atLeast;
      if (node.kind === "remote" || node.kind === "requester") return false;
      const yes = node.of.map((branch) => byHand(branch, signed)).filter(Boolean).length;
      return yes >= (node.kind === "all" ? node.of.length : node.kind === "any" ? 1 : node.atLeast);
    };
    fc.assert(
      fc.property(tree, fc.subarray([...PEOPLE]), (admins, signed) => {
        const document = policy({ admins });
        expect(adminsAgree(document, signedBy(document, ...signed))).toBe(byHand(admins, signed));
      }),
    );
  });
});

describe("verifyChain", () => {
  const first = [signedBy(policy(), "alice", "bob")];
  const chain = extended(extended(first, { rules: [] }), { createdAtMs: 1 });

  test("gives the id of the first link and the hash of the newest", () => {
    const { policyId, head, headHash } = verifyChain(chain, FEDERATION);
    expect(policyId).toBe(policyIdOf(policy()));
    expect(head.version).toBe(3);
    expect(headHash).toEqual(policyHash(head));
  });

  test("the admins of the link before decide, not the new ones", () => {
    const taken: PolicyTree = { kind: "approver", name: "dave" };
    const document = { ...policy(), version: 2, previous: policyHash(policy()), admins: taken };
    expect(() => verifyChain([...first, signedBy(document, "dave")], FEDERATION)).toThrow("too few admins");
    const handed = [...first, signedBy(document, "alice", "bob")];
    expect(verifyChain(handed, FEDERATION).head.admins).toEqual(taken);
    // and from then on the old ones no longer
    const third = { ...document, version: 3, previous: policyHash(document) };
    expect(() => verifyChain([...handed, signedBy(third, "alice", "bob")], FEDERATION)).toThrow("too few admins");
    expect(verifyChain([...handed, signedBy(third, "dave")], FEDERATION).head.version).toBe(3);
  });

  test("a removed approver's key, given to another name, keeps no seat", () => {
    const next = policy({
      version: 2,
      previous: policyHash(policy()),
      approvers: policy().approvers.map((a) => (a.name === "bob" ? { ...a, key: keyOf("robert") } : a)),
    });
    const changed = [...first, signedBy(next, "alice", "bob")];
    const third = { ...next, version: 3, previous: policyHash(next) };
    expect(() => verifyChain([...changed, signedBy(third, "alice", "bob")], FEDERATION)).toThrow("too few admins");
    expect(verifyChain([...changed, signedBy(third, "alice", "robert")], FEDERATION).head.version).toBe(3);
  });

  test.each([
    ["nothing", []],
    ["a chain without its first link", chain.slice(1)],
    ["a chain with a gap", [...chain.slice(0, 1), ...chain.slice(2)]],
    ["a link twice", [...chain.slice(0, 2), ...chain.slice(1)]],
    ["links in another order", [...chain.slice(0, 1), ...chain.slice(1).reverse()]],
    ["another name", extended(first, { name: "other" })],
    ["another federation within", extended(first, { federationId: asHashId("01".repeat(32)) })],
    ["another hash before", extended(first, { previous: new Uint8Array(32).fill(3) })],
    ["a first link that its admins have not signed", [signedBy(policy(), "alice", "dave")]],
  ] as const)("refuses %s", (_what, links) => {
    expect(() => verifyChain(links, FEDERATION)).toThrow();
  });

  test("refuses another federation's chain", () => {
    const theirs = [signedBy(policy({ federationId: asHashId("01".repeat(32)) }), "alice", "bob")];
    expect(() => verifyChain(extended(theirs, { federationId: FEDERATION }), FEDERATION)).toThrow("does not follow");
    expect(() => verifyChain(chain, asHashId("01".repeat(32)))).toThrow("another federation");
  });

  test("a link counts only with signatures over all of it", () => {
    const [link] = first as [SignedPolicy];
    let seen = 0;
    for (const { field, value } of bentFields(link.document)) {
      const bent = { ...link, document: value };
      let held = true;
      try {
        verifyLink(null, bent);
      } catch {
        held = false;
      }
      expect({ field, held }).toEqual({ field, held: false });
      seen += 1;
    }
    expect(seen).toBeGreaterThan(40);
  });
});
