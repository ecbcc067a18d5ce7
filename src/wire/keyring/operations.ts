import type {
  FederatedKeyId,
  FederatedRequestId,
  KeyringId,
  KeyringRequestId,
  UserId,
  WorkspaceId,
} from "../../ids.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";
import {
  bool,
  bytes,
  hashIdOf,
  id,
  list,
  nullable,
  type Of,
  oneOf,
  struct,
  tagged,
  text,
  u53,
  uint,
} from "../codec.ts";
import { explanation, outcome } from "../federation/operations.ts";
import {
  messages,
  POLICY_MAX,
  signedCertificate,
  signedDecision,
  signedManifest,
  signedOrder,
  signedPolicy,
  signedRequest,
  signedVote,
} from "../federation/records.ts";
import { op } from "../operation.ts";
import { hash32, signature } from "../records.ts";
import { BATCH_MAX, credits, fees, KEYRING_STATUSES, keyringName, parties, party, signedResponse } from "./records.ts";

const empty = struct({});
const workspaceId = hashIdOf<WorkspaceId>();
const keyringId = hashIdOf<KeyringId>();
const requestId = hashIdOf<KeyringRequestId>();
const itemId = hashIdOf<FederatedRequestId>();
const keyId = hashIdOf<FederatedKeyId>();
const words = text({ max: 1_024 });

/** A workspace as its owners see it. */
export const workspaceView = struct({
  workspaceId,
  name: keyringName,
  /** Newest link of its chain, with the number of links. */
  policy: signedPolicy,
  version: uint(0xffff_ffff, 1),
  balance: credits,
  /** Held for requests that are open. */
  escrowed: credits,
  createdAtMs: u53,
  /** Links that wait for admins' signatures. */
  drafts: list(signedPolicy, { max: 8 }),
});

/** A party with what the registry has heard of it. */
const partyView = struct({
  party,
  /** Excluded from new requests: it has said two things about one request. */
  quarantined: bool,
  /** Its account is tied to that key. */
  enrolled: bool,
  lastSeenAtMs: nullable(u53),
  lastResponseAtMs: nullable(u53),
  /** Requests that it has not answered. */
  backlog: u53,
  /** As its connector says: version, state of its server, dead letters. */
  version: text({ max: 64 }),
  state: text({ max: 256 }),
  deadLetters: u53,
});

/** Two things that one party said about one request: whoever verifies both signatures knows. */
export const equivocation = struct({ first: signedResponse, second: signedResponse, atMs: u53 });

export const keyringView = struct({
  keyringId,
  name: keyringName,
  /** The federation whose servers its parties stand beside: all signatures can be verified. */
  manifest: signedManifest,
  threshold: uint(SERVERS_MAX, 1),
  fees,
  active: bool,
  /** Accounts that may change it. */
  admins: list(id<UserId>(), { max: 32 }),
  parties: list(partyView, { max: SERVERS_MAX }),
  evidence: list(equivocation, { max: SERVERS_MAX }),
  /** True for an admin of it. */
  own: bool,
  createdAtMs: u53,
});

/** One item of a request: the key that is made, or one signature. */
export const itemView = struct({
  itemId,
  request: signedRequest,
  votes: list(signedVote, { max: POLICY_MAX.approvers }),
  explanation,
  attempt: uint(1_000),
  /** The key that it makes (once accepted) or uses. */
  certificate: nullable(signedCertificate),
  responses: list(signedResponse, { max: 2 * SERVERS_MAX }),
  /** Of ECDSA: order and released shares, for the requesting owner's client alone. */
  order: nullable(signedOrder),
  partials: messages,
  /** The signature, verified. */
  result: nullable(bytes({ min: 64, max: 72 })),
});

export const keyringRequestView = struct({
  requestId,
  workspaceId,
  keyringId,
  kind: oneOf(["key", "signature"]),
  status: oneOf(KEYRING_STATUSES),
  /** The workspace's policy has allowed it: connectors see it. */
  approved: bool,
  /** Of a waiting, a rejected or a failed request, in words. */
  why: words,
  fee: credits,
  /** As they were when it was made. */
  threshold: uint(SERVERS_MAX, 1),
  parties,
  /** Newest link of the workspace's policy: what a vote names. */
  policyHash: hash32,
  items: list(itemView, { min: 1, max: BATCH_MAX }),
  evidence: list(equivocation, { max: SERVERS_MAX }),
  createdAtMs: u53,
  expiresAtMs: u53,
  updatedAtMs: u53,
});

/** A key of a workspace: only of a fulfilled request. */
export const keyringKeyView = struct({
  keyId,
  workspaceId,
  keyringId,
  requestId,
  certificate: signedCertificate,
  responses: list(signedResponse, { max: SERVERS_MAX }),
  /** Its shares were let out to an owner's client: for good. */
  released: bool,
  createdAtMs: u53,
});

