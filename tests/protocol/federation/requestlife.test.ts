import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../../src/errors.ts";
import type { FederatedRequestId } from "../../../src/ids.ts";
import type { Decision, RequestKind } from "../../../src/protocol/federation/request.ts";
import {
  advance,
  draftLife,
  isOpen,
  isUse,
  type RequestEvent,
  type RequestLife,
  type RequestStatus,
} from "../../../src/protocol/federation/requestlife.ts";

const ID = "ab".repeat(32) as FederatedRequestId;
const EXPIRES = 1_000;
const bytes = (value: number) => new Uint8Array(32).fill(value);
const accept = (attempt: number, hash: number): Decision => ({
  requestId: ID,
  verdict: "accept",
  attempt,
  certificateHash: bytes(hash),
});
const cancel: Decision = { requestId: ID, verdict: "cancel", attempt: 0, certificateHash: null };

/** An event in the terms of the life it meets: attempts relative to the newest one. */
type Move =
  | "submit allow"
  | "submit wait"
  | "submit deny"
  | "rule allow"
  | "rule wait"
  | "rule deny"
  | "begin next"
  | "begin same"
  | "begin other"
  | "begin older"
  | "begin late"
  | "speak commit"
  | "speak echo"
  | "speak nonces"
  | "speak share"
  | "speak complaint"
  | "speak reveal"
  | "speak older"
  | "sign"
  | "sign another"
  | "sign older"
  | "done"
  | "fail"
  | "fail older"
  | "lose"
  | "lose older"
  | "accept"
  | "accept another"
  | "cancel"
  | "tick early"
  | "tick late";

const MOVES: readonly Move[] = [
  ...(["submit allow", "submit wait", "submit deny", "rule allow", "rule wait", "rule deny"] as const),
  ...(["begin next", "begin same", "begin other", "begin older", "begin late"] as const),
  ...(["speak commit", "speak echo", "speak nonces", "speak share", "speak complaint", "speak reveal"] as const),
  ...([
    "speak older",
    "sign",
    "sign another",
    "sign older",
    "done",
    "fail",
    "fail older",
    "lose",
    "lose older",
  ] as const),
  ...(["accept", "accept another", "cancel", "tick early", "tick late"] as const),
];

function eventOf(move: Move, attempt: number): RequestEvent {
  const [word = "", rest = ""] = move.split(" ");
  const ruling = rest as "allow" | "wait" | "deny";
  const spoken = rest as "commit";
  const older = rest === "older" ? attempt - 1 : attempt;
  const begin = (n: number, hash: number, nowMs = 0): RequestEvent => ({
    type: "begun",
    attempt: n,
    orderHash: bytes(hash),
    nowMs,
  });
  switch (word) {
    case "submit":
      return { type: "submitted", ruling };
    case "rule":
      return { type: "ruled", ruling };
    case "begin":
      if (rest === "next") return begin(attempt + 1, attempt + 1);
      if (rest === "late") return begin(attempt + 1, attempt + 1, EXPIRES + 1);
      if (rest === "older") return begin(attempt - 1, attempt - 1);
      return begin(attempt, rest === "same" ? attempt : 250);
    case "speak":
      return rest === "older"
        ? { type: "spoken", attempt: attempt - 1, round: "share" }
        : { type: "spoken", attempt, round: spoken };
    case "sign":
      return { type: "signed", attempt: older, certificateHash: bytes(rest === "another" ? 251 : 100 + older) };
    case "done":
      return { type: "finished", attempt, result: "done" };
    case "fail":
      return { type: "finished", attempt: older, result: "failed" };
    case "lose":
      return { type: "lost", attempt: older };
    case "accept":
      return { type: "decided", decision: accept(1, rest === "another" ? 252 : 101) };
    case "cancel":
      return { type: "decided", decision: cancel };
    default:
      return { type: "tick", nowMs: rest === "late" ? EXPIRES + 1 : EXPIRES };
  }
}

/**
 * The reference: one table of words, read by hand from docs/protocol.md §8.3. `=` stays; `!code` is refused; `~` is
 * `confirming` where a certificate was signed and the word after it otherwise. Columns left out mean `=`.
 */
type Row = Partial<Record<Move, string>>;
const RULES: Row = {
  "rule allow": "pending",
  "rule wait": "awaiting_approval",
  "rule deny": "rejected",
};
const OPEN: Row = { accept: "fulfilled", "accept another": "fulfilled", cancel: "cancelled" };
const NO_SIGN: Row = { sign: "!integrity", "sign another": "!integrity", "sign older": "!integrity" };
const NOT_NEXT: Row = { "begin other": "!stale", "begin older": "!stale", "begin late": "!conflict" };
const RUNNING: Row = {
  ...OPEN,
  ...NOT_NEXT,
  "begin next": "committing",
  "speak share": "sharing",
  "speak complaint": "sharing",
  "speak reveal": "sharing",
  sign: "confirming",
  "sign another": "confirming",
  "sign older": "!integrity",
  done: "!integrity",
  fail: "~failed",
  lose: "~pending",
  "tick late": "expired",
};
const begins = (word: string): Row =>
  Object.fromEntries(MOVES.filter((m) => m.startsWith("begin")).map((m) => [m, word]));

