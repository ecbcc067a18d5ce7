import type { UserId } from "../../ids.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";
import { bool, bytes, id, list, nullable, type Of, oneOf, struct, tagged, text, u53, uint } from "../codec.ts";
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
import { hash32 } from "../records.ts";
import {
  BATCH_MAX,
  credits,
  fees,
  itemId,
  KEYRING_STATUSES,
  keyId,
  keyringId,
  keyringName,
  parties,
  party,
  requestId,
  signedResponse,
  workspaceId,
} from "./records.ts";

/** What a registry shows and connectors are told (docs/protocol.md §9). */

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
