import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { UserId, WorkspaceId } from "../../ids.ts";
import { TOKEN_BYTES, tokenHash, tokenText } from "../../protocol/keyring/token.ts";
import type { Tx } from "../../storage/store.ts";
import { hashIdOf, id, struct, u53 } from "../../wire/codec.ts";
import { keyringName } from "../../wire/keyring/records.ts";
import { hash32 } from "../../wire/records.ts";
import { appendEvent } from "../audit.ts";
import {
  type DocumentKind,
  eachStored,
  kindOf,
  putStored,
  readStored,
  removeStored,
  type Stored,
} from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { shortId } from "../federation/named.ts";
import { addressBucket, spend } from "../limits.ts";
import { OWNERSHIP, ownershipId } from "./documents.ts";
import { recorded } from "./events.ts";
import { keyOf } from "./people.ts";
import type { RegistryService, RegistrySite, RegistryTokenOperation, TokenCaller } from "./service.ts";
import { demandOwner } from "./workspaces.ts";

type Tokens = Pick<
  RegistryService,
  "workspace.token.create" | "workspace.token.list" | "workspace.token.revoke" | "admitToken"
>;

/** A token of a workspace: id = its hash in hexadecimal, owner = workspace, place = when it was made. */
interface TokenBody {
  readonly workspaceId: WorkspaceId;
  /** The owner who made it: it speaks for nobody else. */
  readonly userId: UserId;
  readonly name: string;
  readonly hash: Uint8Array;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  /** Since when its uses are covered by the last entry in its maker's log; 0 before the first. */
  readonly notedAtMs: number;
}
const TOKEN: DocumentKind<TokenBody> = kindOf(
  "workspaceToken",
  struct({
    workspaceId: hashIdOf<WorkspaceId>(),
    userId: id<UserId>(),
    name: keyringName,
    hash: hash32,
    createdAtMs: u53,
    expiresAtMs: u53,
    notedAtMs: u53,
  }),
);

/** A token that is polled with leaves one entry an hour in its maker's log. */
const NOTE_MS = 3_600_000;

/** One answer for a token that never was, has expired, was revoked, or whose maker owns the workspace no more. */
const noSuchToken = () =>
  new Fault("session_invalid", "this token opens no workspace", { hint: "keyhold workspace token create" });

/** Constant in time by the hash: what is looked up tells nothing of the token. */
function presented(authorization: string | null): Uint8Array | null {
  const token = authorization === null ? undefined : /^bearer +([^\s,]+)$/i.exec(authorization)?.[1];
  return token === undefined ? null : tokenHash(token);
}

