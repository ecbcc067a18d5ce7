import { Fault } from "../../errors.ts";
import type { KeyringId, KeyringRequestId, WorkspaceId } from "../../ids.ts";
import type { Party } from "./keyring.ts";

/** Whole credits: no balance and no sum of them exceeds it. */
export const CREDITS_MAX = 1_000_000_000_000;

/** The registry's operator, who issues credits: its balance is what is in circulation, negative. */
export const OPERATOR_ACCOUNT = "operator";

/** What `workspace` may spend. */
export const workspaceAccount = (id: WorkspaceId): string => `workspace:${id}`;
/** The fee of one open request. */
export const escrowAccount = (id: KeyringRequestId): string => `escrow:${id}`;
/** What a party has earned in a keyring and was not paid out. */
export const partyAccount = (id: KeyringId, name: string): string => `party:${id}:${name}`;

/** One side of an entry: whole credits, exactly one of the two is not 0. */
export interface Posting {
  readonly account: string;
  readonly debit: number;
  readonly credit: number;
}

/** An entry of the ledger before it has its number and time (docs/protocol.md §9.5). */
export interface LedgerDraft {
  readonly kind: "credit" | "escrow" | "pay" | "refund" | "payout";
  readonly requestId: KeyringRequestId | null;
  readonly note: string;
  /** Their debits and credits are equal; each account stands in it once. */
  readonly postings: readonly Posting[];
}

const isCredits = (amount: number) => Number.isSafeInteger(amount) && amount >= 0 && amount <= CREDITS_MAX;

/** @throws Fault bad_input */
function checkAmount(amount: number): number {
  if (isCredits(amount)) return amount;
  throw new Fault("bad_input", `credits are a whole number from 0 to ${CREDITS_MAX}`);
}

/** @throws Fault bad_input */
function positive(amount: number): number {
  if (checkAmount(amount) > 0) return amount;
  throw new Fault("bad_input", "at least one credit is moved");
}

const debit = (account: string, amount: number): Posting => ({ account, debit: amount, credit: 0 });
const credit = (account: string, amount: number): Posting => ({ account, debit: 0, credit: amount });

/** The sum of all credits that a request costs. @throws Fault bad_input when it exceeds {@link CREDITS_MAX} */
export function feeOf(each: number, items: number): number {
  return checkAmount(checkAmount(each) * items);
}

/**
 * The operator gives a workspace credits.
 *
 * @param circulating Credits that were issued and not paid out: the operator's balance, without its sign.
 * @throws Fault bad_input, conflict when more than {@link CREDITS_MAX} would be in circulation
 */
export function creditEntry(input: {
  readonly workspaceId: WorkspaceId;
  readonly amount: number;
  readonly circulating: number;
  readonly note?: string;
}): LedgerDraft {
  const amount = positive(input.amount);
  if (checkAmount(input.circulating) + amount > CREDITS_MAX)
    throw new Fault("conflict", "this registry would have issued more credits than there may be");
  const postings = [debit(OPERATOR_ACCOUNT, amount), credit(workspaceAccount(input.workspaceId), amount)];
  return { kind: "credit", requestId: null, note: input.note ?? "", postings };
}

/**
 * The fee of a new request is held; null where it costs nothing.
 *
 * @param balance What the workspace may spend.
 * @throws Fault bad_input, conflict when the balance does not cover the fee
 */
export function escrowEntry(input: {
  readonly workspaceId: WorkspaceId;
  readonly requestId: KeyringRequestId;
  readonly fee: number;
  readonly balance: number;
}): LedgerDraft | null {
  const { requestId } = input;
  const fee = checkAmount(input.fee);
  if (checkAmount(input.balance) < fee) {
    throw new Fault("conflict", `the workspace has ${input.balance} credits, and this request costs ${fee}`, {
      hint: "the registry's operator gives a workspace credits",
    });
  }
  if (fee === 0) return null;
  const postings = [debit(workspaceAccount(input.workspaceId), fee), credit(escrowAccount(requestId), fee)];
  return { kind: "escrow", requestId, note: "", postings };
}

/** Parts of a fee, in the order of the payees: equal, and what remains one credit each to the first ones. */
export function splitFee(fee: number, payees: number): readonly number[] {
  checkAmount(fee);
  const part = payees > 0 ? Math.floor(fee / payees) : 0;
  return Array.from({ length: payees }, (_, i) => part + (i < fee % payees ? 1 : 0));
}

/**
 * The held fee of a fulfilled request goes to its parties; null where it costs nothing. No party left: to the workspace.
 *
 * @param parties Of the snapshot, without those that were excluded.
 * @throws Fault bad_input
 */
