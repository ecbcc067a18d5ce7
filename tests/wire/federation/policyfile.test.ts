import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { FEDERATED_TYPES } from "../../../src/protocol/federation/kinds.ts";
import type { PolicyDocument, PolicyRule, PolicyTree } from "../../../src/protocol/federation/policy.ts";
import { POLICY_ACTIONS } from "../../../src/protocol/federation/policyaction.ts";
import { checkDocument } from "../../../src/protocol/federation/policychain.ts";
import type { Json } from "../../../src/wire/codec.ts";
import {
  POLICY_FILE_MAX,
  parsePolicyFile,
  policyDocumentJson,
  policyFromJson,
} from "../../../src/wire/federation/policyfile.ts";
import { FEDERATION, keyOf, NOON, policy } from "../../support/policies.ts";

const place = { federationId: FEDERATION, version: 1, previous: new Uint8Array(32), createdAtMs: NOON };
const hex = (name: string) => keyOf(name).toHex();
const people = ["alice", "bob", "carol"].map((name) => ({ name, key: hex(name) }));
const small = { name: "small", approvers: people, admins: "alice", rules: [] as Json[] };
const withRule = (rule: Readonly<Record<string, unknown>>) => ({
  ...small,
  rules: [{ name: "one", effect: "allow", require: "alice", ...rule }],
});
const read = (value: unknown) => policyFromJson(value, place);
const faultOf = (value: unknown): string => {
  try {
    read(value);
  } catch (error) {
    return error instanceof Error ? error.message : "";
  }
  return "accepted";
};

