import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederationId, UserId } from "../../ids.ts";
import { registryScope } from "../../protocol/federation/request.ts";
import type { Tx } from "../../storage/store.ts";
import { id, struct, u53 } from "../../wire/codec.ts";
import type { ControlInput, ControlName, ControlOutput } from "../../wire/control.ts";
import { hash32 } from "../../wire/records.ts";
import { credentialIdOf, openAccountName } from "../accounts.ts";
import type { ServerContext } from "../context.ts";
import { type DocumentKind, eachStored, putStored, removeStored, type Stored } from "./documents.ts";

/**
 * To whom a request or a key belongs at this server: an account, or what goes through keyrings the scope of their
 * registry, so that it outlasts the account that brought it (docs/protocol.md §9.2).
 */
export type Holder = UserId | FederationId;

/** An account that may act for a registry: id = account:scope of the registry, owner "", place = when it was allowed. */
export interface ConnectorBody {
  readonly userId: UserId;
  /** Ed25519 identity of the registry, 32 bytes. */
  readonly registry: Uint8Array;
  readonly addedAtMs: number;
}
export const CONNECTOR: DocumentKind<ConnectorBody> = {
  kind: "connector",
  codec: struct({ userId: id<UserId>(), registry: hash32, addedAtMs: u53 }),
};

/** Accounts of connectors that one server allows at most, each registry of one counted. */
export const CONNECTORS_MAX = 64;

const connectorId = (userId: UserId, scope: string): string => `${userId}:${scope}`;

/** Ids of accounts have half the length of a scope. */
const isAccount = (holder: Holder): holder is UserId => holder.length === USER_ID_LENGTH;
const USER_ID_LENGTH = 32;

/** True for the account itself, and for a connector of that registry. */
export async function actsFor(tx: Tx, userId: UserId, holder: Holder): Promise<boolean> {
  if (isAccount(holder)) return holder === userId;
  const id = connectorId(userId, holder);
  // as a list: a record that is read by its id is locked, and all that a connector does would wait for it
  return (await eachStored(tx, CONNECTOR, "")).some((one) => one.id === id);
}

/** Scopes of the registries that an account acts for, ascending. */
export async function scopesOf(tx: Tx, userId: UserId): Promise<readonly FederationId[]> {
  const own = (await eachStored(tx, CONNECTOR, "")).filter(({ value }) => value.userId === userId);
  return own.map(({ value }) => registryScope(value.registry)).sort();
}

/** Accounts in whose logs that holder's events stand. */
export async function accountsOf(tx: Tx, holder: Holder): Promise<readonly UserId[]> {
  if (isAccount(holder)) return [holder];
  const accounts: UserId[] = [];
  for (const { id, value } of await eachStored(tx, CONNECTOR, ""))
    if (id === connectorId(value.userId, holder) && (await tx.account(value.userId))) accounts.push(value.userId);
  return accounts;
}

type ConnectorControl = Extract<ControlName, `connector.${string}`>;

/** What the operator decides about connectors on the own machine. */
export function createConnectors(ctx: ServerContext): {
  readonly [N in ConnectorControl]: (input: ControlInput<N>) => Promise<ControlOutput<N>>;
} {
  async function named(tx: Tx, account: string) {
    const row = await tx.accountByCredential(credentialIdOf(ctx, account.normalize("NFC")));
    if (!row) throw new Fault("not_found", "there is no such account", { hint: "keyhold server user list" });
    return row;
  }

  /** Those of accounts that are still there; others go. */
  async function living(tx: Tx): Promise<readonly Stored<ConnectorBody>[]> {
    const kept: Stored<ConnectorBody>[] = [];
    for (const one of await eachStored(tx, CONNECTOR, "")) {
      if (await tx.account(one.value.userId)) kept.push(one);
      else await removeStored(tx, CONNECTOR, one.id);
    }
    return kept;
  }

  return {
    "connector.allow": ({ account, registry }) =>
      ctx.store.transaction(async (tx) => {
        const row = await named(tx, account);
        const id = connectorId(row.userId, registryScope(registry));
        const held = await living(tx);
        const before = held.find((one) => one.id === id);
        const addedAtMs = before?.value.addedAtMs ?? ctx.now();
        const answer = { account: openAccountName(ctx, row), userId: row.userId, registry, addedAtMs };
        if (before) return answer;
        if (held.length >= CONNECTORS_MAX)
          throw new Fault("too_large", "this server allows no more connectors", {
            hint: "keyhold server connector revoke",
          });
        const value = { userId: row.userId, registry, addedAtMs };
        if (!(await putStored(tx, CONNECTOR, { id, owner: "", place: addedAtMs, value }, 0)))
          throw new Fault("conflict", "this has just changed", { hint: "try again" });
        return answer;
      }),
    "connector.list": () =>
      ctx.store.transaction(async (tx) => {
        const items: ControlOutput<"connector.list">["items"][number][] = [];
        for (const { value } of await living(tx)) {
          const row = await tx.account(value.userId);
          if (row) items.push({ ...value, account: openAccountName(ctx, row) });
        }
        return { items };
      }),
    "connector.revoke": ({ account, registry }) =>
      ctx.store.transaction(async (tx) => {
        const row = await named(tx, account);
        const own = (await living(tx)).filter(
          ({ value }) => value.userId === row.userId && (registry === null || equalBytes(value.registry, registry)),
        );
        if (own.length === 0)
          throw new Fault("not_found", "this account is no such connector", { hint: "keyhold server connector list" });
        for (const one of own) await removeStored(tx, CONNECTOR, one.id);
        return { account: openAccountName(ctx, row), userId: row.userId, revoked: own.length };
      }),
  };
}
