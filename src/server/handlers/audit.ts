import type { SessionHandler } from "../context.ts";

/** Entries of the account's own log, oldest first. */
export const readAudit: SessionHandler<"audit.list" | "audit.verify" | "audit.export"> = async (
  _ctx,
  tx,
  caller,
  input,
) => {
  const rows = await tx.audit(caller.account.userId, { ...input, limit: input.limit + 1 });
  return { output: { entries: rows.slice(0, input.limit), more: rows.length > input.limit } };
};
