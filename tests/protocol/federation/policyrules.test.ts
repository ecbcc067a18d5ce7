import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { asHashId } from "../../../src/ids.ts";
import type {
  PolicyAction,
  PolicyDocument,
  PolicyRule,
  PolicyTree,
  SignedVote,
} from "../../../src/protocol/federation/policy.ts";
import { actionOf, covers, POLICY_ACTIONS, type UseEntry } from "../../../src/protocol/federation/policyaction.ts";
import {
  bodies,
  denial,
  HOUR,
  idOf,
  KEY,
  keyOf,
  NOON,
  PEOPLE,
  policy,
  request,
  rule,
  voteOf,
} from "../../support/policies.ts";
import { admins, all, any, ask, people, remote, threshold, type World } from "../../support/policyask.ts";

setDefaultTimeout(60_000);

describe("actions", () => {
  const permission = Object.entries(bodies).map(([name, body]) => [name, body] as const);

  test("each request is one action", () => {
    expect(permission.map(([, body]) => actionOf(body)).toSorted()).toEqual([...POLICY_ACTIONS].toSorted());
    expect(permission.map(([name, body]) => [name, actionOf(body)])).toEqual(
      permission.map(([name]) => [name, name as PolicyAction]),
    );
  });

  test("an allowing rule without actions allows nothing that lets shares out", () => {
    const allowed = permission.filter(([, body]) => ask({ body, rules: [rule()] }).decision === "allow");
    expect(allowed.map(([name]) => name)).toEqual(["generate", "import", "sign", "reshare"]);
  });

  test("an allowing rule without actions does not let fewer servers have the key", () => {
    const lower = { ...bodies.reshare, mode: "reshare", threshold: 2 } as const;
    const of = (threshold: number, actions: readonly PolicyAction[]) =>
      ask({ body: lower, threshold, rules: [rule({ actions })] }).decision;
    expect([of(2, []), of(3, []), of(3, ["sign"]), of(3, ["reshare"])]).toEqual(["allow", "deny", "deny", "allow"]);
    expect(ask({ body: lower, threshold: 3, rules: [rule()] }).why).toContain("lowers the threshold");
    const denied = [rule({ effect: "deny", require: null }), rule({ actions: ["reshare"], name: "more" })];
    expect(ask({ body: lower, threshold: 3, rules: denied }).decision).toBe("deny");
  });

  test.each(POLICY_ACTIONS)("an allowing rule that names %s allows this alone", (action) => {
    const allowed = permission.filter(
      ([, body]) => ask({ body, rules: [rule({ actions: [action] })] }).decision === "allow",
    );
    expect(allowed.map(([name]) => name)).toEqual([action]);
  });

  test("to sign does not allow a release to sign, and a release to sign neither retrieve nor export", () => {
    expect(ask({ body: bodies.release, rules: [rule({ actions: ["sign"] })] })).toMatchObject({
      decision: "deny",
      rule: null,
    });
    for (const body of [bodies.retrieve, bodies.export]) {
      const { decision, why } = ask({ body, rules: [rule({ actions: ["sign", "release"] })] });
      expect(decision).toBe("deny");
      expect(why).toContain(`does not name ${body.purpose}`);
    }
  });

  test.each([
    [[], POLICY_ACTIONS],
    [["sign"], ["sign", "release"]],
    [["release"], ["release", "retrieve", "export"]],
    [["retrieve"], ["retrieve"]],
    [
      ["generate", "export"],
      ["generate", "export"],
    ],
  ] as const)("a denying rule that names %j denies %j", (actions, denied) => {
    const found = POLICY_ACTIONS.filter((action) => covers({ effect: "deny", actions }, action));
    expect(found).toEqual(POLICY_ACTIONS.filter((action) => denied.some((one) => one === action)));
    for (const action of POLICY_ACTIONS) {
      const rules = [rule({ actions: [...POLICY_ACTIONS] }), denial({ actions })];
      expect(ask({ body: bodies[action], rules }).decision).toBe(found.includes(action) ? "deny" : "allow");
    }
  });

  test("whatever a rule names, it denies at least what it would allow", () => {
    fc.assert(
      fc.property(fc.subarray([...POLICY_ACTIONS]), fc.constantFrom(...POLICY_ACTIONS), (actions, action) => {
        if (covers({ effect: "allow", actions }, action))
          expect(covers({ effect: "deny", actions }, action)).toBe(true);
      }),
    );
  });
});

