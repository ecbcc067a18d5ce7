import { equalBytes } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { type FederatedKeyId, type FederatedRequestId, type FederationId, hashId, type PolicyId } from "../../ids.ts";
import type { Control, Custody, FederatedType, KeyOrigin } from "./kinds.ts";
import { type Manifest, rosterMin } from "./manifest.ts";
import { type SignedDecision, verifyDecision } from "./request.ts";

/** Where the ciphertext of an imported `bytes` value stands: in the body of the request that imported it. */
export interface ImportedValue {
  readonly requestId: FederatedRequestId;
  /** `valueHash` of it, 32 bytes. */
  readonly hash: Uint8Array;
}

/** What every server and the owner keep of a key (docs/protocol.md §8.4). Its hash excludes signatures and acceptance. */
export interface Certificate {
  readonly keyId: FederatedKeyId;
  readonly federationId: FederationId;
  readonly epoch: number;
  /** Request and attempt that made this generation. */
  readonly requestId: FederatedRequestId;
  readonly attempt: number;
  /** Ed25519 request key of the owner, 32 bytes. */
  readonly owner: Uint8Array;
  readonly type: FederatedType;
  readonly length: number;
  readonly custody: Custody;
  readonly control: Control;
  readonly origin: KeyOrigin;
  readonly policy: PolicyId | null;
  /** Compressed point of the whole key: D, or D + C for a self-custodial one. For `schnorr` see docs/protocol.md §8.6. */
  readonly publicKey: Uint8Array;
  /** Commitments of the servers' polynomial; the first one is D (of `schnorr` tweaked). `threshold` of them. */
  readonly commitments: readonly Uint8Array[];
  /** Of `schnorr`: D before the taproot tweak; otherwise null. */
  readonly untweaked: Uint8Array | null;
  /** C of a self-custodial key; otherwise null. */
  readonly ownerPoint: Uint8Array | null;
  /** Of imported `bytes`, in every generation; otherwise null. */
  readonly value: ImportedValue | null;
  readonly threshold: number;
  /** Ascending indices of the servers that hold a share. */
  readonly holders: readonly number[];
  /** Of the shares: 0 at first, one more with each resharing. */
  readonly generation: number;
  /** Hash over every broadcast message of the ceremony, 32 bytes. */
  readonly transcript: Uint8Array;
  /** {@link certificateHash} of the generation before; null at generation 0. */
  readonly predecessor: Uint8Array | null;
}

export interface CertificateSignature {
  readonly index: number;
  readonly signature: Uint8Array;
}

/** A certificate with what travels beside it. */
export interface SignedCertificate {
  readonly certificate: Certificate;
  readonly signatures: readonly CertificateSignature[];
  readonly acceptance: SignedDecision;
}

/** The id of a new key: derived, never allocated. */
export function keyIdOf(
  federationId: FederationId,
  requestId: FederatedRequestId,
  attempt: number,
  transcript: Uint8Array,
  publicKey: Uint8Array,
): FederatedKeyId {
  return hashId(hashCanon("keyhold/v1/federation-key-id", federationId, requestId, attempt, transcript, publicKey));
}

export function certificateBytes(c: Certificate): Uint8Array {
  return canon(
    "keyhold/v1/federation-certificate",
    c.keyId,
    c.federationId,
    c.epoch,
    c.requestId,
    c.attempt,
    c.owner,
    c.type,
    c.length,
    c.custody,
    c.control,
    c.origin,
    c.policy,
    c.publicKey,
    c.commitments,
    c.untweaked,
    c.ownerPoint,
    c.value && [c.value.requestId, c.value.hash],
    c.threshold,
    c.holders,
    c.generation,
    c.transcript,
    c.predecessor,
  );
}

/** 32 bytes. */
export function certificateHash(c: Certificate): Uint8Array {
  return hashCanon("keyhold/v1/federation-certificate-hash", certificateBytes(c));
}

export function signCertificate(signer: Signer, index: number, certificate: Certificate): CertificateSignature {
  return { index, signature: signer.sign(certificateBytes(certificate)) };
}

/** True when the server of that index has signed the certificate. */
export function certificateSignatureHolds(
  manifest: Manifest,
  certificate: Certificate,
  { index, signature }: CertificateSignature,
): boolean {
  const server = manifest.servers.find((s) => s.index === index);
  return server !== undefined && verifySignature(server.identity, certificateBytes(certificate), signature);
}

/** What no ceremony comes to: fewer signatures would do for it. @throws Fault integrity */
function checkHolders(c: Certificate, { servers, threshold }: Manifest): void {
  const members = c.holders.every(
    (index, i) => index > (c.holders[i - 1] ?? 0) && servers.some((server) => server.index === index),
  );
  const bounds = c.threshold >= 2 && c.threshold <= c.holders.length && c.threshold * 2 > c.holders.length;
  const first = c.generation === 0 && c.origin === "generated";
  const whole = c.threshold === threshold && c.holders.length >= rosterMin(servers.length, threshold);
  if (!members || !bounds || c.commitments.length !== c.threshold || (first && !whole))
    throw new Fault("integrity", "the holders and threshold of this certificate cannot be");
}

/**
 * Verifies holders, signatures and acceptance of a certificate: at least min(n, t + 1) of its own roster of holders, under the
 * manifest of its epoch, and the owner's acceptance of this very certificate.
 *
 * @param manifest The pinned manifest of the certificate's epoch.
 * @throws Fault integrity
 */
export function verifyCertificate(signed: SignedCertificate, manifest: Manifest): Certificate {
  const { certificate: c, signatures, acceptance } = signed;
  if (c.federationId !== manifest.federationId || c.epoch !== manifest.epoch)
    throw new Fault("integrity", "this certificate belongs to another federation or epoch");
  checkHolders(c, manifest);
  const agreed = new Set(
    signatures
      .filter((s) => c.holders.includes(s.index) && certificateSignatureHolds(manifest, c, s))
      .map((s) => s.index),
  );
  if (agreed.size < rosterMin(c.holders.length, c.threshold))
    throw new Fault("integrity", "too few servers have signed this certificate");
  verifyDecision(c.owner, acceptance);
  const { decision } = acceptance;
  const accepted =
    decision.verdict === "accept" &&
    decision.requestId === c.requestId &&
    decision.attempt === c.attempt &&
    decision.certificateHash !== null &&
    equalBytes(decision.certificateHash, certificateHash(c));
  if (!accepted) throw new Fault("integrity", "the owner has not accepted this certificate");
  return c;
}
