import { ZERO_HASH_BYTES } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { AuditHead, SaltedEntry } from "../../protocol/audit.ts";
import { idColumn, optionalIdColumn } from "../columns.ts";
import { type EntryColumns, entryOf } from "../rows.ts";
import type { AuditPosition, Tx } from "../store.ts";
import type { Query } from "./connection.ts";

/**
 * The salt of the first entry makes the log's pseudonym, so that the chain itself fixes it.
 *
 * Moves the head by one compare-and-swap, for an account and for a shadow alike. A log starts at zeros; null wins over
 * an expiry, and a later expiry over an earlier one, so that no entry outlives its head.
 */
const MOVE_HEAD = `INSERT INTO audit_head (user_id, seq, link, expires_at_ms, log_salt)
  SELECT ?1, ?2, ?3, ?4, ?6 WHERE ?2 = 1 AND ?5 = zeroblob(32) OR EXISTS (SELECT 1 FROM audit_head WHERE user_id = ?1)
  ON CONFLICT (user_id) DO UPDATE SET seq = excluded.seq, link = excluded.link,
    expires_at_ms = max(expires_at_ms, excluded.expires_at_ms),
    log_salt = CASE WHEN excluded.seq = 1 THEN excluded.log_salt ELSE log_salt END
  WHERE seq = excluded.seq - 1 AND link = ?5`;

function append(q: Query, { entry, salt }: SaltedEntry, head: AuditHead, expiresAtMs: number | null): void {
  if (head.seq !== entry.seq) throw new Fault("internal", "an audit head does not belong to its entry");
  const user = idColumn(entry.userId);
  if (q.run(MOVE_HEAD, user, entry.seq, head.link, expiresAtMs, entry.previous, salt) === 0) {
    throw new Fault("conflict", "cannot append the audit entry: it does not continue the log");
  }
  q.run(
    `INSERT INTO audit_entry (user_id, seq, link, salt, at_ms, action, status, key_id, request_id, session_id,
       body_hash, state_hash, count, previous, expires_at_ms)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)`,
    user,
    entry.seq,
    head.link,
    salt,
    entry.atMs,
    entry.action,
    entry.status,
    optionalIdColumn(entry.keyId),
    optionalIdColumn(entry.requestId),
    optionalIdColumn(entry.session),
    entry.bodyHash,
    entry.stateHash,
    entry.count,
    entry.previous,
    expiresAtMs,
  );
}

type Audit = "appendAudit" | "auditHead" | "auditPosition" | "audit" | "sweepShadowAudit";

/** The part of a transaction that concerns audit logs. `sweepShadowAudit` counts entries. */
export function auditTx(q: Query): Pick<Tx, Audit> {
  return {
    appendAudit: async (entry, head, expiresAtMs) => append(q, entry, head, expiresAtMs),
    auditHead: async (userId) =>
      q.get<AuditHead>("SELECT seq, link FROM audit_head WHERE user_id = ?1", idColumn(userId)) ?? {
        seq: 0,
        link: ZERO_HASH_BYTES.slice(),
      },
    auditPosition: async (userId) =>
      q.get<AuditPosition>(
        "SELECT seq, link, log_salt AS logSalt FROM audit_head WHERE user_id = ?1",
        idColumn(userId),
      ) ?? {
        seq: 0,
        link: ZERO_HASH_BYTES.slice(),
        logSalt: null,
      },
    audit: async (userId, filter) =>
      q
        .all<EntryColumns>(
          `SELECT * FROM audit_entry WHERE user_id = ?1 AND seq > ?2 AND salt IS NOT NULL
             AND (?3 IS NULL OR key_id = ?3) AND (?4 IS NULL OR action = ?4) AND (?5 IS NULL OR at_ms >= ?5)
             AND (?6 IS NULL OR at_ms <= ?6) AND (?7 IS NULL OR request_id = ?7)
           ORDER BY seq LIMIT ?8`,
          idColumn(userId),
          filter.after,
          optionalIdColumn(filter.keyId),
          filter.action,
          filter.fromMs,
          filter.untilMs,
          optionalIdColumn(filter.requestId),
          filter.limit,
        )
        .map(entryOf),
    sweepShadowAudit: async (nowMs) => {
      const swept = q.run("DELETE FROM audit_entry WHERE expires_at_ms <= ?1", nowMs);
      q.run("DELETE FROM audit_head WHERE expires_at_ms <= ?1", nowMs);
      return swept;
    },
  };
}
