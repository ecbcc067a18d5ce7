import { sealedShare } from "../../enclave/api.ts";
import type { FederatedKeyId, FederatedRequestId, FederationId, PolicyId, UserId } from "../../ids.ts";
import type { SignedCertificate } from "../../protocol/federation/certificate.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";
import type { SignedManifest } from "../../protocol/federation/manifest.ts";
import type { Culprit, Round, SignedMessage } from "../../protocol/federation/message.ts";
import type { PolicyChain, SignedPolicy, SignedVote } from "../../protocol/federation/policy.ts";
import type { SignedDecision, SignedOrder, SignedRequest } from "../../protocol/federation/request.ts";
import type { SignedAttempt } from "../../protocol/federation/requestlife.ts";
import { bool, bytes, hashIdOf, id, list, nullable, oneOf, struct, text, u53, uint } from "../../wire/codec.ts";
import { type RemoteFiles, remoteFiles } from "../../wire/control.ts";
import {
  type Erasure,
  type Explanation,
  explanation,
  type Outcome,
  outcome,
  REQUEST_STATUSES,
} from "../../wire/federation/operations.ts";
import {
  certificate,
  certificateSignature,
  culprit,
  erasure,
  messages,
  signedCertificate,
  signedDecision,
  signedManifest,
  signedOrder,
  signedPolicy,
  signedRequest,
  signedVote,
} from "../../wire/federation/records.ts";
import { hash32 } from "../../wire/records.ts";
import { type DocumentKind, kindOf } from "../documents.ts";

export {
  type DocumentKind,
  eachStored,
  listStored,
  putStored,
  readStored,
  removeStored,
  type Stored,
} from "../documents.ts";

const federationId = hashIdOf<FederationId>();
const requestId = hashIdOf<FederatedRequestId>();

/** Epochs of a federation, links of a policy. */
export const CHAIN_MAX = 1_024;

/** Federations that one server belongs to at most, and those with the ones that it has left. */
export const FEDERATIONS_MAX = 16;
export const FEDERATIONS_HELD = 48;

/** All manifests of a federation that this server is a member of: id = federation, owner "". */
export interface FederationBody {
  /** Ascending by epoch, from 1 or from the one with which this server came. */
  readonly epochs: readonly SignedManifest[];
  /** When the operator left it; null while this server is a member. */
  readonly leftAtMs: number | null;
}
export const FEDERATION: DocumentKind<FederationBody> = kindOf(
  "federation",
  struct({ epochs: list(signedManifest, { min: 1, max: CHAIN_MAX }), leftAtMs: nullable(u53) }),
);

/** A draft that lies before the operator, with the signatures known here: id = federation:epoch, owner "". */
export interface ProposalBody {
  readonly proposal: SignedManifest;
  /** The epoch before; null at epoch 1. */
  readonly before: SignedManifest | null;
  readonly expiresAtMs: number;
  /** Address of who brought it, as limits name it. */
  readonly from: string;
}
export const PROPOSAL: DocumentKind<ProposalBody> = kindOf(
  "proposal",
  struct({ proposal: signedManifest, before: nullable(signedManifest), expiresAtMs: u53, from: text({ max: 128 }) }),
);

/** An account's keys in a federation: id = federation:account, owner = federation. */
export interface MemberBody {
  readonly federationId: FederationId;
  readonly userId: UserId;
  readonly requestKey: Uint8Array;
  readonly approvalKey: Uint8Array;
  readonly enrolledAtMs: number;
}
export const MEMBER: DocumentKind<MemberBody> = kindOf(
  "member",
  struct({ federationId, userId: id<UserId>(), requestKey: hash32, approvalKey: hash32, enrolledAtMs: u53 }),
);

/** Whose a request or approval key is: id = the key in hexadecimal, owner = federation. */
export interface MemberKeyBody {
  readonly federationId: FederationId;
  readonly userId: UserId;
  readonly role: "request" | "approval";
}
export const MEMBER_KEY: DocumentKind<MemberKeyBody> = kindOf(
  "memberKey",
  struct({ federationId, userId: id<UserId>(), role: oneOf(["request", "approval"]) }),
);

/** A policy from its first link to the newest: id = policy, owner = federation. */
export interface PolicyBody {
  readonly chain: PolicyChain;
}
export const POLICY: DocumentKind<PolicyBody> = kindOf(
  "policy",
  struct({ chain: list(signedPolicy, { min: 1, max: CHAIN_MAX }) }),
);

/** A link that too few admins have signed yet: id = hash of the link, owner = federation:account, place = when it goes. */
export interface PolicyDraftBody {
  readonly link: SignedPolicy;
}
export const POLICY_DRAFT: DocumentKind<PolicyDraftBody> = kindOf("policyDraft", struct({ link: signedPolicy }));

const ROUNDS = [
  "commit",
  "echo",
  "share",
  "complaint",
  "reveal",
  "confirm",
  "nonces",
  "partial",
] as const satisfies readonly Round[];

/** Which policy a link belongs to: id = hash of the link, owner = policy; of a first link federation:account. */
export interface PolicyLinkBody {
  readonly policyId: PolicyId;
  readonly version: number;
}
export const POLICY_LINK: DocumentKind<PolicyLinkBody> = kindOf(
  "policyLink",
  struct({ policyId: hashIdOf<PolicyId>(), version: uint(0xffff_ffff, 1) }),
);

