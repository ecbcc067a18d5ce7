import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import type { SaltedEntry } from "../protocol/audit.ts";
import { auditPseudonym } from "../protocol/audit.ts";
import { idOf, optionalIdOf } from "./columns.ts";
import type {
  AuditHeadRow,
  InviteRow,
  LogHead,
  LoginStateRow,
  RequestRow,
  ReservationRow,
  SessionFactor,
  SessionRow,
  UnloggedHead,
} from "./store.ts";

/** Rows as both engines give them, and the port's records made of them. */

export interface InviteColumns {
  readonly code_hash: string;
  readonly created_at_ms: number;
  readonly expires_at_ms: number;
  readonly used_at_ms: number | null;
  readonly conflicts: number;
  readonly hint: string;
}

export interface RequestColumns {
  readonly user_id: Uint8Array;
  readonly request_id: Uint8Array;
  readonly body_hash: Uint8Array;
  readonly operation: string;
  readonly status: string;
  readonly reply: string;
}

export interface ReservationColumns {
  readonly user_id: Uint8Array;
  readonly key_id: Uint8Array;
  readonly request_id: Uint8Array;
  readonly random: Uint8Array;
  readonly created_at_ms: number;
}

/** An invite of its row. */
export function inviteOf(row: InviteColumns): InviteRow {
  return {
    codeHash: row.code_hash,
    createdAtMs: row.created_at_ms,
    expiresAtMs: row.expires_at_ms,
    usedAtMs: row.used_at_ms,
    conflicts: row.conflicts,
    hint: row.hint,
  };
}

/** A recorded answer of its row. */
export function requestOf(row: RequestColumns): RequestRow {
  return {
    userId: idOf(row.user_id),
    requestId: idOf(row.request_id),
    bodyHash: row.body_hash,
    operation: row.operation,
    status: row.status,
    reply: row.reply,
  };
}

/** A reservation of its row. */
export function reservationOf(row: ReservationColumns): ReservationRow {
  return {
    userId: idOf(row.user_id),
    keyId: idOf(row.key_id),
    requestId: idOf(row.request_id),
    random: row.random,
    createdAtMs: row.created_at_ms,
  };
}

export interface LoginColumns {
  readonly session_id: Uint8Array;
  readonly credential_id: Uint8Array;
  readonly user_id: Uint8Array;
  readonly record_version: number;
  readonly expires_at_ms: number;
  readonly sealed: Uint8Array;
  readonly bucket: string;
  readonly address_bucket: string;
}

export interface SessionColumns {
  readonly session_id: Uint8Array;
  readonly user_id: Uint8Array;
  readonly sealed_key: Uint8Array;
  readonly created_at_ms: number;
  readonly last_used_ms: number;
  readonly expires_at_ms: number;
  readonly high: number;
  readonly seen: Uint8Array;
  readonly factor: string;
}

/** A half login of its row. */
export function loginOf(row: LoginColumns): LoginStateRow {
  return {
    sessionId: idOf(row.session_id),
    credentialId: row.credential_id,
    userId: idOf(row.user_id),
    recordVersion: row.record_version,
    expiresAtMs: row.expires_at_ms,
    sealed: row.sealed,
    bucket: row.bucket,
    addressBucket: row.address_bucket,
  };
}

/** A session of its row. */
export function sessionOf(row: SessionColumns): SessionRow {
  return {
    sessionId: idOf(row.session_id),
    userId: idOf(row.user_id),
    sealedKey: row.sealed_key,
    createdAtMs: row.created_at_ms,
    lastUsedMs: row.last_used_ms,
    expiresAtMs: row.expires_at_ms,
    high: row.high,
    window: row.seen,
    factor: row.factor as SessionFactor,
  };
}

export interface HeadColumns {
  readonly user_id: Uint8Array;
  readonly seq: number;
  readonly link: Uint8Array;
  readonly log_salt: Uint8Array | null;
  readonly logged_seq: number;
  readonly pseudonym: Uint8Array | null;
  readonly expires_at_ms: number | null;
}

export interface LogHeadColumns {
  readonly origin: string;
  readonly size: number;
  readonly root: Uint8Array;
  readonly restart_origin: string | null;
  readonly restart_size: number | null;
  readonly restart_root: Uint8Array | null;
}

/** A log's head of its row. */
export function headOf(row: HeadColumns): AuditHeadRow {
  return {
    userId: idOf(row.user_id),
    seq: row.seq,
    link: row.link,
    logSalt: row.log_salt,
    loggedSeq: row.logged_seq,
    pseudonym: row.pseudonym,
    expiresAtMs: row.expires_at_ms,
  };
}

/** What the server-wide log is to take of a head: nothing where nobody knows its pseudonym any more. */
export function unlogged(row: HeadColumns): UnloggedHead[] {
  const userId = idOf<UserId>(row.user_id);
  const pseudonym = row.pseudonym ?? (row.log_salt ? auditPseudonym(userId, row.log_salt) : null);
  return pseudonym ? [{ userId, seq: row.seq, link: row.link, pseudonym }] : [];
}

/** The server-wide log of its row. @throws Fault corrupt */
export function logHeadOf(row: LogHeadColumns): LogHead {
  const { restart_origin: origin, restart_size: size, restart_root: root } = row;
  const named = [origin, size, root].filter((one) => one !== null).length;
  if (named !== 0 && named !== 3) throw new Fault("corrupt", "the server-wide log's head is half there");
  const restart = origin === null || size === null || root === null ? null : { origin, size, root };
  return { origin: row.origin, size: row.size, root: row.root, restart };
}

export interface EntryColumns {
  readonly user_id: Uint8Array;
  readonly seq: number;
  readonly salt: Uint8Array;
  readonly at_ms: number;
  readonly action: string;
  readonly status: string;
  readonly key_id: Uint8Array | null;
  readonly request_id: Uint8Array | null;
  readonly session_id: Uint8Array | null;
  readonly body_hash: Uint8Array;
  readonly state_hash: Uint8Array | null;
  readonly count: number;
  readonly previous: Uint8Array;
}

/** An audit entry of its row. */
export function entryOf(row: EntryColumns): SaltedEntry {
  return {
    entry: {
      seq: row.seq,
      userId: idOf(row.user_id),
      atMs: row.at_ms,
      action: row.action,
      status: row.status,
      keyId: optionalIdOf(row.key_id),
      requestId: optionalIdOf(row.request_id),
      session: optionalIdOf(row.session_id),
      bodyHash: row.body_hash,
      stateHash: row.state_hash,
      count: row.count,
      previous: row.previous,
    },
    salt: row.salt,
  };
}
