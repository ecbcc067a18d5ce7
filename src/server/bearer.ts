import { Fault } from "../errors.ts";
import { TOKEN_BYTES, tokenHash, tokenText } from "../protocol/keyring/token.ts";
import type { Tx } from "../storage/store.ts";
import type { ServerContext } from "./context.ts";
import { type DocumentKind, eachStored, removeStored, type Stored } from "./documents.ts";
import { addressBucket, spend } from "./limits.ts";

/** What every kind of bearer token keeps: its hash, never itself. */
interface BearerBody {
  /** What its maker calls it; one of a name at a time. */
  readonly name: string;
  readonly hash: Uint8Array;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
}

/**
 * What bearer tokens of workspaces (docs/protocol.md §9.7) and of keys (§10.8) have in common.
 *
 * @param of What they are tokens of, for messages. @param list Command that shows them.
 */
export function bearerTokens<T extends BearerBody>(
  ctx: ServerContext,
  kind: DocumentKind<T>,
  prefix: "workspace" | "otp",
  { of, list }: { readonly of: string; readonly list: string },
) {
  const isOver = ({ expiresAtMs }: BearerBody): boolean => expiresAtMs <= ctx.now();
  return {
    isOver,
    /** A new one: its text, told once, its hash, and its id. */
    draw() {
      const bytes = ctx.random(TOKEN_BYTES);
      const token = tokenText(bytes, prefix);
      bytes.fill(0);
      const hash = tokenHash(token, prefix);
      if (!hash) throw new Fault("internal", "the server failed");
      return { token, hash, tokenId: hash.toHex() };
    },
    /** Those of an owner that have not expired; the others go. */
    async living(tx: Tx, owner: string): Promise<readonly Stored<T>[]> {
      const all = await eachStored(tx, kind, owner);
      for (const row of all) if (isOver(row.value)) await removeStored(tx, kind, row.id);
      return all.filter(({ value }) => !isOver(value));
    },
    /** @throws Fault bad_input, exists, rate_limited */
    demandRoom(others: readonly Stored<T>[], { name, expiresAtMs }: Pick<BearerBody, "name" | "expiresAtMs">): void {
      const nowMs = ctx.now();
      if (expiresAtMs <= nowMs || expiresAtMs > nowMs + ctx.limits.tokenMs)
        throw new Fault("bad_input", "a token expires later than now, and within a year");
      if (others.some(({ value }) => value.name === name))
        throw new Fault("exists", `the ${of} has a token of that name`, { hint: `revoke it first: ${list}` });
      if (others.length >= ctx.limits.tokensPerWorkspace)
        throw new Fault("rate_limited", `the ${of} has too many tokens`, { hint: `revoke some: ${list}` });
    },
    /** Those of an owner that have not expired, as its maker sees them. */
    async shown(tx: Tx, owner: string) {
      const items = (await eachStored(tx, kind, owner)).filter(({ value }) => !isOver(value));
      return items.map(({ id: tokenId, value: { name, createdAtMs, expiresAtMs } }) => ({
        tokenId,
        name,
        createdAtMs,
        expiresAtMs,
      }));
    },
    /** The hash of what a header presents. Constant in time by it: what is looked up tells nothing of the token. */
    presented(authorization: string | null): Uint8Array | null {
      const token = authorization === null ? undefined : /^bearer +([^\s,]+)$/i.exec(authorization)?.[1];
      return token === undefined ? null : tokenHash(token, prefix);
    },
    /** Counts a wrong one against its address. @throws Fault rate_limited */
    async refuse(address: string): Promise<void> {
      // a bucket of its own: a program with an old token keeps nobody at its address from logging in
      const bucket = `token:${addressBucket(address)}`;
      await ctx.store.transaction((tx) => spend(ctx, tx, bucket, ctx.limits.loginFreeFailuresPerAddress));
    },
  };
}
