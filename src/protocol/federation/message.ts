import { type CanonValue, canon } from "../../crypto/canon.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import type { FederatedRequestId } from "../../ids.ts";
import { type Manifest, memberOf } from "./manifest.ts";

/** Hash of one server's first message, as another server has seen it. */
export interface SeenCommit {
  readonly index: number;
  readonly hash: Uint8Array;
}

/** A share that its dealer lays open because its receiver complained. */
export interface RevealedShare {
  readonly to: number;
  readonly share: Uint8Array;
}

/**
 * What servers say to each other in a ceremony, in this order; `to` is 0 but for shares (docs/protocol.md §8.5).
 *
 * - `commit`: commitments of the dealer's polynomial, proof of its constant, and a fresh X25519 key for shares
 *   (a receiver that deals nothing sends no commitments and an empty proof);
 * - `echo`: which commits this server has seen; before any share;
 * - `share`: one evaluation, sealed to the receiver's fresh key;
 * - `complaint`: whose shares do not fit (mostly nobody's);
 * - `reveal`: shares that complaints named, in clear;
 * - `confirm`: hash of the certificate that this server has computed and signed, its signature over that certificate,
 *   and the Schnorr proof of its new share;
 * - `nonces`: signing commitments, hiding and binding;
 * - `partial`: a partial signature or a released share, sealed to the request's recipient.
 */
export type Payload =
  | {
      readonly round: "commit";
      readonly commitments: readonly Uint8Array[];
      readonly proof: Uint8Array;
      readonly sealing: Uint8Array;
    }
  | { readonly round: "echo"; readonly seen: readonly SeenCommit[] }
  | { readonly round: "share"; readonly sealed: Uint8Array }
  | { readonly round: "complaint"; readonly accused: readonly number[] }
  | { readonly round: "reveal"; readonly shares: readonly RevealedShare[] }
  | {
      readonly round: "confirm";
      readonly certificateHash: Uint8Array;
      readonly signature: Uint8Array;
      readonly proof: Uint8Array;
    }
  | { readonly round: "nonces"; readonly hiding: Uint8Array; readonly binding: Uint8Array }
  | { readonly round: "partial"; readonly sealed: Uint8Array };

export type Round = Payload["round"];

/** One message of a ceremony; bound to the attempt and its whole roster by `orderHash`. */
export interface Message {
  readonly requestId: FederatedRequestId;
  readonly attempt: number;
  /** {@link orderHash} of the attempt. */
  readonly orderHash: Uint8Array;
  readonly from: number;
  /** Receiver's index, or 0 for all. */
  readonly to: number;
  readonly payload: Payload;
}

export interface SignedMessage {
  readonly message: Message;
  readonly signature: Uint8Array;
}

function payloadParts(p: Payload): CanonValue {
  switch (p.round) {
    case "commit":
      return [p.round, p.commitments, p.proof, p.sealing];
    case "echo":
      return [p.round, p.seen.map((s) => [s.index, s.hash])];
    case "share":
    case "partial":
      return [p.round, p.sealed];
    case "complaint":
      return [p.round, p.accused];
    case "reveal":
      return [p.round, p.shares.map((s) => [s.to, s.share])];
    case "confirm":
      return [p.round, p.certificateHash, p.signature, p.proof];
    case "nonces":
      return [p.round, p.hiding, p.binding];
  }
}

/** What a server's signature over a message covers. */
export function messageBytes(m: Message): Uint8Array {
  return canon(
    "keyhold/v1/federation-message",
    m.requestId,
    m.attempt,
    m.orderHash,
    m.from,
    m.to,
    payloadParts(m.payload),
  );
}

/** 32 bytes. */
export function messageHash(m: Message): Uint8Array {
  return hashCanon("keyhold/v1/federation-message-hash", messageBytes(m));
}

export function signMessage(signer: Signer, message: Message): SignedMessage {
  return { message, signature: signer.sign(messageBytes(message)) };
}

/** True when the manifest's server `from` has signed it. */
export function messageSignatureHolds(manifest: Manifest, { message, signature }: SignedMessage): boolean {
  return verifySignature(memberOf(manifest, message.from).identity, messageBytes(message), signature);
}

/** HPKE info of a share, a partial signature or a released share: who seals to whom, in which attempt. */
export function sealedInfo(m: Pick<Message, "requestId" | "attempt" | "orderHash" | "from" | "to">, round: Round) {
  return canon("keyhold/v1/federation-sealed", m.requestId, m.attempt, m.orderHash, round, m.from, m.to);
}

/** Why a server is named: provable by the messages beside it. */
export interface Culprit {
  readonly index: number;
  readonly reason: "equivocation" | "bad_proof" | "bad_commitments" | "bad_share" | "bad_partial" | "bad_echo";
  /** Signed messages that prove it to anyone who holds manifest and order. */
  readonly evidence: readonly SignedMessage[];
}
