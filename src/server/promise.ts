import type { UserId } from "../ids.ts";
import { auditPseudonym } from "../protocol/audit.ts";
import { signPromise } from "../protocol/log.ts";
import type { AuditPosition } from "../storage/store.ts";
import type { ServerContext } from "./context.ts";

/** The log's promise to hold a position, or a later one, in time (docs/protocol.md §6.3). */
export function promiseOf(ctx: ServerContext, userId: UserId, { seq, link, logSalt: salt }: AuditPosition) {
  if (salt === null) return null;
  const { origin, signers } = ctx.log;
  const atMs = ctx.now();
  const promised = { origin, pseudonym: auditPseudonym(userId, salt), seq, link, atMs };
  return { salt, atMs, signature: signPromise(signers[0], promised) };
}