describe("conditions", () => {
  test("no rules allow nothing, and say so", () => {
    expect(ask({ rules: [] })).toEqual({
      decision: "deny",
      rule: null,
      why: "no rule allows sign of ed25519 here: none allows anything",
      missing: [],
      remotes: [],
    });
  });

  test("types: the key's, or of a new key the request's", () => {
    const rules = [rule({ types: ["schnorr", "p256"] })];
    expect(ask({ rules, type: "schnorr" }).decision).toBe("allow");
    expect(ask({ rules, type: "ed25519" }).why).toContain("rule: not for ed25519");
    expect(ask({ rules, body: { ...bodies.generate, type: "p256" } }).decision).toBe("allow");
    expect(ask({ rules, body: bodies.generate }).decision).toBe("deny");
    expect(ask({ rules: [rule(), denial({ types: ["ed25519"] })] }).rule).toBe("denial");
  });

  const euros = (value: string, unit = "EUR") => request({ ...bodies.sign, amount: { unit, value } });

  test("amounts: declared, in this unit, up to the limit, however large", () => {
    const rules = [rule({ amount: { unit: "EUR", max: "9007199254740993" } })];
    expect(ask({ rules, asked: euros("9007199254740993") }).decision).toBe("allow");
    // as floating-point numbers these two are equal
    expect(ask({ rules, asked: euros("9007199254740994") }).why).toContain("more than 9007199254740993 EUR");
    expect(ask({ rules, asked: euros("1", "wei") }).why).toContain("not for amounts in wei");
    expect(ask({ rules }).why).toContain("the request declares no amount");
    expect(ask({ rules, asked: euros("0") }).decision).toBe("allow");
  });

  test("amounts compare as whole numbers of any size", () => {
    const digits = fc.bigInt({ min: 0n, max: 10n ** 39n });
    fc.assert(
      fc.property(digits, digits, (value, max) => {
        const rules = [rule({ amount: { unit: "EUR", max: String(max) } })];
        expect(ask({ rules, asked: euros(String(value)) }).decision === "allow").toBe(value <= max);
      }),
    );
  });

  test("the first rule that matches decides: small amounts alone, larger ones with a colleague", () => {
    const rules = [
      rule({ name: "small", actions: ["sign"], amount: { unit: "EUR", max: "100" } }),
      rule({ name: "large", actions: ["sign"], require: any(...people("alice", "bob")) }),
    ];
    expect(ask({ rules, asked: euros("100") })).toMatchObject({ decision: "allow", rule: "small" });
    expect(ask({ rules, asked: euros("101") })).toMatchObject({ decision: "wait", rule: "large" });
    expect(ask({ rules })).toMatchObject({ decision: "wait", rule: "large" });
  });

  test("times are those of the UTC clock, past midnight too", () => {
    const span = fc.record({
      fromMinute: fc.integer({ min: 0, max: 1_439 }),
      toMinute: fc.integer({ min: 1, max: 1_440 }),
      days: fc.subarray([0, 1, 2, 3, 4, 5, 6], { minLength: 1 }),
    });
    const within = (
      { fromMinute, toMinute, days }: { fromMinute: number; toMinute: number; days: number[] },
      at: number,
    ) => {
      // every start of the span in the days around, laid on the clock
      for (let back = -1; back <= 1; back++) {
        const midnight = new Date(at);
        midnight.setUTCHours(0, 0, 0, 0);
        midnight.setUTCDate(midnight.getUTCDate() + back);
        if (!days.includes(midnight.getUTCDay())) continue;
        const length = toMinute > fromMinute ? toMinute - fromMinute : toMinute + 1_440 - fromMinute;
        const start = midnight.getTime() + fromMinute * 60_000;
        if (at >= start && at < start + length * 60_000) return true;
      }
      return false;
    };
    fc.assert(
      fc.property(span, fc.integer({ min: NOON - 400 * HOUR, max: NOON + 400 * HOUR }), (time, nowMs) => {
        fc.pre(time.fromMinute !== time.toMinute);
        const expected = within(time, nowMs) ? "allow" : "deny";
        expect(ask({ rules: [rule({ time })], nowMs }).decision).toBe(expected);
        const opposite = within(time, nowMs) ? "deny" : "allow";
        expect(ask({ rules: [rule(), denial({ time })], nowMs }).decision).toBe(opposite);
      }),
      { numRuns: 500 },
    );
  });

  const use = (at: number, over: Partial<UseEntry> = {}) => ({
    requestId: idOf(request(bodies.sign, { createdAtMs: at, nonce: new Uint8Array(32) })),
    action: "sign",
    requester: keyOf("owner"),
    keyId: KEY,
    atMs: at,
    ...over,
  });

  test("a rate lets so many through within the window that slides", () => {
    const rules = [rule({ rate: { count: 2, windowMs: HOUR } })];
    const at = (...atMs: number[]) => ask({ rules, uses: atMs.map((one) => use(one)) }).decision;
    expect(at(NOON - 1)).toBe("allow");
    expect(at(NOON - 2, NOON - 1)).toBe("deny");
    expect(at(NOON - HOUR + 1, NOON - 1)).toBe("deny");
    expect(at(NOON - HOUR, NOON - 1)).toBe("allow");
    expect(ask({ rules, uses: [use(1 + NOON - HOUR), use(NOON)] }).why).toContain("used 2 times already");
  });

  test("a rate counts this key's uses, by what the rule covers; another attempt of the request is the same use", () => {
    const rules = [rule({ rate: { count: 1, windowMs: HOUR }, actions: ["sign", "release"] })];
    const other = asHashId<typeof KEY>("ac".repeat(32));
    expect(ask({ rules, uses: [use(NOON - 1, { keyId: other })] }).decision).toBe("allow");
    expect(ask({ rules, uses: [use(NOON - 1, { action: "reshare" })] }).decision).toBe("allow");
    expect(ask({ rules, uses: [use(NOON - 1, { requestId: idOf(request(bodies.sign)) })] }).decision).toBe("allow");
    expect(ask({ rules, uses: [use(NOON - 1, { action: "release" })] }).decision).toBe("deny");
    expect(ask({ rules, uses: [use(NOON - 1, { requester: keyOf("another") })] }).decision).toBe("deny");
  });

  test("of new keys a rate counts what this requester asked for", () => {
    const rules = [rule({ rate: { count: 1, windowMs: HOUR } })];
    const made = (over: Partial<UseEntry>) => use(NOON - 1, { action: "generate", keyId: null, ...over });
    const { generate: body } = bodies;
    expect(ask({ rules, body, uses: [made({})] }).decision).toBe("deny");
    expect(ask({ rules, body, uses: [made({ requester: keyOf("another") })] }).decision).toBe("allow");
    expect(ask({ rules, body, uses: [made({ keyId: KEY })] }).decision).toBe("allow");
  });

  test("past its rate a rule leaves the word to the next", () => {
    const rules = [
      rule({ name: "few", rate: { count: 1, windowMs: HOUR } }),
      rule({ name: "more", require: people("alice")[0] ?? null }),
    ];
    expect(ask({ rules })).toMatchObject({ decision: "allow", rule: "few" });
    expect(ask({ rules, uses: [use(NOON - 1)] })).toMatchObject({ decision: "wait", rule: "more" });
  });
});

