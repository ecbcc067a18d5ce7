import { open, seal } from "../../crypto/aead.ts";
import { type RandomSource, wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, FederationId } from "../../ids.ts";
import { labelKey } from "../../protocol/federation/credentials.ts";
import { decodeJson, encodeJson, nullable, type Of, struct, text } from "../../wire/codec.ts";
import { hash32 } from "../../wire/records.ts";

/** What servers keep of a key for its owner, sealed: with F it gives the key back on a new device. */
const keyLabel = struct({
  name: nullable(text({ min: 1, max: 512 })),
  /** Nonce of the request that made a self-custodial key: with F it gives the owner's part. */
  nonce: nullable(hash32),
});
export type KeyLabel = Of<typeof keyLabel>;

/** Which request a label was submitted with, in which federation. */
export interface LabelPlace {
  readonly federationId: FederationId;
  readonly requestId: FederatedRequestId;
}

/** Seals a label under a key of F, bound to its request (docs/protocol.md §8.2); at most 1,024 bytes. */
export function sealLabel(secret: Uint8Array, place: LabelPlace, label: KeyLabel, random: RandomSource): Uint8Array {
  const key = labelKey(secret, place.federationId);
  try {
    return seal(
      key,
      { kind: "federation-label", ...place },
      new TextEncoder().encode(encodeJson(keyLabel, label)),
      random,
    );
  } finally {
    wipe(key);
  }
}

/** Opens what {@link sealLabel} sealed for this request; null for anything else. */
export function openLabel(secret: Uint8Array, place: LabelPlace, sealed: Uint8Array): KeyLabel | null {
  const key = labelKey(secret, place.federationId);
  try {
    return decodeJson(keyLabel, open(key, { kind: "federation-label", ...place }, sealed));
  } catch (error) {
    if (error instanceof Fault) return null;
    throw error;
  } finally {
    wipe(key);
  }
}
