import { statSync } from "node:fs";
import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import type { AccountRow, InviteRow, Tx } from "../storage/store.ts";
import type { ControlInput, ControlOutput } from "../wire/control.ts";
import { credentialIdOf, openAccountName } from "./accounts.ts";
import { appendEvent } from "./audit.ts";
import { eraseCeremonies } from "./ceremony/erasing.ts";
import { newestFingerprint } from "./ceremony/keys.ts";
import { createCeremonyControl } from "./ceremony/operator.ts";
import { checkServer, type EnclaveToAsk } from "./check.ts";
import type { ServerContext } from "./context.ts";
import type { ControlHandlers } from "./control.ts";
import { removeStored } from "./documents.ts";
import { SECOND_FACTOR } from "./factor.ts";
import { eraseFederated } from "./federation/erasing.ts";
import { type FederationService, noRole } from "./federation/service.ts";
import { inviteHash } from "./handlers/register.ts";
import { sessionAlive } from "./handlers/session.ts";
import { noRegistryControl, type RegistryControl } from "./keyring/operator.ts";

/** Crockford's base 32: no I, L, O, U. */
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUPS = 5;

/** A registration code of 100 random bits, as people can read it out: `4F7K-…`. */
function newCode(ctx: ServerContext): string {
  const letters = [...ctx.random(GROUPS * 4)].map((byte) => ALPHABET[byte & 31] ?? "0");
  return Array.from({ length: GROUPS }, (_, i) => letters.slice(i * 4, i * 4 + 4).join("")).join("-");
}

/** Makes a one-time registration code; only its hash is stored. */
export async function createInvite(
  ctx: ServerContext,
  expiresMs: number | null,
): Promise<{ code: string; hint: string; expiresAtMs: number }> {
  const code = newCode(ctx);
  const nowMs = ctx.now();
  const row: InviteRow = {
    codeHash: inviteHash(code),
    createdAtMs: nowMs,
    expiresAtMs: nowMs + (expiresMs ?? ctx.limits.inviteMs),
    usedAtMs: null,
    conflicts: 0,
    hint: code.slice(0, 4),
  };
  await ctx.store.transaction((tx) => tx.putInvite(row));
  return { code, hint: row.hint, expiresAtMs: row.expiresAtMs };
}

function stateOf(ctx: ServerContext, row: InviteRow): "open" | "used" | "expired" | "void" {
  if (row.usedAtMs !== null) return "used";
  if (row.expiresAtMs <= ctx.now()) return "expired";
  return row.conflicts >= ctx.limits.inviteConflicts ? "void" : "open";
}

async function named(ctx: ServerContext, tx: Tx, account: string): Promise<AccountRow> {
  const row = await tx.accountByCredential(credentialIdOf(ctx, account));
  if (!row) throw new Fault("not_found", "there is no such account", { hint: "keyhold server user list" });
  return row;
}

async function setDisabled(
  ctx: ServerContext,
  account: string,
  disabled: boolean,
): Promise<{ account: string; userId: UserId }> {
  return ctx.store.transaction(async (tx) => {
    const row = await named(ctx, tx, account.normalize("NFC"));
    await tx.setDisabled(row.userId, disabled);
    if (disabled) await tx.closeSessionsOf(row.userId, null);
    const action = disabled ? "server.user.disable" : "server.user.enable";
    await appendEvent(ctx, tx, { userId: row.userId, action, status: "ok" });
    return { account: openAccountName(ctx, row), userId: row.userId };
  });
}

const notMember = () => Promise.reject(noRole());

/** Control operations of a server that can be a member of no federation. */
const noFederation: FederationService["control"] = {
  "federation.list": notMember,
  "federation.accept": notMember,
  "federation.leave": notMember,
  "policy.show": notMember,
  "policy.set": notMember,
  "connector.allow": notMember,
  "connector.list": notMember,
  "connector.revoke": notMember,
};

/** What the running process knows of itself. */
export interface Running {
  readonly version: string;
  readonly url: () => string;
  readonly pin: string;
  readonly startedAtMs: number;
  readonly requests: () => number;
  /** The enclave, to be asked what it can open; without it that is not checked. */
  readonly enclave?: () => Promise<EnclaveToAsk>;
  readonly rotate: (input: ControlInput<"rotate">) => Promise<ControlOutput<"rotate">>;
}

