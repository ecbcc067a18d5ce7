import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { UserId, WorkspaceId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { hashIdOf, id, struct, u53 } from "../../wire/codec.ts";
import { keyringName } from "../../wire/keyring/records.ts";
import { hash32 } from "../../wire/records.ts";
import { appendEvent } from "../audit.ts";
import { bearerTokens } from "../bearer.ts";
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

/** Tokens with which programs read a workspace (docs/protocol.md §9.7). */
export function createTokens(site: RegistrySite): Tokens {
  const { ctx } = site;

  const tokens = bearerTokens(ctx, TOKEN, "workspace", { of: "workspace", list: "keyhold workspace token list" });

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
    if (!row || !equalBytes(row.value.hash, hash) || tokens.isOver(row.value) || !(await speaks(tx, row.value)))
      return undefined;
    await note(tx, row, name);
    return { workspaceId: row.value.workspaceId, tokenId: row.id, userId: row.value.userId };
  }

  return {
    async "workspace.token.create"({ account: { userId } }, { workspaceId, name, expiresAtMs }) {
      const { token, hash, tokenId } = tokens.draw();
      await recorded(
        site,
        async (tx, tell) => {
          await demandOwner(tx, workspaceId, userId);
          tokens.demandRoom(await tokens.living(tx, workspaceId), { name, expiresAtMs });
          const nowMs = ctx.now();
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
        return { items: await tokens.shown(tx, workspaceId) };
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
      const hash = tokens.presented(authorization);
      const found = hash && (await ctx.store.transaction((tx) => holder(tx, hash, name)));
      if (found) return found;
      await tokens.refuse(address);
      throw noSuchToken();
    },
  };
}
