import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import type { AccountRow, AuditHeadRow } from "../storage/store.ts";
import { checkCeremonies, checkCeremonyKeys } from "./ceremony/checking.ts";
import { checkAccount } from "./checkaccount.ts";
import { checkLog } from "./checklog.ts";
import type { ServerContext } from "./context.ts";
import { hasRegistryKey } from "./keycheck.ts";
import { checkLedger } from "./keyring/balances.ts";

/** One checked thing and what is wrong with it. */
interface Finding {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string | null;
}

const PAGE = 500;
/** Accounts named at most: a report has to fit an answer. */
const NAMED = 1_000;

/**
 * Verifies the whole database: its structure, and every account's signed state, secrets, log and bound rows
 * (docs/operations.md). One transaction an account, so that the server goes on meanwhile.
 *
 * @returns `checks`: how many things were checked; `items`: database, server-wide log, of a registry its ledger,
 * keys for ceremonies, and the accounts (the first 1,000) in which something is wrong.
 */
export async function checkServer(
  ctx: ServerContext,
): Promise<{ ok: boolean; checks: number; items: readonly Finding[] }> {
  const items: Finding[] = [];
  const structure = await ctx.store.check();
  items.push({ name: "database", ok: structure.length === 0, detail: structure[0] ?? null });
  const log = await checkLog(ctx);
  items.push({ name: "server-wide log", ok: log.length === 0, detail: log.join("; ").slice(0, 1_000) || null });
  if (await hasRegistryKey(ctx.store)) items.push(await ledgerFinding(ctx));
  const keys = await orCorrupt(checkCeremonyKeys(ctx));
  if (keys)
    items.push({ name: "ceremony keys", ok: keys.length === 0, detail: keys.join("; ").slice(0, 1_000) || null });
  let checks = items.length;
  for await (const userId of owners(ctx)) {
    checks += 1;
    const found = await accountFinding(ctx, userId);
    if (!found.ok && items.length < NAMED) items.push(found);
  }
  return { ok: items.every(({ ok }) => ok), checks, items };
}

async function ledgerFinding({ store }: ServerContext): Promise<Finding> {
  const { problems } = await store.transaction(checkLedger).catch((error: unknown) => {
    if (error instanceof Fault && error.code === "corrupt") return { problems: [error.message] };
    throw error;
  });
  return { name: "ledger", ok: problems.length === 0, detail: problems.join("; ").slice(0, 1_000) || null };
}

/** A row that cannot even be read is a finding like any other. */
async function orCorrupt<T>(found: Promise<T>): Promise<T | readonly string[]> {
  return found.catch((error: unknown) => {
    if (error instanceof Fault && error.code === "corrupt") return [error.message];
    throw error;
  });
}

async function accountFinding(ctx: ServerContext, userId: UserId): Promise<Finding> {
  const own = ctx.store.transaction(async (tx) => {
    const row = await tx.account(userId);
    return row ? checkAccount(ctx, tx, row) : [];
  });
  const wrong = [...(await orCorrupt(own)), ...(await orCorrupt(checkCeremonies(ctx, userId)))];
  const detail = wrong.length === 0 ? null : wrong.join("; ").slice(0, 1_000);
  return { name: `account:${userId}`, ok: detail === null, detail };
}

/** Ids of all accounts; where their rows cannot be read as a list, those of all logs. */
async function* owners(ctx: ServerContext): AsyncGenerator<UserId> {
  for (let after: UserId | null = null; ; ) {
    const from: UserId | null = after;
    const page: readonly Pick<AccountRow, "userId">[] = await ctx.store
      .transaction<readonly Pick<AccountRow | AuditHeadRow, "userId">[]>((tx) => tx.accounts(from, PAGE))
      .catch((error: unknown) => {
        if (!(error instanceof Fault && error.code === "corrupt")) throw error;
        return ctx.store.transaction((tx) => tx.auditHeads(from, PAGE));
      });
    yield* page.map(({ userId }) => userId);
    const last = page.at(-1);
    if (!last || page.length < PAGE) return;
    after = last.userId;
  }
}
