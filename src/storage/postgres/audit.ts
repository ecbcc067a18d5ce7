import { ZERO_HASH_BYTES } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { AuditHead, SaltedEntry } from "../../protocol/audit.ts";
import { idColumn, optionalIdColumn } from "../columns.ts";
import { type EntryColumns, entryOf } from "../rows.ts";
import type { AuditPosition, Tx } from "../store.ts";
import type { Query } from "./transaction.ts";

/**
 * Moves the head by one compare-and-swap, for an account and for a shadow alike, and appends the entry if that was done.
 * A log starts at zeros; null wins over an expiry, and a later expiry over an earlier one, so that no entry outlives its
 * head. The salt of the first entry makes the log's pseudonym, so that the chain itself fixes it.
 */
const APPEND = `WITH moved AS (
    INSERT INTO audit_head (user_id, seq, link, expires_at_ms, log_salt)
    SELECT $1::bytea, $2::bigint, $3::bytea, $4::bigint, $6::bytea
    WHERE ($2::bigint = 1 AND $5::bytea = decode(repeat('00', 32), 'hex'))
      OR EXISTS (SELECT 1 FROM audit_head WHERE user_id = $1::bytea)
    ON CONFLICT (user_id) DO UPDATE SET seq = excluded.seq, link = excluded.link,
      expires_at_ms = CASE WHEN audit_head.expires_at_ms IS NULL OR excluded.expires_at_ms IS NULL THEN NULL
        ELSE greatest(audit_head.expires_at_ms, excluded.expires_at_ms) END,
      log_salt = CASE WHEN excluded.seq = 1 THEN excluded.log_salt ELSE audit_head.log_salt END
    WHERE audit_head.seq = excluded.seq - 1 AND audit_head.link = $5::bytea
    RETURNING 1
  )
  INSERT INTO audit_entry (user_id, seq, link, salt, at_ms, action, status, key_id, request_id, session_id,
    body_hash, state_hash, count, previous, expires_at_ms)
  SELECT $1::bytea, $2::bigint, $3::bytea, $6::bytea, $7::bigint, $8::text, $9::text, $10::bytea, $11::bytea,
    $12::bytea, $13::bytea, $14::bytea, $15::bigint, $5::bytea, $4::bigint FROM moved`;

function append(q: Query, { entry, salt }: SaltedEntry, head: AuditHead, expiresAtMs: number | null): void {
  if (head.seq !== entry.seq) throw new Fault("internal", "an audit head does not belong to its entry");
  q.demand(
    new Fault("conflict", "cannot append the audit entry: it does not continue the log"),
    APPEND,
    idColumn(entry.userId),
    entry.seq,
    head.link,
    expiresAtMs,
    entry.previous,
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
  );
}

type Audit = "appendAudit" | "auditHead" | "auditPosition" | "audit" | "sweepShadowAudit";

/** The part of a transaction that concerns audit logs. `sweepShadowAudit` counts entries. */
export function auditTx(q: Query): Pick<Tx, Audit> {
  return {
    appendAudit: async (entry, head, expiresAtMs) => append(q, entry, head, expiresAtMs),
    auditHead: async (userId) =>
      (await q.get<AuditHead>("SELECT seq, link FROM audit_head WHERE user_id = $1", idColumn(userId))) ?? {
        seq: 0,
        link: ZERO_HASH_BYTES.slice(),
      },
    auditPosition: async (userId) =>
      (await q.get<AuditPosition>(
        `SELECT seq, link, log_salt AS "logSalt" FROM audit_head WHERE user_id = $1`,
        idColumn(userId),
      )) ?? { seq: 0, link: ZERO_HASH_BYTES.slice(), logSalt: null },
    audit: async (userId, filter) => {
      const rows = await q.all<EntryColumns>(
        `SELECT * FROM audit_entry WHERE user_id = $1 AND seq > $2 AND salt IS NOT NULL
           AND ($3::bytea IS NULL OR key_id = $3) AND ($4::text IS NULL OR action = $4)
           AND ($5::bigint IS NULL OR at_ms >= $5) AND ($6::bigint IS NULL OR at_ms <= $6)
           AND ($7::bytea IS NULL OR request_id = $7)
         ORDER BY seq LIMIT $8`,
        idColumn(userId),
        filter.after,
        optionalIdColumn(filter.keyId),
        filter.action,
        filter.fromMs,
        filter.untilMs,
        optionalIdColumn(filter.requestId),
        filter.limit,
      );
      return rows.map(entryOf);
    },
    sweepShadowAudit: async (nowMs) => {
      const swept = await q.run("DELETE FROM audit_entry WHERE expires_at_ms <= $1", nowMs);
      q.send("DELETE FROM audit_head WHERE expires_at_ms <= $1", nowMs);
      return swept;
    },
  };
}
