import { equalBytes, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { EMPTY_MAP } from "../crypto/merkle.ts";
import { Fault } from "../errors.ts";
import { idBytes, type KeyId, type UserId } from "../ids.ts";
import { type AuditHead, continueAudit } from "../protocol/audit.ts";
import { leafHash, leafMetaFits } from "../protocol/leaf.ts";
import { sealedHash } from "../protocol/secret.ts";
import { settingsHash, stateHash, stateSignaturesHold } from "../protocol/state.ts";
import type { AccountRow, Tx } from "../storage/store.ts";
import { openAccountName, openSessionKey } from "./accounts.ts";
import type { ServerContext } from "./context.ts";

/** One checked thing and what is wrong with it. */
interface Finding {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string | null;
}

const PAGE = 500;

/**
 * Verifies the whole database: its structure, every account's signed state, secrets, log and sealed rows
 * (docs/operations.md). One transaction an account, so that the server goes on meanwhile.
 */
export async function checkServer(ctx: ServerContext): Promise<{ ok: boolean; items: readonly Finding[] }> {
  const items: Finding[] = [];
  const structure = await ctx.store.check();
  items.push({ name: "database", ok: structure.length === 0, detail: structure[0] ?? null });
  for (let after: UserId | null = null; ; ) {
    const from: UserId | null = after;
    const page: readonly AccountRow[] = await ctx.store.transaction((tx) => tx.accounts(from, PAGE));
    for (const { userId } of page) {
      const wrong = await ctx.store.transaction(async (tx) => {
        const row = await tx.account(userId);
        return row ? checkAccount(ctx, tx, row) : [];
      });
      const detail = wrong.length === 0 ? null : wrong.join("; ").slice(0, 1_000);
      items.push({ name: `account:${userId}`, ok: detail === null, detail });
    }
    const last = page.at(-1);
    if (!last || page.length < PAGE) break;
    after = last.userId;
  }
  return { ok: items.every(({ ok }) => ok), items };
}

async function checkAccount(ctx: ServerContext, tx: Tx, row: AccountRow): Promise<string[]> {
  const wrong: string[] = [];
  const { state } = row.state;
  if (!equalBytes(stateHash(state), row.stateHash)) wrong.push("the state is not the one its hash names");
  if (!equalBytes(settingsHash(row.settings), state.settingsHash)) wrong.push("the settings are not the signed ones");
  if (!stateSignaturesHold(row.state, row.settings)) wrong.push("the state's signatures do not hold");
  if (state.userId !== row.userId || state.incarnation !== ctx.incarnation)
    wrong.push("the state is another account's");
  if (!holds(() => openAccountName(ctx, row))) wrong.push("the sealed name is another account's");
  for (const session of await tx.sessionsOf(row.userId)) {
    if (!holds(() => openSessionKey(ctx, session).fill(0))) wrong.push("a session belongs to another account");
  }
  wrong.push(...(await checkStates(tx, row)), ...(await checkSecrets(tx, row)), ...(await checkLog(tx, row)));
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
  let previous: Uint8Array = ZERO_HASH_BYTES;
  let revision = 0;
  for (;;) {
    const page = await tx.statesSince(row.userId, revision, PAGE);
    for (const { state } of page) {
      if (state.revision !== revision + 1 || !equalBytes(state.previous, previous)) {
        return [`the states break at revision ${revision + 1}`];
      }
      revision = state.revision;
      previous = stateHash(state);
    }
    if (page.length < PAGE) break;
  }
  return equalBytes(previous, row.stateHash) ? [] : ["the states do not end at the current one"];
}

async function checkSecrets(tx: Tx, row: AccountRow): Promise<string[]> {
  const wrong: string[] = [];
  let map = EMPTY_MAP;
  for (let after: KeyId | null = null; ; ) {
    const page = await tx.leavesSince(row.userId, 0, after, PAGE);
    for (const leaf of page) {
      map = map.with(idBytes(leaf.keyId), leafHash(leaf));
      if (!leafMetaFits(leaf)) wrong.push(`secret ${leaf.keyId}: metadata of another change`);
      if (leaf.status === "purged") continue;
      const sealed = await tx.sealedValue(row.userId, leaf.keyId, leaf.version);
      if (!sealed || !equalBytes(sealedHash(sealed), leaf.sealedHash)) {
        wrong.push(`secret ${leaf.keyId}: version ${leaf.version} is missing or another value`);
      }
    }
    const last = page.at(-1);
    if (!last || page.length < PAGE) break;
    after = last.keyId;
  }
  if (!equalBytes(map.root(), row.state.state.root)) wrong.push("the secrets do not give the signed root");
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
