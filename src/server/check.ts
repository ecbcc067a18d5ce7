import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import type { AccountRow, AuditHeadRow } from "../storage/store.ts";
import { checkCeremonies, checkCeremonyKeys } from "./ceremony/checking.ts";
import { checkSealed, type SealedAsk, type SealedRow, sealedKeys, sealedOf } from "./ceremony/sealed.ts";
import { checkAccount } from "./checkaccount.ts";
import { checkLog } from "./checklog.ts";
import type { ServerContext } from "./context.ts";
import { hasRegistryKey } from "./keycheck.ts";
import { checkLedger } from "./keyring/balances.ts";

/** One checked thing and what is wrong with it, or worth saying. */
interface Finding {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string | null;
}

/** The enclave, to be asked whether what it has sealed opens; in words, why it cannot be asked. */
export type EnclaveToAsk = SealedAsk | string;

const PAGE = 500;
/** Accounts named at most: a report has to fit an answer. */
const NAMED = 1_000;
const DETAIL = 1_000;

/**
 * Verifies the whole database: its structure, and every account's signed state, secrets, log and bound rows
 * (docs/operations.md). One transaction an account, so that the server goes on meanwhile.
 *
 * @param enclave Called only where an enclave has sealed something for this server.
 * @returns `checks`: how many things were checked; `items`: database, server-wide log, of a registry its ledger,
 * keys for ceremonies, what the enclave has sealed, and the accounts (the first 1,000) in which something is wrong.
 */
export async function checkServer(
  ctx: ServerContext,
  enclave: () => Promise<EnclaveToAsk> = async () => "there is no enclave to ask",
): Promise<{ ok: boolean; checks: number; items: readonly Finding[] }> {
  const items: Finding[] = [];
  const structure = await ctx.store.check();
  items.push({ name: "database", ok: structure.length === 0, detail: structure[0] ?? null });
  items.push(findingOf("server-wide log", await checkLog(ctx)));
  if (await hasRegistryKey(ctx.store)) items.push(await ledgerFinding(ctx));
  const keys = await orCorrupt(checkCeremonyKeys(ctx));
  if (keys) items.push(findingOf("ceremony keys", keys));
  const sealed = await beginSealed(ctx, enclave);
  if (sealed.finding) items.push(sealed.finding);
  let checks = items.length;
  for await (const userId of owners(ctx)) {
    checks += 1;
    const found = await accountFinding(ctx, userId, sealed.check);
    if (!found.ok && items.length < NAMED) items.push(found);
  }
  const foreign = sealed.foreign();
  if (foreign > 0) {
    const detail = `${foreign} of another enclave than this server's: they are lost here`;
    items.push({ name: "sealed values", ok: true, detail });
  }
  return { ok: items.every(({ ok }) => ok), checks, items };
}

const findingOf = (name: string, wrong: readonly string[]): Finding => ({
  name,
  ok: wrong.length === 0,
  detail: wrong.join("; ").slice(0, DETAIL) || null,
});

async function ledgerFinding({ store }: ServerContext): Promise<Finding> {
  const { problems } = await store.transaction(checkLedger).catch((error: unknown) => {
    if (error instanceof Fault && error.code === "corrupt") return { problems: [error.message] };
    throw error;
  });
  return findingOf("ledger", problems);
}

/** A row that cannot even be read is a finding like any other. */
async function orCorrupt<T>(found: Promise<T>): Promise<T | readonly string[]> {
  return found.catch((error: unknown) => {
    if (error instanceof Fault && error.code === "corrupt") return [error.message];
    throw error;
  });
}

/** What an enclave has sealed, opened by itself. */
interface SealedCheck {
  /** Of the keys for ceremonies, or why nothing was asked; null where nothing is sealed. */
  readonly finding: Finding | null;
  /** What is wrong with further rows. */
  check(rows: readonly SealedRow[]): Promise<readonly string[]>;
  /** Rows so far that are another enclave's: lost, and nobody has altered them. */
  foreign(): number;
}

/** Begins with the keys for ceremonies: a server that has none has nothing that an enclave sealed for it. */
async function beginSealed({ store }: ServerContext, enclave: () => Promise<EnclaveToAsk>): Promise<SealedCheck> {
  const name = "sealed values";
  const unasked = (finding: Finding | null): SealedCheck => ({ finding, check: async () => [], foreign: () => 0 });
  const keys = await readable(store.transaction(sealedKeys));
  if (keys.length === 0) return unasked(null);
  try {
    const ask = await enclave();
    if (typeof ask === "string") return unasked({ name, ok: true, detail: `not opened: ${ask}` });
    let foreign = 0;
    const check = async (rows: readonly SealedRow[]) => {
      const found = await checkSealed(ask, rows);
      foreign += found.foreign;
      return found.wrong;
    };
    return { finding: findingOf(name, await check(keys)), check, foreign: () => foreign };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const damaged = error.code === "corrupt" || error.code === "integrity";
    return unasked({ name, ok: !damaged, detail: `not opened: ${error.message}`.slice(0, DETAIL) });
  }
}

/** None where they cannot be read, which is found beside it. */
const readable = (rows: Promise<readonly SealedRow[]>): Promise<readonly SealedRow[]> =>
  rows.catch((error: unknown) => {
    if (error instanceof Fault && error.code === "corrupt") return [];
    throw error;
  });

async function accountFinding(ctx: ServerContext, userId: UserId, sealed: SealedCheck["check"]): Promise<Finding> {
  const own = ctx.store.transaction(async (tx) => {
    const row = await tx.account(userId);
    return row ? checkAccount(ctx, tx, row) : [];
  });
  const wrong = [
    ...(await orCorrupt(own)),
    ...(await orCorrupt(checkCeremonies(ctx, userId))),
    ...(await sealed(await readable(ctx.store.transaction((tx) => sealedOf(tx, userId))))),
  ];
  return findingOf(`account:${userId}`, wrong);
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