const USERS = 500;

/** The administrator's operations over one server (docs/operations.md). */
export function administration(
  ctx: ServerContext,
  running: Running,
  federation: FederationService | null = null,
  registry: RegistryControl = noRegistryControl,
): ControlHandlers {
  return {
    ...(federation?.control ?? noFederation),
    ...registry,
    ...createCeremonyControl(ctx),
    async status() {
      return ctx.store.transaction(async (tx) => {
        const nowMs = ctx.now();
        const { accounts, disabled, sessions } = await tx.counts(nowMs, nowMs - ctx.limits.sessionIdleMs);
        const invites = (await tx.invites()).filter((row) => stateOf(ctx, row) === "open").length;
        return {
          pid: process.pid,
          version: running.version,
          url: running.url(),
          pin: running.pin,
          startedAtMs: running.startedAtMs,
          registration: ctx.registration,
          engine: ctx.store.engine,
          incarnation: ctx.incarnation,
          accounts,
          disabled,
          sessions,
          invites,
          requests: running.requests(),
          ceremonyKey: await newestFingerprint(tx),
        };
      });
    },
    check: () => checkServer(ctx, running.enclave),
    rotate: running.rotate,
    async backup({ path }) {
      await ctx.store.backup(path);
      const { accounts } = await ctx.store.transaction((tx) => tx.counts(ctx.now(), 0));
      return { bytes: statSync(path).size, accounts };
    },
    "invite.create": ({ expiresMs }) => createInvite(ctx, expiresMs),
    async "invite.list"() {
      const rows = await ctx.store.transaction((tx) => tx.invites());
      return {
        items: rows.map((row) => ({
          hint: row.hint,
          createdAtMs: row.createdAtMs,
          expiresAtMs: row.expiresAtMs,
          state: stateOf(ctx, row),
        })),
      };
    },
    async "invite.revoke"({ code }) {
      return ctx.store.transaction(async (tx) => {
        const given = code.toUpperCase();
        const rows = await tx.invites();
        const hash = inviteHash(given);
        const found = rows.filter((row) => row.codeHash === hash || row.hint === given);
        if (found.length === 0 || !found[0])
          throw new Fault("not_found", "there is no such invite", { hint: "keyhold server invite list" });
        if (found.length > 1) throw new Fault("ambiguous", "more than one invite starts like this");
        await tx.removeInvite(found[0].codeHash);
        return { revoked: 1 };
      });
    },
    async "user.list"({ after }) {
      return ctx.store.transaction(async (tx) => {
        const rows = await tx.accounts(after, USERS + 1);
        const items: ControlOutput<"user.list">["items"][number][] = [];
        for (const row of rows.slice(0, USERS)) {
          const open = (await tx.sessionsOf(row.userId)).filter((one) => sessionAlive(ctx, one));
          items.push({
            account: openAccountName(ctx, row),
            userId: row.userId,
            createdAtMs: row.createdAtMs,
            disabled: row.disabled,
            sessions: open.length,
            devices: row.settings.devices.length,
          });
        }
        return { items, next: rows.length > USERS ? (items.at(-1)?.userId ?? null) : null };
      });
    },
    "user.disable": ({ account }) => setDisabled(ctx, account, true),
    "user.enable": ({ account }) => setDisabled(ctx, account, false),
    async "user.factor-reset"({ account }) {
      return ctx.store.transaction(async (tx) => {
        const row = await named(ctx, tx, account.normalize("NFC"));
        if (!(await removeStored(tx, SECOND_FACTOR, row.userId))) {
          throw new Fault("not_found", "the account has no second factor");
        }
        await appendEvent(ctx, tx, { userId: row.userId, action: "server.user.factor-reset", status: "ok" });
        return { account: openAccountName(ctx, row), userId: row.userId };
      });
    },
    async "user.remove"({ account }) {
      return ctx.store.transaction(async (tx) => {
        const row = await named(ctx, tx, account.normalize("NFC"));
        const name = openAccountName(ctx, row);
        await eraseFederated(tx, row.userId);
        await eraseCeremonies(ctx, tx, row.userId);
        await tx.removeAccount(row.userId);
        return { account: name, userId: row.userId };
      });
    },
  };
}
