import { type CanonValue, canon } from "../../crypto/canon.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import {
  type FederatedKeyId,
  type FederatedRequestId,
  type FederationId,
  hashId,
  type KeyringId,
  type PolicyId,
  type WorkspaceId,
} from "../../ids.ts";
import {
  type Control,
  type Custody,
  type FederatedType,
  type ImportOrigin,
  importKind,
  type SignForm,
} from "./kinds.ts";

/** The owner's part of a self-custodial key: C = c·G and the proof of knowing c (docs/protocol.md §8.6). */
export interface OwnerPart {
  /** Compressed point of the type's group. */
  readonly point: Uint8Array;
  readonly proof: Uint8Array;
}

/** An amount for policy conditions, in whole smallest units as decimal digits: declared, or what a transaction says. */
export interface Amount {
  readonly unit: string;
  readonly value: string;
}

/** What is to become of a new key. */
export interface KeyPurpose {
  readonly type: FederatedType;
  /** Bytes of the value for `bytes`; otherwise 32. */
  readonly length: number;
  readonly custody: Custody;
  readonly control: Control;
  /** The policy that approves it: of every key under shared control, of no other. */
  readonly policy: PolicyId | null;
  /** Of every self-custodial key, of no other. */
  readonly owner: OwnerPart | null;
}

export interface GenerateBody extends KeyPurpose {
  readonly kind: "generate";
}

/** The requester shares an existing secret out: commitments of its polynomial, shares sealed in the order. */
export interface ImportBody extends KeyPurpose {
  readonly kind: "import";
  /** The owner's word on where the secret comes from: the certificate repeats it for good. */
  readonly origin: ImportOrigin;
  readonly threshold: number;
  readonly holders: readonly number[];
  /** Commitments to the polynomial, `threshold` of them. */
  readonly commitments: readonly Uint8Array[];
  /** Of `bytes`: the value, sealed under a key of the shared scalar (docs/protocol.md §8.6); otherwise null. */
  readonly sealedValue: Uint8Array | null;
}

export interface SignBody {
  readonly kind: "sign";
  readonly keyId: FederatedKeyId;
  readonly generation: number;
  /** How `message` is read: what is signed follows from it (docs/protocol.md §8.12). */
  readonly form: SignForm;
  /** Input of a `bitcoin` transaction that is signed; otherwise 0. */
  readonly input: number;
  readonly message: Uint8Array;
  readonly amount: Amount | null;
  /** X25519 key, 32 bytes, that partial signatures are sealed to. */
  readonly recipient: Uint8Array;
}

/** Asks for the shares themselves: `sign` is the use of an ECDSA key for one message. */
export interface ReleaseBody {
  readonly kind: "release";
  readonly keyId: FederatedKeyId;
  readonly generation: number;
  readonly purpose: "retrieve" | "export" | "sign";
  /** As of a {@link SignBody}; `message` and 0 where nothing is signed. */
  readonly form: SignForm;
  readonly input: number;
  /** What will be signed, where `purpose` is `sign`; otherwise null. */
  readonly message: Uint8Array | null;
  readonly amount: Amount | null;
  /** X25519 key, 32 bytes, that shares are sealed to. */
  readonly recipient: Uint8Array;
}

export interface ReshareBody {
  readonly kind: "reshare";
  readonly keyId: FederatedKeyId;
  /** Generation that is left; the next one is one higher. */
  readonly generation: number;
  readonly mode: "repair" | "refresh" | "reshare";
  readonly threshold: number;
  /** Ascending indices of the next holders. */
  readonly holders: readonly number[];
}

export type RequestKind = "generate" | "import" | "sign" | "release" | "reshare";
export type RequestBody = GenerateBody | ImportBody | SignBody | ReleaseBody | ReshareBody;

