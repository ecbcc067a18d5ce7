import type { FederatedKeyId, FederatedRequestId, FederationId, PolicyId } from "../../ids.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";

import { bool, bytes, hashIdOf, list, nullable, type Of, oneOf, struct, text, u53, uint } from "../codec.ts";
import { op } from "../operation.ts";
import { hash32, signature } from "../records.ts";
import {
  certificate,
  certificateSignature,
  culprit,
  erasure,
  manifest,
  messages,
  signedCertificate,
  signedDecision,
  signedManifest,
  signedOrder,
  signedPolicy,
  signedRequest,
  signedVote,
} from "./records.ts";

/** A key's name and notes, sealed by its owner under a key of F. */
const label = bytes({ min: 1, max: 1_024 });
const empty = struct({});
const requestId = hashIdOf<FederatedRequestId>();
const federationId = hashIdOf<FederationId>();
const keyId = hashIdOf<FederatedKeyId>();

/** Where a request stands at one server (docs/protocol.md §8.3). */
export const REQUEST_STATUSES = [
  "awaiting_approval",
  "pending",
  "committing",
  "sharing",
  "confirming",
  "fulfilled",
  "rejected",
  "expired",
  "cancelled",
  "failed",
] as const;

/** What became of one attempt at one server. */
export const outcome = struct({
  result: oneOf(["confirmed", "done", "failed"]),
  /** Of `confirmed`: what this server has computed, signed and keeps a share for. */
  certificate: nullable(certificate),
  signature: nullable(certificateSignature),
  culprits: list(culprit, { max: SERVERS_MAX }),
});

/** One rule's word on a request, in words that explain. */
export const explanation = struct({
  policy: nullable(hashIdOf<PolicyId>()),
  decision: oneOf(["allow", "deny", "wait"]),
  rule: nullable(text({ max: 64 })),
  /** For people: which rule, what is missing. */
  why: text({ max: 1_024 }),
});

/** A request as one server sees it. */
export const requestView = struct({
  requestId,
  request: signedRequest,
  status: oneOf(REQUEST_STATUSES),
  /** Of a refusal or failure, in words. */
  why: text({ max: 1_024 }),
  explanations: list(explanation, { max: 4 }),
  votes: list(signedVote, { max: 64 }),
  /** Newest link of the policy that approves it: what a vote names. */
  policyHash: nullable(hash32),
  attempt: uint(1_000),
  certificate: nullable(signedCertificate),
  culprits: list(culprit, { max: SERVERS_MAX }),
  label: nullable(label),
  updatedAtMs: u53,
});

/** A key as one server knows it. */
export const keyView = struct({
  certificate: signedCertificate,
  label: nullable(label),
  /** This server has a sealed share of the newest generation. */
  held: bool,
  /** Shares were let out: control is `unilateral in fact`, for good. */
  released: bool,
  /** Two contradictory decisions were seen. */
  frozen: bool,
  erasures: list(erasure, { max: SERVERS_MAX }),
  refreshedAtMs: u53,
});

/** Operations of a key server that is member of federations (docs/protocol.md §8). */
export const federationOperations = {
  /** Keys of this server's enclave and the federations that it belongs to. */
  "federation.info": op(
    "none",
    false,
    empty,
    struct({
      identity: hash32,
      sealing: hash32,
      policy: nullable(hashIdOf<PolicyId>()),
      version: text({ max: 64 }),
      atMs: u53,
      federations: list(signedManifest, { max: 16 }),
    }),
  ),
  /** Lays a draft before the operator, of a later epoch beside the one before it; idempotent. */
  "federation.propose": op(
    "none",
    false,
    struct({ manifest, before: nullable(signedManifest) }),
    struct({ federationId }),
  ),
  /** Who has signed a draft so far: this server's own signature once its operator has accepted. */
  "federation.proposal": op(
    "none",
    false,
    struct({ federationId, epoch: uint(0xffff_ffff, 1) }),
    struct({ proposal: signedManifest, state: oneOf(["waiting", "accepted", "member"]) }),
  ),
  /** Brings the manifest with all signatures; the server is a member from then on. */
  "federation.complete": op("none", false, struct({ manifest: signedManifest }), empty),
  /** Ties the account to its request and approval key; each signs (label, federation, server, account). */
  "federation.enrol": op(
    "session",
    false,
    struct({
      federationId,
      requestKey: hash32,
      requestProof: signature,
      approvalKey: hash32,
      approvalProof: signature,
    }),
    empty,
  ),
  "federation.submit": op("session", false, struct({ request: signedRequest, label: nullable(label) }), requestView),
  "federation.request": op("session", false, struct({ requestId }), requestView),
  /** Own requests, or those that wait for the caller's vote; newest first. */
  "federation.requests": op(
    "session",
    false,
    struct({ federationId, role: oneOf(["requester", "approver"]), after: nullable(requestId) }),
    struct({ items: list(requestView, { max: 16 }), more: bool }),
  ),
  /** Begins an attempt; the same order again gives the same messages. */
  "federation.begin": op(
    "session",
    false,
    struct({ order: signedOrder }),
    struct({ messages, outcome: nullable(outcome) }),
  ),
  /** Brings other servers' messages; gives what this one has to say (all of the attempt so far, for a lost reply). */
  "federation.relay": op(
    "session",
    false,
    struct({ requestId, attempt: uint(1_000, 1), messages }),
    struct({ messages, outcome: nullable(outcome) }),
  ),
  /** The single acceptance, with the certificate and its signatures, or the single cancellation. */
  "federation.decide": op(
    "session",
    false,
    struct({ decision: signedDecision, certificate: nullable(signedCertificate) }),
    requestView,
  ),
  "federation.vote": op("session", false, struct({ vote: signedVote }), requestView),
  "federation.keys": op(
    "session",
    false,
    struct({ federationId, after: nullable(keyId) }),
    struct({ items: list(keyView, { max: 16 }), more: bool }),
  ),
  "federation.key": op("session", false, struct({ keyId }), keyView),
  /** Brings what this server does not know: newer certificates, and others' erasures. */
  "federation.inform": op(
    "session",
    false,
    struct({ certificate: signedCertificate, erasures: list(erasure, { max: SERVERS_MAX }) }),
    keyView,
  ),
  /** Policies whose newest version names the caller's approval key, by their ids, ascending. */
  "federation.policies": op(
    "session",
    false,
    struct({ federationId, after: nullable(hashIdOf<PolicyId>()) }),
    struct({ items: list(hashIdOf<PolicyId>(), { max: 64 }), more: bool }),
  ),
  "federation.policy": op(
    "session",
    false,
    struct({ policyId: hashIdOf<PolicyId>(), after: u53 }),
    struct({ chain: list(signedPolicy, { max: 8 }), more: bool }),
  ),
  /** Adds a link; version 1 begins a chain. */
  "federation.policy.set": op(
    "session",
    false,
    struct({ policy: signedPolicy }),
    struct({ policyId: hashIdOf<PolicyId>(), hash: hash32 }),
  ),
} as const;

export type Outcome = Of<typeof outcome>;
export type Explanation = Of<typeof explanation>;
export type RequestView = Of<typeof requestView>;
export type KeyView = Of<typeof keyView>;
export type Erasure = Of<typeof erasure>;
