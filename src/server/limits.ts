import { Fault } from "../errors.ts";
import type { LimitRow, Tx } from "../storage/store.ts";
import type { ServerContext } from "./context.ts";

/** Milliseconds to wait after `count` failures of which `free` cost nothing: 1 s doubling to 15 min. */
export function backoffMs(count: number, free: number, firstMs: number, maxMs: number): number {
  if (count <= free) return 0;
  return Math.min(maxMs, firstMs * 2 ** Math.min(count - free - 1, 30));
}

/** A bucket that is not forgotten yet. */
async function remembered(ctx: ServerContext, tx: Tx, bucket: string): Promise<LimitRow | undefined> {
  const row = await tx.limit(bucket);
  return row && ctx.now() - row.updatedAtMs < ctx.limits.loginForgetMs ? row : undefined;
}

function refusalOf(ctx: ServerContext, row: LimitRow | undefined): Fault | undefined {
  const retryAfterMs = (row?.blockedUntilMs ?? 0) - ctx.now();
  if (retryAfterMs <= 0) return undefined;
  return new Fault("rate_limited", `too many attempts: wait ${Math.ceil(retryAfterMs / 1_000)} s`, { retryAfterMs });
}

/** Why a bucket takes no guess now: `rate_limited` with the time to wait, or undefined. Writes nothing. */
export async function refusedBy(ctx: ServerContext, tx: Tx, bucket: string): Promise<Fault | undefined> {
  return refusalOf(ctx, await remembered(ctx, tx, bucket));
}

/**
 * Counts one guess before it is answered (docs/protocol.md §3.4).
 *
 * @throws Fault rate_limited with the time to wait; then nothing is counted.
 */
export async function spend(ctx: ServerContext, tx: Tx, bucket: string, free: number): Promise<number> {
  const nowMs = ctx.now();
  const row = await remembered(ctx, tx, bucket);
  const refused = refusalOf(ctx, row);
  if (refused) throw refused;
  const count = (row?.count ?? 0) + 1;
  const wait = backoffMs(count, free, ctx.limits.loginBackoffFirstMs, ctx.limits.loginBackoffMaxMs);
  await tx.putLimit({ bucket, count, blockedUntilMs: wait === 0 ? 0 : nowMs + wait, updatedAtMs: nowMs });
  return count;
}

/** Takes one count back after a success; a block stays while others' failures alone are above `free`. */
export async function refund(tx: Tx, bucket: string, free: number): Promise<void> {
  const row = await tx.limit(bucket);
  if (!row) return;
  const count = Math.max(0, row.count - 1);
  await tx.putLimit({ ...row, count, blockedUntilMs: count > free ? row.blockedUntilMs : 0 });
}

/** Bucket of an address: whole for IPv4, its /64 for IPv6. */
export function addressBucket(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped) return `address:${mapped}`;
  if (!address.includes(":")) return `address:${address}`;
  const hex = /^(?:0*:){2,5}ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/i.exec(address);
  if (hex) {
    const halves = [hex[1] ?? "", hex[2] ?? ""].map((group) => Number.parseInt(group, 16));
    return `address:${halves.flatMap((half) => [half >>> 8, half & 255]).join(".")}`;
  }
  const [left = "", right = ""] = address.toLowerCase().split("%")[0]?.split("::") ?? [];
  const head = left === "" ? [] : left.split(":");
  const tail = right === "" ? [] : right.split(":");
  const zeros = address.includes("::")
    ? Array.from({ length: Math.max(0, 8 - head.length - tail.length) }, () => "0")
    : [];
  const groups = [...head, ...zeros, ...tail].slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `address:${groups.join(":")}::/64`;
}
