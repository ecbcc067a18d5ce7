import { idColumn, optionalIdColumn } from "../columns.ts";
import { type LoginColumns, loginOf, type SessionColumns, sessionOf } from "../rows.ts";
import type { Tx } from "../store.ts";
import type { Query } from "./connection.ts";

type Logins = "putLoginState" | "takeLoginState" | "takeExpiredLoginStates" | "dropLoginStates";

function loginsTx(q: Query): Pick<Tx, Logins> {
  return {
    putLoginState: async (row) => {
      q.run(
        `INSERT INTO login_state (session_id, credential_id, user_id, record_version, expires_at_ms, sealed, bucket,
           address_bucket)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)`,
        idColumn(row.sessionId),
        row.credentialId,
        idColumn(row.userId),
        row.recordVersion,
        row.expiresAtMs,
        row.sealed,
        row.bucket,
        row.addressBucket,
      );
    },
    takeLoginState: async (sessionId) => {
      const row = q.get<LoginColumns>("DELETE FROM login_state WHERE session_id = ?1 RETURNING *", idColumn(sessionId));
      return row ? loginOf(row) : undefined;
    },
    takeExpiredLoginStates: async (nowMs, limit) =>
      q
        .all<LoginColumns>(
          `DELETE FROM login_state WHERE session_id IN
             (SELECT session_id FROM login_state WHERE expires_at_ms < ?1 ORDER BY expires_at_ms LIMIT ?2)
           RETURNING *`,
          nowMs,
          limit,
        )
        .map(loginOf),
    dropLoginStates: async () => q.run("DELETE FROM login_state"),
  };
}

type Sessions =
  | "putSession"
  | "session"
  | "touchSession"
  | "putSessionFactor"
  | "sessionsOf"
  | "closeSession"
  | "closeSessionsOf"
  | "sweepSessions";

/** The part of a transaction that concerns logins and sessions. */
export function sessionsTx(q: Query): Pick<Tx, Logins | Sessions> {
  return {
    ...loginsTx(q),
    putSession: async (row) => {
      q.run(
        `INSERT INTO session (session_id, user_id, sealed_key, created_at_ms, last_used_ms, expires_at_ms, high, seen,
           factor)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)`,
        idColumn(row.sessionId),
        idColumn(row.userId),
        row.sealedKey,
        row.createdAtMs,
        row.lastUsedMs,
        row.expiresAtMs,
        row.high,
        row.window,
        row.factor,
      );
    },
    session: async (sessionId) => {
      const row = q.get<SessionColumns>("SELECT * FROM session WHERE session_id = ?1", idColumn(sessionId));
      return row ? sessionOf(row) : undefined;
    },
    touchSession: async (sessionId, use) => {
      q.run(
        "UPDATE session SET last_used_ms = ?2, high = ?3, seen = ?4 WHERE session_id = ?1",
        idColumn(sessionId),
        use.lastUsedMs,
        use.high,
        use.window,
      );
    },
    putSessionFactor: async (sessionId, factor, expiresAtMs) => {
      q.run(
        "UPDATE session SET factor = ?2, expires_at_ms = ?3 WHERE session_id = ?1",
        idColumn(sessionId),
        factor,
        expiresAtMs,
      );
    },
    sessionsOf: async (userId) =>
      q
        .all<SessionColumns>(
          "SELECT * FROM session WHERE user_id = ?1 ORDER BY created_at_ms, session_id",
          idColumn(userId),
        )
        .map(sessionOf),
    closeSession: async (sessionId) => q.run("DELETE FROM session WHERE session_id = ?1", idColumn(sessionId)) === 1,
    closeSessionsOf: async (userId, except) =>
      q.run(
        "DELETE FROM session WHERE user_id = ?1 AND session_id IS NOT ?2",
        idColumn(userId),
        optionalIdColumn(except),
      ),
    sweepSessions: async (nowMs, idleBeforeMs) =>
      q.run("DELETE FROM session WHERE expires_at_ms <= ?1 OR last_used_ms < ?2", nowMs, idleBeforeMs),
  };
}
