import type { UserId } from "../../ids.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";
import { bool, bytes, id, list, nullable, oneOf, struct, tagged, text, u53, uint } from "../codec.ts";
import { signedManifest, signedPolicy, signedRequest, signedVote } from "../federation/records.ts";
import { op } from "../operation.ts";
import { hash32, signature } from "../records.ts";
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
  workspaceId,
} from "./records.ts";

import {
  eventView,
  keyringKeyView,
  keyringRequestView,
  keyringView,
  ledgerEntry,
  report,
  task,
  workspaceView,
} from "./views.ts";

const empty = struct({});

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
