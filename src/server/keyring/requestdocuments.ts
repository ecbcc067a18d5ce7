import type {
  FederatedKeyId,
  FederatedRequestId,
  KeyringId,
  KeyringRequestId,
  UserId,
  WorkspaceId,
} from "../../ids.ts";
import type { SignedCertificate } from "../../protocol/federation/certificate.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";
import type { SignedManifest } from "../../protocol/federation/manifest.ts";
import type { SignedMessage } from "../../protocol/federation/message.ts";
import type { SignedVote } from "../../protocol/federation/policy.ts";
import { POLICY_ACTIONS } from "../../protocol/federation/policyaction.ts";
import type { SignedDecision, SignedOrder, SignedRequest } from "../../protocol/federation/request.ts";
import type { Party } from "../../protocol/keyring/keyring.ts";
import { BATCH_MAX, KEYRING_STATUSES, type KeyringLife } from "../../protocol/keyring/requestlife.ts";
import type { SignedResponse } from "../../protocol/keyring/response.ts";
import {
  bool,
  bytes,
  type Codec,
  hashIdOf,
  id,
  list,
  nullable,
  oneOf,
  struct,
  tagged,
  text,
  u53,
  uint,
} from "../../wire/codec.ts";
import { type Explanation, explanation, type Outcome, outcome } from "../../wire/federation/operations.ts";
import {
  messages,
  POLICY_MAX,
  signedCertificate,
  signedDecision,
  signedManifest,
  signedOrder,
  signedRequest,
  signedVote,
} from "../../wire/federation/records.ts";
import { credits, parties, signedResponse } from "../../wire/keyring/records.ts";
import { type Equivocation, equivocation } from "../../wire/keyring/views.ts";
import { hash32 } from "../../wire/records.ts";
import { type DocumentKind, kindOf } from "../documents.ts";
import { COURSE_KINDS, type Course, STAGES, STANDS } from "./course.ts";

/** Documents of requests through keyrings and of their coordination (docs/protocol.md §9.6). */

const workspaceId = hashIdOf<WorkspaceId>();
const keyringId = hashIdOf<KeyringId>();
const requestId = hashIdOf<KeyringRequestId>();
const itemId = hashIdOf<FederatedRequestId>();
const index = uint(255, 1);
const indices = list(index, { max: SERVERS_MAX });

const life: Codec<KeyringLife> = struct({
  kind: oneOf(["key", "signature"]),
  keyringId,
  status: oneOf(KEYRING_STATUSES),
  approved: bool,
  accepted: bool,
  expiresAtMs: u53,
  threshold: uint(SERVERS_MAX, 1),
  parties: list(struct({ key: hash32, excluded: bool }), { min: 1, max: SERVERS_MAX }),
  items: list(struct({ itemId, responses: list(signedResponse, { max: SERVERS_MAX }), value: nullable(hash32) }), {
    min: 1,
    max: BATCH_MAX,
  }),
});

/** A request with its snapshot: id = request, owner = workspace, place = newest first. */
export interface RequestRow {
  readonly workspaceId: WorkspaceId;
  /** The account that asked. */
  readonly userId: UserId;
  readonly life: KeyringLife;
  /** Of the snapshot, ascending by index. */
  readonly parties: readonly Party[];
  readonly fee: number;
  /** Which {@link MANIFEST} it was made under. */
  readonly manifestHash: Uint8Array;
  readonly why: string;
  /** Newest link of the workspace's policy that was asked about it, 32 bytes; null before that. */
  readonly ruledUnder: Uint8Array | null;
  /** Owner keys on whose lists it stands. */
  readonly called: readonly Uint8Array[];
  readonly evidence: readonly Equivocation[];
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}
export const REQUEST: DocumentKind<RequestRow> = kindOf(
  "keyringRequest",
  struct({
    workspaceId,
    userId: id<UserId>(),
    life,
    parties,
    fee: credits,
    manifestHash: hash32,
    why: text({ max: 1_024 }),
    ruledUnder: nullable(hash32),
    called: list(hash32, { max: POLICY_MAX.approvers }),
    evidence: list(equivocation, { max: SERVERS_MAX }),
    createdAtMs: u53,
    updatedAtMs: u53,
  }),
);

