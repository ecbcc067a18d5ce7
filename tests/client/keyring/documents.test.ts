import { expect, test } from "bun:test";
import fc from "fast-check";
import { changesBetween, firstDocument, nextDocument, treeWords } from "../../../src/client/keyring/documents.ts";
import type { WorkspaceChange } from "../../../src/client/keyringapi.ts";
import { Fault } from "../../../src/errors.ts";
import { asHashId } from "../../../src/ids.ts";
import { type PolicyDocument, policyHash } from "../../../src/protocol/federation/policy.ts";
import { adminsAgree, checkDocument, signPolicy, verifyLink } from "../../../src/protocol/federation/policychain.ts";
import { keyOf, signerOf } from "../../support/policies.ts";

const PEOPLE = ["ada", "bob", "cleo", "dan"];
const owner = (name: string) => ({ name, key: keyOf(name) });
const first = (names: readonly string[], admin: number, sign: number) =>
  firstDocument({ scope: asHashId("aa".repeat(32)), name: "w", owners: names.map(owner), admin, sign });

type Change = Exclude<WorkspaceChange, { readonly kind: "approve" | "document" }>;

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.constantFrom(...PEOPLE).map((name) => ({ kind: "ownerAdded" as const, name, keyHex: keyOf(name).toHex() })),
  fc.constantFrom(...PEOPLE).map((name) => ({ kind: "ownerRemoved" as const, name })),
  fc.record({
    kind: fc.constant("quorums" as const),
    admin: fc.option(fc.integer({ min: 0, max: 5 })),
    sign: fc.option(fc.integer({ min: 0, max: 5 })),
  }),
);

/** Owners and quorums, as a plain model keeps them. */
interface Model {
  readonly owners: readonly string[];
  readonly admin: number;
  readonly sign: number;
}

/** What a change makes of the model; null where it cannot be. */
function modelled(m: Model, c: Change): Model | null {
  const next = { ...m };
  if (c.kind === "ownerAdded") {
    if (m.owners.includes(c.name)) return null;
    return { ...next, owners: [...m.owners, c.name] };
  }
  if (c.kind === "ownerRemoved") {
    const owners = m.owners.filter((name) => name !== c.name);
    return owners.length < m.owners.length && Math.max(m.admin, m.sign) <= owners.length ? { ...m, owners } : null;
  }
  const [admin, sign] = [c.admin ?? m.admin, c.sign ?? m.sign];
  return [admin, sign].every((count) => count >= 1 && count <= m.owners.length) ? { ...m, admin, sign } : null;
}

const readBack = (document: PolicyDocument): Model => {
  const [rule] = document.rules;
  const count = (tree: PolicyDocument["admins"] | null | undefined) => (tree?.kind === "group" ? tree.atLeast : 0);
  return {
    owners: document.approvers.map(({ name }) => name),
    admin: count(document.admins),
    sign: count(rule?.require),
  };
};

test("any sequence of changes is what a plain model says, link by link, and is told in words", () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 8 }), (changes) => {
      let document = first(["ada", "bob"], 2, 1);
      let model: Model = { owners: ["ada", "bob"], admin: 2, sign: 1 };
      for (const one of changes) {
        const expected = modelled(model, one);
        let next: PolicyDocument;
        try {
          next = nextDocument(document, one);
        } catch (error) {
          expect(error).toBeInstanceOf(Fault);
          expect(expected).toBeNull();
          continue;
        }
        if (expected === null) throw new Error(`was made: ${JSON.stringify(one)}`);
        expect(readBack(next)).toEqual(expected);
        checkDocument(next);
        // all owners of before together can always sign it
        const link = { document: next, signatures: model.owners.map((name) => signPolicy(signerOf(name), next)) };
        expect(verifyLink(document, link)).toBe(next);
        const words = changesBetween(document, next);
        expect(words.length).toBeGreaterThan(0);
        if (one.kind === "ownerAdded") expect(words.join("\n")).toContain(`adds the owner ${one.name} (${one.keyHex})`);
        if (one.kind === "ownerRemoved") expect(words.join("\n")).toContain(`removes the owner ${one.name}`);
        document = next;
        model = expected;
      }
    }),
    { numRuns: 150 },
  );
});