describe("a policy file", () => {
  test("says little where little is meant", () => {
    expect(read(small)).toEqual({
      ...place,
      name: "small",
      approvers: people.map(({ name }) => ({ name, key: keyOf(name) })),
      groups: [],
      remotes: [],
      admins: { kind: "approver", name: "alice" },
      rules: [],
    });
  });

  test("has a short form for each node of a tree", () => {
    const require = {
      all: [
        "alice",
        { any: ["bob", { requester: true }] },
        { threshold: 2, of: ["alice", { group: "both", atLeast: 2 }, { remote: "risk" }] },
      ],
    };
    const remotes = [{ name: "risk", url: "https://risk.example/", key: hex("risk"), timeout: "1s" }];
    const file = { ...withRule({ require }), groups: [{ name: "both", members: ["alice", "bob"] }], remotes };
    const document = read(file);
    expect(document.rules[0]?.require).toEqual({
      kind: "all",
      of: [
        { kind: "approver", name: "alice" },
        { kind: "any", of: [{ kind: "approver", name: "bob" }, { kind: "requester" }] },
        {
          kind: "threshold",
          atLeast: 2,
          of: [
            { kind: "approver", name: "alice" },
            { kind: "group", name: "both", atLeast: 2 },
            { kind: "remote", name: "risk" },
          ],
        },
      ],
    });
    expect(document.remotes[0]?.timeoutMs).toBe(1_000);
    expect(policyDocumentJson(document)).toEqual(file);
  });

  test.each([
    ["250ms", 250],
    ["90s", 90_000],
    ["15m", 900_000],
    ["24h", 86_400_000],
    ["7d", 604_800_000],
  ])("durations: %s", (per, windowMs) => {
    expect(read(withRule({ rate: { count: 3, per } })).rules[0]?.rate).toEqual({ count: 3, windowMs });
  });

  test("hours and days", () => {
    const time = (value: unknown) => read(withRule({ time: value })).rules[0]?.time;
    expect(time({ hours: "09:00-17:30", days: ["mon", "fri"] })).toEqual({
      fromMinute: 540,
      toMinute: 1_050,
      days: [1, 5],
    });
    expect(time({ hours: "22:00-06:00" })).toEqual({ fromMinute: 1_320, toMinute: 360, days: [0, 1, 2, 3, 4, 5, 6] });
    expect(time({ days: ["sun"] })).toEqual({ fromMinute: 0, toMinute: 1_440, days: [0] });
  });

  test.each([
    [withRule({ rate: { count: 3, per: "1 day" } }), "rules[0].rate.per must be a duration like 90s, 15m, 24h or 7d"],
    [withRule({ rate: { count: 3, per: 5 } }), "rules[0].rate.per must be a duration"],
    [withRule({ rate: { count: 3, per: "0h" } }), "rules[0].rate.per must be a duration"],
    [withRule({ rate: { count: 3, per: "9999999999999d" } }), "rules[0].rate.per must be a duration"],
    [withRule({ rate: { count: 0, per: "1h" } }), "rules[0].rate.count must be a whole number from 1"],
    [withRule({ rate: { count: 1 } }), "rules[0].rate.per is missing"],
    [withRule({ time: { hours: "9-17" } }), "rules[0].time.hours must be hours of the day in UTC like 09:00-17:00"],
    [withRule({ time: { hours: "25:00-26:00" } }), "rules[0].time.hours must be"],
    [withRule({ time: { hours: "10:00-10:00" } }), "rules[0].time.hours must be"],
    [withRule({ time: { hours: "10:00-24:01" } }), "rules[0].time.hours must be"],
    [withRule({ time: { days: ["monday"] } }), "rules[0].time.days[0] must be one of sun, mon"],
    [withRule({ time: { days: ["mon", "mon"] } }), "the rule one names no day, or one twice"],
    [withRule({ amount: { unit: "sat", max: 100 } }), "rules[0].amount.max must be text"],
    [withRule({ amount: { unit: "sat", max: "1e3" } }), "rules[0].amount.max must be text"],
    [withRule({ actions: ["spend"] }), "rules[0].actions[0] must be one of generate"],
    [withRule({ types: ["rsa"] }), "rules[0].types[0] must be one of bytes"],
    [withRule({ effect: "maybe" }), "rules[0].effect must be one of allow, deny"],
    [withRule({ require: { all: ["alice", { some: [] }] } }), "rules[0].require.all[1] must be an approver's name, or"],
    [withRule({ require: { all: [] } }), "rules[0].require.all must be a list of 1 to 16"],
    [withRule({ require: { all: ["alice"], any: ["bob"] } }), "rules[0].require has the unknown field any"],
    [withRule({ require: { requester: false } }), "rules[0].require must be an approver's name, or"],
    [withRule({ require: { threshold: 3, of: ["alice", "bob"] } }), "the rule one asks for 3 of 2"],
    [withRule({ require: "zoe" }), "the rule one names zoe, who is no approver"],
    [withRule({ require: null }), "rules[0].require must be an approver's name, or"],
    [withRule({ requester: true }), "rules[0] has the unknown field requester"],
    [withRule({ amont: {} }), "rules[0] has the unknown field amont"],
    [
      { ...small, approvers: [{ name: "alice", key: "abc" }] },
      "approvers[0].key must be a key of 64 hexadecimal digits",
    ],
    [{ ...small, approvers: [{ name: "Alice", key: hex("alice") }] }, "approvers[0].name must be text"],
    [{ ...small, approvers: { alice: hex("alice") } }, "approvers must be a list"],
    [{ ...small, federationId: FEDERATION }, "the policy has the unknown field federationId"],
    [{ name: "small", approvers: people, rules: [] }, "admins is missing"],
    [{ ...small, remotes: [{ name: "r", url: "http://x.example", key: hex("r") }] }, "remotes[0].url must be text"],
    [{ ...small, remotes: [{ name: "r", url: "https://x.example", key: hex("r"), timeout: "1h" }] }, "30 s to answer"],
    [[], "the policy must be an object of name, approvers"],
    [null, "the policy must be an object"],
    ["policy", "the policy must be an object"],
  ] as const)("refuses %#: naming the place", (value, message) => {
    expect(faultOf(value)).toContain(message);
  });

  test("a strange field's name is not echoed when it could garble a terminal", () => {
    expect(faultOf({ ...small, "\u001b[2J": 1 })).toBe("the policy has the unknown field another name");
  });

  test("trees deeper than the wire takes are refused, however deep", () => {
    const deep = (levels: number): unknown => (levels === 0 ? "alice" : { all: [deep(levels - 1)] });
    expect(faultOf(withRule({ require: deep(5) }))).toBe("accepted");
    expect(faultOf(withRule({ require: deep(6) }))).toContain("less deeply nested");
    expect(faultOf(withRule({ require: deep(500) }))).toContain("less deeply nested");
  });

  test("text that is no JSON, and too much of it", () => {
    const bytes = (text: string) => new TextEncoder().encode(text);
    expect(() => parsePolicyFile(bytes("{"), place)).toThrow("a policy file is JSON in UTF-8");
    expect(() => parsePolicyFile(Uint8Array.of(0xff), place)).toThrow("a policy file is JSON in UTF-8");
    expect(() => parsePolicyFile(new Uint8Array(POLICY_FILE_MAX + 1), place)).toThrow("at most");
    expect(parsePolicyFile(bytes(JSON.stringify(small)), place)).toEqual(read(small));
  });
});

