import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, FederationId, PolicyId } from "../../ids.ts";
import type { Certificate } from "./certificate.ts";
import { keyringRefusal } from "./keyringmark.ts";
import { type Manifest, memberOf } from "./manifest.ts";
import { type Approver, OPERATOR_SCOPE, type PolicyChain, type RemoteEngine, type SignedVote } from "./policy.ts";
import type { CountUses } from "./policyaction.ts";
import { type VerifiedChain, verifyChain } from "./policychain.ts";
import { evaluate, type PolicyDecision } from "./policyrules.ts";
import { coordinatorOf, type FederatedRequest, policyScopeOf } from "./request.ts";

/** One policy's word on a request, in words that explain. */
export interface PolicyExplanation {
  /** Null where no policy is asked: the owner's word, or the operator without a policy. */
  readonly policy: PolicyId | null;
  readonly decision: PolicyDecision;
  readonly rule: string | null;
  /** At most 1,024 bytes. */
  readonly why: string;
}

/** A policy that waits: for whom, and what their votes must name. */
export interface WaitingPolicy {
  readonly policyId: PolicyId;
  /** Hash of its newest link, 32 bytes. */
  readonly policyHash: Uint8Array;
  readonly policy: VerifiedChain;
  readonly missing: readonly Approver[];
  readonly remotes: readonly RemoteEngine[];
}

/** What everything that must agree says together: one denial denies, else one that waits waits. */
export interface RequestEvaluation {
  readonly decision: PolicyDecision;
  readonly explanations: readonly PolicyExplanation[];
  readonly waiting: readonly WaitingPolicy[];
}

export interface EvaluateRequestInput {
  /** Verified, of the request's epoch. */
  readonly manifest: Manifest;
  /** This server's own index; null for a registry, which asks for the servers without any server's policy. */
  readonly index: number | null;
  /** Its requester's signature is verified. */
  readonly request: FederatedRequest;
  readonly requestId: FederatedRequestId;
  /** Verified, of the key that the request is about; null for one that makes a key. */
  readonly certificate: Certificate | null;
  /** Chains as they came, to be verified here. */
  readonly serverPolicy: PolicyChain | null;
  readonly keyPolicy: PolicyChain | null;
  /** As it was enrolled; of a request through a keyring its own key counts in place of it. */
  readonly requesterApproval: Uint8Array | null;
  readonly votes: readonly SignedVote[];
  readonly uses: CountUses;
  readonly nowMs: number;
}

interface Voice {
  readonly explanation: PolicyExplanation;
  readonly waiting: WaitingPolicy | null;
}

const word = (decision: PolicyDecision, policy: PolicyId | null, why: string): Voice => ({
  explanation: { policy, decision, rule: null, why },
  waiting: null,
});

/**
 * Everything that one server asks before it does what a request says (docs/protocol.md §8.7): the key's owner is the
 * requester; the policy that the manifest names for this server, if any; the key's policy, if its control is shared.
 * Under unilateral control without a server's policy the owner's signed request is enough, release included. Through a
 * keyring (docs/protocol.md §9.2) the key's owner is the registry, and the newest link of the workspace's policy names
 * the requester. Whatever is missing, malformed or does not verify denies.
 */
export function evaluateRequest(given: EvaluateRequestInput): RequestEvaluation {
  const { keyring, requester } = given.request;
  // an owner asks and votes with one key
  const input = keyring === null ? given : { ...given, requesterApproval: requester };
  const owner = ownership(input);
  if (owner !== null) return together([word("deny", null, owner)]);
  const server = serverVoice(input);
  return together([...(server ? [server] : []), keyVoice(input)]);
}

function together(voices: readonly Voice[]): RequestEvaluation {
  const explanations = voices.map(({ explanation }) => explanation);
  const is = (decision: PolicyDecision) => explanations.some((one) => one.decision === decision);
  const decision = is("deny") ? "deny" : is("wait") ? "wait" : "allow";
  const waiting = decision === "wait" ? voices.flatMap((one) => (one.waiting === null ? [] : [one.waiting])) : [];
  return { decision, explanations, waiting };
}

/** Why this requester may not ask at all; null when it may. */
function ownership({ manifest, request, certificate }: EvaluateRequestInput): string | null {
  const { body } = request;
  if (request.federationId !== manifest.federationId || request.epoch !== manifest.epoch) {
    return "the request belongs to another federation or epoch";
  }
  const refusal = keyringRefusal(request, certificate);
  if (refusal !== null) return refusal;
  if (body.kind === "generate" || body.kind === "import") {
    if (certificate !== null) return "the request is about no key";
    if ((body.control === "shared") !== (body.policy !== null)) {
      return "a key has a policy under shared control, and only there";
    }
    return null;
  }
  if (certificate === null || certificate.keyId !== body.keyId)
    return "the certificate of the request's key is missing";
  if (certificate.federationId !== manifest.federationId) return "the key belongs to another federation";
  if (!equalBytes(certificate.owner, coordinatorOf(request))) return "only the owner of a key asks for it";
  if ((certificate.control === "shared") !== (certificate.policy !== null)) {
    return "the key's certificate does not say who decides";
  }
  return null;
}

function serverVoice(input: EvaluateRequestInput): Voice | null {
  if (input.index === null) return null;
  const named = memberOf(input.manifest, input.index).policy;
  if (named === null) return word("allow", null, "this server's operator leaves it to the owner");
  return ask(input, named, input.serverPolicy, OPERATOR_SCOPE, "this server's policy");
}

function keyVoice(input: EvaluateRequestInput): Voice {
  const { request, certificate } = input;
  const { body } = request;
  const named = body.kind === "generate" || body.kind === "import" ? body.policy : (certificate?.policy ?? null);
  if (named === null) return word("allow", null, "the owner alone decides");
  return ask(input, named, input.keyPolicy, policyScopeOf(request), "the key's policy");
}

function ask(
  input: EvaluateRequestInput,
  named: PolicyId,
  chain: PolicyChain | null,
  scope: FederationId,
  what: string,
): Voice {
  if (chain === null) return word("deny", named, `${what} is not known here`);
  try {
    const policy = verifyChain(chain, scope);
    if (policy.policyId !== named) return word("deny", named, `${what} is another one`);
    const { keyring, requester } = input.request;
    const isWorkspace = keyring !== null && scope !== OPERATOR_SCOPE;
    if (isWorkspace && !policy.head.approvers.some(({ key }) => equalBytes(key, requester))) {
      return word("deny", named, "the newest version of the workspace's policy does not name who asks");
    }
    const { decision, rule, why, missing, remotes } = evaluate({ ...input, policy });
    const explanation = { policy: named, decision, rule, why };
    const { policyId, headHash } = policy;
    return {
      explanation,
      waiting: decision === "wait" ? { policyId, policyHash: headHash, policy, missing, remotes } : null,
    };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return word("deny", named, `${what} does not hold: ${error.message}`.slice(0, 256));
  }
}
