import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { KeyringId } from "../../ids.ts";
import { isResponseEquivocation, type SignedResponse } from "./response.ts";

/** Two things that one party said about one item: whoever has it needs nothing else (docs/protocol.md §9.4). */
export interface EquivocationProof {
  readonly keyring: KeyringId;
  /** Ed25519 key of the party, 32 bytes. */
  readonly party: Uint8Array;
  readonly first: SignedResponse;
  readonly second: SignedResponse;
}

/** The proof that two responses are. @throws Fault integrity when they are none */
export function proveEquivocation(first: SignedResponse, second: SignedResponse): EquivocationProof {
  const proof = { keyring: first.response.keyringId, party: first.response.key, first, second };
  verifyEvidence(proof);
  return proof;
}

/** Verifies a proof by itself: two valid signatures of that party, of that keyring, over different words. @throws Fault integrity */
export function verifyEvidence({ keyring, party, first, second }: EquivocationProof): void {
  const named = [first, second].every(
    ({ response }) => response.keyringId === keyring && equalBytes(response.key, party),
  );
  if (!named || !isResponseEquivocation(first, second))
    throw new Fault("integrity", "this does not prove that the party has said two things about one request");
}
