import { Fault } from "../../errors.ts";
import { idColumn } from "../columns.ts";
import {
  type InviteColumns,
  inviteOf,
  type RequestColumns,
  type ReservationColumns,
  requestOf,
  reservationOf,
} from "../rows.ts";
import type { LimitRow, StoreCounts, Tx } from "../store.ts";
import type { Query } from "./transaction.ts";

interface LimitColumns {
  readonly bucket: Uint8Array;
  readonly failures: number;
  readonly blocked_until_ms: number;
  readonly updated_at_ms: number;
}

const bucketColumn = (name: string): Uint8Array => new TextEncoder().encode(name);

function limitOf(row: LimitColumns): LimitRow {
  return {
    bucket: new TextDecoder().decode(row.bucket),
    count: row.failures,
    blockedUntilMs: row.blocked_until_ms,
    updatedAtMs: row.updated_at_ms,
  };
}

type Limits = "limit" | "putLimit" | "dropLimit" | "takeLimits" | "sweepLimits";

/** The part of a transaction that concerns rate limits. */
export function limitsTx(q: Query): Pick<Tx, Limits> {
  return {
    limit: async (bucket) => {
      const row = await q.get<LimitColumns>("SELECT * FROM rate_limit WHERE bucket = $1", bucketColumn(bucket));
      return row ? limitOf(row) : undefined;
    },
    putLimit: async (row) =>
      q.send(
        `INSERT INTO rate_limit (bucket, failures, blocked_until_ms, updated_at_ms) VALUES ($1, $2, $3, $4)
         ON CONFLICT (bucket) DO UPDATE SET failures = excluded.failures,
           blocked_until_ms = excluded.blocked_until_ms, updated_at_ms = excluded.updated_at_ms`,
        bucketColumn(row.bucket),
        row.count,
        row.blockedUntilMs,
        row.updatedAtMs,
      ),
    dropLimit: async (bucket) => q.send("DELETE FROM rate_limit WHERE bucket = $1", bucketColumn(bucket)),
    // no UTF-8 holds the byte ff; what another process takes is passed over
    takeLimits: async (prefix, beforeMs, limit) => {
      const rows = await q.all<LimitColumns>(
        `DELETE FROM rate_limit WHERE bucket IN
           (SELECT bucket FROM rate_limit
            WHERE bucket >= $1::bytea AND bucket < $1::bytea || decode('ff', 'hex') AND updated_at_ms < $2
            ORDER BY updated_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED)
         RETURNING *`,
        bucketColumn(prefix),
        beforeMs,
        limit,
      );
      return rows.map(limitOf);
    },
    sweepLimits: async (beforeMs) => q.run("DELETE FROM rate_limit WHERE updated_at_ms < $1", beforeMs),
  };
}

type Invites = "putInvite" | "invite" | "updateInvite" | "invites" | "removeInvite";

/** The part of a transaction that concerns registration codes. */
export function invitesTx(q: Query): Pick<Tx, Invites> {
  return {
    putInvite: async (row) =>
      q.send(
        `INSERT INTO invite (code_hash, created_at_ms, expires_at_ms, used_at_ms, conflicts, hint)
         VALUES ($1, $2, $3, $4, $5, $6)`,
        row.codeHash,
        row.createdAtMs,
        row.expiresAtMs,
        row.usedAtMs,
        row.conflicts,
        row.hint,
      ),
    invite: async (codeHash) => {
      const row = await q.get<InviteColumns>("SELECT * FROM invite WHERE code_hash = $1", codeHash);
      return row ? inviteOf(row) : undefined;
    },
    updateInvite: async (row) =>
      q.demand(
        new Fault("not_found", "there is no such invite"),
        `UPDATE invite SET created_at_ms = $2, expires_at_ms = $3, used_at_ms = $4, conflicts = $5, hint = $6
         WHERE code_hash = $1`,
        row.codeHash,
        row.createdAtMs,
        row.expiresAtMs,
        row.usedAtMs,
        row.conflicts,
        row.hint,
      ),
    invites: async () =>
      (await q.all<InviteColumns>("SELECT * FROM invite ORDER BY created_at_ms, code_hash")).map(inviteOf),
    removeInvite: async (codeHash) => (await q.run("DELETE FROM invite WHERE code_hash = $1", codeHash)) === 1,
  };
}

type Requests = "request" | "putRequest" | "putReservation" | "reservation" | "reservationsOf" | "sweepReservations";

/** The part of a transaction that concerns recorded answers and reserved key ids. */
export function requestsTx(q: Query): Pick<Tx, Requests> {
  return {
    request: async (userId, requestId) => {
      const row = await q.get<RequestColumns>(
        "SELECT * FROM request WHERE user_id = $1 AND request_id = $2",
        idColumn(userId),
        idColumn(requestId),
      );
      return row ? requestOf(row) : undefined;
    },
    putRequest: async (row) =>
      (await q.run(
        `INSERT INTO request (user_id, request_id, body_hash, operation, status, reply)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
        idColumn(row.userId),
        idColumn(row.requestId),
        row.bodyHash,
        row.operation,
        row.status,
        row.reply,
      )) === 1,
    putReservation: async (row) =>
      q.send(
        "INSERT INTO reservation (user_id, key_id, request_id, random, created_at_ms) VALUES ($1, $2, $3, $4, $5)",
        idColumn(row.userId),
        idColumn(row.keyId),
        idColumn(row.requestId),
        row.random,
        row.createdAtMs,
      ),
    reservation: async (userId, keyId) => {
      const row = await q.get<ReservationColumns>(
        "SELECT * FROM reservation WHERE user_id = $1 AND key_id = $2",
        idColumn(userId),
        idColumn(keyId),
      );
      return row ? reservationOf(row) : undefined;
    },
    reservationsOf: async (userId, requestId) => {
      const rows = await q.all<ReservationColumns>(
        "SELECT * FROM reservation WHERE user_id = $1 AND request_id = $2 ORDER BY key_id",
        idColumn(userId),
        idColumn(requestId),
      );
      return rows.map(reservationOf);
    },
    sweepReservations: async (beforeMs) => q.run("DELETE FROM reservation WHERE created_at_ms < $1", beforeMs),
  };
}

/** The part of a transaction that concerns the server as a whole: its settings and figures. */
export function settingsTx(q: Query): Pick<Tx, "setting" | "putSetting" | "counts"> {
  return {
    counts: async (nowMs, idleBeforeMs) => {
      const row = await q.get<StoreCounts>(
        `SELECT (SELECT count(*) FROM account) AS accounts,
           (SELECT count(*) FROM account WHERE disabled) AS disabled,
           (SELECT count(*) FROM session WHERE expires_at_ms > $1 AND last_used_ms > $2) AS sessions`,
        nowMs,
        idleBeforeMs,
      );
      return row ?? { accounts: 0, disabled: 0, sessions: 0 };
    },
    setting: async (name) => (await q.get<{ value: string }>("SELECT value FROM setting WHERE name = $1", name))?.value,
    putSetting: async (name, value) =>
      q.send(
        "INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        name,
        value,
      ),
  };
}
