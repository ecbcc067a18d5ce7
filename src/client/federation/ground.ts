import type { RandomSource } from "../../crypto/bytes.ts";
import type { FederatedKeyId, FederatedRequestId } from "../../ids.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import type { Of } from "../../wire/codec.ts";
import type { federationOperations } from "../../wire/federation/operations.ts";
import type { HeldKey, HeldPolicy, HeldRequest } from "./held.ts";
import type { KeyLabel } from "./labels.ts";

type Operations = typeof federationOperations;
/** An operation that needs a session with a member. */
export type FleetOperation = {
  [N in keyof Operations]: Operations[N]["auth"] extends "session" ? N : never;
}[keyof Operations];
export type FleetInput<N extends FleetOperation> = Of<Operations[N]["input"]>;
export type FleetOutput<N extends FleetOperation> = Of<Operations[N]["output"]>;

/** Sessions with the servers of one federation. */
export interface Fleet {
  /** The newest pinned manifest. */
  readonly manifest: Manifest;
  /** Asks one server. @throws Fault; `unreachable`, `timed_out` and the like mean that it is absent. */
  call<N extends FleetOperation>(index: number, name: N, input: FleetInput<N>): Promise<FleetOutput<N>>;
}

/** The vault's part: each change is on disk when its promise resolves. */
export interface Keeping {
  requests(): readonly HeldRequest[];
  keys(): readonly HeldKey[];
  /** Policies of this federation that were seen, with the newest link of each. */
  policies(): readonly HeldPolicy[];
  /** Changes a request as it lies in the newest generation of the vault (null: not there); null removes it. */
  changeRequest(
    requestId: FederatedRequestId,
    change: (held: HeldRequest | null) => HeldRequest | null,
  ): Promise<HeldRequest | null>;
  /** Notes a policy's newest verified link. */
  changePolicy(policy: HeldPolicy): Promise<void>;
  /** Puts a key in, or a newer generation of it. */
  changeKey(keyId: FederatedKeyId, change: (held: HeldKey | null) => HeldKey): Promise<HeldKey>;
}

/** What the drivers of one federation need from around them. */
export interface Ground {
  readonly fleet: Fleet;
  readonly keeping: Keeping;
  /** Every manifest of the federation, verified, by epoch. */
  readonly manifests: readonly Manifest[];
  /** The federation secret F, 32 bytes; lent. */
  readonly secret: Uint8Array;
  /** What the vault calls the federation. */
  readonly name: string;
  readonly now: () => number;
  readonly random: RandomSource;
  /** Something the owner should read. */
  readonly notice: (text: string) => void;
  /**
   * Seals a key's name, and the nonce that its owner's part derives from, for the servers to keep beside this request
   * and the generation that it makes (labels.ts): a reshare submits it anew under its own id.
   */
  sealLabel(requestId: FederatedRequestId, label: KeyLabel): Uint8Array;
  /** Opens what {@link sealLabel} sealed for this request; null for anything else. */
  openLabel(requestId: FederatedRequestId, sealed: Uint8Array): KeyLabel | null;
}
