import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../../src/errors.ts";
import { t1Of } from "../../../src/protocol/ceremony/combine.ts";
import { abortBody, admit, type CeremonyState, ceremonyState, nextEntry } from "../../../src/protocol/ceremony/life.ts";
import type { CeremonyStatus, EntryBody } from "../../../src/protocol/ceremony/model.ts";
import { TRANSITIONS, transitionOf } from "../../../src/protocol/ceremony/progress.ts";
import { revealBytes } from "../../../src/protocol/ceremony/records.ts";
import { OPENED_AT, type PureCeremony, pureCeremony, STAGE } from "../../support/pureceremony.ts";
import { seeded } from "../../support/seeded.ts";

/** One thing that somebody tries; `who` counts from 1, also past the last seat. */
type Try =
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "seat" | "join" | "reveal"; readonly who: number }
  | { readonly kind: "freeze" | "result" }
  | { readonly kind: "abort"; readonly reason: "absent" | "withheld" | "closed" | "failed" };

/** The rules once more, as one would tell them, over sets and a clock. */
class Model {
  now = OPENED_AT;
  readonly seats = new Set<number>();
  readonly joined = new Set<number>();
  readonly revealed = new Set<number>();
  frozenAt: number | null = null;
  end: "stored" | "aborted" | null = null;
  readonly size: number;
  readonly minimum: number;
  readonly account: number;

  constructor(size: number, minimum: number, account: number) {
    this.size = size;
    this.minimum = minimum;
    this.account = account;
  }

  status(): CeremonyStatus {
    if (this.end) return this.end;
    if (this.frozenAt !== null) return this.revealed.size === this.joined.size ? "combine" : "reveal";
    const over = this.now >= OPENED_AT + STAGE;
    if (this.joined.size === this.size || (over && this.joined.size >= this.minimum)) return "freeze";
    return this.joined.size > 0 ? "commit" : "open";
  }

  /** True if it may happen; then it has. */
  take(one: Exclude<Try, { kind: "wait" }>): boolean {
    if (this.end) return false;
    const committing = this.frozenAt === null && this.now < OPENED_AT + STAGE;
    const revealing = this.frozenAt !== null && this.now < this.frozenAt + STAGE;
    switch (one.kind) {
      case "seat":
        if (!committing || one.who !== this.account || this.seats.has(one.who)) return false;
        if (this.joined.size === this.size) return false;
        this.seats.add(one.who);
        return true;
      case "join":
        if (!committing || one.who > this.size || this.joined.has(one.who)) return false;
        if (one.who === this.account && !this.seats.has(one.who)) return false;
        this.joined.add(one.who);
        return true;
      case "freeze":
        if (this.frozenAt !== null || this.joined.size < this.minimum) return false;
        this.frozenAt = this.now;
        return true;
      case "reveal":
        if (!revealing || !this.joined.has(one.who) || this.revealed.has(one.who)) return false;
        this.revealed.add(one.who);
        return true;
      case "result":
        if (this.status() !== "combine") return false;
        this.end = "stored";
        return true;
      case "abort":
        if (!this.mayAbort(one.reason)) return false;
        this.end = "aborted";
        return true;
    }
  }

  mayAbort(reason: string): boolean {
    const everyone = this.frozenAt !== null && this.revealed.size === this.joined.size;
    if (reason === "failed") return true;
    if (reason === "closed") return !everyone;
    if (reason === "withheld") return this.frozenAt !== null && !everyone && this.now >= this.frozenAt + STAGE;
    return this.frozenAt === null && this.now >= OPENED_AT + STAGE && this.joined.size < this.minimum;
  }
}

const ACCOUNT = 2;
const SIZES = [
  [2, 2],
  [3, 2],
  [4, 3],
  [20, 2],
] as const;
const worlds = await Promise.all(
  SIZES.map(([participants, minimum], at) => {
    const random = seeded(at);
    const draft = { minimum };
    return pureCeremony({ random: (length) => random.bytes(length), participants, accounts: [ACCOUNT], draft });
  }),
);

/** Signed over whatever T1 there is; what it seals does not matter here. */
function reveal(w: PureCeremony, state: CeremonyState, index: number): EntryBody {
  const t1 = state.t1 ?? new Uint8Array(32);
  const { ceremonyId } = w;
  const word = {
    ceremonyId,
    index,
    t1,
    keyNumber: 1,
    suite: "hpke" as const,
    sealedHash: new Uint8Array(32).fill(index),
  };
  return { kind: "reveal", reveal: { reveal: word, signature: w.participant(index).signer.sign(revealBytes(word)) } };
}

