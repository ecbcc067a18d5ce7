import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { Round } from "./message.ts";
import { type Decision, decisionBytes, type RequestKind } from "./request.ts";

/** Where a request stands at one server; a draft is known to its author alone (docs/protocol.md §8.3). */
export type RequestStatus =
  | "draft"
  | "awaiting_approval"
  | "pending"
  | "committing"
  | "sharing"
  | "confirming"
  | "fulfilled"
  | "rejected"
  | "expired"
  | "cancelled"
  | "failed";

/** An attempt whose certificate this server has signed: from then on the owner alone ends the request. */
export interface SignedAttempt {
  readonly attempt: number;
  /** 32 bytes. */
  readonly certificateHash: Uint8Array;
}

/** Everything that decides what may happen to a request next. */
export interface RequestLife {
  readonly kind: RequestKind;
  readonly expiresAtMs: number;
  readonly status: RequestStatus;
  /** The newest attempt; 0 before the first. */
  readonly attempt: number;
  /** `orderHash` of that attempt, 32 bytes. */
  readonly orderHash: Uint8Array | null;
  readonly signed: readonly SignedAttempt[];
  /** The owner's final word. */
  readonly decision: Decision | null;
  /** A second, other one: the key is frozen. */
  readonly contradiction: Decision | null;
}

/** What the policies say, all together. */
export type Ruling = "allow" | "wait" | "deny";

export type RequestEvent =
  | { readonly type: "submitted"; readonly ruling: Ruling }
  /** Votes, verdicts or policies changed. */
  | { readonly type: "ruled"; readonly ruling: Ruling }
  | { readonly type: "begun"; readonly attempt: number; readonly orderHash: Uint8Array; readonly nowMs: number }
  /** This server's newest message of the attempt. */
  | { readonly type: "spoken"; readonly attempt: number; readonly round: Round }
  | { readonly type: "signed"; readonly attempt: number; readonly certificateHash: Uint8Array }
  | { readonly type: "finished"; readonly attempt: number; readonly result: "done" | "failed" }
  /** The attempt's secrets are gone, or the enclave would not begin it. */
  | { readonly type: "lost"; readonly attempt: number }
  | { readonly type: "decided"; readonly decision: Decision }
  | { readonly type: "tick"; readonly nowMs: number };

/**
 * What a server does beside keeping the new life, in the same transaction where it is stored.
 *
 * - `call`: list the request for those whose approval it lacks; `recall`: take it off their lists;
 * - `repeat`: answer with what was said before;
 * - `keep`: store the accepted certificate, and the pending share of its attempt as the live one;
 * - `drop`: delete all pending shares; `forget`: let the enclave drop the attempt;
 * - `freeze`: keep both decisions, and serve the key no more.
 */
type RequestEffect = "call" | "recall" | "repeat" | "keep" | "drop" | "forget" | "freeze";

interface RequestStep {
  readonly life: RequestLife;
  readonly effects: readonly RequestEffect[];
}

/** True for what is done with a key: no certificate comes of it, and nobody decides about it afterwards. */
export const isUse = (kind: RequestKind): boolean => kind === "sign" || kind === "release";

/** True while the requester has to wait or act: such requests are counted. */
export function isOpen({ kind, status }: Pick<RequestLife, "kind" | "status">): boolean {
  switch (status) {
    case "draft":
    case "awaiting_approval":
    case "pending":
    case "committing":
    case "sharing":
    case "confirming":
      return true;
    case "failed":
      return !isUse(kind);
    case "fulfilled":
    case "rejected":
    case "expired":
    case "cancelled":
      return false;
  }
}

/** A request before its first server has seen it. */
export function draftLife(kind: RequestKind, expiresAtMs: number): RequestLife {
  const none = { attempt: 0, orderHash: null, signed: [], decision: null, contradiction: null };
  return { kind, expiresAtMs, status: "draft", ...none };
}

const STATUS_OF: Record<Ruling, RequestStatus> = { allow: "pending", wait: "awaiting_approval", deny: "rejected" };
const EFFECT_OF: Record<Ruling, RequestEffect> = { allow: "recall", wait: "call", deny: "recall" };

const same = (life: RequestLife): RequestStep => ({ life, effects: [] });
const sameDecision = (a: Decision, b: Decision) => equalBytes(decisionBytes(a), decisionBytes(b));
const running = ({ status }: RequestLife) => status === "committing" || status === "sharing";
/** What remains when an attempt ends without a result: whoever has signed once waits for the owner. */
const settled = (life: RequestLife, otherwise: RequestStatus): RequestStatus =>
  life.signed.length > 0 ? "confirming" : otherwise;

function ruled(life: RequestLife, ruling: Ruling): RequestStep {
  return { life: { ...life, status: STATUS_OF[ruling] }, effects: [EFFECT_OF[ruling]] };
}

