import type { FederatedKeyId, FederatedRequestId, KeyringId, KeyringRequestId, WorkspaceId } from "../../ids.ts";
import { ADDRESS_KINDS, NETWORKS } from "../../protocol/addresskind.ts";
import { FEDERATED_TYPES, SERVERS_MAX } from "../../protocol/federation/kinds.ts";
import { bool, type Codec, described, hashIdOf, list, nullable, oneOf, struct, text, u53, uint } from "../codec.ts";
import { POLICY_MAX } from "../federation/records.ts";
import { op } from "../operation.ts";
import { BATCH_MAX, credits, KEYRING_STATUSES, keyringName } from "./records.ts";

/*
 * What programs read of a workspace with a token (docs/protocol.md §9.7): JSON, ids and keys in hexadecimal, times in
 * milliseconds since 1970; nothing that is sealed, and nothing that changes anything.
 */

const empty = struct({});
const keyringId = described(hashIdOf<KeyringId>(), "Id of a keyring.");
const requestId = described(hashIdOf<KeyringRequestId>(), "Id of a request.");
const keyId = described(hashIdOf<FederatedKeyId>(), "Id of a key.");
const time = described(u53, "Milliseconds since 1970, UTC.");
const type = described(oneOf(FEDERATED_TYPES), "Type of a key.");
const more = described(bool, "True where another page follows.");

function hex(most: number, description: string): Codec<string> {
  return described(text({ min: 2, max: 2 * most, pattern: /^(?:[0-9a-f]{2})+$/ }), description);
}

const publicKey = hex(33, "Public key: compressed point of 33 bytes, or of ed25519 and ristretto255 32 bytes.");

/** Events, requests, keys in one answer. */
export const INTEGRATOR_PAGE = { events: 64, requests: 16, keys: 64 } as const;

/** Where a party stands with a request. */
export const PARTY_STANDS = ["waiting", "answered", "rejected", "excluded"] as const;

const event = struct({
  seq: described(u53, "Number in the workspace's sequence, from 1 without gaps."),
  atMs: time,
  event: described(text({ min: 1, max: 64 }), "What happened, such as request.fulfilled or key.released."),
  keyringId: nullable(keyringId),
  requestId: nullable(requestId),
  keyId: nullable(keyId),
  detail: described(text({ max: 1_024 }), "In words, for people."),
});

const request = struct({
  requestId,
  keyringId,
  kind: described(oneOf(["key", "signature"]), "Whether it asks for a key or for signatures."),
  status: described(oneOf(KEYRING_STATUSES), "The last four are final."),
  approved: described(bool, "The workspace's policy has allowed it."),
  why: described(text({ max: 1_024 }), "Why it waits or has ended, in words."),
  fee: described(credits, "Credits that it costs when it is fulfilled."),
  threshold: described(uint(SERVERS_MAX, 1), "Agreeing parties that fulfil it."),
  parties: list(
    struct({ name: keyringName, state: described(oneOf(PARTY_STANDS), "Excluded: it has said two things.") }),
    { min: 1, max: SERVERS_MAX },
  ),
  items: described(
    list(
      struct({
        itemId: described(hashIdOf<FederatedRequestId>(), "Id of one key or signature."),
        keyId: nullable(keyId),
        type,
        publicKey: nullable(publicKey),
        signature: nullable(hex(72, "Verified signature: 64 bytes, of p256 DER.")),
      }),
      { min: 1, max: BATCH_MAX },
    ),
    "The key that it makes, or the signatures that it asks for.",
  ),
  createdAtMs: time,
  updatedAtMs: time,
  expiresAtMs: time,
});

const key = struct({
  keyId,
  keyringId,
  requestId,
  type,
  publicKey,
  shown: described(oneOf(["delegated", "released"]), "Released: its shares were let out to an owner, for good."),
  threshold: described(uint(SERVERS_MAX, 1), "Servers that use it together."),
  confirmedBy: described(list(keyringName, { max: SERVERS_MAX }), "Parties whose responses the registry verified."),
  createdAtMs: time,
});

/** Operations for programs with a token of a workspace; part of the one table. */
export const integratorOperations = {
  "integrator.workspace": op(
    "token",
    false,
    empty,
    struct({
      workspaceId: described(hashIdOf<WorkspaceId>(), "Id of the token's workspace."),
      name: keyringName,
      version: described(uint(0xffff_ffff, 1), "Number of the newest version of its policy."),
      owners: described(list(keyringName, { max: POLICY_MAX.approvers }), "Names of its owners."),
      balance: described(credits, "Credits that are free."),
      escrowed: described(credits, "Credits that open requests hold."),
      createdAtMs: time,
    }),
  ),
  "integrator.events": op(
    "token",
    false,
    struct({ after: described(u53, "Events with a greater number are asked for; 0 for all.") }),
    struct({
      items: list(event, { max: INTEGRATOR_PAGE.events }),
      more,
      last: described(u53, "What to ask for next: the greatest number given, or that of the question."),
    }),
  ),
  "integrator.requests": op(
    "token",
    false,
    struct({
      status: described(nullable(oneOf(KEYRING_STATUSES)), "Only those of this status; null for all."),
      after: described(nullable(requestId), "The last one of the page before; null for the first page."),
    }),
    struct({ items: described(list(request, { max: INTEGRATOR_PAGE.requests }), "Newest first."), more }),
  ),
  "integrator.request": op("token", false, struct({ requestId }), request),
  "integrator.keys": op(
    "token",
    false,
    struct({
      keyringId: described(nullable(hashIdOf<KeyringId>()), "Only those of this keyring; null for all."),
      type: described(nullable(oneOf(FEDERATED_TYPES)), "Only those of this type; null for all."),
      after: described(nullable(keyId), "The last one of the page before; null for the first page."),
    }),
    struct({ items: described(list(key, { max: INTEGRATOR_PAGE.keys }), "Newest first."), more }),
  ),
  "integrator.key": op("token", false, struct({ keyId }), key),
  "integrator.address": op(
    "token",
    false,
    struct({
      keyId,
      as: described(oneOf(ADDRESS_KINDS), "Kind of address."),
      network: described(nullable(oneOf(NETWORKS)), "Null: mainnet, or the kind has none."),
      prefix: described(
        nullable(text({ min: 1, max: 32, pattern: /^[a-z][a-z0-9]{0,31}$/ })),
        "Human-readable part of a cosmos address; null: cosmos.",
      ),
    }),
    struct({ address: described(text({ min: 1, max: 128 }), "Derived by the registry of the key's certificate.") }),
  ),
} as const;
