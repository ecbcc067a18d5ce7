import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { asHashId, type KeyringId, type KeyringRequestId, type WorkspaceId } from "../../../src/ids.ts";
import { CREDITS_MAX, OPERATOR_ACCOUNT, partyAccount } from "../../../src/protocol/keyring/ledger.ts";
import { putStored, readStored, removeStored } from "../../../src/server/documents.ts";
import {
  balanceOf,
  balances,
  checkLedger,
  escrow,
  giveCredits,
  pay,
  payOut,
  refund,
  workspaceCredits,
} from "../../../src/server/keyring/balances.ts";
import { BALANCE, ENTRY, KEYRING, WORKSPACE } from "../../../src/server/keyring/documents.ts";
import type { Tx } from "../../../src/storage/store.ts";
import { codeOf, type RegistryPerson, type RegistryWorld, registryWorld } from "../../support/registryworld.ts";

let world: RegistryWorld;
let ada: RegistryPerson;
let workspaceId: WorkspaceId;
let keyringId: KeyringId;
beforeEach(async () => {
  world = await registryWorld();
  ada = await world.person("ada");
  const parties = [await world.connector("north"), await world.connector("south"), await world.connector("west")];
  workspaceId = (await world.workspace([ada])).workspaceId;
  keyringId = (await world.keyring(ada, parties)).keyringId;
});
afterEach(() => world.close());

const inTx = <T>(work: (tx: Tx) => Promise<T>) => world.store.transaction(work);
const id = (n: number): KeyringRequestId => asHashId(n.toString(16).padStart(64, "0"));
const PARTIES = [
  { name: "north", index: 1 },
  { name: "south", index: 2 },
  { name: "west", index: 3 },
];
const credit = (amount: number) => world.control["registry.credit"]({ workspaceId, amount, note: "invoice" });
const hold = (n: number, fee: number) => inTx((tx) => escrow(tx, { workspaceId, requestId: id(n), fee }, world.nowMs));
const payFor = (n: number, parties = PARTIES) =>
  inTx((tx) => pay(tx, { workspaceId, keyringId, requestId: id(n), parties }, world.nowMs));
const giveBack = (n: number) => inTx((tx) => refund(tx, { workspaceId, requestId: id(n) }, world.nowMs));
const credits = () => inTx((tx) => workspaceCredits(tx, workspaceId));
const partyHas = (name: string) => inTx((tx) => balanceOf(tx, partyAccount(keyringId, name)));
const ledger = async () => (await world.call("workspace.ledger", { workspaceId, after: 0 }, ada)).items;
const sound = () => inTx(checkLedger);

describe("a fee", () => {
  test("is held at creation, and paid once to the parties in equal parts", async () => {
    expect(await credit(100)).toEqual({ balance: 100 });
    await hold(1, 31);
    expect(await credits()).toEqual({ balance: 69, escrowed: 31 });
    await payFor(1);
    expect(await Promise.all(["north", "south", "west"].map(partyHas))).toEqual([11, 10, 10]);
    expect(await credits()).toEqual({ balance: 69, escrowed: 0 });
    expect((await ledger()).map(({ seq, kind }) => [seq, kind])).toEqual([
      [1, "credit"],
      [2, "escrow"],
      [3, "pay"],
    ]);
    expect(await inTx(balances)).toEqual([
      { account: OPERATOR_ACCOUNT, balance: -100 },
      { account: partyAccount(keyringId, "north"), balance: 11 },
      { account: partyAccount(keyringId, "south"), balance: 10 },
      { account: partyAccount(keyringId, "west"), balance: 10 },
      { account: `workspace:${workspaceId}`, balance: 69 },
    ]);
    expect(await sound()).toEqual({ entries: 3, problems: [] });
  });

  test("goes back on every other end, and to the workspace where no party is left", async () => {
    await credit(100);
    await hold(1, 30);
    await giveBack(1);
    await hold(2, 40);
    await payFor(2, []);
    expect(await credits()).toEqual({ balance: 100, escrowed: 0 });
    expect((await ledger()).map(({ kind }) => kind)).toEqual(["credit", "escrow", "refund", "escrow", "refund"]);
  });

  test("moves once by request, whatever comes again", async () => {
    await credit(100);
    for (let i = 0; i < 3; i += 1) await hold(1, 30);
    for (let i = 0; i < 3; i += 1) await payFor(1);
    await hold(1, 30);
    await hold(2, 30);
    for (let i = 0; i < 3; i += 1) await giveBack(2);
    await hold(2, 30);
    expect(await credits()).toEqual({ balance: 70, escrowed: 0 });
    expect(await ledger()).toHaveLength(5);
    // what went one way goes no other
    expect(await codeOf(giveBack(1))).toBe("conflict");
    expect(await codeOf(payFor(2))).toBe("conflict");
    expect(await sound()).toEqual({ entries: 5, problems: [] });
  });

  test("that the balance does not cover is not held", async () => {
    expect(await codeOf(hold(1, 1))).toBe("conflict");
    await credit(10);
    expect(await codeOf(hold(1, 11))).toBe("conflict");
    expect(await codeOf(hold(1, 10))).toBe("ok");
    expect(await codeOf(hold(2, 1))).toBe("conflict");
    expect(await credits()).toEqual({ balance: 0, escrowed: 10 });
  });

  test("of nothing leaves nothing", async () => {
    await hold(1, 0);
    await payFor(1);
    await giveBack(1);
    expect(await ledger()).toEqual([]);
  });

  test("is not another workspace's", async () => {
    await credit(10);
    await hold(1, 10);
    const other = (await world.workspace([ada], { name: "other" })).workspaceId;
    const back = (tx: Tx) => refund(tx, { workspaceId: other, requestId: id(1) }, world.nowMs);
    expect(await codeOf(inTx(back))).toBe("conflict");
    expect(await credits()).toEqual({ balance: 0, escrowed: 10 });
  });
});