function begun(life: RequestLife, event: Extract<RequestEvent, { type: "begun" }>): RequestStep {
  const { attempt, orderHash, nowMs } = event;
  const { status } = life;
  if (status === "draft") throw new Fault("not_found", "no such request");
  if (status === "rejected") throw new Fault("denied", "this request was rejected");
  if (status === "cancelled") throw new Fault("conflict", "this request was cancelled");
  if (attempt === life.attempt && life.orderHash && equalBytes(life.orderHash, orderHash))
    return { life, effects: ["repeat"] };
  if (status === "expired" || nowMs > life.expiresAtMs) throw new Fault("conflict", "this request has expired");
  if (life.decision) throw new Fault("conflict", "this request is decided");
  if (status === "awaiting_approval") throw new Fault("pending", "this request waits for approval");
  if (attempt <= life.attempt) throw new Fault("stale", "a later attempt, or another of this number, was begun");
  // whoever has signed in an attempt before keeps that share: the owner accepts one of them
  return { life: { ...life, status: "committing", attempt, orderHash }, effects: life.attempt > 0 ? ["forget"] : [] };
}

function spoken(life: RequestLife, attempt: number, round: Round): RequestStep {
  if (attempt !== life.attempt || !running(life)) return same(life);
  const sharing = round === "share" || round === "complaint" || round === "reveal";
  return same(sharing ? { ...life, status: "sharing" } : life);
}

function signed(life: RequestLife, { attempt, certificateHash }: SignedAttempt): RequestStep {
  const before = life.signed.find((one) => one.attempt === attempt);
  if (before && equalBytes(before.certificateHash, certificateHash)) return same(life);
  // a second certificate of one attempt, which does not run any more, or one of an attempt that was left: never
  if (attempt !== life.attempt || !running(life) || isUse(life.kind))
    throw new Fault("integrity", "this certificate is not of the attempt that runs");
  return same({ ...life, status: "confirming", signed: [...life.signed, { attempt, certificateHash }] });
}

function finished(life: RequestLife, attempt: number, result: "done" | "failed"): RequestStep {
  if (attempt !== life.attempt || !running(life)) return same(life);
  if (result === "failed") return { life: { ...life, status: settled(life, "failed") }, effects: ["forget"] };
  if (!isUse(life.kind)) throw new Fault("integrity", "a ceremony ends with a certificate");
  return same({ ...life, status: "fulfilled" });
}

function decided(life: RequestLife, decision: Decision): RequestStep {
  if (life.status === "draft") throw new Fault("not_found", "no such request");
  const accepts = decision.verdict === "accept";
  if (accepts && isUse(life.kind)) throw new Fault("bad_input", "the use of a key is not accepted: it is done or not");
  if (life.decision) {
    if (sameDecision(life.decision, decision)) return { life, effects: ["repeat"] };
    return { life: { ...life, contradiction: life.contradiction ?? decision }, effects: ["freeze"] };
  }
  const done = { ...life, decision };
  if (accepts) return { life: { ...done, status: "fulfilled" }, effects: ["keep", "drop", "forget", "recall"] };
  if (life.status === "fulfilled") throw new Fault("conflict", "this request is done already");
  return { life: { ...done, status: "cancelled" }, effects: ["drop", "forget", "recall"] };
}

/** Time ends what nobody has signed: afterwards only the owner's word does. */
function tick(life: RequestLife, nowMs: number): RequestStep {
  switch (life.status) {
    case "awaiting_approval":
    case "pending":
    case "committing":
    case "sharing":
    case "failed":
      if (nowMs <= life.expiresAtMs || life.signed.length > 0 || life.decision) return same(life);
      return { life: { ...life, status: "expired" }, effects: ["forget", "recall"] };
    case "draft":
    case "confirming":
    case "fulfilled":
    case "rejected":
    case "expired":
    case "cancelled":
      return same(life);
  }
}

/**
 * Every transition of a request's life (docs/protocol.md §8.3). What has no meaning in a state leaves it as it is;
 * what contradicts it is refused.
 *
 * @throws Fault not_found, bad_input, denied, pending, stale, conflict, integrity
 */
export function advance(life: RequestLife, event: RequestEvent): RequestStep {
  switch (event.type) {
    case "submitted":
      return life.status === "draft" ? ruled(life, event.ruling) : { life, effects: ["repeat"] };
    case "ruled":
      return life.status === "awaiting_approval" || life.status === "pending" ? ruled(life, event.ruling) : same(life);
    case "begun":
      return begun(life, event);
    case "spoken":
      return spoken(life, event.attempt, event.round);
    case "signed":
      return signed(life, event);
    case "finished":
      return finished(life, event.attempt, event.result);
    case "lost":
      if (event.attempt !== life.attempt || !running(life)) return same(life);
      return { life: { ...life, status: settled(life, "pending") }, effects: ["forget"] };
    case "decided":
      return decided(life, event.decision);
    case "tick":
      return tick(life, event.nowMs);
  }
}
