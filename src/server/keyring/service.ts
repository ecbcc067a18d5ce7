import type { Signer } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { UserId, WorkspaceId } from "../../ids.ts";
import type { InputOf, OutputOf, TokenOperation } from "../../wire/operations.ts";
import type {
  FederatedCaller,
  RegistryAnonymousOperation,
  RegistryOperation,
  Remote,
  ServerContext,
} from "../context.ts";
import type { HookEvent } from "../federation/hook.ts";

/** What the parts of the registry share. */
export interface RegistrySite {
  readonly ctx: ServerContext;
  readonly version: string;
  /** The server's identity: orders attempts and decides on requests. */
  readonly identity: Signer;
  /** Seed of the X25519 key that partial signatures are sealed to, 32 bytes: nothing secret is sealed to it. */
  readonly sealingSeed: Uint8Array;
  /** Tells the operator's hook command, without waiting for it; never throws. */
  notify(event: HookEvent): void;
}

/** Work of one operation of the registry over its {@link RegistrySite}. */
export type RegistryWork<N extends RegistryOperation> = (
  caller: FederatedCaller,
  input: InputOf<N>,
) => Promise<OutputOf<N>>;

/** The same without a session. */
export type RegistryAnonymousWork<N extends RegistryAnonymousOperation> = (
  remote: { readonly address: string },
  input: InputOf<N>,
) => Promise<OutputOf<N>>;

/** The workspace that a token opens, and whose token it is. */
export interface TokenCaller {
  readonly workspaceId: WorkspaceId;
  readonly tokenId: string;
  /** The owner who made it. */
  readonly userId: UserId;
}

/** Operations of programs with the token of a workspace. */
export type RegistryTokenOperation = Extract<TokenOperation, `integrator.${string}`>;

/** The same for a program with a token. */
export type TokenWork<N extends RegistryTokenOperation> = (
  caller: TokenCaller,
  input: InputOf<N>,
) => Promise<OutputOf<N>>;

/** All work of a server that is a registry. */
export type RegistryService = { readonly [N in RegistryOperation]: RegistryWork<N> } & {
  readonly [N in RegistryAnonymousOperation]: RegistryAnonymousWork<N>;
} & {
  readonly [N in RegistryTokenOperation]: TokenWork<N>;
} & {
  /** Whom the token of a request speaks for. @throws Fault session_invalid, one for every reason; rate_limited */
  admitToken(name: RegistryTokenOperation, remote: Remote): Promise<TokenCaller>;
  /** What time alone ends, and attempts that stand still. */
  sweep(): Promise<void>;
  /** Ends what waits. */
  close(): Promise<void>;
};

/** Of a server that was not started as a registry. */
export const noRegistry = () =>
  new Fault("unsupported", "this server is no registry of workspaces and keyrings", {
    hint: "its operator starts it with: keyhold serve --registry",
  });