test("the same change on two devices is one link", () => {
  const head = first(["ada", "bob"], 2, 2);
  const one = { kind: "ownerRemoved", name: "bob" } as const;
  const lowered = nextDocument(head, { kind: "quorums", admin: 1, sign: 1 });
  expect(policyHash(nextDocument(lowered, one))).toEqual(policyHash(nextDocument(lowered, one)));
});

test("the maker alone founds only what one owner may change", () => {
  const alone = first(["ada", "bob"], 1, 2);
  const together = first(["ada", "bob"], 2, 2);
  const signed = (document: PolicyDocument) => ({ document, signatures: [signPolicy(signerOf("ada"), document)] });
  expect(adminsAgree(alone, signed(alone))).toBe(true);
  expect(adminsAgree(together, signed(together))).toBe(false);
});

test("whatever differs is told: another key under a known name, rules, their order, groups and engines", () => {
  const head = first(["ada", "bob"], 1, 1);
  const [rule] = head.rules;
  const [group] = head.groups;
  if (!rule || !group) throw new Error("no rule");
  const denial = { ...rule, name: "no", effect: "deny" as const, require: null, requesterMayApprove: false };
  const engine = { name: "risk", url: "https://risk.example/", key: keyOf("risk"), timeoutMs: 1_000 };
  const cases: readonly [Partial<PolicyDocument>, string][] = [
    [{ approvers: [owner("ada"), { name: "bob", key: keyOf("eve") }] }, "gives the owner bob another key"],
    [{ rules: [{ ...rule, voteMs: 5 }] }, "changes the rule owners"],
    [{ rules: [denial, rule] }, "adds the rule no"],
    [{ rules: [] }, "removes the rule owners"],
    [{ groups: [group, { name: "more", members: ["ada"] }] }, "groups:"],
    [{ remotes: [engine] }, "engines: risk"],
    [{ admins: { kind: "approver", name: "bob" } }, "changes of the workspace: bob (was: 1 of ada, bob)"],
    [{ createdAtMs: 7 }, "rules in this order"],
  ];
  for (const [over, words] of cases) expect(changesBetween(head, { ...head, ...over }).join("\n")).toContain(words);
  const ordered = { ...head, rules: [rule, denial] };
  expect(changesBetween(ordered, { ...ordered, rules: [denial, rule] })).toEqual(["rules in this order: no, owners"]);
});

test("a policy of one's own hand is not changed by simple means that would not fit it", () => {
  const head = first(["ada", "bob"], 1, 1);
  const own = {
    ...head,
    groups: [{ name: "board", members: ["ada", "bob"] }],
    admins: { kind: "approver", name: "ada" } as const,
    rules: head.rules.map((rule) => ({ ...rule, require: { kind: "requester" } as const })),
  };
  const refused = (wanted: Parameters<typeof nextDocument>[1]) =>
    expect(() => nextDocument(own, wanted)).toThrow(expect.objectContaining({ code: "bad_input" }));
  refused({ kind: "ownerAdded", name: "cleo", keyHex: keyOf("cleo").toHex() });
  refused({ kind: "quorums", admin: 2, sign: null });
  refused({ kind: "quorums", admin: null, sign: 2 });
  // whom a tree names stays
  refused({ kind: "ownerRemoved", name: "ada" });
});

test("trees in words", () => {
  const head = first(["ada", "bob"], 1, 1);
  const of = [
    { kind: "approver", name: "ada" },
    { kind: "group", name: "owners", atLeast: 2 },
  ] as const;
  expect(treeWords({ kind: "all", of }, head)).toBe("all of (ada; 2 of ada, bob)");
  expect(treeWords({ kind: "any", of }, head)).toBe("one of (ada; 2 of ada, bob)");
  expect(treeWords({ kind: "threshold", atLeast: 2, of }, head)).toBe("2 of (ada; 2 of ada, bob)");
  expect(treeWords({ kind: "requester" }, head)).toBe("whoever asks");
  expect(treeWords({ kind: "remote", name: "risk" }, head)).toBe("the engine risk");
});
