import type { FederatedRequestId, OtpAskId, PolicyId } from "../ids.ts";
import { SERVERS_MAX } from "../protocol/federation/kinds.ts";

import {
  ceremonyDraft,
  ceremonyKey as ceremonyKeyStatement,
  ENTRIES_MAX,
  releaseApproval,
  sealedOpening,
  sealedOut,
  signedCeremonyJoin,
  signedCeremonyKey,
  signedCeremonyManifest,
  signedCeremonyReveal,
  signedEntry,
  signedRelease,
  storedKeyRecord,
} from "../wire/ceremony/records.ts";
import { bool, bytes, hashIdOf, list, nullable, oneOf, struct, tagged, text, u53, uint } from "../wire/codec.ts";
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
import { parcel } from "../wire/otp/operations.ts";
import { hash32, signature } from "../wire/records.ts";

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

/** Private halves of a key pair for ceremonies, and a ceremony's seed, as the enclave seals them. */
export const sealedCeremonyKey = bytes({ min: 64, max: 4_096 });
export const sealedSeed = bytes({ min: 64, max: 256 });
/** A value of the key store as the enclave seals it. */
export const sealedStored = bytes({ min: 42, max: 8_192 });

/** A key pair for ceremonies with its private halves. */
export const keyInUse = struct({ statement: signedCeremonyKey, sealed: sealedCeremonyKey });

const transcript = struct({
  manifest: signedCeremonyManifest,
  entries: list(signedEntry, { max: ENTRIES_MAX }),
});

const stored = struct({ record: storedKeyRecord, sealed: sealedStored });

/** Something that this enclave has sealed for its parent, with what it is bound to. */
export const sealedItem = tagged("kind", {
  key: struct({ key: keyInUse }),
  /** Of a ceremony: what its manifest says of the seed. */
  seed: struct({ nonce: hash32, seedHash: hash32, sealed: sealedSeed }),
  stored: struct({ record: storedKeyRecord, sealed: sealedStored }),
});
/** Items of one question at most. */
export const SEALED_ITEMS_MAX = 32;

/** What happens next in a ceremony (docs/protocol.md §10.4). */
export const ceremonyStep = tagged("kind", {
  seat: struct({ index: uint(256, 1), invite: hash32 }),
  join: struct({ join: signedCeremonyJoin }),
  freeze: struct({ seed: sealedSeed }),
  reveal: struct({ reveal: signedCeremonyReveal, sealed: sealedOpening, key: keyInUse }),
  /** Openings in the order of the transcript's reveals. */
  combine: struct({
    openings: list(struct({ sealed: sealedOpening, key: keyInUse }), { min: 2, max: 256 }),
    /** Newest version of the key that it replaces: it makes the next one. */
    before: nullable(stored),
  }),
  /** What time or the organiser ends; the enclave finds for itself who is to blame. */
  abort: struct({ reason: oneOf(["absent", "withheld", "closed", "failed"]) }),
});

const askFor = struct({ askId: hashIdOf<OtpAskId>(), recipient: hash32 });

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

  /** Makes a key pair for ceremonies; the server's identity signs its statement, too. */
  "ceremony.key": {
    input: struct({ server: hash32, number: uint(0xffff_ffff, 1) }),
    output: struct({ key: ceremonyKeyStatement, enclaveSignature: signature, sealed: sealedCeremonyKey }),
  },
  /** Checks a draft, draws the seed s0, and signs the manifest that commits to it. */
  "ceremony.open": {
    input: struct({ draft: ceremonyDraft, signature }),
    output: struct({ manifest: signedCeremonyManifest, seed: sealedSeed }),
  },
  /**
   * Verifies the whole transcript and what is to happen, and signs the next entry: of those that freeze and end a
   * ceremony one only, marked in the journal, and again the same. A lie is answered by an entry that aborts.
   */
  "ceremony.append": {
    input: struct({ transcript, step: ceremonyStep }),
    output: struct({
      entry: signedEntry,
      /** Of a result. */
      stored: nullable(stored),
      /** Of a multisig wallet: each participant's secret part, sealed to it. */
      parts: list(struct({ index: uint(256, 1), sealed: sealedOut }), { max: 256 }),
    }),
  },
  /** Seals a value to who may have it by the manifest's policy and by enough signatures of participants. */
  "stored.release": {
    input: struct({
      stored,
      transcript,
      release: signedRelease,
      approvals: list(releaseApproval, { max: 256 }),
    }),
    output: struct({ sealed: sealedOut }),
  },
  /** A one-time password without a ceremony: drawn here, or sealed to this enclave by its owner. */
  "stored.create": {
    input: struct({
      record: storedKeyRecord,
      value: nullable(struct({ sealed: sealedOut, key: keyInUse, nonce: hash32 })),
    }),
    output: struct({ stored }),
  },
  /** The code of a counter (of a `totp`: of a step), sealed to the ask; its tag finds the hand-out again. */
  "stored.code": {
    input: struct({ stored, counter: u53, ask: askFor }),
    output: struct({ sealed: sealedOut, tag: bytes({ length: 16 }) }),
  },
  /** The otpauth:// URI, sealed to the ask. */
  "stored.provision": {
    input: struct({ stored, counter: u53, ask: askFor }),
    output: struct({ sealed: sealedOut }),
  },
  /** The tag of a code, and which counter from `from` on, `span` of them, has it; null for none. */
  "stored.match": {
    input: struct({ stored, code: text({ min: 6, max: 10, pattern: /^[0-9]+$/ }), from: u53, span: uint(1_024) }),
    output: struct({ tag: bytes({ length: 16 }), counter: nullable(u53) }),
  },
  /**
   * Seals a value to another server's key for ceremonies, and marks its key as gone: codes, values and parcels for any
   * other server are refused from then on. The counter is the one asked for, or that of an earlier parcel if higher.
   */
  "stored.send": {
    input: struct({ stored, to: signedCeremonyKey, counter: u53 }),
    output: struct({ counter: u53, sealed: sealedOut, signature }),
  },
  /** Whether each of them opens, and is what it is bound to: changes nothing, and says no more than that. */
  "sealed.check": {
    input: struct({ items: list(sealedItem, { min: 1, max: SEALED_ITEMS_MAX }) }),
    output: struct({ holds: list(bool, { max: SEALED_ITEMS_MAX }) }),
  },
  /** Opens a parcel and seals its value anew under this enclave's own record. */
  "stored.receive": {
    /** `receiver`: hash of the account that has it from then on; the journal takes no other one. */
    input: struct({ parcel, key: keyInUse, receiver: hash32 }),
    output: struct({ stored }),
  },
} as const;

export type EnclaveOperation = keyof typeof enclaveOperations;