/** Marks a request that goes through a keyring (docs/protocol.md §9.2). */
export interface KeyringMark {
  /** Ed25519 identity of the registry, 32 bytes: orders, decides, and stands as owner in certificates. */
  readonly registry: Uint8Array;
  readonly keyringId: KeyringId;
  /** The workspace whose policy must name the requester and approve. */
  readonly workspaceId: WorkspaceId;
}

/** A request as its owner signs it (docs/protocol.md §8.3). */
export interface FederatedRequest {
  readonly federationId: FederationId;
  readonly epoch: number;
  /** Ed25519 request key of the account, 32 bytes. */
  readonly requester: Uint8Array;
  /** 32 random bytes. */
  readonly nonce: Uint8Array;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  /** Of what goes through a keyring; null where the requester itself orders and decides. */
  readonly keyring: KeyringMark | null;
  readonly body: RequestBody;
}

/** Whose signature orders attempts and decides, and who owns the key that a request makes or uses: 32 bytes. */
export function coordinatorOf({ keyring, requester }: Pick<FederatedRequest, "keyring" | "requester">): Uint8Array {
  return keyring?.registry ?? requester;
}

/** Stands in place of a federation in the policies of a registry's workspaces (docs/protocol.md §9.1). */
export function registryScope(registry: Uint8Array): FederationId {
  return hashId(hashCanon("keyhold/v1/keyring-scope", registry));
}

/** Which scope the policy of a request's key must have. */
export function policyScopeOf({
  keyring,
  federationId,
}: Pick<FederatedRequest, "keyring" | "federationId">): FederationId {
  return keyring ? registryScope(keyring.registry) : federationId;
}

export interface SignedRequest {
  readonly request: FederatedRequest;
  readonly signature: Uint8Array;
}

/** What a request and a certificate say of an imported value's ciphertext: 32 bytes. */
export function valueHash(sealedValue: Uint8Array): Uint8Array {
  return hashCanon("keyhold/v1/federation-value", sealedValue);
}

const ownerParts = (owner: OwnerPart | null): CanonValue => owner && [owner.point, owner.proof];
const amountParts = (amount: Amount | null): CanonValue => amount && [amount.unit, amount.value];
const purposeParts = (p: KeyPurpose): CanonValue => [
  p.type,
  p.length,
  p.custody,
  p.control,
  p.policy,
  ownerParts(p.owner),
];

function bodyParts(b: RequestBody): CanonValue {
  switch (b.kind) {
    case "generate":
      return [b.kind, purposeParts(b)];
    case "import":
      return [
        importKind(b.origin),
        purposeParts(b),
        b.threshold,
        b.holders,
        b.commitments,
        b.sealedValue && valueHash(b.sealedValue),
      ];
    case "sign":
      return [b.kind, b.keyId, b.generation, b.form, b.input, b.message, amountParts(b.amount), b.recipient];
    case "release":
      return [b.kind, b.keyId, b.generation, b.purpose, b.form, b.input, b.message, amountParts(b.amount), b.recipient];
    case "reshare":
      return [b.kind, b.keyId, b.generation, b.mode, b.threshold, b.holders];
  }
}

/** What the requester's signature covers. */
export function requestBytes(r: FederatedRequest): Uint8Array {
  return canon(
    "keyhold/v1/federation-request",
    r.federationId,
    r.epoch,
    r.requester,
    r.nonce,
    r.createdAtMs,
    r.expiresAtMs,
    r.keyring && [r.keyring.registry, r.keyring.keyringId, r.keyring.workspaceId],
    bodyParts(r.body),
  );
}

/** A request's id is the hash of its canonical body: nobody allocates it. */
export function requestIdOf(r: FederatedRequest): FederatedRequestId {
  return hashId(hashCanon("keyhold/v1/federation-request-id", requestBytes(r)));
}

export function signRequest(signer: Signer, request: FederatedRequest): SignedRequest {
  return { request, signature: signer.sign(requestBytes(request)) };
}