/** Tokens with which programs read a workspace (docs/protocol.md §9.7). */
export function createTokens(site: RegistrySite): Tokens {
  const { ctx } = site;

  const isOver = ({ expiresAtMs }: TokenBody): boolean => expiresAtMs <= ctx.now();

  /** True while the maker of a token has an account and owns its workspace by the newest head. */
  async function speaks(tx: Tx, { userId, workspaceId }: TokenBody): Promise<boolean> {
    const account = await tx.account(userId);
    if (!account || account.disabled) return false;
    const key = await keyOf(tx, "owner", userId);
    return key !== undefined && (await readStored(tx, OWNERSHIP, ownershipId(key, workspaceId))) !== undefined;
  }

  /** Reads are audited too: by the first one of an hour. */
  async function note(tx: Tx, row: Stored<TokenBody>, action: RegistryTokenOperation): Promise<void> {
    const nowMs = ctx.now();
    const { userId, workspaceId, notedAtMs } = row.value;
    if (nowMs - notedAtMs < NOTE_MS && notedAtMs <= nowMs) return;
    const { version, ...kept } = row;
    if (!(await putStored(tx, TOKEN, { ...kept, value: { ...row.value, notedAtMs: nowMs } }, version))) return;
    await appendEvent(ctx, tx, { userId, action, status: "ok", keyId: shortId(workspaceId) });
  }

  async function holder(tx: Tx, hash: Uint8Array, name: RegistryTokenOperation): Promise<TokenCaller | undefined> {
    const row = await readStored(tx, TOKEN, hash.toHex());
    if (!row || !equalBytes(row.value.hash, hash) || isOver(row.value) || !(await speaks(tx, row.value)))
      return undefined;
    await note(tx, row, name);
    return { workspaceId: row.value.workspaceId, tokenId: row.id, userId: row.value.userId };
  }

  /** Tokens of a workspace that have not expired; the others go. */
  async function living(tx: Tx, workspaceId: WorkspaceId): Promise<readonly Stored<TokenBody>[]> {
    const all = await eachStored(tx, TOKEN, workspaceId);
    for (const row of all) if (isOver(row.value)) await removeStored(tx, TOKEN, row.id);
    return all.filter(({ value }) => !isOver(value));
  }

  return {
    async "workspace.token.create"({ account: { userId } }, { workspaceId, name, expiresAtMs }) {
      const bytes = ctx.random(TOKEN_BYTES);
      const token = tokenText(bytes);
      bytes.fill(0);
      const hash = tokenHash(token);
      if (!hash) throw new Fault("internal", "the server failed");
      const tokenId = hash.toHex();
      await recorded(
        site,
        async (tx, tell) => {
          await demandOwner(tx, workspaceId, userId);
          const nowMs = ctx.now();
          if (expiresAtMs <= nowMs || expiresAtMs > nowMs + ctx.limits.tokenMs)
            throw new Fault("bad_input", "a token expires later than now, and within a year");
          const others = await living(tx, workspaceId);
          if (others.some(({ value }) => value.name === name))
            throw new Fault("exists", "the workspace has a token of that name", {
              hint: "revoke it first: keyhold workspace token list",
            });
          if (others.length >= ctx.limits.tokensPerWorkspace)
            throw new Fault("rate_limited", "the workspace has too many tokens", {
              hint: "revoke some: keyhold workspace token list",
            });
          const value = { workspaceId, userId, name, hash, createdAtMs: nowMs, expiresAtMs, notedAtMs: 0 };
          if (!(await putStored(tx, TOKEN, { id: tokenId, owner: workspaceId, place: nowMs, value }, 0)))
            throw changedMeanwhile();
          await tell({ event: "token.created", workspaceId, detail: name });
        },
        workspaceId,
      );
      return { tokenId, token };
    },

    async "workspace.token.list"({ account: { userId } }, { workspaceId }) {
      return ctx.store.transaction(async (tx) => {
        await demandOwner(tx, workspaceId, userId);
        const items = (await eachStored(tx, TOKEN, workspaceId)).filter(({ value }) => !isOver(value));
        return {
          items: items.map(({ id: tokenId, value: { name, createdAtMs, expiresAtMs } }) => ({
            tokenId,
            name,
            createdAtMs,
            expiresAtMs,
          })),
        };
      }, workspaceId);
    },

    async "workspace.token.revoke"({ account: { userId } }, { workspaceId, tokenId }) {
      await recorded(
        site,
        async (tx, tell) => {
          await demandOwner(tx, workspaceId, userId);
          const [row, other] = (await eachStored(tx, TOKEN, workspaceId)).filter((one) => one.id.startsWith(tokenId));
          if (!row) throw new Fault("not_found", "the workspace has no such token");
          if (other) throw new Fault("ambiguous", "several tokens begin like that");
          await removeStored(tx, TOKEN, row.id);
          await tell({ event: "token.revoked", workspaceId, detail: row.value.name });
        },
        workspaceId,
      );
      return {};
    },

    async admitToken(name, { address, authorization }) {
      const hash = presented(authorization);
      const found = hash && (await ctx.store.transaction((tx) => holder(tx, hash, name)));
      if (found) return found;
      // a bucket of its own: a program with an old token keeps nobody at its address from logging in
      const bucket = `token:${addressBucket(address)}`;
      await ctx.store.transaction((tx) => spend(ctx, tx, bucket, ctx.limits.loginFreeFailuresPerAddress));
      throw noSuchToken();
    },
  };
}