async function bodyOf(w: PureCeremony, state: CeremonyState, one: Exclude<Try, { kind: "wait" }>): Promise<EntryBody> {
  switch (one.kind) {
    case "seat":
      return w.seat(one.who);
    case "join":
      return w.join(one.who);
    case "freeze":
      return { kind: "freeze", t1: t1Of(w.ceremonyId, state.joins), seed: w.seed };
    case "reveal":
      return reveal(w, state, one.who);
    case "result":
      return state.joins.length < 2 ? SOME_RESULT : await w.result();
    case "abort":
      return abortBody(state, one.reason);
  }
}

const SOME_RESULT = await (async () => {
  const random = seeded(99);
  const w = await pureCeremony({ random: (length) => random.bytes(length), participants: 2 });
  await w.go("reveal");
  return await w.result();
})();

function admitted(work: () => void): boolean {
  try {
    work();
    return true;
  } catch (error) {
    if (error instanceof Fault && ["denied", "conflict", "stale", "bad_input"].includes(error.code)) return false;
    throw error;
  }
}

/** Mostly what comes next, so that histories get somewhere; often something else. */
const tries = fc.array(
  fc.oneof(
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.constantFrom(1, 60_000, STAGE) }) },
    {
      weight: 12,
      arbitrary: fc.record({
        kind: fc.constantFrom("join" as const, "reveal" as const),
        who: fc.integer({ min: 1, max: 4 }),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("seat" as const), who: fc.integer({ min: 1, max: 3 }) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom("freeze" as const, "result" as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant("abort" as const),
        reason: fc.constantFrom("absent" as const, "withheld" as const, "closed" as const, "failed" as const),
      }),
    },
  ),
  { minLength: 10, maxLength: 60 },
);

const both = (kind: "join" | "reveal"): readonly Try[] => [
  { kind, who: 1 },
  { kind, who: 2 },
];
const SEATED: readonly Try[] = [{ kind: "seat", who: ACCOUNT }, ...both("join"), { kind: "freeze" }];
const LATE: Try = { kind: "wait", ms: STAGE };
/** Each way that there is, so that no seed misses one. */
const EXAMPLES: [number, Try[]][] = [
  [0, [...SEATED, ...both("reveal"), { kind: "result" }]],
  [0, [...SEATED, ...both("reveal"), { kind: "abort", reason: "failed" }]],
  [0, [...SEATED, { kind: "reveal", who: 1 }, LATE, { kind: "reveal", who: 2 }, { kind: "abort", reason: "withheld" }]],
  [1, [{ kind: "join", who: 1 }, LATE, { kind: "join", who: 3 }, { kind: "abort", reason: "absent" }]],
  [2, [{ kind: "abort", reason: "closed" }, ...SEATED]],
];

describe("random histories", () => {
  const seen = new Set<string>();

  test("go as the rules say, and never on after the end or to a result without someone", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...worlds.keys()), tries, async (which, history) => {
        const w = worlds[which];
        const [size = 2, minimum = 2] = SIZES[which] ?? [];
        if (!w) throw new Error("no such world");
        w.entries.length = 0;
        const model = new Model(size, minimum, ACCOUNT);
        let state = w.stateAt(model.now);
        for (const one of history) {
          if (one.kind === "wait") {
            model.now += one.ms;
            state = w.stateAt(model.now);
            continue;
          }
          if ("who" in one && one.who > size) continue;
          const before = state;
          const body = await bodyOf(w, before, one);
          const may = admitted(() => admit(before, body, model.now));
          expect({ ...one, may }).toEqual({ ...one, may: model.take(one) });
          if (!may) continue;
          w.force(nextEntry(before, body, model.now));
          state = w.stateAt(model.now);
          expect(state.status).toBe(model.status());
          const { entry, from, to } = transitionOf(body);
          expect([from.includes(before.status), to.includes(state.status)]).toEqual([true, true]);
          seen.add(entry);
        }
        expect(ceremonyState(w.transcript(), model.now)).toEqual(state);
        expect(state.status).toBe(model.status());
        expect(state.missing).toEqual(
          state.frozen
            ? [...model.joined].filter((index) => !model.revealed.has(index)).sort((a, b) => a - b)
            : w.draft.slots.map(({ index }) => index).filter((index) => !model.joined.has(index)),
        );
        if (state.result)
          expect([model.revealed.size, state.joins.length >= minimum]).toEqual([state.joins.length, true]);
      }),
      { numRuns: 250, examples: EXAMPLES },
    );
  }, 60_000);

  test("came through every transition but a lie, which is tried by itself", () => {
    expect([...seen].sort()).toEqual(
      TRANSITIONS.map(({ entry }) => entry)
        .filter((one) => one !== "lied")
        .sort(),
    );
  });
});
