import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { hashCanon } from "../../../src/crypto/kdf.ts";
import { hashId, type KeyringId, type KeyringRequestId, type WorkspaceId } from "../../../src/ids.ts";
import {
  balancesOf,
  CREDITS_MAX,
  creditEntry,
  escrowAccount,
  escrowEntry,
  feeOf,
  isBalanced,
  type LedgerDraft,
  OPERATOR_ACCOUNT,
  partyAccount,
  payEntry,
  payoutEntry,
  posted,
  refundEntry,
  splitFee,
  sumsToZero,
  workspaceAccount,
} from "../../../src/protocol/keyring/ledger.ts";
import { ledgerEntry } from "../../../src/wire/keyring/views.ts";

const hash = (...parts: readonly (string | number)[]) => hashCanon("test", ...parts);
const workspaceId = hashId<WorkspaceId>(hash("workspace"));
const keyringId = hashId<KeyringId>(hash("keyring"));
const requestOf = (n: number) => hashId<KeyringRequestId>(hash("request", n));
const requestId = requestOf(0);
const three = ["a", "b", "c"].map((name, i) => ({ name, index: i + 1 }));
const fault = (code: string) => expect.objectContaining({ code });
const caught = (work: () => unknown): unknown => {
  try {
    return work();
  } catch (error) {
    return error;
  }
};

describe("entries", () => {
  test("a whole life: credit, escrow, pay, payout", () => {
    const entries = [
      creditEntry({ workspaceId, amount: 100, circulating: 0, note: "invoice 7" }),
      escrowEntry({ workspaceId, requestId, fee: 11, balance: 100 }),
      payEntry({ workspaceId, keyringId, requestId, fee: 11, parties: three }),
      payoutEntry({ keyringId, party: "a", amount: 3, balance: 4 }),
    ].filter((e) => e !== null);
    expect(entries.map((e) => e.kind)).toEqual(["credit", "escrow", "pay", "payout"]);
    expect(Object.fromEntries(balancesOf(entries))).toEqual({
      operator: -97,
      [`workspace:${workspaceId}`]: 89,
      [`escrow:${requestId}`]: 0,
      [`party:${keyringId}:a`]: 1,
      [`party:${keyringId}:b`]: 4,
      [`party:${keyringId}:c`]: 3,
    });
    expect(sumsToZero(entries)).toBe(true);
  });

  test("have the form that goes over the wire, with the longest names and the most parties", () => {
    const parties = Array.from({ length: 32 }, (_, i) => ({ name: `${"n".repeat(62)}${i}`, index: i + 1 }));
    const pay = payEntry({ workspaceId, keyringId, requestId, fee: CREDITS_MAX, parties });
    const entries = [pay, creditEntry({ workspaceId, amount: 1, circulating: 0 })];
    for (const entry of entries) {
      const shown = { seq: 1, atMs: 0, ...(entry as LedgerDraft) };
      expect(ledgerEntry.decode(JSON.parse(JSON.stringify(ledgerEntry.encode(shown))), "")).toEqual(shown);
    }
  });

  test("what costs nothing has no entry", () => {
    expect(escrowEntry({ workspaceId, requestId, fee: 0, balance: 0 })).toBeNull();
    expect(refundEntry({ workspaceId, requestId, fee: 0 })).toBeNull();
    expect(payEntry({ workspaceId, keyringId, requestId, fee: 0, parties: three })).toBeNull();
  });

  test("a fee smaller than the parties goes to the first ones alone", () => {
    const pay = payEntry({ workspaceId, keyringId, requestId, fee: 2, parties: three.toReversed() });
    expect(pay?.postings).toEqual([
      { account: escrowAccount(requestId), debit: 2, credit: 0 },
      { account: partyAccount(keyringId, "a"), debit: 0, credit: 1 },
      { account: partyAccount(keyringId, "b"), debit: 0, credit: 1 },
    ]);
  });

  test("with no party left the fee goes back", () => {
    expect(payEntry({ workspaceId, keyringId, requestId, fee: 5, parties: [] })).toEqual(
      refundEntry({ workspaceId, requestId, fee: 5 }),
    );
  });

  test("a balance that does not cover it: refused, whatever is missing", () => {
    expect(caught(() => escrowEntry({ workspaceId, requestId, fee: 5, balance: 4 }))).toEqual(fault("conflict"));
    expect(caught(() => payoutEntry({ keyringId, party: "a", amount: 5, balance: 4 }))).toEqual(fault("conflict"));
    const held = escrowEntry({ workspaceId, requestId, fee: 5, balance: 5 });
    expect(held?.postings.map(({ debit, credit }) => debit - credit).sort()).toEqual([-5, 5]);
    expect(payoutEntry({ keyringId, party: "a", amount: 5, balance: 5 }).kind).toBe("payout");
  });

  test("credits in circulation have a bound", () => {
    const credit = (amount: number, circulating: number) => () => creditEntry({ workspaceId, amount, circulating });
    expect(credit(1, CREDITS_MAX - 1)()).toMatchObject({ kind: "credit" });
    expect(caught(credit(2, CREDITS_MAX - 1))).toEqual(fault("conflict"));
    expect(caught(credit(1, CREDITS_MAX))).toEqual(fault("conflict"));
    expect(caught(credit(CREDITS_MAX + 1, 0))).toEqual(fault("bad_input"));
  });

  test.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, CREDITS_MAX + 1, 2 ** 53])(
    "an amount of %p is none",
    (n) => {
      const bad = fault("bad_input");
      expect(caught(() => creditEntry({ workspaceId, amount: n, circulating: 0 }))).toEqual(bad);
      expect(caught(() => creditEntry({ workspaceId, amount: 1, circulating: n }))).toEqual(bad);
      expect(caught(() => escrowEntry({ workspaceId, requestId, fee: n, balance: CREDITS_MAX }))).toEqual(bad);
      expect(caught(() => escrowEntry({ workspaceId, requestId, fee: 1, balance: n }))).toEqual(bad);
      expect(caught(() => payEntry({ workspaceId, keyringId, requestId, fee: n, parties: three }))).toEqual(bad);
      expect(caught(() => refundEntry({ workspaceId, requestId, fee: n }))).toEqual(bad);
      expect(caught(() => payoutEntry({ keyringId, party: "a", amount: n, balance: CREDITS_MAX }))).toEqual(bad);
      expect(caught(() => feeOf(n, 1))).toEqual(bad);
    },
  );

  test("nothing is credited and nothing paid out", () => {
    expect(caught(() => creditEntry({ workspaceId, amount: 0, circulating: 0 }))).toEqual(fault("bad_input"));
    expect(caught(() => payoutEntry({ keyringId, party: "a", amount: 0, balance: 5 }))).toEqual(fault("bad_input"));
  });

  test("two parties of one name would be one account", () => {
    const parties = [three[0], three[0]].filter((p) => p !== undefined);
    expect(caught(() => payEntry({ workspaceId, keyringId, requestId, fee: 5, parties }))).toEqual(fault("bad_input"));
  });

  test("a batch costs its items together, within the bound", () => {
    expect(feeOf(3, 16)).toBe(48);
    expect(caught(() => feeOf(CREDITS_MAX / 2 + 1, 2))).toEqual(fault("bad_input"));
  });
});