/** What happened, in the order in which it did. */
export const eventView = struct({
  seq: u53,
  atMs: u53,
  /** `request.created`, `request.partial`, `request.fulfilled`, `key.released`, `party.quarantined`, ... */
  event: text({ min: 1, max: 64 }),
  workspaceId: nullable(workspaceId),
  keyringId: nullable(keyringId),
  requestId: nullable(requestId),
  keyId: nullable(keyId),
  detail: words,
});

/** One line of a ledger: the sums of all postings of one entry are zero. */
export const ledgerEntry = struct({
  seq: u53,
  atMs: u53,
  kind: oneOf(["credit", "escrow", "pay", "refund", "payout"]),
  requestId: nullable(requestId),
  note: text({ max: 256 }),
  postings: list(struct({ account: text({ min: 1, max: 160 }), debit: credits, credit: credits }), {
    min: 2,
    max: SERVERS_MAX + 2,
  }),
});

/** What a connector is to do for one item. `seq` grows with every change: a report names the one that it answers. */
export const task = struct({
  keyringId,
  requestId,
  itemId,
  seq: u53,
  /** Newest link of the workspace's policy: what must be brought to the own server first. */
  policyHash: hash32,
  request: signedRequest,
  work: tagged("do", {
    /** Bring policy, request and votes to the own server, and say whether it may run there. */
    prepare: struct({ votes: list(signedVote, { max: POLICY_MAX.approvers }) }),
    /** Begin the attempt at the own server. */
    begin: struct({ order: signedOrder, votes: list(signedVote, { max: POLICY_MAX.approvers }) }),
    relay: struct({ attempt: uint(1_000, 1), messages }),
    /** Bring the registry's decision; of an acceptance answer with the response after a proof of possession. */
    decide: struct({
      decision: signedDecision,
      certificate: nullable(signedCertificate),
      /** `confirm` messages of the attempt: proofs of the new shares. */
      confirmations: messages,
    }),
    /** Of a use: its result holds; answer with the response. */
    respond: struct({ attempt: uint(1_000, 1), certificate: signedCertificate }),
    /** The request is over: drop what the own server keeps for it. */
    drop: struct({}),
  }),
});

/** What a connector reports of one task. */
export const report = tagged("did", {
  ready: struct({}),
  said: struct({ attempt: uint(1_000, 1), messages, outcome: nullable(outcome) }),
  /** The own server refuses or has lost the attempt: another one, without it if need be. */
  missed: struct({ attempt: uint(1_000), why: text({ max: 300 }), final: bool }),
  decided: struct({}),
  /** Also of a refusal in any stage. */
  response: struct({ response: signedResponse }),
  dropped: struct({}),
});