const TABLE: Record<RequestStatus, Row> = {
  draft: {
    "submit allow": "pending",
    "submit wait": "awaiting_approval",
    "submit deny": "rejected",
    ...begins("!not_found"),
    ...NO_SIGN,
    accept: "!not_found",
    "accept another": "!not_found",
    cancel: "!not_found",
  },
  awaiting_approval: {
    ...RULES,
    ...OPEN,
    ...NO_SIGN,
    ...begins("!pending"),
    "begin late": "!conflict",
    "tick late": "expired",
  },
  pending: { ...RULES, ...OPEN, ...NO_SIGN, ...NOT_NEXT, "begin next": "committing", "tick late": "expired" },
  committing: RUNNING,
  sharing: { ...RUNNING },
  confirming: { ...OPEN, ...NO_SIGN, ...NOT_NEXT, "begin next": "committing" },
  failed: { ...OPEN, ...NO_SIGN, ...NOT_NEXT, "begin next": "committing", "tick late": "expired" },
  fulfilled: { ...begins("!conflict"), ...NO_SIGN },
  rejected: { ...OPEN, ...NO_SIGN, ...begins("!denied") },
  expired: { ...OPEN, ...NO_SIGN, ...begins("!conflict") },
  cancelled: { ...NO_SIGN, ...begins("!conflict") },
};

/** What differs for the use of a key: nothing is signed or accepted, and a done one may be attempted again. */
const USE: Record<RequestStatus, Row> = Object.fromEntries(
  Object.entries(TABLE).map(([status, row]) => {
    const use: Row = { ...row, ...NO_SIGN, accept: "!bad_input", "accept another": "!bad_input" };
    if (status === "draft") Object.assign(use, { accept: "!not_found", "accept another": "!not_found" });
    if (status === "committing" || status === "sharing") use.done = "fulfilled";
    if (status === "fulfilled")
      Object.assign(use, { ...NOT_NEXT, "begin next": "committing", "begin same": "=", cancel: "!conflict" });
    return [status, use];
  }),
) as Record<RequestStatus, Row>;

interface Model {
  status: RequestStatus;
  attempt: number;
  /** Attempt to certificate. */
  signed: Map<number, number>;
  decision: string | null;
  contradiction: string | null;
}

/** What the table says; the few words that depend on the past come first. */
function expected(model: Model, kind: RequestKind, move: Move): string {
  const use = isUse(kind);
  const row = (use ? USE : TABLE)[model.status];
  const decides = move === "accept" || move === "accept another" || move === "cancel";
  if (model.decision !== null && decides && !(use && move !== "cancel")) return "=";
  if (move === "begin same" && model.attempt > 0) {
    const never = ["rejected", "cancelled", "draft"].includes(model.status);
    return never ? (row[move] ?? "=") : "=";
  }
  if (move === "begin same") return row["begin other"] ?? "=";
  if (move.startsWith("begin") && model.decision !== null && model.status !== "cancelled") return "!conflict";
  if (move === "sign" || move === "sign another" || move === "sign older") {
    const attempt = move === "sign older" ? model.attempt - 1 : model.attempt;
    const before = model.signed.get(attempt);
    if (before !== undefined) return before === (move === "sign another" ? 251 : 100 + attempt) ? "=" : "!integrity";
  }
  if (move === "tick late" && model.signed.size > 0) return "=";
  return row[move] ?? "=";
}

function follow(model: Model, word: string, move: Move): Model {
  const next: Model = { ...model, signed: new Map(model.signed) };
  if (word.startsWith("!")) return model;
  const decides = move === "accept" || move === "accept another" || move === "cancel";
  if (decides && model.decision === null) next.decision = move;
  else if (decides && model.decision !== move) next.contradiction ??= move;
  if (word === "=") return next;
  if (move === "begin next") next.attempt += 1;
  if (move === "sign" || move === "sign another")
    next.signed.set(model.attempt, move === "sign another" ? 251 : 100 + model.attempt);
  if (word.startsWith("~")) next.status = model.signed.size > 0 ? "confirming" : (word.slice(1) as RequestStatus);
  else next.status = word as RequestStatus;
  return next;
}

function tried(life: RequestLife, event: RequestEvent): ReturnType<typeof advance> | string {
  try {
    return advance(life, event);
  } catch (error) {
    if (error instanceof Fault) return `!${error.code}`;
    throw error;
  }
}

const start = (): Model => ({ status: "draft", attempt: 0, signed: new Map(), decision: null, contradiction: null });
const KINDS = ["generate", "import", "reshare", "sign", "release"] as const;

/** Most moves, weighted so that walks get far. */
const moves = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom<Move>("submit allow", "rule allow", "begin next", "speak share", "sign") },
    { weight: 2, arbitrary: fc.constantFrom(...MOVES) },
  ),
  { maxLength: 24 },
);

