import { Fault } from "../../errors.ts";
import type { SessionRow } from "../../storage/store.ts";
import type { Caller, ServerContext, SessionHandler } from "../context.ts";

function describe(row: SessionRow, caller: Caller) {
  return {
    sessionId: row.sessionId,
    createdAtMs: row.createdAtMs,
    lastUsedMs: row.lastUsedMs,
    expiresAtMs: row.expiresAtMs,
    current: row.sessionId === caller.sessionId,
  };
}

/** True while a session may be used: neither past its absolute end nor idle for too long. */
export function sessionAlive(ctx: ServerContext, row: SessionRow): boolean {
  const nowMs = ctx.now();
  return row.expiresAtMs > nowMs && row.lastUsedMs + ctx.limits.sessionIdleMs > nowMs;
}

/** Says how the caller's own session stands. */
export const checkSession: SessionHandler<"session.check"> = async (_ctx, tx, caller) => {
  const row = await tx.session(caller.sessionId);
  if (!row) throw new Fault("session_invalid", "the session is over");
  return { output: describe(row, caller) };
};

/** Lists the account's live sessions. */
export const listSessions: SessionHandler<"session.list"> = async (ctx, tx, caller) => {
  const rows = await tx.sessionsOf(caller.account.userId);
  return { output: { items: rows.filter((row) => sessionAlive(ctx, row)).map((row) => describe(row, caller)) } };
};

/** Closes this session, another one of the account, or all. */
export const closeSession: SessionHandler<"session.close"> = async (_ctx, tx, caller, input) => {
  if (input.all) return { output: { closed: await tx.closeSessionsOf(caller.account.userId, null) } };
  const target = input.sessionId ?? caller.sessionId;
  const row = await tx.session(target);
  if (!row || row.userId !== caller.account.userId) throw new Fault("not_found", "no such session");
  await tx.closeSession(target);
  return { output: { closed: 1 } };
};
