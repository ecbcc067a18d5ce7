import { type CanonValue, canon } from "../../crypto/canon.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import { type FederatedRequestId, type FederationId, hashId, type PolicyId } from "../../ids.ts";
import type { FederatedType } from "./kinds.ts";
import type { RequestKind } from "./request.ts";

/** Who must agree: a tree over named approvers, groups and remote engines (docs/protocol.md §8.7). */
export type PolicyTree =
  | { readonly kind: "approver"; readonly name: string }
  | { readonly kind: "group"; readonly name: string; readonly atLeast: number }
  | { readonly kind: "remote"; readonly name: string }
  | { readonly kind: "requester" }
  | { readonly kind: "all"; readonly of: readonly PolicyTree[] }
  | { readonly kind: "any"; readonly of: readonly PolicyTree[] }
  | { readonly kind: "threshold"; readonly atLeast: number; readonly of: readonly PolicyTree[] };

/** A person or program whose Ed25519 approval key counts. */
export interface Approver {
  readonly name: string;
  /** 32 bytes. */
  readonly key: Uint8Array;
}

export interface ApproverGroup {
  readonly name: string;
  /** Names of approvers. */
  readonly members: readonly string[];
}

/** An engine that is asked over HTTPS and signs its verdicts. */
export interface RemoteEngine {
  readonly name: string;
  readonly url: string;
  /** Ed25519 key of its verdicts, 32 bytes. */
  readonly key: Uint8Array;
  readonly timeoutMs: number;
}

export type PolicyAction = RequestKind | "retrieve" | "export";

/** At most so many uses within a sliding window. */
export interface RateCondition {
  readonly count: number;
  readonly windowMs: number;
}

/** Holds only for requests that declare an amount in this unit, up to `max` (decimal digits) each. */
export interface AmountCondition {
  readonly unit: string;
  readonly max: string;
}

/** Minutes of the UTC day, from (inclusive) to (exclusive); days 0 (Sunday) to 6. */
export interface TimeCondition {
  readonly fromMinute: number;
  readonly toMinute: number;
  readonly days: readonly number[];
}

/** One rule. A denying rule that matches wins over all; otherwise the first allowing rule that matches decides. */
export interface PolicyRule {
  readonly name: string;
  readonly effect: "allow" | "deny";
  /**
   * Empty means any; but an allowing rule must name `retrieve`, `export` and `release`, a release to sign, to cover
   * them. A denying rule covers more than it names: `sign` a release to sign too, `release` all three.
   */
  readonly actions: readonly PolicyAction[];
  /** Empty means any. */
  readonly types: readonly FederatedType[];
  /** Of a denying rule null, as amount and recipients. */
  readonly rate: RateCondition | null;
  readonly amount: AmountCondition | null;
  /** Holds only for transactions all of whose recipients are listed; null: any. */
  readonly recipients: readonly string[] | null;
  readonly time: TimeCondition | null;
  /** Who must agree; of a denying rule null. */
  readonly require: PolicyTree | null;
  /** Whether the requester's own approval counts. */
  readonly requesterMayApprove: boolean;
  /** How long a vote counts. */
  readonly voteMs: number;
}

/** One link of a policy's chain. */
export interface PolicyDocument {
  readonly federationId: FederationId;
  readonly name: string;
  /** From 1; each link one more. */
  readonly version: number;
  /** {@link policyHash} of the link before; zeros at version 1. */
  readonly previous: Uint8Array;
  readonly approvers: readonly Approver[];
  readonly groups: readonly ApproverGroup[];
  readonly remotes: readonly RemoteEngine[];
  /** Who must sign the next link; of version 1 also this one. No remote engine, no `requester`. */
  readonly admins: PolicyTree;
  readonly rules: readonly PolicyRule[];
  readonly createdAtMs: number;
}

export interface PolicySignature {
  readonly key: Uint8Array;
  readonly signature: Uint8Array;
}

/** A link with its admins' signatures. */
export interface SignedPolicy {
  readonly document: PolicyDocument;
  readonly signatures: readonly PolicySignature[];
}

/** Version 1 to the newest. */
export type PolicyChain = readonly SignedPolicy[];

function treeParts(t: PolicyTree): CanonValue {
  switch (t.kind) {
    case "approver":
    case "remote":
      return [t.kind, t.name];
    case "group":
      return [t.kind, t.name, t.atLeast];
    case "requester":
      return [t.kind];
    case "all":
    case "any":
      return [t.kind, t.of.map(treeParts)];
    case "threshold":
      return [t.kind, t.atLeast, t.of.map(treeParts)];
  }
}

const ruleParts = (r: PolicyRule): CanonValue => [
  r.name,
  r.effect,
  r.actions,
  r.types,
  r.rate && [r.rate.count, r.rate.windowMs],
  r.amount && [r.amount.unit, r.amount.max],
  r.recipients,
  r.time && [r.time.fromMinute, r.time.toMinute, r.time.days],
  r.require && treeParts(r.require),
  r.requesterMayApprove,
  r.voteMs,
];

/** What the admins' signatures cover. */
export function policyBytes(p: PolicyDocument): Uint8Array {
  return canon(
    "keyhold/v1/federation-policy",
    p.federationId,
    p.name,
    p.version,
    p.previous,
    p.approvers.map((a): CanonValue => [a.name, a.key]),
    p.groups.map((g): CanonValue => [g.name, g.members]),
    p.remotes.map((r): CanonValue => [r.name, r.url, r.key, r.timeoutMs]),
    treeParts(p.admins),
    p.rules.map(ruleParts),
    p.createdAtMs,
  );
}

/** 32 bytes. */
export function policyHash(p: PolicyDocument): Uint8Array {
  return hashCanon("keyhold/v1/federation-policy-hash", policyBytes(p));
}

/**
 * In place of a federation in an operator's own policy: manifests name that policy, and a federation's id is made of its
 * first manifest. So it belongs to the server, not to one federation.
 */
export const OPERATOR_SCOPE = "0".repeat(64) as FederationId;
/** How an operator's own policy calls the server's identity key, with which `server policy set` signs. */
export const OPERATOR_NAME = "operator";

/** The id of a policy: hash of its first link. */
export function policyIdOf(first: PolicyDocument): PolicyId {
  return hashId(policyHash(first));
}

/** One approver's vote, or one engine's verdict, on one request under one policy. */
export interface Vote {
  readonly federationId: FederationId;
  readonly epoch: number;
  readonly requestId: FederatedRequestId;
  readonly verdict: "approve" | "reject";
  /** {@link policyHash} of the newest link. */
  readonly policyHash: Uint8Array;
  readonly castAtMs: number;
  readonly expiresAtMs: number;
  /** Shown to the requester; of a rejection not empty. */
  readonly reason: string;
  /** Ed25519 approval key, or key of the engine, 32 bytes. */
  readonly key: Uint8Array;
}

export interface SignedVote {
  readonly vote: Vote;
  readonly signature: Uint8Array;
}

/** What an approver signs: everything that the vote is about (docs/protocol.md §8.7). */
export function voteBytes(v: Vote): Uint8Array {
  return canon(
    "keyhold/v1/federation-vote",
    v.federationId,
    v.epoch,
    v.requestId,
    v.verdict,
    v.policyHash,
    v.castAtMs,
    v.expiresAtMs,
    v.reason,
    v.key,
  );
}
