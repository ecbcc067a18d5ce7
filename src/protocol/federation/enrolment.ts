import { canon } from "../../crypto/canon.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import type { FederationId, UserId } from "../../ids.ts";

/** What an account's key at one server is for: `request` asks, orders and decides; `approval` votes and sets policies. */
export type EnrolmentRole = "request" | "approval";

/** Ties one key to one account at one server of one federation (docs/protocol.md §8.2). */
export interface Enrolment {
  readonly federationId: FederationId;
  /** Index of the server. */
  readonly server: number;
  /** The account there. */
  readonly userId: UserId;
  readonly role: EnrolmentRole;
  /** Ed25519 public key, 32 bytes. */
  readonly key: Uint8Array;
}

/** What the key itself signs, so that nobody enrols another's. */
export function enrolmentBytes(e: Enrolment): Uint8Array {
  return canon("keyhold/v1/federation-enrol", e.federationId, e.server, e.userId, e.role, e.key);
}

/** Proof for `federation.enrol`, 64 bytes. */
export function signEnrolment(signer: Signer, enrolment: Omit<Enrolment, "key">): Uint8Array {
  return signer.sign(enrolmentBytes({ ...enrolment, key: signer.publicKey }));
}

/** True when the key has signed its enrolment. */
export function enrolmentHolds(enrolment: Enrolment, proof: Uint8Array): boolean {
  return verifySignature(enrolment.key, enrolmentBytes(enrolment), proof);
}
