import { ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import type { KeyId, RequestId, SessionId, UserId } from "../ids.ts";
import { AUDIT_SALT_BYTES, auditLink } from "../protocol/audit.ts";
import type { AuditPosition, Tx } from "../storage/store.ts";
import type { ServerContext } from "./context.ts";

/** What happened, for one audit entry. */
export interface Event {
  readonly userId: UserId;
  readonly action: string;
  /** `ok` or an error code. */
  readonly status: string;
  readonly keyId?: KeyId | null;
  readonly requestId?: RequestId | null;
  readonly session?: SessionId | null;
  readonly bodyHash?: Uint8Array;
  readonly stateHash?: Uint8Array | null;
  readonly count?: number;
  /** True for the expiring log of an unknown name: the same rows. */
  readonly shadow?: boolean;
}

/** Appends one entry to an account's log in the caller's transaction; gives the new head. */
export async function appendEvent(ctx: ServerContext, tx: Tx, event: Event): Promise<AuditPosition> {
  const head = await tx.auditPosition(event.userId);
  const nowMs = ctx.now();
  const item = {
    entry: {
      seq: head.seq + 1,
      userId: event.userId,
      atMs: nowMs,
      action: event.action,
      status: event.status,
      keyId: event.keyId ?? null,
      requestId: event.requestId ?? null,
      session: event.session ?? null,
      bodyHash: event.bodyHash ?? ZERO_HASH_BYTES,
      stateHash: event.stateHash ?? null,
      count: event.count ?? 1,
      previous: head.link,
    },
    salt: ctx.random(AUDIT_SALT_BYTES),
  };
  const next = { seq: item.entry.seq, link: auditLink(item) };
  // the first entry's salt makes the pseudonym in the server-wide log
  const logSalt = head.seq === 0 ? item.salt : head.logSalt;
  await tx.appendAudit(item, next, event.shadow ? nowMs + ctx.limits.shadowAuditMs : null);
  return { ...next, logSalt };
}
