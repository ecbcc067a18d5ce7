import type { FEDERATED_TYPES } from "../../src/protocol/federation/kinds.ts";
import {
  type PolicyDocument,
  type PolicyRule,
  type PolicyTree,
  policyHash,
  type SignedVote,
} from "../../src/protocol/federation/policy.ts";
import { type UseEntry, useCounter } from "../../src/protocol/federation/policyaction.ts";
import { type Evaluation, evaluate } from "../../src/protocol/federation/policyrules.ts";
import type { FederatedRequest, RequestBody } from "../../src/protocol/federation/request.ts";
import { bodies, certificateFor, idOf, keyOf, NOON, policy, request } from "./policies.ts";

/** A policy is asked about a request: what is not said is noon, a request to sign, and nothing voted or used. */
export interface World {
  readonly body?: RequestBody;
  readonly asked?: FederatedRequest;
  readonly rules: readonly PolicyRule[];
  readonly document?: PolicyDocument;
  readonly votes?: readonly SignedVote[];
  readonly uses?: readonly (UseEntry & { readonly atMs: number })[];
  readonly nowMs?: number;
  /** Whose approval key the requester enrolled; null: unknown. */
  readonly requester?: string | null;
  readonly type?: (typeof FEDERATED_TYPES)[number];
  readonly threshold?: number;
}

export function ask(world: World): Evaluation {
  const asked = world.asked ?? request(world.body ?? bodies.sign);
  const head = world.document ?? policy({ rules: world.rules });
  const { requester = "owner-approval" } = world;
  return evaluate({
    request: asked,
    requestId: idOf(asked),
    certificate: certificateFor(asked.body, {
      ...(world.type === undefined ? {} : { type: world.type }),
      ...(world.threshold === undefined ? {} : { threshold: world.threshold }),
    }),
    requesterApproval: requester === null ? null : keyOf(requester),
    policy: { head, headHash: policyHash(head) },
    votes: world.votes ?? [],
    uses: useCounter((sinceMs) => (world.uses ?? []).filter(({ atMs }) => atMs >= sinceMs)),
    nowMs: world.nowMs ?? NOON,
  });
}

export const people = (...names: string[]): PolicyTree[] => names.map((name) => ({ kind: "approver", name }));
export const all = (...of: PolicyTree[]): PolicyTree => ({ kind: "all", of });
export const any = (...of: PolicyTree[]): PolicyTree => ({ kind: "any", of });
export const threshold = (atLeast: number, ...of: PolicyTree[]): PolicyTree => ({ kind: "threshold", atLeast, of });
export const admins = (atLeast: number): PolicyTree => ({ kind: "group", name: "admins", atLeast });
export const remote: PolicyTree = { kind: "remote", name: "risk" };
