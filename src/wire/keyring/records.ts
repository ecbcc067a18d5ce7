import type { FederatedKeyId, FederatedRequestId, KeyringId, KeyringRequestId, WorkspaceId } from "../../ids.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";
import type { EquivocationProof } from "../../protocol/keyring/evidence.ts";
import type { Party } from "../../protocol/keyring/keyring.ts";
import { CREDITS_MAX } from "../../protocol/keyring/ledger.ts";
import { BATCH_MAX, KEYRING_STATUSES } from "../../protocol/keyring/requestlife.ts";
import type { PartyResponse, SignedResponse } from "../../protocol/keyring/response.ts";
import { bytes, type Codec, hashIdOf, list, nullable, oneOf, struct, text, uint } from "../codec.ts";
import { hash32, signature } from "../records.ts";

/** Codecs of keyrings' records (docs/protocol.md §9). Limits in bytes. */

export const workspaceId = hashIdOf<WorkspaceId>();
export const keyringId = hashIdOf<KeyringId>();
export const requestId = hashIdOf<KeyringRequestId>();
/** One item of a request: the federated request that an owner signed. */
export const itemId = hashIdOf<FederatedRequestId>();
export const keyId = hashIdOf<FederatedKeyId>();

/** Names of workspaces, keyrings and parties. */
export const keyringName = text({ min: 1, max: 64, pattern: /^[a-z0-9][a-z0-9._-]{0,63}$/ });
export const credits = uint(CREDITS_MAX);
export { BATCH_MAX, KEYRING_STATUSES };
export const party: Codec<Party> = struct({ name: keyringName, index: uint(255, 1), key: hash32 });
export const parties = list(party, { min: 1, max: SERVERS_MAX });
export const fees = struct({ key: credits, signature: credits });

const response: Codec<PartyResponse> = struct({
  keyringId,
  requestId: itemId,
  verdict: oneOf(["fulfilled", "rejected"]),
  attempt: uint(1_000),
  keyId: nullable(keyId),
  publicKey: nullable(bytes({ min: 32, max: 33 })),
  certificateHash: nullable(hash32),
  policyHash: hash32,
  reason: text({ max: 512 }),
  key: hash32,
});

export const signedResponse: Codec<SignedResponse> = struct({ response, signature });

/** A proof of equivocation as it is handed on: verified by `verifyEvidence` alone (docs/protocol.md §9.4). */
export const equivocationProof: Codec<EquivocationProof> = struct({
  keyring: keyringId,
  party: hash32,
  first: signedResponse,
  second: signedResponse,
});
