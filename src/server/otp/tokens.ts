import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { StoredKeyId } from "../../ids.ts";
import { TOKEN_BYTES, tokenHash, tokenText } from "../../protocol/keyring/token.ts";
import type { Tx } from "../../storage/store.ts";
import type { KeyStoreSite, RelyingCaller } from "../ceremony/service.ts";
import { eachStored, putStored, readStored, removeStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { addressBucket, spend } from "../limits.ts";
import { TOKEN, type TokenBody } from "./documents.ts";
import { demandActive } from "./entries.ts";
import type { DistributionPart } from "./index.ts";
import { know, ownEntry, readEntry } from "./keys.ts";

type Tokens = Pick<DistributionPart, "otp.token.create" | "otp.token.list" | "otp.token.revoke" | "admitToken">;

/** One answer for a token that never was, has expired, was revoked, or whose key or maker is gone. */
const noSuchToken = () =>
  new Fault("session_invalid", "this token verifies no codes", { hint: "keyhold otp token create" });

/** Constant in time by the hash: what is looked up tells nothing of the token. */
function presented(authorization: string | null): Uint8Array | null {
  const token = authorization === null ? undefined : /^bearer +([^\s,]+)$/i.exec(authorization)?.[1];
  return token === undefined ? null : tokenHash(token, "otp");
}

/** Tokens with which relying services have codes of one key verified (docs/protocol.md §10.8). */
export function createTokens({ ctx }: KeyStoreSite): Tokens {
  const isOver = ({ expiresAtMs }: TokenBody): boolean => expiresAtMs <= ctx.now();

  async function holder(tx: Tx, hash: Uint8Array): Promise<RelyingCaller | undefined> {
    const row = await readStored(tx, TOKEN, hash.toHex());
    if (!row || !equalBytes(row.value.hash, hash) || isOver(row.value)) return undefined;
    const { keyId, userId } = row.value;
    const entry = await readEntry(tx, keyId);
    const account = await tx.account(userId);
    if (entry?.value.issuer !== userId || !account || account.disabled) return undefined;
    return { keyId, tokenId: row.id, userId };
  }

  /** Tokens of a key that have not expired; the others go. */
  async function living(tx: Tx, keyId: StoredKeyId): Promise<readonly Stored<TokenBody>[]> {
    const all = await eachStored(tx, TOKEN, keyId);
    for (const row of all) if (isOver(row.value)) await removeStored(tx, TOKEN, row.id);
    return all.filter(({ value }) => !isOver(value));
  }

  return {
    async "otp.token.create"({ account: { userId } }, { keyId, name, expiresAtMs }) {
      const bytes = ctx.random(TOKEN_BYTES);
      const token = tokenText(bytes, "otp");
      bytes.fill(0);
      const hash = tokenHash(token, "otp");
      if (!hash) throw new Fault("internal", "the server failed");
      const tokenId = hash.toHex();
      await ctx.store.transaction(async (tx) => {
        demandActive(await ownEntry(tx, keyId, userId));
        const nowMs = ctx.now();
        if (expiresAtMs <= nowMs || expiresAtMs > nowMs + ctx.limits.tokenMs)
          throw new Fault("bad_input", "a token expires later than now, and within a year");
        const others = await living(tx, keyId);
        if (others.some(({ value }) => value.name === name))
          throw new Fault("exists", "the key has a token of that name", { hint: "revoke it first" });
        if (others.length >= ctx.limits.tokensPerWorkspace)
          throw new Fault("rate_limited", "the key has too many tokens", { hint: "revoke some" });
        const value = { keyId, userId, name, hash, createdAtMs: nowMs, expiresAtMs };
        if (!(await putStored(tx, TOKEN, { id: tokenId, owner: keyId, place: nowMs, value }, 0)))
          throw changedMeanwhile();
        await know(tx, keyId);
      }, keyId);
      return { tokenId, token };
    },

    async "otp.token.list"({ account: { userId } }, { keyId }) {
      return ctx.store.transaction(async (tx) => {
        await ownEntry(tx, keyId, userId);
        const items = (await eachStored(tx, TOKEN, keyId)).filter(({ value }) => !isOver(value));
        return {
          items: items.map(({ id: tokenId, value: { name, createdAtMs, expiresAtMs } }) => ({
            tokenId,
            name,
            createdAtMs,
            expiresAtMs,
          })),
        };
      }, keyId);
    },

    async "otp.token.revoke"({ account: { userId } }, { keyId, tokenId }) {
      await ctx.store.transaction(async (tx) => {
        await ownEntry(tx, keyId, userId);
        const row = await readStored(tx, TOKEN, tokenId);
        if (row?.owner !== keyId) throw new Fault("not_found", "the key has no such token");
        await removeStored(tx, TOKEN, tokenId);
      }, keyId);
      return {};
    },

    async admitToken(_name, { address, authorization }) {
      const hash = presented(authorization);
      const found = hash && (await ctx.store.transaction((tx) => holder(tx, hash)));
      if (found) return found;
      // a bucket of its own: a program with an old token keeps nobody at its address from logging in
      const bucket = `token:${addressBucket(address)}`;
      await ctx.store.transaction((tx) => spend(ctx, tx, bucket, ctx.limits.loginFreeFailuresPerAddress));
      throw noSuchToken();
    },
  };
}
