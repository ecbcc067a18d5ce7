import { equalBytes } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId, FederatedRequestId, KeyringId } from "../../ids.ts";

/** One party's word on one item of a request (docs/protocol.md §9.4): a party says exactly one thing. */
export interface PartyResponse {
  readonly keyringId: KeyringId;
  /** Item: the federated request that its owner signed. */
  readonly requestId: FederatedRequestId;
  readonly verdict: "fulfilled" | "rejected";
  /** Attempt that came to a result; 0 for a rejection. */
  readonly attempt: number;
  /** The new or the used key; null for a rejection. */
  readonly keyId: FederatedKeyId | null;
  /** Compressed point; null for a rejection. */
  readonly publicKey: Uint8Array | null;
  /** Of the key's certificate, 32 bytes; null for a rejection. */
  readonly certificateHash: Uint8Array | null;
  /** Newest link of the workspace's policy by which its server went, 32 bytes. */
  readonly policyHash: Uint8Array;
  /** Of a rejection, shown to the workspace; otherwise empty. */
  readonly reason: string;
  /** Ed25519 key of the party, 32 bytes. */
  readonly key: Uint8Array;
}

export interface SignedResponse {
  readonly response: PartyResponse;
  readonly signature: Uint8Array;
}

/** What a party signs. */
export function responseBytes(r: PartyResponse): Uint8Array {
  return canon(
    "keyhold/v1/keyring-response",
    r.keyringId,
    r.requestId,
    r.verdict,
    r.attempt,
    r.keyId,
    r.publicKey,
    r.certificateHash,
    r.policyHash,
    r.reason,
    r.key,
  );
}

/** What responses must have in common to agree, 32 bytes: all but who says it, and the words of a rejection. */
export function responseValue(r: PartyResponse): Uint8Array {
  const { keyringId, requestId, verdict, attempt, keyId, publicKey, certificateHash } = r;
  return hashCanon(
    "keyhold/v1/keyring-response-value",
    keyringId,
    requestId,
    verdict,
    attempt,
    keyId,
    publicKey,
    certificateHash,
  );
}

export function signResponse(signer: Signer, response: Omit<PartyResponse, "key">): SignedResponse {
  const whole: PartyResponse = { ...response, key: signer.publicKey };
  return { response: whole, signature: signer.sign(responseBytes(whole)) };
}

/** @throws Fault integrity */
export function verifyResponse({ response, signature }: SignedResponse): PartyResponse {
  if (verifySignature(response.key, responseBytes(response), signature)) return response;
  throw new Fault("integrity", "the party's signature under its response does not hold");
}

/** True for two signed responses of one party to one item that say different things: anyone can verify it. */
export function isResponseEquivocation(a: SignedResponse, b: SignedResponse): boolean {
  const same = equalBytes(a.response.key, b.response.key) && a.response.requestId === b.response.requestId;
  if (!same || equalBytes(responseBytes(a.response), responseBytes(b.response))) return false;
  return [a, b].every(({ response, signature }) => verifySignature(response.key, responseBytes(response), signature));
}