/** Operations of the registry of workspaces and keyrings (docs/protocol.md §9). */
export const keyringOperations = {
  /** Who the registry is: what requests, policies and enrolments name. */
  "keyring.info": op(
    "none",
    false,
    empty,
    struct({ registry: hash32, sealing: hash32, enabled: bool, version: text({ max: 64 }), atMs: u53 }),
  ),
  /** Ties the account to its owner key or party key, which signs for it. */
  "keyring.enrol": op(
    "session",
    false,
    struct({ role: oneOf(["owner", "party"]), key: hash32, proof: signature }),
    empty,
  ),
  "workspace.create": op("session", false, struct({ name: keyringName, policy: signedPolicy }), workspaceView),
  "workspace.list": op(
    "session",
    false,
    struct({ after: nullable(workspaceId) }),
    struct({ items: list(workspaceView, { max: 16 }), more: bool }),
  ),
  "workspace.get": op("session", false, struct({ workspaceId }), workspaceView),
  /** Links of its chain; for owners, and for parties with an open request of it or something left to do. */
  "workspace.policy": op(
    "session",
    false,
    struct({ workspaceId, after: u53 }),
    struct({ chain: list(signedPolicy, { max: 8 }), more: bool }),
  ),
  /** Adds a link: owners, admin policy and sign policy change by the admins' signatures alone. */
  "workspace.policy.set": op("session", false, struct({ policy: signedPolicy }), workspaceView),
  "workspace.ledger": op(
    "session",
    false,
    struct({ workspaceId, after: u53 }),
    struct({ items: list(ledgerEntry, { max: 64 }), more: bool }),
  ),
  "workspace.events": op(
    "session",
    false,
    struct({ workspaceId, after: u53 }),
    struct({ items: list(eventView, { max: 64 }), more: bool }),
  ),
  /** Requests that wait for the caller's vote, over all its workspaces; newest first. */
  "workspace.inbox": op(
    "session",
    false,
    struct({ after: nullable(requestId) }),
    struct({ items: list(keyringRequestView, { max: 8 }), more: bool }),
  ),
  /** Makes a token for programs that read (docs/protocol.md §9.7): told once, kept as a hash. */
  "workspace.token.create": op(
    "session",
    false,
    struct({ workspaceId, name: keyringName, expiresAtMs: u53 }),
    struct({ tokenId: text({ min: 1, max: 64 }), token: text({ min: 32, max: 128 }) }),
  ),
  "workspace.token.list": op(
    "session",
    false,
    struct({ workspaceId }),
    struct({
      items: list(
        struct({ tokenId: text({ min: 1, max: 64 }), name: keyringName, createdAtMs: u53, expiresAtMs: u53 }),
        { max: 64 },
      ),
    }),
  ),
  "workspace.token.revoke": op("session", false, struct({ workspaceId, tokenId: text({ min: 1, max: 64 }) }), empty),
  "keyring.create": op(
    "session",
    false,
    struct({
      name: keyringName,
      nonce: hash32,
      manifest: signedManifest,
      threshold: uint(SERVERS_MAX, 1),
      fees,
      parties,
    }),
    keyringView,
  ),
  "keyring.list": op(
    "session",
    false,
    struct({ after: nullable(keyringId) }),
    struct({ items: list(keyringView, { max: 8 }), more: bool }),
  ),
  "keyring.get": op("session", false, struct({ keyringId }), keyringView),
  /** Changes of its admins; open requests keep their snapshot. */
  "keyring.change": op(
    "session",
    false,
    struct({
      keyringId,
      change: tagged("set", {
        partyAdded: struct({ party }),
        partyRemoved: struct({ name: keyringName }),
        /** After the admins have looked at the evidence. */
        partyCleared: struct({ name: keyringName }),
        threshold: struct({ threshold: uint(SERVERS_MAX, 1) }),
        fees: struct({ fees }),
        active: struct({ active: bool }),
        adminAdded: struct({ userId: id<UserId>() }),
        adminRemoved: struct({ userId: id<UserId>() }),
        manifest: struct({ manifest: signedManifest }),
      }),
    }),
    keyringView,
  ),
  /** Makes a request: permission, policy, escrow, snapshot. The same one again changes nothing. */
  "keyring.request": op(
    "session",
    false,
    struct({
      workspaceId,
      keyringId,
      items: list(signedRequest, { min: 1, max: BATCH_MAX }),
      /** What it may cost, in credits: fees may have changed since they were shown. Null: whatever it costs. */
      feeMax: nullable(credits),
    }),
    keyringRequestView,
  ),
  "keyring.request.get": op("session", false, struct({ requestId }), keyringRequestView),
  "keyring.requests": op(
    "session",
    false,
    struct({ workspaceId, status: nullable(oneOf(KEYRING_STATUSES)), after: nullable(requestId) }),
    struct({ items: list(keyringRequestView, { max: 8 }), more: bool }),
  ),
  /** Votes on the items of a request, one each. */
  "keyring.vote": op(
    "session",
    false,
    struct({ requestId, votes: list(signedVote, { min: 1, max: BATCH_MAX }) }),
    keyringRequestView,
  ),
  "keyring.cancel": op("session", false, struct({ requestId }), keyringRequestView),
  /** Brings the signatures that the requesting owner's client has made of released shares; verified. */
  "keyring.finish": op(
    "session",
    false,
    struct({
      requestId,
      results: list(struct({ itemId, signature: bytes({ min: 64, max: 72 }) }), { min: 1, max: BATCH_MAX }),
    }),
    keyringRequestView,
  ),
  /** Keys of a workspace, by keyring and type if said. */
  "keyring.keys": op(
    "session",
    false,
    struct({ workspaceId, keyringId: nullable(keyringId), type: nullable(text({ max: 32 })), after: nullable(keyId) }),
    struct({ items: list(keyringKeyView, { max: 8 }), more: bool }),
  ),
  "keyring.key": op("session", false, struct({ keyId }), keyringKeyView),
  /** Work of the caller's party, the oldest first; waits up to `waitMs` while there is none. */
  "party.tasks": op(
    "session",
    false,
    struct({
      waitMs: uint(10_000),
      max: uint(16, 1),
      health: struct({ version: text({ max: 64 }), state: text({ max: 256 }), deadLetters: u53 }),
    }),
    struct({ tasks: list(task, { max: 16 }), more: bool }),
  ),
  /** Brings what became of tasks. What names an older `seq` than the task has now changes nothing, responses excepted. */
  "party.report": op(
    "session",
    false,
    struct({ reports: list(struct({ itemId, seq: u53, report }), { min: 1, max: 16 }) }),
    empty,
  ),
} as const;

export type WorkspaceView = Of<typeof workspaceView>;
export type KeyringView = Of<typeof keyringView>;
export type PartyView = Of<typeof partyView>;
export type KeyringRequestView = Of<typeof keyringRequestView>;
export type KeyringItemView = Of<typeof itemView>;
export type KeyringKeyView = Of<typeof keyringKeyView>;
export type KeyringEvent = Of<typeof eventView>;
export type LedgerEntry = Of<typeof ledgerEntry>;
export type Equivocation = Of<typeof equivocation>;
export type Task = Of<typeof task>;
export type Report = Of<typeof report>;