const names = ["alice", "bob", "carol", "dave"] as const;
const tree: fc.Arbitrary<PolicyTree> = fc.letrec<{ tree: PolicyTree }>((tie) => {
  const of = fc.uniqueArray(tie("tree"), { minLength: 1, maxLength: 3, selector: (node) => JSON.stringify(node) });
  return {
    tree: fc.oneof(
      { maxDepth: 4 },
      fc.constantFrom<PolicyTree>(
        ...names.map((name) => ({ kind: "approver", name }) as const),
        { kind: "remote", name: "risk" },
        { kind: "requester" },
        { kind: "group", name: "admins", atLeast: 2 },
      ),
      of.map((branches): PolicyTree => ({ kind: "all", of: branches })),
      of.map((branches): PolicyTree => ({ kind: "any", of: branches })),
      fc.tuple(of, fc.nat(2)).map(
        ([branches, n]): PolicyTree => ({
          kind: "threshold",
          atLeast: Math.min(n + 1, branches.length),
          of: branches,
        }),
      ),
    ),
  };
}).tree;
const maybe = <T>(inner: fc.Arbitrary<T>) => fc.option(inner, { nil: null });
const span = fc
  .record({
    fromMinute: fc.nat(1_439),
    toMinute: fc.integer({ min: 1, max: 1_440 }),
    days: fc.subarray([0, 1, 2, 3, 4, 5, 6], { minLength: 1 }),
  })
  .filter(({ fromMinute, toMinute }) => fromMinute !== toMinute);
const common = { types: fc.subarray([...FEDERATED_TYPES]), time: maybe(span) };
const duration = fc.integer({ min: 1, max: 10 ** 12 });
const LETS_OUT: readonly string[] = ["retrieve", "export"];
const allowing = fc
  .record<Omit<PolicyRule, "name">>({
    ...common,
    effect: fc.constant("allow"),
    actions: fc.subarray(["sign", "release", "retrieve", "export"]),
    rate: maybe(fc.record({ count: fc.integer({ min: 1, max: 0xffff_ffff }), windowMs: duration })),
    amount: maybe(
      fc.record({ unit: fc.constantFrom("sat", "EUR"), max: fc.bigInt({ min: 0n, max: 10n ** 38n }).map(String) }),
    ),
    recipients: maybe(
      fc.uniqueArray(fc.constantFrom("0x3535353535353535353535353535353535353535", "script:6a"), { minLength: 1 }),
    ),
    require: tree,
    requesterMayApprove: fc.boolean(),
    voteMs: duration,
  })
  // what is let out pays nobody
  .map((one) => (one.actions.some((action) => LETS_OUT.includes(action)) ? { ...one, recipients: null } : one));
const denying = fc.record<Omit<PolicyRule, "name">>({
  ...common,
  effect: fc.constant("deny"),
  actions: fc.subarray([...POLICY_ACTIONS]),
  rate: fc.constant(null),
  amount: fc.constant(null),
  recipients: fc.constant(null),
  require: fc.constant(null),
  requesterMayApprove: fc.constant(false),
  voteMs: duration,
});
const document: fc.Arbitrary<PolicyDocument> = fc
  .array(fc.oneof(allowing, denying), { maxLength: 4 })
  .map((rules) => policy({ rules: rules.map((rule, at) => ({ ...rule, name: `rule-${at}` })) }));

test("what is printed reads as the same document again", () => {
  fc.assert(
    fc.property(document, (of) => {
      checkDocument(of);
      const printed = policyDocumentJson(of);
      expect(read(JSON.parse(JSON.stringify(printed)))).toEqual(of);
      expect(policyDocumentJson(read(printed))).toEqual(printed);
    }),
    { numRuns: 200 },
  );
});