describe("the life of a request", () => {
  test("agrees with the table, whatever happens in whatever order", () => {
    const visited = new Set<string>();
    fc.assert(
      fc.property(fc.constantFrom(...KINDS), moves, (kind, walk) => {
        let life = draftLife(kind, EXPIRES);
        let model = start();
        for (const move of ["submit allow" as Move, ...walk]) {
          const word = expected(model, kind, move);
          visited.add(`${isUse(kind)} ${model.status} ${move}`);
          const step = tried(life, eventOf(move, life.attempt));
          if (typeof step === "string") {
            expect([model.status, move, step]).toEqual([model.status, move, word]);
            continue;
          }
          expect([model.status, move, word.startsWith("!")]).toEqual([model.status, move, false]);
          model = follow(model, word, move);
          expect([move, step.life.status]).toEqual([move, model.status]);
          expect(step.life.attempt).toBe(model.attempt);
          expect(step.life.signed.length).toBe(model.signed.size);
          expect(step.life.decision !== null).toBe(model.decision !== null);
          expect(step.life.contradiction !== null).toBe(model.contradiction !== null);
          life = step.life;
        }
      }),
      { numRuns: 4_000, seed: 8 },
    );
    // the walks have been nearly everywhere
    expect(visited.size).toBeGreaterThan(500);
  });

  test("each state meets each event once: the table, field by field", () => {
    const signed = [{ attempt: 2, certificateHash: bytes(102) }];
    for (const kind of KINDS) {
      for (const status of Object.keys(TABLE) as RequestStatus[]) {
        for (const move of MOVES) {
          const attempt = status === "draft" || status === "awaiting_approval" ? 0 : 2;
          const confirmed = status === "confirming" && !isUse(kind);
          const decision =
            status === "cancelled" ? cancel : status === "fulfilled" && !isUse(kind) ? accept(1, 101) : null;
          const life: RequestLife = {
            ...draftLife(kind, EXPIRES),
            status,
            attempt,
            orderHash: attempt > 0 ? bytes(attempt) : null,
            signed: confirmed ? signed : [],
            decision,
          };
          const model: Model = {
            status,
            attempt,
            signed: new Map(confirmed ? [[2, 102]] : []),
            decision: decision === null ? null : decision.verdict,
            contradiction: null,
          };
          const word = expected(model, kind, move);
          const step = tried(life, eventOf(move, attempt));
          const got = typeof step === "string" ? step : step.life.status;
          const wanted = word.startsWith("!") ? word : follow(model, word, move).status;
          expect([kind, status, move, got]).toEqual([kind, status, move, wanted]);
        }
      }
    }
  });

  test("keeps its promises on every walk", () => {
    fc.assert(
      fc.property(fc.constantFrom(...KINDS), moves, (kind, walk) => {
        let life = draftLife(kind, EXPIRES);
        const orders = new Map<number, string>();
        let kept = 0;
        for (const move of ["submit allow" as Move, ...walk]) {
          const step = tried(life, eventOf(move, life.attempt));
          if (typeof step === "string") continue;
          const { life: next, effects } = step;
          // one order an attempt, attempts only count up
          expect(next.attempt).toBeGreaterThanOrEqual(life.attempt);
          if (next.orderHash) {
            const hash = next.orderHash.toHex();
            expect(orders.get(next.attempt) ?? hash).toBe(hash);
            orders.set(next.attempt, hash);
          }
          // one certificate an attempt, and none is forgotten
          expect(next.signed.slice(0, life.signed.length)).toEqual([...life.signed]);
          expect(new Set(next.signed.map((s) => s.attempt)).size).toBe(next.signed.length);
          // who has signed does not expire
          if (next.status === "expired") expect(next.signed).toEqual([]);
          // one decision, for good
          if (life.decision) expect(next.decision).toEqual(life.decision);
          if (life.contradiction) expect(next.contradiction).toEqual(life.contradiction);
          if (effects.includes("keep")) kept += 1;
          if (effects.includes("freeze")) expect(next.contradiction).not.toBeNull();
          if (life.decision === null && next.decision !== null) expect(effects).toContain("drop");
          if (life.status === "cancelled") expect(next.status).toBe("cancelled");
          if (life.status === "rejected" && next.status !== "rejected") expect(next.decision).not.toBeNull();
          life = next;
        }
        expect(kept).toBeLessThanOrEqual(1);
        if (kept === 1) expect(life.decision?.verdict).toBe("accept");
      }),
      { numRuns: 2_000, seed: 9 },
    );
  });

  test("counts as open exactly what may still run", () => {
    for (const kind of KINDS) {
      for (const status of Object.keys(TABLE) as RequestStatus[]) {
        const row = (isUse(kind) ? USE : TABLE)[status];
        const over = ["fulfilled", "rejected", "expired", "cancelled"].includes(status);
        const failedUse = isUse(kind) && status === "failed";
        expect([kind, status, isOpen({ kind, status })]).toEqual([kind, status, !over && !failedUse]);
        if (isOpen({ kind, status }) && status !== "draft") expect(row.cancel).toBe("cancelled");
      }
    }
  });
});
