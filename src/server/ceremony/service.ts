import type { Signer } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { StoredKeyId, UserId } from "../../ids.ts";
import type { SignedCeremonyKey } from "../../protocol/ceremony/model.ts";
import type { InputOf, OutputOf } from "../../wire/operations.ts";
import type {
  FederatedCaller,
  KeyStoreAnonymousOperation,
  KeyStoreOperation,
  KeyStoreTokenOperation,
  Remote,
  ServerContext,
  StagedCaller,
} from "../context.ts";
import type { EnclaveClient } from "../enclave.ts";
import type { HookEvent } from "../federation/hook.ts";

/** What the parts of the key store share: ceremonies, stored keys, distribution of codes (docs/protocol.md §10). */
export interface KeyStoreSite {
  readonly ctx: ServerContext;
  /** The server's identity: states which keys for ceremonies are its enclave's. */
  readonly identity: Signer;
  /** Starts at the first call what then runs until the server closes. */
  readonly enclave: Pick<EnclaveClient, "call">;
  /** Tells the operator's hook command, without waiting for it; never throws. */
  notify(event: HookEvent): void;
}

/** Work of one operation over its {@link KeyStoreSite}. */
export type KeyStoreWork<N extends KeyStoreOperation> = (
  caller: FederatedCaller,
  input: InputOf<N>,
) => Promise<OutputOf<N>>;

/** The same where it joins the dispatcher's transactions. */
export type StagedWork<N extends KeyStoreOperation> = (caller: StagedCaller, input: InputOf<N>) => Promise<OutputOf<N>>;

/** Operations of {@link StagedWork}. */
const STAGED = ["otp.request"] as const satisfies readonly KeyStoreOperation[];
export type StagedOperation = (typeof STAGED)[number];
export const isStaged = (name: string): name is StagedOperation => (STAGED as readonly string[]).includes(name);

/** The same without a session. */
export type KeyStoreAnonymousWork<N extends KeyStoreAnonymousOperation> = (
  remote: { readonly address: string },
  input: InputOf<N>,
) => Promise<OutputOf<N>>;

/** The key whose codes a token may have verified, and whose token it is. */
export interface RelyingCaller {
  readonly keyId: StoredKeyId;
  readonly tokenId: string;
  /** The issuer who made it. */
  readonly userId: UserId;
}

/** The same for a relying service with a token. */
export type RelyingWork<N extends KeyStoreTokenOperation> = (
  caller: RelyingCaller,
  input: InputOf<N>,
) => Promise<OutputOf<N>>;

/** All work of a server with an enclave as key store. */
export type KeyStoreService = { readonly [N in Exclude<KeyStoreOperation, StagedOperation>]: KeyStoreWork<N> } & {
  readonly [N in StagedOperation]: StagedWork<N>;
} & {
  readonly [N in KeyStoreAnonymousOperation]: KeyStoreAnonymousWork<N>;
} & {
  readonly [N in KeyStoreTokenOperation]: RelyingWork<N>;
} & {
  /** Whom the token of a request speaks for. @throws Fault session_invalid, one for every reason; rate_limited */
  admitToken(name: KeyStoreTokenOperation, remote: Remote): Promise<RelyingCaller>;
  /** Makes the first key pair for ceremonies unless there is one. */
  prepare(): Promise<void>;
  /** Makes the next key pair for ceremonies; says how many before it are still kept. @throws Fault conflict */
  rotate(): Promise<{ readonly newest: SignedCeremonyKey; readonly kept: number }>;
  /** What time alone ends: stages of ceremonies, hand-outs, keys whose overlap is over. */
  sweep(): Promise<void>;
  close(): Promise<void>;
};

/** Of a server without an enclave of its own. */
export const noKeyStore = () =>
  new Fault("unsupported", "this server keeps no keys and holds no ceremonies", {
    hint: "keyhold serve runs the process that does: ask that one, or start it",
  });
