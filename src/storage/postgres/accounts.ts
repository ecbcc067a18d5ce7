import { concat, ZERO_HASH_BYTES } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import { auditPseudonym } from "../../protocol/audit.ts";
import type { Settings } from "../../protocol/state.ts";
import { idColumn, idOf, settingsColumn, settingsOf, stateColumn, stateOf } from "../columns.ts";
import type { AccountRow, CredentialRow, Tx } from "../store.ts";
import type { Query } from "./transaction.ts";

interface AccountColumns {
  readonly user_id: Uint8Array;
  readonly credential_id: Uint8Array;
  readonly sealed_name: Uint8Array;
  readonly record: Uint8Array;
  readonly record_version: number;
  readonly setup_id: string;
  readonly disabled: boolean;
  readonly created_at_ms: number;
  readonly settings: string;
  readonly state: string;
  readonly state_hash: Uint8Array;
  readonly seq: number | null;
  readonly link: Uint8Array | null;
}

type CredentialColumns = Pick<AccountColumns, "user_id" | "record" | "record_version" | "setup_id" | "disabled">;

const SELECT = `SELECT a.*,
  (SELECT h.seq FROM audit_head AS h WHERE h.user_id = a.user_id) AS seq,
  (SELECT h.link FROM audit_head AS h WHERE h.user_id = a.user_id) AS link
  FROM account AS a`;

/** An account that a transaction looks at stays as it is until that ends: transactions of one account are serial. */
const HELD = "FOR NO KEY UPDATE OF a";

/** Tables whose rows go with their account; the audit log keeps its links. */
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
    disabled: row.disabled,
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
    disabled: row.disabled,
  };
}

/** The tokens that `$2` holds one after another, 32 bytes each, `$3` of them. */
const LISTED = "SELECT substring($2::bytea FROM (32 * (n - 1) + 1)::int FOR 32) FROM generate_series(1, $3::int) AS n";

/** Makes the listed tokens those of the settings; one that stays keeps its failures. */
function listTokens(q: Query, userId: UserId, { devices }: Settings): void {
  const listed = [idColumn(userId), concat(...devices.map(({ tokenHash }) => tokenHash)), devices.length] as const;
  q.send(`DELETE FROM device_token WHERE user_id = $1 AND token_hash NOT IN (${LISTED})`, ...listed);
  q.send(
    `INSERT INTO device_token (user_id, token_hash, failures)
     SELECT $1::bytea, hash, 0 FROM (${LISTED}) AS listed (hash) ON CONFLICT DO NOTHING`,
    ...listed,
  );
}

async function insert(q: Query, row: AccountRow): Promise<boolean> {
  const user = idColumn(row.userId);
  const inserted = await q.run(
    `INSERT INTO account (user_id, credential_id, sealed_name, record, record_version, setup_id, disabled,
       created_at_ms, settings, state, state_hash)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING`,
    user,
    row.credentialId,
    row.sealedName,
    row.record,
    row.recordVersion,
    row.setupId,
    row.disabled,
    row.createdAtMs,
    settingsColumn(row.settings),
    stateColumn(row.state),
    row.stateHash,
  );
  if (inserted === 0) return false;
  listTokens(q, row.userId, row.settings);
  // the second half finds the head that stands already, and changes nothing of it
  q.demand(
    new Fault("conflict", "cannot insert the account: its audit log stands elsewhere"),
    `INSERT INTO audit_head (user_id, seq, link) VALUES ($1, $2, $3)
     ON CONFLICT (user_id) DO UPDATE SET seq = excluded.seq
     WHERE audit_head.seq = excluded.seq AND audit_head.link = excluded.link`,
    user,
    row.audit.seq,
    row.audit.link,
  );
  return true;
}

