import type { Signer } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { FederationId, UserId } from "../../ids.ts";
import type { SignedManifest } from "../../protocol/federation/manifest.ts";
import type { Tx } from "../../storage/store.ts";
import type { ControlInput, ControlName, ControlOutput } from "../../wire/control.ts";
import type { InputOf, OutputOf } from "../../wire/operations.ts";
import type { FederatedAnonymousOperation, FederatedCaller, FederatedOperation, ServerContext } from "../context.ts";
import type { EnclaveClient } from "../enclave.ts";
import {
  FEDERATION,
  MEMBER,
  MEMBER_KEY,
  type MemberBody,
  type MemberKeyBody,
  memberId,
  memberKeyId,
  readStored,
} from "./documents.ts";
import type { HookEvent } from "./hook.ts";

/** What the parts of the federation role share. */
export interface FederationSite {
  readonly ctx: ServerContext;
  readonly version: string;
  /** Pin of this server's identity. */
  readonly pin: string;
  /** The server's identity: signs the operator's own policy. */
  readonly operator: Signer;
  /** Starts at the first call what then runs until the server closes. */
  readonly enclave: Pick<EnclaveClient, "call">;
  /** Tells the operator's hook command, without waiting for it; never throws. */
  notify(event: HookEvent): void;
}

/** Work of one federated operation over its {@link FederationSite}. */
export type FederatedWork<N extends FederatedOperation> = (
  caller: FederatedCaller,
  input: InputOf<N>,
) => Promise<OutputOf<N>>;

/** The same without a session. */
export type FederatedAnonymousWork<N extends FederatedAnonymousOperation> = (
  remote: { readonly address: string },
  input: InputOf<N>,
) => Promise<OutputOf<N>>;

/** Control operations of a server that can be a member of federations. */
export type FederationControl = Extract<
  ControlName,
  `federation.${string}` | `policy.${string}` | `connector.${string}`
>;

/** All work of a server that is, or may become, a member of federations. */
export type FederationService = { readonly [N in FederatedOperation]: FederatedWork<N> } & {
  readonly [N in FederatedAnonymousOperation]: FederatedAnonymousWork<N>;
} & {
  readonly control: {
    readonly [N in FederationControl]: (input: ControlInput<N>) => Promise<ControlOutput<N>>;
  };
  /** What time alone ends. */
  sweep(): Promise<void>;
  /** Ends the enclave and what runs. */
  close(): Promise<void>;
};

/** Of a process beside another one on the same directory, and of one that only administers. */
export const noRole = () =>
  new Fault("unsupported", "this process cannot take part in a federation: one process alone serves a member", {
    hint: "run one `keyhold serve` on the directory, without --reuse-port",
  });

const noMember = () => new Fault("not_found", "this server is not a member of that federation");

/** All manifests of a federation that this server belongs to, by epoch. @throws Fault not_found, corrupt */
export async function epochsOf(tx: Tx, federationId: FederationId): Promise<readonly SignedManifest[]> {
  const found = await readStored(tx, FEDERATION, federationId);
  if (!found || found.value.leftAtMs !== null) throw noMember();
  return found.value.epochs;
}

/** The newest manifest. @throws Fault not_found, corrupt */
export async function currentManifest(tx: Tx, federationId: FederationId): Promise<SignedManifest> {
  const newest = (await epochsOf(tx, federationId)).at(-1);
  if (!newest) throw noMember();
  return newest;
}

/** The manifest of one epoch. @throws Fault not_found, corrupt */
export async function manifestAt(tx: Tx, federationId: FederationId, epoch: number): Promise<SignedManifest> {
  const found = (await epochsOf(tx, federationId)).find(({ manifest }) => manifest.epoch === epoch);
  if (!found) throw new Fault("not_found", "this server does not know that epoch of the federation");
  return found;
}

/** An account's keys in a federation. @throws Fault denied for an account that has none there */
export async function memberOfAccount(tx: Tx, federationId: FederationId, userId: UserId): Promise<MemberBody> {
  const found = await readStored(tx, MEMBER, memberId(federationId, userId));
  if (found) return found.value;
  throw new Fault("denied", "this account has not joined that federation", { hint: "keyhold federation join" });
}

/** Whose a request or approval key is. @throws Fault corrupt */
export async function memberByKey(tx: Tx, key: Uint8Array): Promise<MemberKeyBody | undefined> {
  return (await readStored(tx, MEMBER_KEY, memberKeyId(key)))?.value;
}