describe("the operator", () => {
  test("gives credits to workspaces that there are, within bounds", async () => {
    const nobody = { workspaceId: asHashId<WorkspaceId>("ab".repeat(32)), amount: 1, note: "" };
    expect(await codeOf(world.control["registry.credit"](nobody))).toBe("not_found");
    expect(await codeOf(credit(0))).toBe("bad_input");
    expect(await credit(CREDITS_MAX)).toEqual({ balance: CREDITS_MAX });
    expect(await codeOf(credit(1))).toBe("conflict");
    expect(await credits()).toEqual({ balance: CREDITS_MAX, escrowed: 0 });
    expect(world.notices.at(-1)).toMatchObject({ event: "workspace.credited", workspaceId });
  });

  test("settles what a party has earned, and no more", async () => {
    await credit(100);
    await hold(1, 30);
    await payFor(1);
    const settle = (amount: number, party = "north", keyring = keyringId) =>
      world.control["registry.payout"]({ keyringId: keyring, party, amount, note: "november" });
    expect(await settle(4)).toEqual({ balance: 6 });
    expect(await codeOf(settle(7))).toBe("conflict");
    expect(await codeOf(settle(0))).toBe("bad_input");
    expect(await codeOf(settle(1, "zoe"))).toBe("conflict");
    expect(await codeOf(settle(1, "north", asHashId("ab".repeat(32))))).toBe("not_found");
    expect(await settle(6)).toEqual({ balance: 0 });
    expect(await world.control["registry.balances"]({})).toMatchObject({ entries: 5, sound: true, problems: [] });
    expect(await inTx((tx) => balanceOf(tx, OPERATOR_ACCOUNT))).toBe(-90);
  });
});

describe("the check of the whole ledger", () => {
  beforeEach(async () => {
    await credit(100);
    await hold(1, 30);
    await payFor(1);
    await hold(2, 5);
  });
  const spoil = (work: (tx: Tx) => Promise<unknown>) => inTx(work);
  const problems = async () => {
    const { sound: holds, problems: found } = await world.control["registry.balances"]({});
    expect(holds).toBe(found.length === 0);
    return found;
  };

  test("finds a changed balance", async () => {
    await spoil(async (tx) => {
      const row = await readStored(tx, BALANCE, `workspace:${workspaceId}`);
      if (row) await putStored(tx, BALANCE, { ...row, value: { amount: 1_000 } }, row.version);
    });
    expect(await problems()).toEqual([`the balance of workspace:${workspaceId} is not what its entries say`]);
  });

  test("finds a balance that is gone", async () => {
    await spoil((tx) => removeStored(tx, BALANCE, OPERATOR_ACCOUNT));
    expect(await problems()).toEqual(["the balance of operator is missing"]);
  });

  test("finds a missing entry", async () => {
    await spoil((tx) => removeStored(tx, ENTRY, `escrow:${id(1)}`));
    expect((await problems()).length).toBeGreaterThan(1);
  });

  test("finds an entry that does not sum to zero", async () => {
    await spoil(async (tx) => {
      const row = await readStored(tx, ENTRY, `pay:${id(1)}`);
      if (!row) throw new Error("no entry");
      const postings = row.value.postings.map((one, i) => (i === 1 ? { ...one, credit: one.credit + 1 } : one));
      await putStored(tx, ENTRY, { ...row, value: { ...row.value, postings } }, row.version);
    });
    expect(await problems()).toContain(`entry 3 of ${workspaceId} does not sum to zero`);
  });
});