/** A request among those of its status: id = status:request, owner = workspace:status, place as the request's. */
export const OF_STATUS: DocumentKind<object> = kindOf("keyringOfStatus", struct({}));

/** Requests that are open: id = account, or workspace:keyring (owner = workspace) with all their parties. */
export interface OpenCount {
  readonly count: number;
  /** Keys of the snapshots of all of them, while there is one. */
  readonly parties: readonly Uint8Array[];
}
export const OPEN_COUNT: DocumentKind<OpenCount> = kindOf(
  "keyringOpenCount",
  struct({ count: u53, parties: list(hash32, { max: 8 * SERVERS_MAX }) }),
);

/** A manifest under which requests were made: id = its hash. */
export const MANIFEST: DocumentKind<{ readonly manifest: SignedManifest }> = kindOf(
  "keyringManifest",
  struct({ manifest: signedManifest }),
);

/** What the owner signed: id = item, owner = request. Never changes. */
export const ASKED: DocumentKind<{ readonly request: SignedRequest }> = kindOf(
  "keyringAsked",
  struct({ request: signedRequest }),
);

const course: Codec<Course> = struct({
  kind: oneOf(COURSE_KINDS),
  stage: oneOf(STAGES),
  least: uint(SERVERS_MAX, 1),
  parties: list(struct({ index, stand: oneOf(STANDS), strikes: uint(1_000) }), { max: SERVERS_MAX }),
  attempt: uint(1_000),
  roster: indices,
  due: indices,
  sinceMs: nullable(u53),
});

/** The coordination of one item: id = item, owner = request, place = its place among the items. */
export interface ItemRow {
  readonly requestId: KeyringRequestId;
  readonly course: Course;
  /** Of the newest task of any party. */
  readonly seq: number;
  readonly order: SignedOrder | null;
  readonly decision: SignedDecision | null;
  /** The key: of a use from the beginning, of a new one once it is accepted. */
  readonly certificate: SignedCertificate | null;
  /** Of the accepted attempt. */
  readonly confirmations: readonly SignedMessage[];
  /** Shares that were let out, for the owner's client. */
  readonly partials: readonly SignedMessage[];
  /** The signature, verified. */
  readonly result: Uint8Array | null;
  /** The policy's word at last. */
  readonly explanation: Explanation;
}
export const ITEM: DocumentKind<ItemRow> = kindOf(
  "keyringItem",
  struct({
    requestId,
    course,
    seq: u53,
    order: nullable(signedOrder),
    decision: nullable(signedDecision),
    certificate: nullable(signedCertificate),
    confirmations: messages,
    partials: messages,
    result: nullable(bytes({ min: 64, max: 72 })),
    explanation,
  }),
);

/** What one server has said in the newest attempt that it was asked for: id = item:index, owner = item, place = index. */
export interface SaidRow {
  readonly attempt: number;
  readonly messages: readonly SignedMessage[];
  readonly outcome: Outcome | null;
  /** Which of the others' messages it has got: from.to.round. */
  readonly brought: readonly string[];
  /** Tries that came to nothing. */
  readonly misses: readonly { readonly why: string; readonly final: boolean }[];
}
export const SAID: DocumentKind<SaidRow> = kindOf(
  "keyringSaid",
  struct({
    attempt: uint(1_000),
    messages,
    outcome: nullable(outcome),
    brought: list(text({ max: 32 }), { max: 8 * SERVERS_MAX * SERVERS_MAX }),
    misses: list(struct({ why: text({ max: 300 }), final: bool }), { max: 64 }),
  }),
);

/** What a task is about; what it carries is read when it is handed out. */
export type TaskWork =
  | { readonly do: "prepare" | "begin" | "decide" | "respond" | "drop" | "nothing" }
  | { readonly do: "relay"; readonly attempt: number; readonly messages: readonly SignedMessage[] };

/**
 * What a party is to do for an item: id = party's key:item; owner = the key (place = age of the request), or key:later
 * (place = from when on), or key:done.
 */
