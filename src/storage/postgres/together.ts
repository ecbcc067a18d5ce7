import type { UserId } from "../../ids.ts";
import type { Tx } from "../store.ts";

/** Thrown inside a work that leaves its account while others of the same transaction are under way. */
export class LeftAlone extends Error {
  override readonly name = "LeftAlone";
}

const ACCOUNT = /^[0-9a-f]{32}$/;

/** The account that a work is near, if it names one. */
export function accountOf(near: string | undefined): UserId | undefined {
  return near !== undefined && ACCOUNT.test(near) ? (near as UserId) : undefined;
}

/**
 * A transaction for one account alone, so that works of different accounts may run in turns on one connection: none
 * reads or changes what another one does. Sessions belong to one account each. Anything else leaves it.
 *
 * @param left Called before {@link LeftAlone} is thrown.
 */
export function ofAccount(tx: Tx, own: UserId, left: () => void): Tx {
  function leave(): never {
    left();
    throw new LeftAlone();
  }
  const mine =
    <A extends readonly unknown[], R>(method: (userId: UserId, ...rest: A) => Promise<R>) =>
    async (userId: UserId, ...rest: A): Promise<R> =>
      userId === own ? method(userId, ...rest) : leave();
  const row =
    <A extends { readonly userId: UserId }, R>(method: (row: A) => Promise<R>) =>
    async (value: A): Promise<R> =>
      value.userId === own ? method(value) : leave();
  const kept: Partial<Tx> = {
    account: mine(tx.account),
    stateHashOf: mine(tx.stateHashOf),
    session: tx.session,
    touchSession: tx.touchSession,
    sessionsOf: mine(tx.sessionsOf),
    tokenFailures: mine(tx.tokenFailures),
    swapState: mine(tx.swapState),
    statesSince: mine(tx.statesSince),
    appendState: mine(tx.appendState),
    request: mine(tx.request),
    putRequest: row(tx.putRequest),
    reservation: mine(tx.reservation),
    reservationsOf: mine(tx.reservationsOf),
    putReservation: row(tx.putReservation),
    leaf: mine(tx.leaf),
    appendLeaf: mine(tx.appendLeaf),
    eraseSecret: mine(tx.eraseSecret),
    leavesSince: mine(tx.leavesSince),
    history: mine(tx.history),
    sealedValue: mine(tx.sealedValue),
    auditHead: mine(tx.auditHead),
    auditPosition: mine(tx.auditPosition),
    audit: mine(tx.audit),
    appendAudit: async (entry, head, expiresAtMs) =>
      entry.entry.userId === own ? tx.appendAudit(entry, head, expiresAtMs) : leave(),
  };
  return new Proxy(tx, {
    get: (_target, name) => Reflect.get(kept, name) ?? (async () => leave()),
  });
}
