import { expect, test } from "bun:test";
import fc from "fast-check";
import { hashCanon } from "../../../src/crypto/kdf.ts";
import { hashId, type KeyringRequestId, type WorkspaceId } from "../../../src/ids.ts";
import {
  balancesOf,
  creditEntry,
  escrowAccount,
  escrowEntry,
  type LedgerDraft,
  partyAccount,
  payEntry,
  refundEntry,
  sumsToZero,
  workspaceAccount,
} from "../../../src/protocol/keyring/ledger.ts";
import { isOpenLife, type KeyringLife } from "../../../src/protocol/keyring/requestlife.ts";
import { KEYRING, newLife, realStep, seenAs, stateKey } from "./lifecase.ts";
import { isOpen, type Model, type ModelEvent, modelStep, newModel, payees, WORDS } from "./lifemodel.ts";

const START = 1_000;
const workspaceId = hashId<WorkspaceId>(hashCanon("test", "workspace"));
const requestId = hashId<KeyringRequestId>(hashCanon("test", "request"));

/** A request with the ledger of its registry: each effect about the fee is an entry. */
interface World {
  life: KeyringLife;
  readonly fee: number;
  readonly entries: LedgerDraft[];
  evidence: number;
}

interface Reference {
  model: Model;
  quarantined: number;
}

const nameOf = (party: number) => `p${party}`;

function book(world: World, before: KeyringLife, effects: ReturnType<typeof realStep>["raw"]): void {
  const { fee, entries } = world;
  for (const effect of effects) {
    if (effect.do === "quarantine") world.evidence++;
    if (effect.do === "refund") {
      const entry = refundEntry({ workspaceId, requestId, fee });
      if (entry) entries.push(entry);
    }
    if (effect.do === "pay") {
      const named = before.parties.map(({ key }, index) => ({ key, name: nameOf(index), index: index + 1 }));
      const parties = named.filter(({ key }) => effect.parties.includes(key));
      const entry = payEntry({ workspaceId, keyringId: KEYRING, requestId, fee, parties });
      if (entry) entries.push(entry);
    }
  }
}

/** Where the credits must be, said without the ledger. */
function wantedBalances(m: Model, fee: number): Map<string, number> {
  const paid = m.status === "fulfilled";
  const held = isOpen(m);
  const wanted = new Map([["operator", -START]]);
  wanted.set(workspaceAccount(workspaceId), held || paid ? START - fee : START);
  if (fee > 0) wanted.set(escrowAccount(requestId), held ? fee : 0);
  return wanted;
}

class Happens implements fc.Command<Reference, World> {
  private readonly event: ModelEvent;
  constructor(event: ModelEvent) {
    this.event = event;
  }
  check(): boolean {
    return true;
  }
  toString(): string {
    return JSON.stringify(this.event);
  }
  run(reference: Reference, world: World): void {
    const wasOpen = isOpen(reference.model);
    const wanted = modelStep(reference.model, this.event);
    const before = world.life;
    const got = realStep(before, this.event);
    expect(got.effects).toEqual([...wanted.effects]);
    expect(got.refused).toBe(wanted.refused);
    expect(stateKey(seenAs(got.life))).toBe(stateKey(wanted.model));
    expect(isOpenLife(got.life)).toBe(isOpen(wanted.model));
    if (!wasOpen) {
      expect(got.life.status).toBe(before.status);
      expect(got.effects.filter((one) => !/^(record|quarantine:\d)$/.test(one))).toEqual([]);
    }
    world.life = got.life;
    book(world, before, got.raw);
    reference.model = wanted.model;
    reference.quarantined += wanted.effects.filter((one) => one.startsWith("quarantine")).length;
    this.checkLedger(reference, world, wanted.effects);
  }
  private checkLedger({ model, quarantined }: Reference, world: World, effects: readonly string[]): void {
    const { entries, fee } = world;
    expect(sumsToZero(entries)).toBe(true);
    expect(world.evidence).toBe(quarantined);
    expect(quarantined).toBe(model.excluded.length);
    const ends = entries.filter(({ kind }) => kind === "pay" || kind === "refund");
    expect(ends.length).toBe(isOpen(model) || fee === 0 ? 0 : 1);
    const balances = balancesOf(entries);
    for (const [account, balance] of wantedBalances(model, fee)) expect(balances.get(account)).toBe(balance);
    const earned = Array.from({ length: model.parties }, (_, p) => balances.get(partyAccount(KEYRING, nameOf(p))) ?? 0);
    expect(earned.reduce((sum, one) => sum + one, 0)).toBe(model.status === "fulfilled" ? fee : 0);
    if (!effects.some((one) => one.startsWith("pay"))) return;
    const shares = payees(model).map((p) => earned[p] ?? 0);
    expect(Math.max(...shares) - Math.min(...shares)).toBeLessThanOrEqual(1);
    expect(shares.toSorted((a, b) => b - a)).toEqual(shares);
    for (const p of model.excluded) expect(earned[p]).toBe(0);
  }
}

