import { canon } from "../../crypto/canon.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import type { FederatedKeyId } from "../../ids.ts";
import type { Manifest } from "./manifest.ts";

/** A former or present holder's word that its shares up to one generation are gone (docs/protocol.md §8.8). */
export interface ErasureStatement {
  readonly index: number;
  readonly keyId: FederatedKeyId;
  /** The highest generation that is gone; all before it are too. */
  readonly generation: number;
  readonly signature: Uint8Array;
}

/** What the statement's signature covers. */
export function erasureBytes(e: Omit<ErasureStatement, "signature">, manifest: Pick<Manifest, "federationId">) {
  return canon("keyhold/v1/federation-erasure", manifest.federationId, e.index, e.keyId, e.generation);
}

export function signErasure(
  signer: Signer,
  manifest: Pick<Manifest, "federationId">,
  statement: Omit<ErasureStatement, "signature">,
): ErasureStatement {
  return { ...statement, signature: signer.sign(erasureBytes(statement, manifest)) };
}

/** True when the manifest's server of that index has signed the statement. */
export function erasureHolds(manifest: Manifest, statement: ErasureStatement): boolean {
  const server = manifest.servers.find((s) => s.index === statement.index);
  return (
    server !== undefined && verifySignature(server.identity, erasureBytes(statement, manifest), statement.signature)
  );
}