async function erase(q: Query, userId: UserId): Promise<boolean> {
  const user = idColumn(userId);
  if ((await q.run("DELETE FROM account WHERE user_id = $1", user)) === 0) return false;
  for (const table of ERASED) q.send(`DELETE FROM ${table} WHERE user_id = $1`, user);
  q.send("DELETE FROM document WHERE owner = $1", userId);
  q.send(
    `UPDATE audit_entry SET salt = NULL, at_ms = NULL, action = NULL, status = NULL, key_id = NULL,
       request_id = NULL, session_id = NULL, body_hash = NULL, state_hash = NULL, count = NULL, previous = NULL
     WHERE user_id = $1`,
    user,
  );
  // the log's last position may still have to go into the server-wide log, under its pseudonym. The row is changed in
  // any case: whoever appends to the log at the same time must come before or after
  const head = await q.get<{ log_salt: Uint8Array | null }>("SELECT log_salt FROM audit_head WHERE user_id = $1", user);
  const pseudonym = head?.log_salt ? auditPseudonym(userId, head.log_salt) : null;
  q.send("UPDATE audit_head SET log_salt = NULL, pseudonym = $2 WHERE user_id = $1", user, pseudonym);
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
  | "accounts"
  | "statesSince"
  | "appendState"
  | "putClosed"
  | "closed";

/** The part of a transaction that concerns accounts and their states. */
export function accountsTx(q: Query): Pick<Tx, Accounts> {
  return {
    accountByCredential: async (credentialId) => {
      const row = await q.get<AccountColumns>(`${SELECT} WHERE a.credential_id = $1 ${HELD}`, credentialId);
      return row ? accountOf(row) : undefined;
    },
    account: async (userId) => {
      const row = await q.get<AccountColumns>(`${SELECT} WHERE a.user_id = $1 ${HELD}`, idColumn(userId));
      return row ? accountOf(row) : undefined;
    },
    stateHashOf: async (userId) =>
      (
        await q.get<{ hash: Uint8Array }>(
          `SELECT a.state_hash AS hash FROM account AS a WHERE a.user_id = $1 ${HELD}`,
          idColumn(userId),
        )
      )?.hash,
    credential: async (credentialId) => {
      const row = await q.get<CredentialColumns>(
        `SELECT a.user_id, a.record, a.record_version, a.setup_id, a.disabled FROM account AS a WHERE a.credential_id = $1 ${HELD}`,
        credentialId,
      );
      return row ? credentialOf(row) : undefined;
    },
    tokenFailures: async (userId, tokenHash) => {
      const row = await q.get<{ failures: number }>(
        "SELECT failures FROM device_token WHERE user_id = $1 AND token_hash = $2",
        idColumn(userId),
        tokenHash,
      );
      return row?.failures;
    },
    putTokenFailures: async (userId, tokenHash, failures) =>
      q.send(
        "UPDATE device_token SET failures = $3 WHERE user_id = $1 AND token_hash = $2",
        idColumn(userId),
        tokenHash,
        failures,
      ),
    tokens: async (userId) => {
      const rows = await q.all<{ token_hash: Uint8Array }>(
        "SELECT token_hash FROM device_token WHERE user_id = $1 ORDER BY token_hash",
        idColumn(userId),
      );
      return rows.map((row) => row.token_hash);
    },
    insertAccount: async (row) => insert(q, row),
    swapState: async (userId, expected, next) => {
      const swapped = await q.run(
        `UPDATE account SET state = $3, state_hash = $4, settings = COALESCE($5, settings)
         WHERE user_id = $1 AND state_hash = $2`,
        idColumn(userId),
        expected,
        stateColumn(next.state),
        next.stateHash,
        next.settings ? settingsColumn(next.settings) : null,
      );
      if (swapped === 1 && next.settings) listTokens(q, userId, next.settings);
      return swapped === 1;
    },
    replaceRecord: async (userId, record, setupId) =>
      q.demand(
        new Fault("not_found", "there is no such account"),
        "UPDATE account SET record = $2, setup_id = $3, record_version = record_version + 1 WHERE user_id = $1",
        idColumn(userId),
        record,
        setupId,
      ),
    putSealedName: async (userId, sealedName) => {
      await q.run("UPDATE account SET sealed_name = $2 WHERE user_id = $1", idColumn(userId), sealedName);
    },
    setDisabled: async (userId, disabled) =>
      (await q.run("UPDATE account SET disabled = $2 WHERE user_id = $1", idColumn(userId), disabled)) === 1,
    removeAccount: async (userId) => erase(q, userId),
    accounts: async (after, limit) => {
      const rows = await q.all<AccountColumns>(
        `${SELECT} WHERE a.user_id > $1 ORDER BY a.user_id LIMIT $2`,
        after === null ? new Uint8Array(0) : idColumn(after),
        limit,
      );
      return rows.map(accountOf);
    },
    statesSince: async (userId, revision, limit) => {
      const rows = await q.all<{ state: string }>(
        "SELECT state FROM account_state WHERE user_id = $1 AND revision > $2 ORDER BY revision LIMIT $3",
        idColumn(userId),
        revision,
        limit,
      );
      return rows.map((row) => stateOf(row.state));
    },
    appendState: async (userId, state) =>
      q.send(
        "INSERT INTO account_state (user_id, revision, state) VALUES ($1, $2, $3)",
        idColumn(userId),
        state.state.revision,
        stateColumn(state),
      ),
    putClosed: async (userId, tokenHashes, row) => {
      for (const tokenHash of tokenHashes) {
        q.send(
          "INSERT INTO closed_account (user_id, token_hash, state, closed_at_ms) VALUES ($1, $2, $3, $4)",
          idColumn(userId),
          tokenHash,
          stateColumn(row.state),
          row.closedAtMs,
        );
      }
    },
    closed: async (userId, tokenHash) => {
      const row = await q.get<{ state: string; closed_at_ms: number }>(
        "SELECT state, closed_at_ms FROM closed_account WHERE user_id = $1 AND token_hash = $2",
        idColumn(userId),
        tokenHash,
      );
      return row ? { state: stateOf(row.state), closedAtMs: row.closed_at_ms } : undefined;
    },
  };
}