/** A request and how far it has come here: id = request, owner = the requester's account. */
export interface RequestBodyRow {
  readonly request: SignedRequest;
  readonly status: (typeof REQUEST_STATUSES)[number];
  readonly why: string;
  readonly label: Uint8Array | null;
  /** Newest attempt; 0 before the first. */
  readonly attempt: number;
  readonly order: SignedOrder | null;
  /** Rounds of that attempt in which this server has spoken. */
  readonly rounds: readonly Round[];
  /** What came of that attempt, with all that this server said in it. */
  readonly outcome: Outcome | null;
  readonly messages: readonly SignedMessage[];
  /** Attempts whose certificate this server has signed. */
  readonly signed: readonly SignedAttempt[];
  /** What the policies said at last, and the approval keys that were called for it. */
  readonly explanations: readonly Explanation[];
  readonly called: readonly Uint8Array[];
  readonly decision: SignedDecision | null;
  /** Another decision that contradicts the first: the key is frozen. */
  readonly contradiction: SignedDecision | null;
  readonly certificate: SignedCertificate | null;
  readonly culprits: readonly Culprit[];
  /** The policy that approvers are asked under; null under unilateral control. */
  readonly policy: PolicyId | null;
  readonly updatedAtMs: number;
}
export const REQUEST: DocumentKind<RequestBodyRow> = kindOf(
  "request",
  struct({
    request: signedRequest,
    status: oneOf(REQUEST_STATUSES),
    why: text({ max: 1_024 }),
    label: nullable(bytes({ min: 1, max: 1_024 })),
    attempt: uint(1_000),
    order: nullable(signedOrder),
    rounds: list(oneOf(ROUNDS), { max: ROUNDS.length }),
    outcome: nullable(outcome),
    messages,
    signed: list(struct({ attempt: uint(1_000, 1), certificateHash: hash32 }), { max: 1_000 }),
    explanations: list(explanation, { max: 4 }),
    called: list(hash32, { max: CHAIN_MAX }),
    decision: nullable(signedDecision),
    contradiction: nullable(signedDecision),
    certificate: nullable(signedCertificate),
    culprits: list(culprit, { max: SERVERS_MAX }),
    policy: nullable(hashIdOf<PolicyId>()),
    updatedAtMs: u53,
  }),
);

/** A request that may still run: id = request, owner = the requester's account. */
export const OPEN_REQUEST: DocumentKind<object> = kindOf("openRequest", struct({}));

/** A request that time can still end: id = request, owner "", place = when it expires. */
export const DEADLINE: DocumentKind<object> = kindOf("deadline", struct({}));

/** A vote: id = request:key:policy's hash, owner = request. */
export interface VoteBody {
  readonly vote: SignedVote;
  readonly receivedAtMs: number;
}
export const VOTE: DocumentKind<VoteBody> = kindOf("vote", struct({ vote: signedVote, receivedAtMs: u53 }));

/** A request that waits for an approver: id = key:request, owner = the approval key in hexadecimal. */
export interface ApprovalBody {
  readonly requestId: FederatedRequestId;
}
export const APPROVAL: DocumentKind<ApprovalBody> = kindOf("approval", struct({ requestId }));

/** A key with its newest accepted certificate: id = key, owner = the owner's account. */
export interface KeyBody {
  readonly certificate: SignedCertificate;
  readonly label: Uint8Array | null;
  readonly released: boolean;
  readonly frozen: boolean;
  readonly erasures: readonly Erasure[];
  readonly refreshedAtMs: number;
}
export const KEY: DocumentKind<KeyBody> = kindOf(
  "key",
  struct({
    certificate: signedCertificate,
    label: nullable(bytes({ min: 1, max: 1_024 })),
    released: bool,
    frozen: bool,
    erasures: list(erasure, { max: CHAIN_MAX }),
    refreshedAtMs: u53,
  }),
);

/** A live share as the enclave sealed it: id = key:generation, owner = key. */
export interface ShareBody {
  readonly sealed: Uint8Array;
}
export const SHARE: DocumentKind<ShareBody> = kindOf("share", struct({ sealed: sealedShare }));

/** A confirmed share that waits for the owner's decision: id = request:attempt, owner = request. */
export interface PendingShareBody {
  readonly sealed: Uint8Array;
  readonly certificate: Outcome["certificate"];
  readonly signature: Outcome["signature"];
}
export const PENDING_SHARE: DocumentKind<PendingShareBody> = kindOf(
  "pendingShare",
  struct({ sealed: sealedShare, certificate: nullable(certificate), signature: nullable(certificateSignature) }),
);

/** What the operator has set: id "policy", owner "". */
export interface OperatorBody {
  /** The operator's own policy, which the next manifest must name. */
  readonly policy: PolicyId | null;
  readonly remotes: readonly RemoteFiles[];
}
export const OPERATOR: DocumentKind<OperatorBody> = kindOf(
  "operator",
  struct({ policy: nullable(hashIdOf<PolicyId>()), remotes: list(remoteFiles, { max: 64 }) }),
);
/** Id of the one document of kind {@link OPERATOR}. */
export const OPERATOR_ID = "policy";

// ---- ids of documents that name two things ----

export const proposalId = (federation: FederationId, epoch: number): string => `${federation}:${epoch}`;
export const memberId = (federation: FederationId, user: UserId): string => `${federation}:${user}`;
export const memberKeyId = (key: Uint8Array): string => key.toHex();
export const voteId = (request: FederatedRequestId, key: Uint8Array, policyHash: Uint8Array): string =>
  `${request}:${key.toHex()}:${policyHash.toHex()}`;
export const approvalId = (key: Uint8Array, request: FederatedRequestId): string => `${key.toHex()}:${request}`;
export const shareId = (key: FederatedKeyId, generation: number): string => `${key}:${generation}`;
export const pendingShareId = (request: FederatedRequestId, attempt: number): string => `${request}:${attempt}`;
