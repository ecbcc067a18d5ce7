import type { Tx } from "../storage/store.ts";
import { type Candidate, candidate } from "./accounts.ts";
import { appendEvent } from "./audit.ts";
import type { ServerContext } from "./context.ts";

/** A kind of event that strangers can bring about in an account's log as often as they like. */
interface Flood {
  /** Begins the bucket that counts the events of the running window. */
  readonly prefix: string;
  readonly action: string;
  readonly status: string;
}

/** Logins that the limit of an account refused. */
export const REFUSED_LOGIN: Flood = { prefix: "refused:", action: "session.login", status: "rate_limited" };
/** Attempts to register a name that is taken. */
export const TAKEN_NAME: Flood = { prefix: "taken:", action: "account.register", status: "exists" };

/** Recoveries with a wrong kit, or for a name without one. */
export const FAILED_RECOVERY: Flood = { prefix: "recovery:", action: "account.recover", status: "login_failed" };

const FLOODS = [REFUSED_LOGIN, TAKEN_NAME, FAILED_RECOVERY] as const;

/** Rows that one transaction of a sweep takes. */
const BATCH = 256;
/** Transactions of one sweep: what is left waits for the next, so that requests get their turn. */
const BATCHES = 64;

/**
 * Repeats a sweep's transaction until it finds less than it may take.
 *
 * @param take Takes at most `limit` rows and says how many.
 * @returns The sum.
 */
export async function inBatches(take: (limit: number) => Promise<number>): Promise<number> {
  let sum = 0;
  for (let batch = 0; batch < BATCHES; batch++) {
    const taken = await take(BATCH);
    sum += taken;
    if (taken < BATCH) break;
  }
  return sum;
}

async function note(ctx: ServerContext, tx: Tx, { action, status }: Flood, name: Candidate, count: number) {
  await appendEvent(ctx, tx, { userId: name.userId, action, status, count, shadow: !name.known });
}

/** Counts an event in its window of `loginBackoffMaxMs`: how many the entry stands for that is due; null for none. */
export async function countWindowed(ctx: ServerContext, tx: Tx, bucket: string): Promise<number | null> {
  const nowMs = ctx.now();
  const row = await tx.limit(bucket);
  if (row && nowMs - row.updatedAtMs < ctx.limits.loginBackoffMaxMs) {
    await tx.putLimit({ ...row, count: row.count + 1 });
    return null;
  }
  await tx.putLimit({ bucket, count: 0, blockedUntilMs: 0, updatedAtMs: nowMs });
  return 1 + (row?.count ?? 0);
}

/**
 * Adds an event to the log of a name, real or shadow: one counted entry a window (docs/protocol.md §6.1). What comes
 * later in the window is counted by the next entry, or by {@link sweepFloods}.
 */
export async function noteWindowed(
  ctx: ServerContext,
  tx: Tx,
  flood: Flood,
  credentialId: Uint8Array,
  name: Candidate,
): Promise<void> {
  const count = await countWindowed(ctx, tx, `${flood.prefix}${credentialId.toHex()}`);
  if (count !== null) await note(ctx, tx, flood, name, count);
}

/** Adds to the logs what was only counted in windows that are over; says how many windows. */
export async function sweepFloods(ctx: ServerContext): Promise<number> {
  let sum = 0;
  for (const flood of FLOODS) {
    sum += await inBatches((limit) =>
      ctx.store.transaction(async (tx) => {
        const rows = await tx.takeLimits(flood.prefix, ctx.now() - ctx.limits.loginBackoffMaxMs, limit);
        for (const { bucket, count } of rows) {
          if (count === 0) continue;
          const credentialId = Uint8Array.fromHex(bucket.slice(flood.prefix.length));
          await note(ctx, tx, flood, await candidate(ctx, tx, credentialId), count);
        }
        return rows.length;
      }),
    );
  }
  return sum;
}
