import { concat } from "../crypto/bytes.ts";
import { canon } from "../crypto/canon.ts";
import { hashCanon, sha256 } from "../crypto/kdf.ts";
import type { KeyId, RequestId, SessionId, UserId } from "../ids.ts";

/** One event of an account's log (docs/protocol.md §6.1). */
export interface AuditEntry {
  /** From 1, without a gap. */
  readonly seq: number;
  readonly userId: UserId;
  readonly atMs: number;
  /** An operation's name. */
  readonly action: string;
  /** `ok` or an error code. */
  readonly status: string;
  readonly keyId: KeyId | null;
  readonly requestId: RequestId | null;
  readonly session: SessionId | null;
  /** SHA-256 of the request's plaintext body, 32 bytes; zeros where there was none. */
  readonly bodyHash: Uint8Array;
  /** Hash of the signed state that a mutation made current; null otherwise. */
  readonly stateHash: Uint8Array | null;
  /** How many like events the entry stands for (flood control); 1 as a rule. */
  readonly count: number;
  /** Link of the entry before; zeros for the first. */
  readonly previous: Uint8Array;
}

/** An entry with the salt that hides it in its link (32 random bytes). */
export interface SaltedEntry {
  readonly entry: AuditEntry;
  readonly salt: Uint8Array;
}

/** Size of an audit salt in bytes. */
export const AUDIT_SALT_BYTES = 32;

/** Link of an entry: H(salt ‖ entry), 32 bytes; what the next entry names as `previous`. */
export function auditLink({ entry: e, salt }: SaltedEntry): Uint8Array {
  const bytes = canon(
    "keyhold/v1/audit-entry",
    e.seq,
    e.userId,
    e.atMs,
    e.action,
    e.status,
    e.keyId,
    e.requestId,
    e.session,
    e.bodyHash,
    e.stateHash,
    e.count,
    e.previous,
  );
  return sha256(concat(salt, bytes));
}

/** A position in an account's log. */
export interface AuditHead {
  readonly seq: number;
  readonly link: Uint8Array;
}

/** Why a run of entries is not the continuation of a head, with the sequence where it breaks. */
export type AuditBreak = { readonly seq: number; readonly reason: "gap" | "link" | "account" };

/**
 * Checks that `entries` continue `from` without a gap, an edit or a fork.
 *
 * @returns the new head, or where and why the chain breaks.
 */
export function continueAudit(
  from: AuditHead,
  userId: UserId,
  entries: readonly SaltedEntry[],
): { ok: true; head: AuditHead } | { ok: false; broken: AuditBreak } {
  let head = from;
  for (const item of entries) {
    const { entry } = item;
    if (entry.seq !== head.seq + 1) return { ok: false, broken: { seq: head.seq + 1, reason: "gap" } };
    if (entry.userId !== userId) return { ok: false, broken: { seq: entry.seq, reason: "account" } };
    if (Buffer.compare(entry.previous, head.link) !== 0) {
      return { ok: false, broken: { seq: entry.seq, reason: "link" } };
    }
    head = { seq: entry.seq, link: auditLink(item) };
  }
  return { ok: true, head };
}

/** Pseudonym of an account in the server-wide log: hides the id, stays when the account is erased. */
export function auditPseudonym(userId: UserId, salt: Uint8Array): Uint8Array {
  return hashCanon("keyhold/v1/audit-pseudonym", userId, salt);
}
