import { Fault } from "../errors.ts";
import type { FederatedRequestId } from "../ids.ts";
import { type PolicyChain, policyHash, policyIdOf } from "../protocol/federation/policy.ts";
import { useCounter } from "../protocol/federation/policyaction.ts";
import { evaluateRequest, type RequestEvaluation } from "../protocol/federation/policydecision.ts";
import type { Evidence, Verified } from "./evidence.ts";
import type { Attempted, Journal } from "./journal.ts";

/** What counts against a request's rate: of one that was begun what came before it, or its place would go to a later one. */
function begunBefore(begun: readonly Attempted[], requestId: FederatedRequestId): readonly Attempted[] {
  const own = begun.findIndex((one) => one.requestId === requestId);
  return own < 0 ? begun : begun.slice(0, own);
}

/** What both policies say of a verified request; uses are counted in the journal. */
export function evaluatePolicies(e: Evidence, v: Verified, journal: Journal, nowMs: number): RequestEvaluation {
  return evaluateRequest({
    manifest: v.manifest,
    index: v.own.index,
    request: v.request,
    requestId: v.requestId,
    certificate: v.key?.certificate ?? null,
    serverPolicy: e.serverPolicy,
    keyPolicy: e.keyPolicy,
    requesterApproval: e.requesterApproval,
    votes: e.votes,
    uses: useCounter((sinceMs) => begunBefore(journal.since(sinceMs), v.requestId)),
    nowMs,
  });
}

/**
 * Demands that both policies allow the request now, each in a version that is no older than any that was used before.
 *
 * @throws Fault denied, pending; stale, conflict for an older or another version
 */
export function demandApproval(e: Evidence, v: Verified, journal: Journal, nowMs: number): void {
  const { decision, explanations } = evaluatePolicies(e, v, journal, nowMs);
  if (decision !== "allow") {
    const why = explanations
      .filter((one) => one.decision === decision)
      .map((one) => one.why)
      .join("; ");
    if (decision === "deny") throw new Fault("denied", "a policy denies this request", { why });
    throw new Fault("pending", "this request waits for approval", { why });
  }
  const body = v.request.body;
  const keyPolicy = "policy" in body ? body.policy : (v.key?.certificate.policy ?? null);
  if (v.own.policy !== null && e.serverPolicy !== null) markNewest(e.serverPolicy, journal);
  if (keyPolicy !== null && e.keyPolicy !== null) markNewest(e.keyPolicy, journal);
}

/** A chain that was verified: from now on none of its earlier versions counts. */
function markNewest(chain: PolicyChain, journal: Journal): void {
  const [first, head] = [chain[0], chain.at(-1)];
  if (first === undefined || head === undefined) return;
  const { version } = head.document;
  journal.mark({
    scope: "policy",
    id: policyIdOf(first.document),
    number: version,
    hash: policyHash(head.document),
  });
}
