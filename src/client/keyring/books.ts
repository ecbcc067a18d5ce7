import type { WorkspaceId } from "../../ids.ts";
import { isBalanced, workspaceAccount } from "../../protocol/keyring/ledger.ts";
import type { KeyringEvent, LedgerEntry } from "../../wire/keyring/views.ts";
import type { KeyringClient } from "../keyringapi.ts";
import { everyPage, type Ground, lie } from "./ground.ts";
import { findWorkspace } from "./workspaces.ts";

type Line = Awaited<ReturnType<KeyringClient["workspaceLedger"]>>[number];
type Event = Awaited<ReturnType<KeyringClient["workspaceEvents"]>>[number];

const workspaceIdOf = async (ground: Ground, wanted: string): Promise<WorkspaceId> =>
  (await findWorkspace(ground, wanted)).view.workspaceId;

/** What an entry moves: into the workspace's balance or out of it; of a fee that is paid out of escrow, the fee. */
function amountOf(entry: LedgerEntry, workspaceId: WorkspaceId): number {
  const own = entry.postings.find(({ account }) => account === workspaceAccount(workspaceId));
  if (own) return own.credit - own.debit;
  return -entry.postings.reduce((sum, { debit }) => sum + debit, 0);
}

/** The ledger of a workspace, oldest first. @throws Fault not_found; integrity for an entry that is not balanced */
export async function ledgerOf(ground: Ground, wanted: string): Promise<readonly Line[]> {
  const workspaceId = await workspaceIdOf(ground, wanted);
  const entries = await everyPage<LedgerEntry>(ground, (last) =>
    ground.call("workspace.ledger", { workspaceId, after: last?.seq ?? 0 }),
  );
  return entries.map((entry): Line => {
    if (!isBalanced(entry)) throw lie(ground, `an entry ${entry.seq} of the ledger that is not balanced`);
    return {
      at: new Date(entry.atMs).toISOString(),
      kind: entry.kind,
      amount: amountOf(entry, workspaceId),
      requestId: entry.requestId,
      note: entry.note,
    };
  });
}

/** Events of a workspace after a number, oldest first. @throws Fault not_found; integrity where numbers do not grow */
export async function eventsOf(ground: Ground, wanted: string, after: number): Promise<readonly Event[]> {
  const workspaceId = await workspaceIdOf(ground, wanted);
  const events = await everyPage<KeyringEvent>(ground, (last) =>
    ground.call("workspace.events", { workspaceId, after: last?.seq ?? after }),
  );
  let before = after;
  return events.map((one): Event => {
    if (one.seq <= before) throw lie(ground, "events whose numbers do not grow");
    before = one.seq;
    const { seq, atMs, event, requestId, keyId, detail } = one;
    return { seq, at: new Date(atMs).toISOString(), event, requestId, keyId, detail };
  });
}

/** Makes a token for programs that read. @throws Fault not_found, bad_input, denied */
export async function createToken(
  ground: Ground,
  input: Parameters<KeyringClient["createToken"]>[0],
): ReturnType<KeyringClient["createToken"]> {
  const workspaceId = await workspaceIdOf(ground, input.workspace);
  const expiresAtMs = ground.now() + input.expiresInMs;
  const { tokenId, token } = await ground.call("workspace.token.create", {
    workspaceId,
    name: input.name,
    expiresAtMs,
  });
  return { tokenId, token, expiresAt: new Date(expiresAtMs).toISOString() };
}

/** Tokens of a workspace, without what they are. */
export async function tokensOf(ground: Ground, wanted: string): ReturnType<KeyringClient["tokens"]> {
  const workspaceId = await workspaceIdOf(ground, wanted);
  const { items } = await ground.call("workspace.token.list", { workspaceId });
  return items.map(({ tokenId, name, expiresAtMs }) => ({
    tokenId,
    name,
    expiresAt: new Date(expiresAtMs).toISOString(),
  }));
}

/** Ends a token. @throws Fault not_found */
export async function revokeToken(ground: Ground, wanted: string, tokenId: string): Promise<void> {
  await ground.call("workspace.token.revoke", { workspaceId: await workspaceIdOf(ground, wanted), tokenId });
}