export interface TaskRow {
  readonly itemId: FederatedRequestId;
  readonly requestId: KeyringRequestId;
  readonly keyringId: KeyringId;
  readonly workspaceId: WorkspaceId;
  readonly seq: number;
  /** Its place among what is due. */
  readonly rank: number;
  readonly work: TaskWork;
}
const none = struct({});
export const TASK: DocumentKind<TaskRow> = kindOf(
  "keyringTask",
  struct({
    itemId,
    requestId,
    keyringId,
    workspaceId,
    seq: u53,
    rank: u53,
    work: tagged("do", {
      prepare: none,
      begin: none,
      relay: struct({ attempt: uint(1_000, 1), messages }),
      decide: none,
      respond: none,
      drop: none,
      nothing: none,
    }),
  }),
);

/** An item that time moves: id = item, owner "", place = when it is looked at. */
export const ALARM: DocumentKind<object> = kindOf("keyringAlarm", struct({}));

/** An open request: id = request, owner "", place = when it expires. */
export const DEADLINE: DocumentKind<object> = kindOf("keyringDeadline", struct({}));

/** A vote on an item: id = item:key:policy's hash, owner = item. */
export interface VoteRow {
  readonly vote: SignedVote;
}
export const VOTE: DocumentKind<VoteRow> = kindOf("keyringVote", struct({ vote: signedVote }));

/** A request that waits for an owner: id = key:request, owner = the owner's key, place as the request's. */
export const APPROVAL: DocumentKind<object> = kindOf("keyringApproval", struct({}));

/** An item that was begun, for rates: id = item, owner = the key that it uses, or the requester's of a new one. */
export interface UseRow {
  readonly action: (typeof POLICY_ACTIONS)[number];
  readonly requester: Uint8Array;
  readonly keyId: FederatedKeyId | null;
}
export const USE: DocumentKind<UseRow> = kindOf(
  "keyringUse",
  struct({
    action: oneOf(POLICY_ACTIONS),
    requester: hash32,
    keyId: nullable(hashIdOf<FederatedKeyId>()),
  }),
);

/** A key of a fulfilled request: id = key, owner = workspace, place = newest first. */
export interface KeyRow {
  readonly workspaceId: WorkspaceId;
  readonly keyringId: KeyringId;
  readonly requestId: KeyringRequestId;
  readonly certificate: SignedCertificate;
  readonly responses: readonly SignedResponse[];
  readonly released: boolean;
  readonly createdAtMs: number;
}
export const KEY: DocumentKind<KeyRow> = kindOf(
  "keyringKey",
  struct({
    workspaceId,
    keyringId,
    requestId,
    certificate: signedCertificate,
    responses: list(signedResponse, { max: SERVERS_MAX }),
    released: bool,
    createdAtMs: u53,
  }),
);

/** A key among those of a keyring, a type, both or all: id = owner:key, place as the key's. */
export const KEY_OF: DocumentKind<object> = kindOf("keyringKeyOf", struct({}));

// ---- ids of documents that name several things ----

export const statusOwner = (workspace: WorkspaceId, status: string): string => `${workspace}:${status}`;
export const statusEntryId = (status: string, request: KeyringRequestId): string => `${status}:${request}`;
export const saidId = (item: FederatedRequestId, index: number): string => `${item}:${index}`;
export const taskId = (party: Uint8Array, item: FederatedRequestId): string => `${party.toHex()}:${item}`;
export const dueOwner = (party: Uint8Array): string => party.toHex();
export const laterOwner = (party: Uint8Array): string => `${party.toHex()}:later`;
export const doneOwner = (party: Uint8Array): string => `${party.toHex()}:done`;
export const voteId = (item: FederatedRequestId, key: Uint8Array, policyHash: Uint8Array): string =>
  `${item}:${key.toHex()}:${policyHash.toHex()}`;
export const approvalId = (key: Uint8Array, request: KeyringRequestId): string => `${key.toHex()}:${request}`;
/** Whose list of keys a page is read from. */
export const keysOwner = (workspace: WorkspaceId, keyring: KeyringId | null, type: string | null): string =>
  `${workspace}:${keyring ?? ""}:${type ?? ""}`;