/** Events as often as they tell something: mostly in time, mostly agreeing, seldom an end. */
function events(parties: number, items: number): fc.Arbitrary<ModelEvent> {
  const late = fc.nat({ max: 39 }).map((n) => n === 0);
  const party = fc.integer({ min: 0, max: parties - 1 });
  const item = fc.integer({ min: 0, max: items - 1 });
  const word = fc.oneof(
    { weight: 6, arbitrary: fc.constant("1" as const) },
    { weight: 1, arbitrary: fc.constantFrom(...WORDS) },
  );
  const ruling = fc.constantFrom("allow" as const, "allow" as const, "wait" as const, "deny" as const);
  return fc.oneof(
    { weight: 24, arbitrary: fc.record({ type: fc.constant("response" as const), party, item, word, late }) },
    {
      weight: 8,
      arbitrary: fc.record({
        type: fc.constant("result" as const),
        item: fc.oneof({ weight: 9, arbitrary: item }, { weight: 1, arbitrary: fc.constant(-1) }),
        word: fc.constantFrom("1" as const, "1" as const, "1" as const, "2" as const),
        late,
      }),
    },
    { weight: 3, arbitrary: fc.record({ type: fc.constant("ruled" as const), ruling, late }) },
    {
      weight: 1,
      arbitrary: fc.record({
        type: fc.constantFrom("accepted" as const, "cancel" as const, "failed" as const, "tick" as const),
        late,
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        type: fc.constant("response" as const),
        party: fc.constantFrom(-1, 0),
        item: fc.constant(-1),
        word,
        late,
      }),
    },
  );
}

const form = fc
  .record({ parties: fc.integer({ min: 1, max: 5 }), items: fc.integer({ min: 1, max: 4 }), fee: fc.nat({ max: 100 }) })
  .chain((f) => fc.record({ ...constants(f), threshold: fc.integer({ min: 1, max: f.parties }) }));
function constants(f: { parties: number; items: number; fee: number }) {
  return { parties: fc.constant(f.parties), items: fc.constant(f.items), fee: fc.constant(f.fee) };
}

const ends = new Map<string, number>();

test("any history goes as the reference model, and its ledger sums to zero and pays once", () => {
  const history = form.chain((f) =>
    fc.record({
      f: fc.constant(f),
      approvedFirst: fc.nat({ max: 9 }).map((n) => n > 0),
      commands: fc.commands([events(f.parties, f.items).map((e) => new Happens(e))], { maxCommands: 60, size: "max" }),
    }),
  );
  fc.assert(
    fc.property(history, ({ f, approvedFirst, commands }) => {
      const { parties, threshold, items, fee } = f;
      const entries: LedgerDraft[] = [creditEntry({ workspaceId, amount: START, circulating: 0 })];
      const held = escrowEntry({ workspaceId, requestId, fee, balance: START });
      if (held) entries.push(held);
      const world: World = { life: newLife(parties, threshold, items), fee, entries, evidence: 0 };
      const reference: Reference = { model: newModel(parties, threshold, items), quarantined: 0 };
      if (approvedFirst) new Happens({ type: "ruled", ruling: "allow", late: false }).run(reference, world);
      fc.modelRun(() => ({ model: reference, real: world }), commands);
      ends.set(world.life.status, (ends.get(world.life.status) ?? 0) + 1);
    }),
    { numRuns: 400 },
  );
  for (const status of ["partial", "fulfilled", "rejected", "expired", "cancelled"]) {
    expect({ status, reached: (ends.get(status) ?? 0) > 0 }).toEqual({ status, reached: true });
  }
}, 60_000);
