import type { FederatedRequestId, PolicyId } from "../ids.ts";
import { SERVERS_MAX } from "../protocol/federation/kinds.ts";

import { bytes, hashIdOf, list, nullable, struct, text, uint } from "../wire/codec.ts";
import { explanation, outcome } from "../wire/federation/operations.ts";
import {
  erasure,
  manifest,
  manifestSignature,
  messages,
  POLICY_MAX,
  signedCertificate,
  signedManifest,
  signedOrder,
  signedPolicy,
  signedRequest,
  signedVote,
} from "../wire/federation/records.ts";
import { hash32 } from "../wire/records.ts";

/** A share as the enclave seals it: opaque to everyone else (docs/protocol.md §8.8). */
export const sealedShare = bytes({ min: 64, max: 1_024 });

/** Everything that the enclave verifies before it does what a request asks for. */
export const evidence = struct({
  /** The manifest of the request's epoch: counts only with this enclave's own signature under it. */
  manifest: signedManifest,
  request: signedRequest,
  /** Of uses and resharings: the key, and the manifest of its epoch. */
  certificate: nullable(signedCertificate),
  certificateManifest: nullable(signedManifest),
  /** Newest chains: of this server's operator (manifest entry `policy`) and of the key (request or certificate). */
  serverPolicy: nullable(list(signedPolicy, { min: 1, max: 1_024 })),
  keyPolicy: nullable(list(signedPolicy, { min: 1, max: 1_024 })),
  /** Of approvers and of remote engines. */
  votes: list(signedVote, { max: 2 * (POLICY_MAX.approvers + POLICY_MAX.remotes) }),
  /** Approval key that the requester enrolled beside its request key: for rules under which it may not approve. */
  requesterApproval: nullable(hash32),
});

/** One step of a ceremony or use: all that this server has said in the attempt so far. */
export const step = struct({
  messages,
  outcome: nullable(outcome),
  /** Of a confirmed outcome: the new share, bound to (request id, attempt). */
  sealed: nullable(sealedShare),
});

/** A policy that waits: whose vote would count, and which engines'. */
const waiting = struct({
  policyId: hashIdOf<PolicyId>(),
  approvers: list(hash32, { max: POLICY_MAX.approvers }),
  engines: list(text({ min: 1, max: 64 }), { max: POLICY_MAX.remotes }),
});

/** The whole message set between a key server and its enclave: length-prefixed JSON over a pipe. */
export const enclaveOperations = {
  info: { input: struct({}), output: struct({ identity: hash32, sealing: hash32 }) },
  /** Signs a manifest that names this enclave: the operator has accepted it. */
  "manifest.sign": {
    input: struct({ manifest, before: nullable(signedManifest) }),
    output: manifestSignature,
  },
  /** What both policies say of a request, in words, and whom those that wait wait for. */
  evaluate: {
    input: struct({ evidence }),
    output: struct({ explanations: list(explanation, { max: 4 }), waiting: list(waiting, { max: 2 }) }),
  },
  /**
   * Begins an attempt: verifies signatures, policies and the spent mark, and marks a use as spent durably before the
   * first partial or released share leaves.
   */
  begin: {
    input: struct({ evidence, order: signedOrder, share: nullable(sealedShare) }),
    output: step,
  },
  relay: {
    input: struct({ requestId: hashIdOf<FederatedRequestId>(), attempt: uint(1_000, 1), messages }),
    output: step,
  },
  /** Seals a share anew under its key id, after the owner accepted the certificate. */
  confirm: {
    input: struct({ manifest: signedManifest, certificate: signedCertificate, sealed: sealedShare }),
    output: struct({ sealed: sealedShare }),
  },
  /** States, signed, that shares older than an accepted generation are gone; the parent has deleted them. */
  erase: {
    input: struct({ manifest: signedManifest, certificate: signedCertificate }),
    output: struct({ erasures: list(erasure, { max: SERVERS_MAX }) }),
  },
  /** Drops an attempt and its secrets. */
  forget: { input: struct({ requestId: hashIdOf<FederatedRequestId>() }), output: struct({}) },
} as const;

export type EnclaveOperation = keyof typeof enclaveOperations;
