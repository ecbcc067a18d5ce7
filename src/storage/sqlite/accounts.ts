import { ZERO_HASH_BYTES } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import { auditPseudonym } from "../../protocol/audit.ts";
import type { Settings } from "../../protocol/state.ts";
import { idColumn, idOf, sameBytes, settingsColumn, settingsOf, stateColumn, stateOf } from "../columns.ts";
import type { AccountRow, CredentialRow, Tx } from "../store.ts";
import type { Query } from "./connection.ts";

interface AccountColumns {
  readonly user_id: Uint8Array;
  readonly credential_id: Uint8Array;
  readonly sealed_name: Uint8Array;
  readonly record: Uint8Array;
  readonly record_version: number;
  readonly setup_id: string;
  readonly disabled: number;
  readonly created_at_ms: number;
  readonly settings: string;
  readonly state: string;
  readonly state_hash: Uint8Array;
  readonly seq: number | null;
  readonly link: Uint8Array | null;
}

type CredentialColumns = Pick<AccountColumns, "user_id" | "record" | "record_version" | "setup_id" | "disabled">;

/** Two look-ups by key: an outer join of one row costs five times as much. */
const SELECT = `SELECT a.*,
  (SELECT h.seq FROM audit_head AS h WHERE h.user_id = a.user_id) AS seq,
  (SELECT h.link FROM audit_head AS h WHERE h.user_id = a.user_id) AS link
  FROM account AS a`;

/** Tables whose rows go with their account, children first; the audit log keeps its links. */
const ERASED = [
  "sealed_value",
  "leaf",
  "secret",
  "account_state",
  "device_token",
  "login_state",
  "session",
  "request",
  "reservation",
] as const;

function accountOf(row: AccountColumns): AccountRow {
  return {
    userId: idOf(row.user_id),
    credentialId: row.credential_id,
    sealedName: row.sealed_name,
    record: row.record,
    recordVersion: row.record_version,
    setupId: row.setup_id,
    disabled: row.disabled === 1,
    createdAtMs: row.created_at_ms,
    settings: settingsOf(row.settings),
    state: stateOf(row.state),
    stateHash: row.state_hash,
    audit: { seq: row.seq ?? 0, link: row.link ?? ZERO_HASH_BYTES.slice() },
  };
}

function credentialOf(row: CredentialColumns): CredentialRow {
  return {
    userId: idOf(row.user_id),
    record: row.record,
    recordVersion: row.record_version,
    setupId: row.setup_id,
    disabled: row.disabled === 1,
  };
}

/** Makes the listed tokens those of the settings; one that stays keeps its failures. */
function listTokens(q: Query, userId: UserId, { devices }: Settings): void {
  const user = idColumn(userId);
  const listed = q.all<{ token_hash: Uint8Array }>("SELECT token_hash FROM device_token WHERE user_id = ?1", user);
  for (const { token_hash } of listed) {
    if (devices.some(({ tokenHash }) => sameBytes(tokenHash, token_hash))) continue;
    q.run("DELETE FROM device_token WHERE user_id = ?1 AND token_hash = ?2", user, token_hash);
  }
  for (const { tokenHash } of devices) {
    q.run(
      "INSERT INTO device_token (user_id, token_hash, failures) VALUES (?1, ?2, 0) ON CONFLICT DO NOTHING",
      user,
      tokenHash,
    );
  }
}

function insert(q: Query, row: AccountRow): boolean {
  const user = idColumn(row.userId);
  const inserted = q.run(
    `INSERT INTO account (user_id, credential_id, sealed_name, record, record_version, setup_id, disabled,
       created_at_ms, settings, state, state_hash)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING`,
    user,
    row.credentialId,
    row.sealedName,
    row.record,
    row.recordVersion,
    row.setupId,
    row.disabled ? 1 : 0,
    row.createdAtMs,
    settingsColumn(row.settings),
    stateColumn(row.state),
    row.stateHash,
  );
  if (inserted === 0) return false;
  listTokens(q, row.userId, row.settings);
  q.run(
    "INSERT INTO audit_head (user_id, seq, link) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    user,
    row.audit.seq,
    row.audit.link,
  );
  const head = q.get<{ seq: number; link: Uint8Array }>("SELECT seq, link FROM audit_head WHERE user_id = ?1", user);
  if (head?.seq !== row.audit.seq || !sameBytes(head.link, row.audit.link)) {
    throw new Fault("conflict", "cannot insert the account: its audit log stands elsewhere");
  }
  return true;
}

function erase(q: Query, userId: UserId): boolean {
  const user = idColumn(userId);
  if (q.run("DELETE FROM account WHERE user_id = ?1", user) === 0) return false;
  for (const table of ERASED) q.run(`DELETE FROM ${table} WHERE user_id = ?1`, user);
  q.run("DELETE FROM document WHERE owner = ?1", userId);
  q.run(
    `UPDATE audit_entry SET salt = NULL, at_ms = NULL, action = NULL, status = NULL, key_id = NULL,
       request_id = NULL, session_id = NULL, body_hash = NULL, state_hash = NULL, count = NULL, previous = NULL
     WHERE user_id = ?1`,
    user,
  );
  // the log's last position may still have to go into the server-wide log, under its pseudonym
  const head = q.get<{ log_salt: Uint8Array | null }>("SELECT log_salt FROM audit_head WHERE user_id = ?1", user);
  const pseudonym = head?.log_salt ? auditPseudonym(userId, head.log_salt) : null;
  q.run("UPDATE audit_head SET log_salt = NULL, pseudonym = ?2 WHERE user_id = ?1", user, pseudonym);
  q.erased();
  return true;
}