/** Verifies the requester's signature and gives the id. @throws Fault integrity */
export function verifyRequest({ request, signature }: SignedRequest): FederatedRequestId {
  if (verifySignature(request.requester, requestBytes(request), signature)) return requestIdOf(request);
  throw new Fault("integrity", "the requester's signature does not hold");
}

/** Client bytes sealed to one server's enclave. */
export interface Contribution {
  readonly index: number;
  /** HPKE (docs/protocol.md §8.5): 32 random bytes; of an import that server's share. */
  readonly sealed: Uint8Array;
}

/** A signer's public nonces of one signature: compressed points of the type's group (RFC 9591 §5.1). */
export interface NonceCommitments {
  readonly hiding: Uint8Array;
  readonly binding: Uint8Array;
}

/** The requester's word for one attempt: who takes part. Servers join one roster an attempt. */
export interface AttemptOrder {
  readonly requestId: FederatedRequestId;
  /** From 1; each attempt draws everything afresh. */
  readonly attempt: number;
  /** Ascending indices: for a reshare the old holders that help and all next holders. */
  readonly roster: readonly number[];
  readonly contributions: readonly Contribution[];
  /** The owner's own nonces where a self-custodial key signs (docs/protocol.md §8.6); otherwise null. */
  readonly ownerNonces: NonceCommitments | null;
}

export interface SignedOrder {
  readonly order: AttemptOrder;
  readonly signature: Uint8Array;
}

export function orderBytes(o: AttemptOrder): Uint8Array {
  const contributions = o.contributions.map((c): CanonValue => [c.index, c.sealed]);
  const nonces: CanonValue = o.ownerNonces && [o.ownerNonces.hiding, o.ownerNonces.binding];
  return canon("keyhold/v1/federation-order", o.requestId, o.attempt, o.roster, contributions, nonces);
}

/** Binds every message to the request, the attempt and who takes part: 32 bytes. */
export function orderHash(o: AttemptOrder): Uint8Array {
  return hashCanon("keyhold/v1/federation-order-hash", orderBytes(o));
}

/** HPKE info of a {@link Contribution}: to whom and for what it was sealed. */
export function contributionInfo(requestId: FederatedRequestId, attempt: number, index: number): Uint8Array {
  return canon("keyhold/v1/federation-contribution", requestId, attempt, index);
}

export function signOrder(signer: Signer, order: AttemptOrder): SignedOrder {
  return { order, signature: signer.sign(orderBytes(order)) };
}

/** @param requester {@link coordinatorOf} the request. @throws Fault integrity */
export function verifyOrder(requester: Uint8Array, { order, signature }: SignedOrder): void {
  if (!verifySignature(requester, orderBytes(order), signature))
    throw new Fault("integrity", "the requester's signature under this attempt does not hold");
}

/** The requester's single, final word on a request. */
export interface Decision {
  readonly requestId: FederatedRequestId;
  readonly verdict: "accept" | "cancel";
  /** Attempt that is accepted; 0 for a cancellation. */
  readonly attempt: number;
  /** {@link certificateHash} of what is accepted; null for a cancellation. */
  readonly certificateHash: Uint8Array | null;
}

export interface SignedDecision {
  readonly decision: Decision;
  readonly signature: Uint8Array;
}

export function decisionBytes(d: Decision): Uint8Array {
  return canon("keyhold/v1/federation-decision", d.requestId, d.verdict, d.attempt, d.certificateHash);
}

export function signDecision(signer: Signer, decision: Decision): SignedDecision {
  return { decision, signature: signer.sign(decisionBytes(decision)) };
}

/** @param requester {@link coordinatorOf} the request. @throws Fault integrity */
export function verifyDecision(requester: Uint8Array, { decision, signature }: SignedDecision): void {
  if (!verifySignature(requester, decisionBytes(decision), signature))
    throw new Fault("integrity", "the requester's signature under this decision does not hold");
}
