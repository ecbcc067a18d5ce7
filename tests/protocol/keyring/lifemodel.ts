import type { ErrorCode } from "../../../src/errors.ts";

/**
 * The life of a request through a keyring once more, as naive as it can be: parties are numbers, what they say are short
 * words, and whether a request can still be fulfilled is found by trying everything that silent parties might say.
 * Shares no code with src/protocol/keyring/requestlife.ts. Names of rows are those of docs/protocol.md §9.3.
 */

/** The first letter is the value (`R` rejects); what follows differs without changing it. */
export const WORDS = ["1", "1b", "2", "R", "Rb"] as const;
export type Word = (typeof WORDS)[number];
export const valueIn = (word: Word): string => word.slice(0, 1);

export type ModelEvent = { readonly late: boolean } & (
  | { readonly type: "ruled"; readonly ruling: "allow" | "wait" | "deny" }
  /** `party` or `item` of -1: none of the request's. */
  | { readonly type: "response"; readonly party: number; readonly item: number; readonly word: Word }
  | { readonly type: "result"; readonly item: number; readonly word: "1" | "2" }
  | { readonly type: "accepted" | "cancel" | "failed" | "tick" }
);

export interface Model {
  readonly parties: number;
  readonly threshold: number;
  readonly items: number;
  readonly status: string;
  readonly approved: boolean;
  readonly accepted: boolean;
  /** First word of a party on an item, by `party/item`. */
  readonly said: Readonly<Record<string, Word>>;
  readonly excluded: readonly number[];
  /** Value by item. */
  readonly results: Readonly<Record<number, string>>;
}

export interface ModelStep {
  readonly model: Model;
  /** Rows of the documented table that this step went through. */
  readonly rows: readonly string[];
  readonly effects: readonly string[];
  readonly refused: ErrorCode | null;
}

export const newModel = (parties: number, threshold: number, items: number): Model => ({
  parties,
  threshold,
  items,
  status: "pending",
  approved: false,
  accepted: false,
  said: {},
  excluded: [],
  results: {},
});

export const isOpen = (m: Model): boolean => m.status === "pending" || m.status === "partial";
const range = (n: number) => Array.from({ length: n }, (_, i) => i);
export const payees = (m: Model): number[] => range(m.parties).filter((p) => !m.excluded.includes(p));

/** Every way to give each of `n` parties one of these values. */
function assignments(n: number, values: readonly string[]): string[][] {
  return n === 0 ? [[]] : assignments(n - 1, values).flatMap((rest) => values.map((value) => [...rest, value]));
}

function votes(m: Model, item: number): { spoken: string[]; silent: number } {
  const words = payees(m).map((p) => m.said[`${p}/${item}`]);
  return {
    spoken: words.flatMap((w) => (w === undefined ? [] : [valueIn(w)])),
    silent: words.filter((w) => w === undefined).length,
  };
}

const isFulfilled = (m: Model): boolean =>
  range(m.items).every((item) => {
    const value = m.results[item];
    return value !== undefined && votes(m, item).spoken.filter((v) => v === value).length >= m.threshold;
  });

/** Some way of going on without a contradiction fulfils it. */
const isPossible = (m: Model): boolean =>
  range(m.items).every((item) => {
    const { spoken, silent } = votes(m, item);
    const known = m.results[item];
    return (known === undefined ? ["1", "2", "3"] : [known]).some((result) =>
      assignments(silent, ["1", "2", "3", "R"]).some(
        (more) => [...spoken, ...more].filter((v) => v === result).length >= m.threshold,
      ),
    );
  });

const over = ["refund", "forget"];

function inTime(m: Model, e: ModelEvent): ModelStep {
  const stay = (row: string, effects: string[] = []): ModelStep => ({ model: m, rows: [row], effects, refused: null });
  const go = (row: string, change: Partial<Model>, effects: string[] = []): ModelStep => ({
    model: { ...m, ...change },
    rows: [row],
    effects,
    refused: null,
  });
  const refuse = (row: string, refused: ErrorCode): ModelStep => ({ model: m, rows: [row], effects: [], refused });
  /** Where a change of responses or results leads to. */
  const judged = (change: Partial<Model>, rows: { on: string; done: string; out: string }, first: string[]) => {
    const next = { ...m, ...change };
    if (isFulfilled(next))
      return go(rows.done, { ...change, status: "fulfilled" }, [...first, `pay:${payees(next).join()}`]);
    if (!isPossible(next)) return go(rows.out, { ...change, status: "rejected" }, [...first, ...over]);
    const heard = Object.keys(next.said).length > 0;
    return go(rows.on, { ...change, status: heard ? "partial" : m.status }, first);
  };
  switch (e.type) {
    case "ruled":
      if (!isOpen(m) || m.accepted) return stay("ruling without effect");
      if (e.ruling === "deny") return go("denied", { status: "rejected" }, over);
      if (m.approved === (e.ruling === "allow")) return stay("ruling without effect");
      return e.ruling === "allow"
        ? go("approved", { approved: true }, ["call"])
        : go("approval gone", { approved: false }, ["recall"]);
    case "response": {
      if (e.party < 0 || e.item < 0 || m.excluded.includes(e.party)) return stay("response of nobody");
      const place = `${e.party}/${e.item}`;
      const before = m.said[place];
      if (before === undefined) {
        const said = { ...m.said, [place]: e.word };
        if (!isOpen(m)) return go("late response", { said }, ["record"]);
        return judged({ said }, { on: "response", done: "last response", out: "response that rules out" }, ["record"]);
      }
      if (before === e.word) return stay("response again");
      const excluded = [...m.excluded, e.party].sort();
      const found = [`quarantine:${e.party}`];
      if (!isOpen(m)) return go("late contradiction", { excluded }, found);
      return judged({ excluded }, { on: "contradiction", done: "-", out: "contradiction that rules out" }, found);
    }
    case "accepted":
      if (m.accepted) return stay("accepted again");
      if (!isOpen(m)) return refuse("acceptance refused", "conflict");
      if (!m.approved) return refuse("acceptance refused", "pending");
      return go("accepted", { accepted: true });
    case "result": {
      if (e.item < 0) return refuse("result refused", "not_found");
      const known = m.results[e.item];
      if (known === e.word) return stay("result again");
      if (known !== undefined) return refuse("result refused", "integrity");
      if (!isOpen(m)) return refuse("result refused", "conflict");
      if (!m.approved) return refuse("result refused", "pending");
      return judged(
        { results: { ...m.results, [e.item]: e.word }, accepted: true },
        { on: "result", done: "last result", out: "result that rules out" },
        [],
      );
    }
    case "cancel":
      if (m.status === "cancelled") return stay("cancelled again");
      if (!isOpen(m) || m.accepted) return refuse("cancellation refused", "conflict");
      return go("cancelled", { status: "cancelled" }, over);
    case "failed":
      return isOpen(m) ? go("failed", { status: "rejected" }, over) : stay("failure without effect");
    case "tick":
      return stay("time");
  }
}

/** One event; a refusal changes nothing. */
export function modelStep(m: Model, e: ModelEvent): ModelStep {
  if (!e.late || !isOpen(m)) return inTime(m, e);
  const after = inTime({ ...m, status: "expired" }, e);
  const rows = ["expired", ...after.rows];
  if (after.refused) return { ...after, model: m, rows };
  return { ...after, rows, effects: [...over, ...after.effects] };
}