describe("the split of a fee", () => {
  test("is whole, fair to one credit, and to the first ones' favour", () => {
    fc.assert(
      fc.property(fc.nat({ max: CREDITS_MAX }), fc.integer({ min: 1, max: 32 }), (fee, payees) => {
        const parts = splitFee(fee, payees);
        expect(parts.length).toBe(payees);
        expect(parts.reduce((a, b) => a + b, 0)).toBe(fee);
        expect((parts[0] ?? 0) - (parts.at(-1) ?? 0)).toBeLessThanOrEqual(1);
        expect(parts.toSorted((a, b) => b - a)).toEqual([...parts]);
      }),
    );
    expect(splitFee(7, 0)).toEqual([]);
  });
});

describe("reading a ledger", () => {
  const credit = creditEntry({ workspaceId, amount: 10, circulating: 0 });
  const [debited, credited] = [
    { account: "operator", debit: 10, credit: 0 },
    { account: "x", debit: 0, credit: 10 },
  ];

  test.each([
    ["one side alone", [debited]],
    ["nothing", []],
    ["unequal sides", [debited, { account: "x", debit: 0, credit: 9 }]],
    ["both sides in one posting", [debited, { account: "x", debit: 1, credit: 11 }]],
    ["an empty posting", [debited, credited, { account: "y", debit: 0, credit: 0 }]],
    [
      "a negative side",
      [
        { account: "operator", debit: -10, credit: 0 },
        { account: "x", debit: 0, credit: -10 },
      ],
    ],
    ["an account twice", [debited, { ...credited, credit: 5 }, { ...credited, credit: 5 }]],
    [
      "a broken credit",
      [
        { ...debited, debit: 0.5 },
        { ...credited, credit: 0.5 },
      ],
    ],
  ])("an entry with %s is refused", (_, postings) => {
    expect(isBalanced({ postings })).toBe(false);
    expect(sumsToZero([credit, { postings }])).toBe(false);
    expect(caught(() => balancesOf([{ postings }]))).toEqual(fault("integrity"));
  });

  test("a balance below zero on the way is refused, even if it recovers", () => {
    const spend = {
      postings: [
        { account: workspaceAccount(workspaceId), debit: 5, credit: 0 },
        { account: "x", debit: 0, credit: 5 },
      ],
    };
    expect(sumsToZero([credit, spend])).toBe(true);
    expect(sumsToZero([spend, credit])).toBe(false);
  });

  test("the operator alone is below zero, and within the bound", () => {
    expect(posted(0, { account: OPERATOR_ACCOUNT, debit: CREDITS_MAX, credit: 0 })).toBe(-CREDITS_MAX);
    expect(caught(() => posted(-CREDITS_MAX, { account: OPERATOR_ACCOUNT, debit: 1, credit: 0 }))).toEqual(
      fault("conflict"),
    );
    expect(caught(() => posted(0, { account: OPERATOR_ACCOUNT, debit: 0, credit: 1 }))).toEqual(fault("conflict"));
    expect(caught(() => posted(0, { account: "x", debit: 1, credit: 0 }))).toEqual(fault("conflict"));
    expect(caught(() => posted(CREDITS_MAX, { account: "x", debit: 0, credit: 1 }))).toEqual(fault("conflict"));
  });
});