describe("consent", () => {
  const asked = request(bodies.sign);
  const by = (require: PolicyTree, over: Partial<PolicyRule> = {}) => policy({ rules: [rule({ require, ...over })] });
  const said = (document: PolicyDocument, votes: readonly SignedVote[], over: Partial<World> = {}) =>
    ask({ rules: [], document, votes, asked, ...over });

  test("waits, and names whom for", () => {
    const document = by(threshold(2, ...people("alice", "bob"), remote));
    const found = said(document, [voteOf("alice", asked, document)]);
    expect(found).toMatchObject({ decision: "wait", rule: "rule" });
    expect(found.missing).toEqual([{ name: "bob", key: keyOf("bob") }]);
    expect(found.remotes.map(({ name }) => name)).toEqual(["risk"]);
    expect(found.why).toBe(
      "the rule rule waits for 2 of (alice, bob, the engine risk); not heard from: bob, risk; alice approved",
    );
  });

  test("a rejection denies once the others cannot make up for it, and gives its reason", () => {
    const document = by(admins(2));
    const no = (name: string) => voteOf(name, asked, document, { verdict: "reject", reason: `${name} says no` });
    expect(said(document, [no("alice")]).decision).toBe("wait");
    expect(said(document, [no("alice")]).missing.map(({ name }) => name)).toEqual(["bob", "carol"]);
    expect(said(document, [no("alice"), no("bob")])).toMatchObject({
      decision: "deny",
      why: "the rule rule cannot be met; alice rejected: alice says no; bob rejected: bob says no",
    });
  });

  test("a rejection by who is not asked changes nothing", () => {
    const document = by(people("alice")[0] ?? all());
    const no = voteOf("bob", asked, document, { verdict: "reject" });
    expect(said(document, [no]).decision).toBe("wait");
    expect(said(document, [no, voteOf("alice", asked, document)]).decision).toBe("allow");
  });

  test("an engine's verdict counts as a vote; its silence as none", () => {
    const document = by(all(remote, ...people("alice")));
    const yes = voteOf("alice", asked, document);
    expect(said(document, [yes])).toMatchObject({ decision: "wait", missing: [] });
    expect(said(document, [yes, voteOf("risk", asked, document)]).decision).toBe("allow");
    expect(said(document, [yes, voteOf("risk", asked, document, { verdict: "reject" })]).decision).toBe("deny");
  });

  test("deny wins over any number of approvals", () => {
    const document = policy({ rules: [rule({ require: admins(2) }), denial({ actions: ["sign"] })] });
    const votes = PEOPLE.map((name) => voteOf(name, asked, document));
    expect(said(document, votes)).toMatchObject({ decision: "deny", rule: "denial" });
  });

  test("the requester's own approval counts where the rule says so, and there alone", () => {
    const tree = any(...people("alice", "bob"));
    const requester = "alice";
    const strict = by(tree);
    const found = said(strict, [voteOf("alice", asked, strict)], { requester });
    expect(found).toMatchObject({ decision: "wait" });
    expect(found.why).toContain("alice asks and may not approve");
    expect(found.missing.map(({ name }) => name)).toEqual(["bob"]);
    const loose = by(tree, { requesterMayApprove: true });
    expect(said(loose, [voteOf("alice", asked, loose)], { requester }).decision).toBe("allow");
  });

  test("a request key that stands among the approvers is the requester too", () => {
    const document = policy({
      approvers: [...policy().approvers, { name: "self", key: keyOf("owner") }],
      rules: [rule({ require: { kind: "approver", name: "self" } })],
    });
    expect(said(document, [voteOf("owner", asked, document)]).decision).toBe("deny");
  });

  test("where nobody knows the requester's approval key, no approver counts, but for rules that let it approve", () => {
    const strict = by(any(...people("alice", "bob")));
    const votes = [voteOf("alice", asked, strict), voteOf("bob", asked, strict)];
    const found = said(strict, votes, { requester: null });
    expect(found).toMatchObject({ decision: "deny" });
    expect(found.why).toContain("it is not known which approver asks");
    const loose = by(any(...people("alice")), { requesterMayApprove: true });
    expect(said(loose, [voteOf("alice", asked, loose)], { requester: null }).decision).toBe("allow");
  });

  test("a vote counts as long as it says and as the rule lets it", () => {
    const document = by(admins(1), { voteMs: HOUR });
    const vote = (castAtMs: number) => voteOf("alice", asked, document, { castAtMs });
    expect(said(document, [vote(NOON - HOUR + 1)]).decision).toBe("allow");
    expect(said(document, [vote(NOON - HOUR)]).decision).toBe("wait");
    const short = voteOf("alice", asked, document, { expiresAtMs: NOON });
    expect(said(document, [short]).decision).toBe("wait");
  });

  test("explanations stay printable and short whatever a reason holds", () => {
    const document = by(all(...people("alice", "bob")));
    fc.assert(
      fc.property(fc.string({ unit: "binary", minLength: 1, maxLength: 128 }), (reason) => {
        fc.pre(reason.trim() !== "" && Buffer.byteLength(reason) <= 512 && reason.isWellFormed());
        const votes = ["alice", "bob"].map((name) => voteOf(name, asked, document, { verdict: "reject", reason }));
        const { why } = said(document, votes);
        expect(Buffer.byteLength(why)).toBeLessThanOrEqual(1_024);
        expect(why).not.toMatch(/[\p{C}]/u);
      }),
    );
    const long = "€".repeat(170);
    const votes = ["alice", "bob"].map((name) => voteOf(name, asked, document, { verdict: "reject", reason: long }));
    const { why } = said(document, votes);
    expect(why.endsWith("€…")).toBe(true);
    expect(Buffer.byteLength(why)).toBeLessThanOrEqual(1_024);
  });
});