type Accounts =
  | "accountByCredential"
  | "account"
  | "stateHashOf"
  | "credential"
  | "tokenFailures"
  | "putTokenFailures"
  | "tokens"
  | "insertAccount"
  | "swapState"
  | "replaceRecord"
  | "putSealedName"
  | "setDisabled"
  | "removeAccount"
  | "putClosed"
  | "closed"
  | "accounts"
  | "statesSince"
  | "appendState";

/** The part of a transaction that concerns accounts and their states. */
export function accountsTx(q: Query): Pick<Tx, Accounts> {
  return {
    accountByCredential: async (credentialId) => {
      const row = q.get<AccountColumns>(`${SELECT} WHERE a.credential_id = ?1`, credentialId);
      return row ? accountOf(row) : undefined;
    },
    account: async (userId) => {
      const row = q.get<AccountColumns>(`${SELECT} WHERE a.user_id = ?1`, idColumn(userId));
      return row ? accountOf(row) : undefined;
    },
    stateHashOf: async (userId) =>
      q.get<{ hash: Uint8Array }>("SELECT state_hash AS hash FROM account WHERE user_id = ?1", idColumn(userId))?.hash,
    credential: async (credentialId) => {
      const row = q.get<CredentialColumns>(
        "SELECT user_id, record, record_version, setup_id, disabled FROM account WHERE credential_id = ?1",
        credentialId,
      );
      return row ? credentialOf(row) : undefined;
    },
    tokenFailures: async (userId, tokenHash) =>
      q.get<{ failures: number }>(
        "SELECT failures FROM device_token WHERE user_id = ?1 AND token_hash = ?2",
        idColumn(userId),
        tokenHash,
      )?.failures,
    putTokenFailures: async (userId, tokenHash, failures) => {
      q.run(
        "UPDATE device_token SET failures = ?3 WHERE user_id = ?1 AND token_hash = ?2",
        idColumn(userId),
        tokenHash,
        failures,
      );
    },
    tokens: async (userId) =>
      q
        .all<{ token_hash: Uint8Array }>(
          "SELECT token_hash FROM device_token WHERE user_id = ?1 ORDER BY token_hash",
          idColumn(userId),
        )
        .map((row) => row.token_hash),
    insertAccount: async (row) => insert(q, row),
    swapState: async (userId, expected, next) => {
      const swapped = q.run(
        `UPDATE account SET state = ?3, state_hash = ?4, settings = COALESCE(?5, settings)
         WHERE user_id = ?1 AND state_hash = ?2`,
        idColumn(userId),
        expected,
        stateColumn(next.state),
        next.stateHash,
        next.settings ? settingsColumn(next.settings) : null,
      );
      if (swapped === 1 && next.settings) listTokens(q, userId, next.settings);
      return swapped === 1;
    },
    replaceRecord: async (userId, record, setupId) => {
      const changed = q.run(
        "UPDATE account SET record = ?2, setup_id = ?3, record_version = record_version + 1 WHERE user_id = ?1",
        idColumn(userId),
        record,
        setupId,
      );
      if (changed === 0) throw new Fault("not_found", "there is no such account");
    },
    putSealedName: async (userId, sealedName) => {
      q.run("UPDATE account SET sealed_name = ?2 WHERE user_id = ?1", idColumn(userId), sealedName);
    },
    setDisabled: async (userId, disabled) =>
      q.run("UPDATE account SET disabled = ?2 WHERE user_id = ?1", idColumn(userId), disabled ? 1 : 0) === 1,
    removeAccount: async (userId) => erase(q, userId),
    putClosed: async (userId, tokenHashes, row) => {
      for (const tokenHash of tokenHashes) {
        q.run(
          "INSERT INTO closed_account (user_id, token_hash, state, closed_at_ms) VALUES (?1, ?2, ?3, ?4)",
          idColumn(userId),
          tokenHash,
          stateColumn(row.state),
          row.closedAtMs,
        );
      }
    },
    closed: async (userId, tokenHash) => {
      const row = q.get<{ state: string; closed_at_ms: number }>(
        "SELECT state, closed_at_ms FROM closed_account WHERE user_id = ?1 AND token_hash = ?2",
        idColumn(userId),
        tokenHash,
      );
      return row ? { state: stateOf(row.state), closedAtMs: row.closed_at_ms } : undefined;
    },
    accounts: async (after, limit) =>
      q
        .all<AccountColumns>(
          `${SELECT} WHERE a.user_id > ?1 ORDER BY a.user_id LIMIT ?2`,
          after === null ? new Uint8Array(0) : idColumn(after),
          limit,
        )
        .map(accountOf),
    statesSince: async (userId, revision, limit) =>
      q
        .all<{ state: string }>(
          "SELECT state FROM account_state WHERE user_id = ?1 AND revision > ?2 ORDER BY revision LIMIT ?3",
          idColumn(userId),
          revision,
          limit,
        )
        .map((row) => stateOf(row.state)),
    appendState: async (userId, state) => {
      q.run(
        "INSERT INTO account_state (user_id, revision, state) VALUES (?1, ?2, ?3)",
        idColumn(userId),
        state.state.revision,
        stateColumn(state),
      );
    },
  };
}