/** What a registry is asked for, in any order and with any amounts: it books what the functions allow. */
const asked = fc.array(
  fc.record({
    what: fc.constantFrom("credit", "escrow", "escrow", "pay", "refund", "payout"),
    amount: fc.nat({ max: 50 }),
    at: fc.nat({ max: 7 }),
    parties: fc.subarray(three),
  }),
  { maxLength: 60 },
);

test("after any history the ledger sums to zero, nobody is below it, and no credit is made or lost", () => {
  fc.assert(
    fc.property(asked, (history) => {
      const entries: LedgerDraft[] = [];
      const open = new Map<number, number>();
      let issued = 0;
      let next = 0;
      for (const { what, amount, at, parties } of history) {
        const balances = balancesOf(entries);
        const workspace = balances.get(workspaceAccount(workspaceId)) ?? 0;
        const [held = -1] = [...open.keys()].slice(at % Math.max(1, open.size));
        const fee = open.get(held) ?? 0;
        const name = three[at % 3]?.name ?? "a";
        const earned = balances.get(partyAccount(keyringId, name)) ?? 0;
        const book = (entry: LedgerDraft | null) => entry && entries.push(entry);
        if (what === "credit" && amount > 0) {
          book(creditEntry({ workspaceId, amount, circulating: issued }));
          issued += amount;
        } else if (what === "escrow") {
          if (amount > workspace) {
            expect(
              caught(() => escrowEntry({ workspaceId, requestId: requestOf(next), fee: amount, balance: workspace })),
            ).toEqual(fault("conflict"));
          } else {
            book(escrowEntry({ workspaceId, requestId: requestOf(next), fee: amount, balance: workspace }));
            open.set(next++, amount);
          }
        } else if (held >= 0 && (what === "pay" || what === "refund")) {
          const end = { workspaceId, keyringId, requestId: requestOf(held), fee, parties };
          book(what === "pay" ? payEntry(end) : refundEntry(end));
          open.delete(held);
        } else if (what === "payout" && amount > 0 && amount <= earned) {
          book(payoutEntry({ keyringId, party: name, amount, balance: earned }));
          issued -= amount;
        }
        expect(sumsToZero(entries)).toBe(true);
        expect(0 - (balancesOf(entries).get(OPERATOR_ACCOUNT) ?? 0)).toBe(issued);
      }
      for (const [n, fee] of open) {
        if (fee > 0) expect(balancesOf(entries).get(escrowAccount(requestOf(n)))).toBe(fee);
      }
    }),
    { numRuns: 100 },
  );
});
