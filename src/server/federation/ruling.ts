import type { EnclaveOutput } from "../../enclave/frames.ts";
import type { FederatedRequestId } from "../../ids.ts";
import { OPERATOR_SCOPE, type SignedVote } from "../../protocol/federation/policy.ts";
import { verifyChain } from "../../protocol/federation/policychain.ts";
import type { WaitingPolicy } from "../../protocol/federation/policydecision.ts";
import { policyScopeOf, type SignedRequest } from "../../protocol/federation/request.ts";
import { advance, type Ruling } from "../../protocol/federation/requestlife.ts";
import { verifyVote } from "../../protocol/federation/votes.ts";
import type { Tx } from "../../storage/store.ts";
import type { Explanation } from "../../wire/federation/operations.ts";
import { putStored, readStored, VOTE, voteId } from "./documents.ts";
import { note } from "./events.ts";
import { enclaveIdentity, evidenceOf, gather, rulingOf, type Standing } from "./evidence.ts";
import {
  callApprovers,
  changedMeanwhile,
  distinctKeys,
  lifeOf,
  recallApprovers,
  type StoredRequest,
  saveRequest,
} from "./life.ts";
import type { FederationSite } from "./service.ts";
import type { Turns } from "./turns.ts";
import { clause } from "./views.ts";

/** Asks the engines that a policy waits for; whoever does not answer gives no vote. */
export type AskEngines = (
  waiting: WaitingPolicy,
  request: SignedRequest,
  id: FederatedRequestId,
  standing: Standing,
) => Promise<readonly SignedVote[]>;

/** What all work on requests and keys shares. */
export interface Desk {
  readonly site: FederationSite;
  readonly turns: Turns;
  readonly ask: AskEngines;
}

/** What the policies say at one moment, and whom they wait for. */
export interface Ruled {
  readonly standing: Standing;
  readonly ruling: Ruling;
  readonly explanations: readonly Explanation[];
  /** Approval keys whose vote would still count. */
  readonly awaited: readonly Uint8Array[];
  /** Verdicts of engines that were asked just now, for {@link putVote}. */
  readonly verdicts: readonly SignedVote[];
}

type Waiting = EnclaveOutput<"evaluate">["waiting"][number];

/** A policy that the enclave says waits, with what its engines are asked under. */
function waitingPolicy(standing: Standing, request: SignedRequest, { policyId, engines }: Waiting): WaitingPolicy[] {
  const chains = [
    { chain: standing.serverPolicy?.chain, scope: OPERATOR_SCOPE },
    { chain: standing.keyPolicy?.chain, scope: policyScopeOf(request.request) },
  ];
  for (const { chain, scope } of chains) {
    const policy = chain && verifyChain(chain, scope);
    if (policy?.policyId !== policyId) continue;
    const remotes = policy.head.remotes.filter(({ name }) => engines.includes(name));
    return [{ policyId, policyHash: policy.headHash, policy, missing: [], remotes }];
  }
  return [];
}

/** Reads what a request refers to. @throws Fault not_found, denied, unavailable */
export async function standingOf(site: FederationSite, request: SignedRequest, id: FederatedRequestId) {
  const identity = await enclaveIdentity(site);
  return site.ctx.store.transaction((tx) => gather(tx, request, id, identity));
}

/**
 * Asks the enclave what the policies say; while they wait for engines, asks these and then once more.
 *
 * @throws Fault what the enclave refuses; unavailable
 */
export async function rule(
  { site, ask }: Desk,
  request: SignedRequest,
  id: FederatedRequestId,
  found: Standing,
): Promise<Ruled> {
  let standing = found;
  // which uses count is in the enclave's journal alone
  const evaluate = () => site.enclave.call("evaluate", { evidence: evidenceOf(standing, request) });
  let { explanations, waiting } = await evaluate();
  let verdicts: readonly SignedVote[] = [];
  if (rulingOf(explanations) === "wait") {
    const asked = waiting.flatMap((one) => (one.engines.length > 0 ? waitingPolicy(standing, request, one) : []));
    const answers = await Promise.all(asked.map((one) => ask(one, request, id, standing)));
    verdicts = answers.flat().filter(verifyVote);
    if (verdicts.length > 0) {
      standing = { ...standing, votes: [...standing.votes, ...verdicts] };
      ({ explanations, waiting } = await evaluate());
    }
  }
  // owners of a workspace are no accounts here: their registry calls them
  const here = waiting.filter(
    ({ policyId }) => !request.request.keyring || policyId === standing.serverPolicy?.policyId,
  );
  const awaited = rulingOf(explanations) === "wait" ? here.flatMap(({ approvers }) => approvers) : [];
  return { standing, ruling: rulingOf(explanations), explanations, awaited, verdicts };
}

/** Why a request waits or is refused, in words; nothing while it may run. */
export function whyOf({ ruling, explanations }: Pick<Ruled, "ruling" | "explanations">): string {
  if (ruling === "allow") return "";
  const said = explanations.filter(({ decision }) => decision === ruling);
  return clause(said.map(({ why }) => why).join("; "));
}

/** True for a request that may run already, for the same reasons: there is nothing new to write. */
function isRuled({ status, why, called, explanations }: StoredRequest["value"], ruled: Ruled): boolean {
  const same = JSON.stringify(explanations) === JSON.stringify(ruled.explanations);
  return status === "pending" && called.length === 0 && why === whyOf(ruled) && same;
}

/**
 * Brings the votes and policies of this moment into a request that has not begun.
 *
 * @returns it as stored, with what the policies say of it.
 */
export async function reconsider(desk: Desk, row: StoredRequest): Promise<{ row: StoredRequest; ruled: Ruled }> {
  const { site } = desk;
  const { id, owner, value } = row;
  const ruled = await rule(desk, value.request, id, await standingOf(site, value.request, id));
  const next = await site.ctx.store.transaction(async (tx) => {
    const nowMs = site.ctx.now();
    for (const verdict of ruled.verdicts) await putVote(tx, id, verdict, nowMs);
    const { life, effects } = advance(lifeOf(value), { type: "ruled", ruling: ruled.ruling });
    // under way or over: what the policies say counts when the next attempt begins
    if (effects.length === 0 || life.status === "draft") return row;
    if (life.status === "pending" && isRuled(value, ruled)) return row;
    const called = effects.includes("call") ? distinctKeys(ruled.awaited) : [];
    await recallApprovers(tx, id, value.called);
    await callApprovers(tx, row, called);
    if (life.status === "rejected")
      await note(site, tx, { owner, action: "federation.refusal", status: "denied", requestId: id });
    return saveRequest(tx, row, {
      ...value,
      status: life.status,
      why: whyOf(ruled),
      explanations: ruled.explanations,
      called,
      updatedAtMs: nowMs,
    });
  });
  return { row: next, ruled };
}

/** Keeps the newest vote of a key under one version of a policy. @returns false when a newer one, or this, is there. */
export async function putVote(tx: Tx, id: FederatedRequestId, vote: SignedVote, nowMs: number): Promise<boolean> {
  const place = voteId(id, vote.vote.key, vote.vote.policyHash);
  const before = await readStored(tx, VOTE, place);
  if (before && before.value.vote.vote.castAtMs >= vote.vote.castAtMs) return false;
  const row = { id: place, owner: id, place: nowMs, value: { vote, receivedAtMs: nowMs } };
  if (!(await putStored(tx, VOTE, row, before?.version ?? 0))) throw changedMeanwhile();
  return true;
}