export function payEntry(input: {
  readonly workspaceId: WorkspaceId;
  readonly keyringId: KeyringId;
  readonly requestId: KeyringRequestId;
  readonly fee: number;
  readonly parties: readonly Pick<Party, "name" | "index">[];
}): LedgerDraft | null {
  const { requestId, keyringId } = input;
  if (input.parties.length === 0) return refundEntry(input);
  const fee = checkAmount(input.fee);
  if (fee === 0) return null;
  const payees = input.parties.toSorted((a, b) => a.index - b.index);
  if (new Set(payees.map(({ name }) => name)).size !== payees.length)
    throw new Fault("bad_input", "two of its parties are one");
  const parts = splitFee(fee, payees.length);
  const paid = payees.map(({ name }, i) => credit(partyAccount(keyringId, name), parts[i] ?? 0));
  const postings = [debit(escrowAccount(requestId), fee), ...paid.filter((p) => p.credit > 0)];
  return { kind: "pay", requestId, note: "", postings };
}

/** The held fee goes back to the workspace; null where the request costs nothing. @throws Fault bad_input */
export function refundEntry(input: {
  readonly workspaceId: WorkspaceId;
  readonly requestId: KeyringRequestId;
  readonly fee: number;
}): LedgerDraft | null {
  const { requestId } = input;
  const fee = checkAmount(input.fee);
  if (fee === 0) return null;
  const postings = [debit(escrowAccount(requestId), fee), credit(workspaceAccount(input.workspaceId), fee)];
  return { kind: "refund", requestId, note: "", postings };
}

/**
 * The operator has paid a party for its credits, which are gone with that.
 *
 * @param balance What the party has.
 * @throws Fault bad_input, conflict when the party has less
 */
export function payoutEntry(input: {
  readonly keyringId: KeyringId;
  readonly party: string;
  readonly amount: number;
  readonly balance: number;
  readonly note?: string;
}): LedgerDraft {
  const amount = positive(input.amount);
  if (checkAmount(input.balance) < amount)
    throw new Fault("conflict", `the party has ${input.balance} credits, not ${amount}`);
  const postings = [debit(partyAccount(input.keyringId, input.party), amount), credit(OPERATOR_ACCOUNT, amount)];
  return { kind: "payout", requestId: null, note: input.note ?? "", postings };
}

/**
 * The balance of an account after a posting to it. Only the operator's is negative.
 *
 * @throws Fault conflict when it would leave its bounds
 */
export function posted(balance: number, { account, debit, credit }: Posting): number {
  const after = balance + credit - debit;
  const within = account === OPERATOR_ACCOUNT ? after <= 0 && -after <= CREDITS_MAX : isCredits(after);
  if (within) return after;
  throw new Fault("conflict", "an account of the ledger would leave its bounds");
}

/** True for an entry as the functions above make it. */
export function isBalanced({ postings }: Pick<LedgerDraft, "postings">): boolean {
  const oneSided = (p: Posting) => isCredits(p.debit) && isCredits(p.credit) && (p.debit === 0) !== (p.credit === 0);
  const sum = postings.reduce((all, p) => all + p.credit - p.debit, 0);
  const accounts = new Set(postings.map((p) => p.account));
  return postings.length >= 2 && postings.every(oneSided) && accounts.size === postings.length && sum === 0;
}

/**
 * The balance of each account after all entries, in their order; accounts that have come to 0 are in it.
 *
 * @throws Fault integrity for an entry that is not balanced, or a balance that was ever out of its bounds
 */
export function balancesOf(entries: readonly Pick<LedgerDraft, "postings">[]): ReadonlyMap<string, number> {
  const balances = new Map<string, number>();
  for (const entry of entries) {
    if (!isBalanced(entry)) throw new Fault("integrity", "an entry of the ledger does not sum to zero");
    for (const posting of entry.postings) {
      balances.set(posting.account, heldTo(balances.get(posting.account) ?? 0, posting));
    }
  }
  return balances;
}

function heldTo(balance: number, posting: Posting): number {
  try {
    return posted(balance, posting);
  } catch {
    throw new Fault("integrity", "an account of the ledger was out of its bounds");
  }
}

/** True when the entries of a whole ledger are each balanced, no balance was ever out of bounds, and all sum to zero. */
export function sumsToZero(entries: readonly Pick<LedgerDraft, "postings">[]): boolean {
  try {
    return [...balancesOf(entries).values()].reduce((all, balance) => all + balance, 0) === 0;
  } catch {
    return false;
  }
}
