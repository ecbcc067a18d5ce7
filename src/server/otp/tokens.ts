import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { Tx } from "../../storage/store.ts";
import { bearerTokens } from "../bearer.ts";
import type { KeyStoreSite, RelyingCaller } from "../ceremony/service.ts";
import { putStored, readStored, removeStored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { TOKEN } from "./documents.ts";
import { demandActive } from "./entries.ts";
import type { DistributionPart } from "./index.ts";
import { know, ownEntry, readEntry } from "./keys.ts";

type Tokens = Pick<DistributionPart, "otp.token.create" | "otp.token.list" | "otp.token.revoke" | "admitToken">;

/** One answer for a token that never was, has expired, was revoked, or whose key or maker is gone. */
const noSuchToken = () =>
  new Fault("session_invalid", "this token verifies no codes", { hint: "keyhold otp token create" });

/** Tokens with which relying services have codes of one key verified (docs/protocol.md §10.8). */
export function createTokens({ ctx }: KeyStoreSite): Tokens {
  const tokens = bearerTokens(ctx, TOKEN, "otp", { of: "key", list: "keyhold otp token list" });

  async function holder(tx: Tx, hash: Uint8Array): Promise<RelyingCaller | undefined> {
    const row = await readStored(tx, TOKEN, hash.toHex());
    if (!row || !equalBytes(row.value.hash, hash) || tokens.isOver(row.value)) return undefined;
    const { keyId, userId } = row.value;
    const entry = await readEntry(tx, keyId);
    const account = await tx.account(userId);
    if (entry?.value.issuer !== userId || !account || account.disabled) return undefined;
    return { keyId, tokenId: row.id, userId };
  }

  return {
    async "otp.token.create"({ account: { userId } }, { keyId, name, expiresAtMs }) {
      const { token, hash, tokenId } = tokens.draw();
      await ctx.store.transaction(async (tx) => {
        demandActive(await ownEntry(tx, keyId, userId));
        tokens.demandRoom(await tokens.living(tx, keyId), { name, expiresAtMs });
        const nowMs = ctx.now();
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
        return { items: await tokens.shown(tx, keyId) };
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
      const hash = tokens.presented(authorization);
      const found = hash && (await ctx.store.transaction((tx) => holder(tx, hash)));
      if (found) return found;
      await tokens.refuse(address);
      throw noSuchToken();
    },
  };
}
