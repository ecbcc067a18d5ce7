import { Fault } from "../../errors.ts";
import { asHashId, type KeyringId, type KeyringRequestId, type WorkspaceId } from "../../ids.ts";
import type { Party } from "../../protocol/keyring/keyring.ts";
import {
  creditEntry,
  escrowAccount,
  escrowEntry,
  isBalanced,
  type LedgerDraft,
  OPERATOR_ACCOUNT,
  partyAccount,
  payEntry,
  payoutEntry,
  posted,
  refundEntry,
  workspaceAccount,
} from "../../protocol/keyring/ledger.ts";
import type { Tx } from "../../storage/store.ts";
import type { LedgerEntry } from "../../wire/keyring/views.ts";
import { eachStored, listStored, putStored, readStored, removeStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { BALANCE, type BalanceBody, ENTRY, KEYRING, LEDGER_HEAD, WORKSPACE } from "./documents.ts";

/** Entries in one answer: as many as the operation's codec takes. */
const PAGE = 64;

const kindOfAccount = (account: string): string => account.split(":", 1)[0] ?? account;
const signOf = (account: string): 1 | -1 => (account === OPERATOR_ACCOUNT ? -1 : 1);

/** What an account of the ledger has, in whole credits; the operator's is not positive. @throws Fault corrupt */
export async function balanceOf(tx: Tx, account: string): Promise<number> {
  const amount = (await readStored(tx, BALANCE, account))?.value.amount ?? 0;
  return amount === 0 ? 0 : signOf(account) * amount;
}

/** What a workspace may spend, and what its open requests hold. @throws Fault corrupt */
export async function workspaceCredits(
  tx: Tx,
  workspaceId: WorkspaceId,
): Promise<{ readonly balance: number; readonly escrowed: number }> {
  const head = await readStored(tx, LEDGER_HEAD, workspaceId);
  return { balance: await balanceOf(tx, workspaceAccount(workspaceId)), escrowed: head?.value.escrowed ?? 0 };
}

async function post(tx: Tx, posting: LedgerDraft["postings"][number]): Promise<void> {
  const { account } = posting;
  const before = await readStored(tx, BALANCE, account);
  const after = posted(signOf(account) * (before?.value.amount ?? 0), posting);
  if (after === 0) {
    // of requests that are over nothing stays
    if (before) await removeStored(tx, BALANCE, account);
    return;
  }
  const row = { id: account, owner: kindOfAccount(account), place: 0, value: { amount: Math.abs(after) } };
  if (!(await putStored(tx, BALANCE, row, before?.version ?? 0))) throw changedMeanwhile();
}

/** What an entry changes of what is held for open requests. */
const heldBy = ({ postings }: Pick<LedgerDraft, "postings">): number =>
  postings.reduce((sum, p) => (kindOfAccount(p.account) === "escrow" ? sum + p.credit - p.debit : sum), 0);

/** Writes an entry and what it changes, all in the caller's transaction. */
async function book(tx: Tx, scope: string, draft: LedgerDraft, nowMs: number): Promise<LedgerEntry> {
  const head = await readStored(tx, LEDGER_HEAD, scope);
  const seq = (head?.value.seq ?? 0) + 1;
  const entry: LedgerEntry = { ...draft, postings: [...draft.postings], seq, atMs: nowMs };
  const id = draft.requestId === null ? `${scope}:${seq}` : `${draft.kind}:${draft.requestId}`;
  const value = { seq, escrowed: (head?.value.escrowed ?? 0) + heldBy(draft) };
  const at = { id: scope, owner: "", place: head?.place ?? nowMs };
  const done =
    (await putStored(tx, ENTRY, { id, owner: scope, place: seq, value: entry }, 0)) &&
    (await putStored(tx, LEDGER_HEAD, { ...at, value }, head?.version ?? 0));
  if (!done) throw changedMeanwhile();
  for (const posting of draft.postings) await post(tx, posting);
  return entry;
}

/** An entry of a request that was written before. */
async function bookedBefore(tx: Tx, kind: LedgerDraft["kind"], requestId: KeyringRequestId): Promise<boolean> {
  return (await readStored(tx, ENTRY, `${kind}:${requestId}`)) !== undefined;
}

/** Which request of which workspace. */
export interface Held {
  readonly workspaceId: WorkspaceId;
  readonly requestId: KeyringRequestId;
}

/**
 * Holds the fee of a new request; of the same request again nothing.
 *
 * @throws Fault conflict when the balance does not cover it; bad_input, unavailable
 */
export async function escrow(tx: Tx, held: Held & { readonly fee: number }, nowMs: number): Promise<void> {
  if (await bookedBefore(tx, "escrow", held.requestId)) return;
  const balance = await balanceOf(tx, workspaceAccount(held.workspaceId));
  const draft = escrowEntry({ ...held, balance });
  if (draft) await book(tx, held.workspaceId, draft, nowMs);
}

/** What is held for a request; null once it has gone where `kind` says, or where there never was a fee. */
async function heldFor(tx: Tx, kind: "pay" | "refund", { requestId, workspaceId }: Held): Promise<number | null> {
  if (await bookedBefore(tx, kind, requestId)) return null;
  const entry = await readStored(tx, ENTRY, `escrow:${requestId}`);
  if (!entry) return null;
  const fee = await balanceOf(tx, escrowAccount(requestId));
  if (entry.owner !== workspaceId || fee === 0)
    throw new Fault("conflict", "what was held for this request has gone elsewhere");
  return fee;
}

/**
 * Pays the held fee of a fulfilled request to its parties; again nothing. No party left: to the workspace.
 *
 * @param input `parties`: of the snapshot, without those that were excluded.
 * @throws Fault conflict after a refund; bad_input, unavailable
 */
export async function pay(
  tx: Tx,
  input: Held & { readonly keyringId: KeyringId; readonly parties: readonly Pick<Party, "name" | "index">[] },
  nowMs: number,
): Promise<void> {
  if (input.parties.length === 0) return refund(tx, input, nowMs);
  const fee = await heldFor(tx, "pay", input);
  const draft = fee === null ? null : payEntry({ ...input, fee });
  if (draft) await book(tx, input.workspaceId, draft, nowMs);
}

/** Gives the held fee back to the workspace; again nothing. @throws Fault conflict after a payment; unavailable */
export async function refund(tx: Tx, { workspaceId, requestId }: Held, nowMs: number): Promise<void> {
  const fee = await heldFor(tx, "refund", { workspaceId, requestId });
  const draft = fee === null ? null : refundEntry({ workspaceId, requestId, fee });
  if (draft) await book(tx, workspaceId, draft, nowMs);
}

/** The operator gives a workspace credits. @throws Fault not_found, bad_input, conflict, unavailable */
export async function giveCredits(
  tx: Tx,
  input: { readonly workspaceId: WorkspaceId; readonly amount: number; readonly note: string },
  nowMs: number,
): Promise<LedgerEntry> {
  if (!(await readStored(tx, WORKSPACE, input.workspaceId))) throw new Fault("not_found", "no such workspace");
  const circulating = Math.abs(await balanceOf(tx, OPERATOR_ACCOUNT));
  return book(tx, input.workspaceId, creditEntry({ ...input, circulating }), nowMs);
}

const keyringScope = (keyringId: KeyringId): string => `keyring:${keyringId}`;

/** Notes that the operator has paid a party for its credits. @throws Fault not_found, bad_input, conflict, unavailable */
export async function payOut(
  tx: Tx,
  input: { readonly keyringId: KeyringId; readonly party: string; readonly amount: number; readonly note: string },
  nowMs: number,
): Promise<LedgerEntry> {
  if (!(await readStored(tx, KEYRING, input.keyringId))) throw new Fault("not_found", "no such keyring");
  const balance = await balanceOf(tx, partyAccount(input.keyringId, input.party));
  return book(tx, keyringScope(input.keyringId), payoutEntry({ ...input, balance }), nowMs);
}

/** Entries of a workspace after number `after`. @throws Fault corrupt */
export async function entriesAfter(
  tx: Tx,
  workspaceId: WorkspaceId,
  after: number,
): Promise<{ readonly items: LedgerEntry[]; readonly more: boolean }> {
  const rows = await listStored(tx, ENTRY, workspaceId, { place: after + 1, id: "" }, PAGE + 1);
  return { items: rows.slice(0, PAGE).map(({ value }) => value), more: rows.length > PAGE };
}

/** Kinds of accounts, in the order of their names. */
const ACCOUNT_KINDS = ["escrow", "operator", "party", "workspace"] as const;

/** Every account that is not at zero, by name; all together are zero. @throws Fault corrupt */
export async function balances(tx: Tx): Promise<readonly { readonly account: string; readonly balance: number }[]> {
  const all: Stored<BalanceBody>[] = [];
  for (const kind of ACCOUNT_KINDS) all.push(...(await eachStored(tx, BALANCE, kind)));
  return all.map(({ id, value }) => ({ account: id, balance: signOf(id) * value.amount }));
}

/** Whether a whole ledger holds: each entry balanced, numbered without gaps, and all of them what the balances say. */
export interface LedgerCheck {
  readonly entries: number;
  /** What is wrong, in words; empty as a rule. */
  readonly problems: readonly string[];
}

const PROBLEMS_MAX = 16;

/** Recomputes the whole ledger from its entries. @throws Fault corrupt */
export async function checkLedger(tx: Tx): Promise<LedgerCheck> {
  const problems: string[] = [];
  const sums = new Map<string, bigint>();
  let entries = 0;
  const scopes = [
    ...(await eachStored(tx, WORKSPACE, "")).map(({ id }) => id),
    ...(await eachStored(tx, KEYRING, "")).map(({ id }) => keyringScope(asHashId<KeyringId>(id))),
  ];
  for (const scope of scopes) {
    let held = 0n;
    const booked = (await eachStored(tx, ENTRY, scope)).map(({ value }) => value);
    for (const [i, entry] of booked.entries()) {
      if (!isBalanced(entry)) problems.push(`entry ${entry.seq} of ${scope} does not sum to zero`);
      if (entry.seq !== i + 1) problems.push(`entry ${i + 1} of ${scope} is missing`);
      held += BigInt(heldBy(entry));
      for (const { account, debit, credit } of entry.postings)
        sums.set(account, (sums.get(account) ?? 0n) + BigInt(credit) - BigInt(debit));
    }
    const head = (await readStored(tx, LEDGER_HEAD, scope))?.value ?? { seq: 0, escrowed: 0 };
    if (head.seq !== booked.length || BigInt(head.escrowed) !== held)
      problems.push(`the head of ${scope} is not what its entries say`);
    entries += booked.length;
  }
  for (const kind of ACCOUNT_KINDS)
    for (const { id, value } of await eachStored(tx, BALANCE, kind)) {
      if ((sums.get(id) ?? 0n) !== BigInt(signOf(id) * value.amount))
        problems.push(`the balance of ${id} is not what its entries say`);
      sums.delete(id);
    }
  for (const [account, sum] of sums) if (sum !== 0n) problems.push(`the balance of ${account} is missing`);
  return { entries, problems: problems.slice(0, PROBLEMS_MAX) };
}
