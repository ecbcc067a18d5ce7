import type { FederatedKeyId, KeyringId, WorkspaceId } from "../../ids.ts";
import { hashIdOf, list, type Of, struct, uint } from "../../wire/codec.ts";
import { signedManifest, signedRequest } from "../../wire/federation/records.ts";
import { BATCH_MAX, keyringName } from "../../wire/keyring/records.ts";
import { hash32 } from "../../wire/records.ts";

/** Workspaces, keyrings, epochs of one, unanswered requests and released keys of one vault at most. */
const KEYRING_MAX = { workspaces: 4_096, keyrings: 1_024, epochs: 1_024, drafts: 256, released: 100_000 } as const;

/** The newest link of a workspace's policy that this vault has verified. */
const workspacePin = struct({
  /** Ed25519 identity of the registry. */
  registry: hash32,
  workspaceId: hashIdOf<WorkspaceId>(),
  /** What it is called here: this one and no other. */
  name: keyringName,
  version: uint(0xffff_ffff, 1),
  hash: hash32,
});

/** The federation of a keyring that this vault has used: no other one is taken for it. */
const keyringPin = struct({
  registry: hash32,
  keyringId: hashIdOf<KeyringId>(),
  /** What it is called here: this one and no other. */
  name: keyringName,
  /** Verified, each by the one before it; the newest last. */
  manifests: list(signedManifest, { min: 1, max: KEYRING_MAX.epochs }),
});

/** A request that was signed, and of which no answer has come: who asks for the same again sends this one. */
const keyringDraft = struct({
  registry: hash32,
  workspaceId: hashIdOf<WorkspaceId>(),
  keyringId: hashIdOf<KeyringId>(),
  items: list(signedRequest, { min: 1, max: BATCH_MAX }),
});

/** Fields of the vault's body that are there once it has to do with a registry of keyrings (docs/protocol.md §9.1). */
export const keyringFields = {
  workspacePins: list(workspacePin, { max: KEYRING_MAX.workspaces }),
  keyringPins: list(keyringPin, { max: KEYRING_MAX.keyrings }),
  keyringDrafts: list(keyringDraft, { max: KEYRING_MAX.drafts }),
  /** Keys whose shares were let out to this account: control is unilateral in fact, for good. */
  keyringReleased: list(hashIdOf<FederatedKeyId>(), { max: KEYRING_MAX.released }),
};

export type KeyringDraft = Of<typeof keyringDraft>;

/** All that a vault holds of a registry. */
export type HeldKeyrings = { readonly [K in keyof typeof keyringFields]: Of<(typeof keyringFields)[K]> };

/** A vault that has nothing to do with keyrings. */
export const NO_KEYRINGS: HeldKeyrings = {
  workspacePins: [],
  keyringPins: [],
  keyringDrafts: [],
  keyringReleased: [],
};

/** The fields of a body that are {@link HeldKeyrings}'s. */
export function keyringsOf(body: HeldKeyrings): HeldKeyrings {
  return {
    workspacePins: body.workspacePins,
    keyringPins: body.keyringPins,
    keyringDrafts: body.keyringDrafts,
    keyringReleased: body.keyringReleased,
  };
}