test("after every history all entries sum to zero and are what the balances say", async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("credit" as const), amount: fc.integer({ min: 0, max: 200 }) }),
    fc.record({
      do: fc.constant("escrow" as const),
      n: fc.integer({ min: 1, max: 8 }),
      fee: fc.integer({ min: 0, max: 90 }),
    }),
    fc.record({
      do: fc.constant("pay" as const),
      n: fc.integer({ min: 1, max: 8 }),
      parties: fc.subarray(PARTIES),
    }),
    fc.record({ do: fc.constant("refund" as const), n: fc.integer({ min: 1, max: 8 }) }),
    fc.record({
      do: fc.constant("payout" as const),
      party: fc.constantFrom("north", "south", "west", "zoe"),
      amount: fc.integer({ min: 0, max: 40 }),
    }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const one = await registryWorld();
      try {
        // the ledger needs nothing of a workspace and a keyring but that they are there
        const workspace = await inTx((tx) => readStored(tx, WORKSPACE, workspaceId));
        const keyring = await inTx((tx) => readStored(tx, KEYRING, keyringId));
        await one.store.transaction(async (tx) => {
          if (workspace) await putStored(tx, WORKSPACE, workspace, 0);
          if (keyring) await putStored(tx, KEYRING, keyring, 0);
        });
        // what each open request holds, and which ones have ever been held
        const held = new Map<number, number>();
        const over = new Set<number>();
        let [free, issued] = [0, 0];
        const work = <T>(run: (tx: Tx) => Promise<T>) => codeOf(one.store.transaction(run));
        for (const s of steps) {
          if (s.do === "credit") {
            const code = await work((tx) => giveCredits(tx, { workspaceId, amount: s.amount, note: "" }, 1));
            expect(code).toBe(s.amount > 0 ? "ok" : "bad_input");
            free += s.amount;
            issued += s.amount;
          } else if (s.do === "escrow") {
            const known = held.has(s.n) || over.has(s.n);
            const code = await work((tx) => escrow(tx, { workspaceId, requestId: id(s.n), fee: s.fee }, 1));
            expect(code).toBe(known || s.fee <= free ? "ok" : "conflict");
            if (known || s.fee > free || s.fee === 0) continue;
            held.set(s.n, s.fee);
            free -= s.fee;
          } else if (s.do === "payout") {
            const input = { keyringId, party: s.party, amount: s.amount, note: "" };
            if ((await work((tx) => payOut(tx, input, 1))) === "ok") issued -= s.amount;
          } else {
            const at = { workspaceId, requestId: id(s.n) };
            const parties = s.do === "pay" ? s.parties : [];
            const run = (tx: Tx) => (s.do === "pay" ? pay(tx, { ...at, keyringId, parties }, 1) : refund(tx, at, 1));
            const code = await work(run);
            if (held.has(s.n)) expect(code).toBe("ok");
            if (parties.length === 0) free += held.get(s.n) ?? 0;
            if (held.delete(s.n)) over.add(s.n);
          }
        }
        const state = await one.store.transaction(async (tx) => ({
          check: await checkLedger(tx),
          all: await balances(tx),
          workspace: await workspaceCredits(tx, workspaceId),
          operator: await balanceOf(tx, OPERATOR_ACCOUNT),
        }));
        expect(state.check.problems).toEqual([]);
        expect(state.all.reduce((sum, { balance }) => sum + balance, 0)).toBe(0);
        expect(state.workspace).toEqual({ balance: free, escrowed: [...held.values()].reduce((a, b) => a + b, 0) });
        expect(Math.abs(state.operator)).toBe(issued);
        expect(state.all.every(({ account, balance }) => balance > 0 || account === OPERATOR_ACCOUNT)).toBe(true);
      } finally {
        await one.close();
      }
    }),
    { numRuns: 25 },
  );
});
