import { type ErrorCode, Fault } from "../../errors.ts";
import type { ServerContext } from "../context.ts";
import { addressBucket, spend } from "../limits.ts";

/** Refusals that an honest participant hardly ever meets. */
const COUNTED: ReadonlySet<string> = new Set<ErrorCode>(["not_found", "denied", "bad_input", "integrity"]);

/**
 * Work of an operation without a session: what succeeds is free, what fails is counted for its address like logins
 * (docs/protocol.md §3.4), in a bucket of its own.
 *
 * @throws Fault rate_limited in place of a counted one that came too soon
 */
export async function counted<T>(
  ctx: ServerContext,
  { address }: { readonly address: string },
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Fault && COUNTED.has(error.code)) {
      const bucket = `ceremony:${addressBucket(address)}`;
      await ctx.store.transaction((tx) => spend(ctx, tx, bucket, ctx.limits.loginFreeFailuresPerAddress));
    }
    throw error;
  }
}
