import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, PolicyId } from "../../ids.ts";
import { approvalSigner } from "../../protocol/federation/credentials.ts";
import type { SignedVote, Vote } from "../../protocol/federation/policy.ts";
import { signVote } from "../../protocol/federation/votes.ts";
import type { RequestView } from "../../wire/federation/operations.ts";
import type { FederatedRequestInfo } from "../federationapi.ts";
import { type Answer, ask, isAbsent, urlOf } from "./answers.ts";
import { approverNames, type KnownPolicy, loadPolicy } from "./chains.ts";
import type { Ground } from "./ground.ts";
import { gather, look, requestInfo, type Seen } from "./requests.ts";

/** Policies that servers name when they explain: hints alone, since each chain verifies itself by its id. */
function policiesOf({ answers }: Pick<Seen, "answers">): ReadonlySet<PolicyId> {
  return new Set(answers.flatMap(({ value }) => (value?.explanations ?? []).flatMap(({ policy }) => policy ?? [])));
}

/** A request as the client shows it, with approvers by the names that their policies give them. */
export async function namedInfo(ground: Ground, seen: Seen): Promise<FederatedRequestInfo> {
  return requestInfo(ground, seen, await approverNames(ground, policiesOf(seen)));
}

/** Requests that wait for this account's vote, newest first. */
export async function approvalsOf(ground: Ground): Promise<readonly FederatedRequestInfo[]> {
  const waiting = (await gather(ground, "approver")).filter(({ answers }) =>
    answers.some(({ value }) => value?.status === "awaiting_approval"),
  );
  const names = await approverNames(
    ground,
    waiting.flatMap((seen) => [...policiesOf(seen)]),
  );
  return waiting.map((seen) => requestInfo(ground, seen, names));
}

/** Policies of this request in which this account is an approver, each verified. */
async function ownPolicies(ground: Ground, seen: Seen, own: Uint8Array): Promise<readonly KnownPolicy[]> {
  const found: KnownPolicy[] = [];
  let failure: Fault | null = null;
  for (const policyId of policiesOf(seen)) {
    try {
      const policy = await loadPolicy(ground, policyId);
      if (policy.head.approvers.some(({ key }) => equalBytes(key, own))) found.push(policy);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      failure ??= error;
    }
  }
  if (found.length > 0) return found;
  if (failure) throw failure;
  throw new Fault("denied", "no policy of this request counts this account's vote", { requestId: seen.requestId });
}

/**
 * Votes on a request: what is signed is what this device has verified itself, the request's own hash and the newest
 * link of each policy, and it is brought to every server (docs/protocol.md §8.7).
 *
 * @throws Fault not_found, bad_input, denied, conflict, unavailable
 */
export async function castVote(
  ground: Ground,
  requestId: FederatedRequestId,
  verdict: Vote["verdict"],
  reason: string,
): Promise<FederatedRequestInfo> {
  const { fleet, now } = ground;
  const { federationId } = fleet.manifest;
  const seen = await look(ground, requestId);
  const { epoch, expiresAtMs } = seen.signed.request;
  const castAtMs = now();
  if (castAtMs >= expiresAtMs) throw new Fault("conflict", "this request has expired", { requestId });
  const signer = approvalSigner(ground.secret, federationId);
  const policies = await ownPolicies(ground, seen, signer.publicKey);
  const votes = policies.map(({ headHash }) =>
    signVote(signer, { federationId, epoch, requestId, verdict, policyHash: headHash, castAtMs, expiresAtMs, reason }),
  );
  const told = await Promise.all(seen.answers.map((answer) => voteAt(ground, answer, votes)));
  if (told.every((one) => one === null || one.fault !== null)) {
    const failed = told.flatMap((one) => one?.fault ?? []);
    throw failed.find((fault) => !isAbsent(fault)) ?? failed[0] ?? nobody(seen);
  }
  const answers = told.map((one, place): Answer<RequestView> => one ?? seen.answers[place] ?? missing(place));
  return namedInfo(ground, { ...seen, answers: verifiedAgain(ground, seen, answers) });
}

const missing = (index: number): Answer<RequestView> => ({
  index,
  value: null,
  fault: new Fault("not_found", "it does not know this request"),
});

const nobody = ({ answers }: Seen): Fault =>
  answers.flatMap(({ fault }) => fault ?? [])[0] ?? new Fault("unavailable", "no server could be asked");

/** Answers to votes that speak of another request are none. */
function verifiedAgain(ground: Ground, { requestId }: Seen, answers: readonly Answer<RequestView>[]) {
  return answers.map((answer): Answer<RequestView> => {
    if (answer.fault !== null || answer.value.requestId === requestId) return answer;
    const fault = new Fault("integrity", `${urlOf(ground.fleet.manifest, answer.index)} answers about another request`);
    return { index: answer.index, value: null, fault };
  });
}

/** Brings votes to one server; null where it does not know the request. */
async function voteAt(
  ground: Ground,
  { index, fault }: Answer<RequestView>,
  votes: readonly SignedVote[],
): Promise<Answer<RequestView> | null> {
  if (fault !== null) return null;
  let last: Answer<RequestView> | null = null;
  for (const vote of votes) {
    const answer = await ask(ground.fleet, index, "federation.vote", { vote });
    // of several policies one that this server does not go by fails, and spoils nothing
    if (last === null || answer.fault === null) last = answer;
  }
  return last;
}
