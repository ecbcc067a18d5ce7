import { equalBytes, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { EMPTY_MAP } from "../crypto/merkle.ts";
import { Fault } from "../errors.ts";
import { idBytes, type KeyId } from "../ids.ts";
import { type AuditHead, continueAudit } from "../protocol/audit.ts";
import { type LeafRecord, leafHash, leafMetaFits } from "../protocol/leaf.ts";
import { sealedHash } from "../protocol/secret.ts";
import { type SignedState, settingsHash, stateHash, stateSignaturesHold } from "../protocol/state.ts";
import type { AccountRow, Tx } from "../storage/store.ts";
import { bytes, type Json } from "../wire/codec.ts";
import { openAccountName, openSessionKey } from "./accounts.ts";
import { checkFactor } from "./checkfactor.ts";
import type { ServerContext } from "./context.ts";
import { earlierIncarnations } from "./incarnations.ts";

const PAGE = 500;

/**
 * Everything that a server can verify of one account: signed state and settings, chain of states with the requests
 * that made them, secrets with their histories, log, second factor, and the rows that are bound to it
 * (docs/operations.md).
 *
 * @returns What is wrong, in words without anything of the account's content.
 * @throws Fault corrupt for rows that cannot be read
 */
export async function checkAccount(ctx: ServerContext, tx: Tx, row: AccountRow): Promise<string[]> {
  return [
    ...checkState([ctx.incarnation, ...(await earlierIncarnations(tx))], row),
    ...(await checkRows(ctx, tx, row)),
    ...(await checkFactor(ctx, tx, row)),
    ...(await checkStates(tx, row)),
    ...(await checkSecrets(tx, row)),
    ...(await checkLog(tx, row)),
  ];
}

function checkState(incarnations: readonly string[], row: AccountRow): string[] {
  const wrong: string[] = [];
  const { state } = row.state;
  if (!equalBytes(stateHash(state), row.stateHash)) wrong.push("the state is not the one its hash names");
  if (!equalBytes(settingsHash(row.settings), state.settingsHash)) wrong.push("the settings are not the signed ones");
  if (!stateSignaturesHold(row.state, row.settings)) wrong.push("the state's signatures do not hold");
  if (state.userId !== row.userId || !incarnations.includes(state.incarnation)) {
    wrong.push("the state is another account's");
  }
  return wrong;
}

/** Rows beside the account: its sealed name, its sessions, the tokens of its devices. */
async function checkRows(ctx: ServerContext, tx: Tx, row: AccountRow): Promise<string[]> {
  const wrong: string[] = [];
  if (!holds(() => openAccountName(ctx, row))) wrong.push("the sealed name is another account's");
  for (const session of await tx.sessionsOf(row.userId)) {
    if (!holds(() => openSessionKey(ctx, session).fill(0))) wrong.push("a session belongs to another account");
  }
  const counted = (await tx.tokens(row.userId)).map((hash) => hash.toHex()).sort();
  const listed = [...new Set(row.settings.devices.map(({ tokenHash }) => tokenHash.toHex()))].sort();
  if (counted.join() !== listed.join()) wrong.push("the devices' tokens are not those of the settings");
  return wrong;
}

function holds(work: () => unknown): boolean {
  try {
    work();
    return true;
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

async function checkStates(tx: Tx, row: AccountRow): Promise<string[]> {
  const wrong: string[] = [];
  let previous: Uint8Array = ZERO_HASH_BYTES;
  let revision = 0;
  for (;;) {
    const page = await tx.statesSince(row.userId, revision, PAGE);
    for (const signed of page) {
      const { state } = signed;
      if (state.revision !== revision + 1 || !equalBytes(state.previous, previous)) {
        return [...wrong, `the states break at revision ${revision + 1}`];
      }
      if (!(await requestFits(tx, row, signed))) wrong.push(`the request of revision ${state.revision} is another one`);
      revision = state.revision;
      previous = stateHash(state);
    }
    if (page.length < PAGE) break;
  }
  if (!equalBytes(previous, row.stateHash)) wrong.push("the states do not end at the current one");
  return wrong;
}

const hash32 = bytes({ length: 32 });

/** The recorded request has the body that the state was signed for, and was answered with that state. */
async function requestFits(tx: Tx, { userId }: AccountRow, { state }: SignedState): Promise<boolean> {
  const request = await tx.request(userId, state.requestId);
  if (request?.status !== "ok" || !equalBytes(request.bodyHash, state.requestHash)) return false;
  try {
    const said = JSON.parse(request.reply) as Record<string, Json>;
    // answers of recoveries say nothing
    if (said["stateHash"] === undefined) return true;
    const same = equalBytes(hash32.decode(said["stateHash"], "stateHash"), stateHash(state));
    return same && said["revision"] === state.revision;
  } catch {
    return false;
  }
}

async function checkSecrets(tx: Tx, row: AccountRow): Promise<string[]> {
  const wrong: string[] = [];
  let map = EMPTY_MAP;
  for (let after: KeyId | null = null; ; ) {
    const page = await tx.leavesSince(row.userId, 0, after, PAGE);
    for (const leaf of page) {
      map = map.with(idBytes(leaf.keyId), leafHash(leaf));
      wrong.push(...(await checkSecret(tx, row, leaf)));
    }
    const last = page.at(-1);
    if (!last || page.length < PAGE) break;
    after = last.keyId;
  }
  if (!equalBytes(map.root(), row.state.state.root)) wrong.push("the secrets do not give the signed root");
  return wrong;
}

/** A secret's changes lead to the newest one, and what they commit to is there unless it was purged. */
async function checkSecret(tx: Tx, { userId }: AccountRow, newest: LeafRecord): Promise<string[]> {
  const { keyId } = newest;
  const wrong: string[] = [];
  let before: LeafRecord | undefined;
  for (;;) {
    const page: readonly LeafRecord[] = await tx.history(userId, keyId, before?.serial ?? 0, PAGE);
    for (const leaf of page) {
      const serial = (before?.serial ?? 0) + 1;
      if (leaf.serial !== serial || !equalBytes(leaf.previous, before ? leafHash(before) : ZERO_HASH_BYTES)) {
        return [...wrong, `secret ${keyId}: its history breaks at change ${serial}`];
      }
      if (newest.status !== "purged") wrong.push(...(await checkContent(tx, userId, leaf, before)));
      before = leaf;
    }
    if (page.length < PAGE) break;
  }
  if (!before || !equalBytes(leafHash(before), leafHash(newest))) {
    wrong.push(`secret ${keyId}: its history does not end at the newest change`);
  }
  return wrong;
}

async function checkContent(
  tx: Tx,
  userId: AccountRow["userId"],
  leaf: LeafRecord,
  before: LeafRecord | undefined,
): Promise<string[]> {
  const { keyId, version } = leaf;
  const wrong: string[] = [];
  if (!leafMetaFits(leaf)) wrong.push(`secret ${keyId}: metadata of another change at change ${leaf.serial}`);
  if (before?.version === version) return wrong;
  const sealed = await tx.sealedValue(userId, keyId, version);
  if (!sealed || !equalBytes(sealedHash(sealed), leaf.sealedHash)) {
    wrong.push(`secret ${keyId}: version ${version} is missing or another value`);
  }
  return wrong;
}

async function checkLog(tx: Tx, row: AccountRow): Promise<string[]> {
  let head: AuditHead = { seq: 0, link: ZERO_HASH_BYTES };
  for (;;) {
    const entries = await tx.audit(row.userId, {
      after: head.seq,
      limit: PAGE,
      keyId: null,
      action: null,
      fromMs: null,
      untilMs: null,
      requestId: null,
    });
    const result = continueAudit(head, row.userId, entries);
    if (!result.ok) return [`the log breaks at entry ${result.broken.seq} (${result.broken.reason})`];
    head = result.head;
    if (entries.length < PAGE) break;
  }
  const same = head.seq === row.audit.seq && equalBytes(head.link, row.audit.link);
  return same ? [] : ["the log does not end at its head"];
}
