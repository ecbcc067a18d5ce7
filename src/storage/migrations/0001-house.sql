-- Accounts, sessions, secrets and audit logs of one key server.
-- Ids are 16 bytes, hashes and links 32 bytes, times milliseconds since 1970.
-- Rows of an account name it by user_id; erasure goes table by table (removeAccount), so that the audit links can stay.

CREATE TABLE account (
  user_id        BLOB    NOT NULL PRIMARY KEY CHECK (length(user_id) = 16),
  credential_id  BLOB    NOT NULL UNIQUE CHECK (length(credential_id) = 32),
  sealed_name    BLOB    NOT NULL,
  record         BLOB    NOT NULL,
  record_version INTEGER NOT NULL,
  setup_id       TEXT    NOT NULL,
  disabled       INTEGER NOT NULL CHECK (disabled IN (0, 1)),
  created_at_ms  INTEGER NOT NULL,
  settings       TEXT    NOT NULL, -- JSON of wire/records.ts
  state          TEXT    NOT NULL, -- JSON of wire/records.ts
  state_hash     BLOB    NOT NULL CHECK (length(state_hash) = 32)
) STRICT;

-- Tokens of the devices in an account's settings, with the failed logins since each last opened a session.
CREATE TABLE device_token (
  user_id    BLOB    NOT NULL CHECK (length(user_id) = 16),
  token_hash BLOB    NOT NULL CHECK (length(token_hash) = 32),
  failures   INTEGER NOT NULL CHECK (failures >= 0),
  PRIMARY KEY (user_id, token_hash)
) STRICT, WITHOUT ROWID;

-- The last state of an account that its owner deleted, for each token of the devices that it listed.
CREATE TABLE closed_account (
  user_id      BLOB    NOT NULL CHECK (length(user_id) = 16),
  token_hash   BLOB    NOT NULL CHECK (length(token_hash) = 32),
  state        TEXT    NOT NULL, -- JSON of wire/records.ts
  closed_at_ms INTEGER NOT NULL,
  PRIMARY KEY (user_id, token_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE account_state (
  user_id  BLOB    NOT NULL CHECK (length(user_id) = 16),
  revision INTEGER NOT NULL CHECK (revision > 0),
  state    TEXT    NOT NULL, -- JSON of wire/records.ts
  PRIMARY KEY (user_id, revision)
) STRICT;

CREATE TABLE login_state (
  session_id     BLOB    NOT NULL PRIMARY KEY CHECK (length(session_id) = 16),
  credential_id  BLOB    NOT NULL CHECK (length(credential_id) = 32),
  user_id        BLOB    NOT NULL CHECK (length(user_id) = 16),
  record_version INTEGER NOT NULL,
  expires_at_ms  INTEGER NOT NULL,
  sealed         BLOB    NOT NULL,
  bucket         TEXT    NOT NULL,
  address_bucket TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX login_state_expiry ON login_state (expires_at_ms);
CREATE INDEX login_state_user ON login_state (user_id);

CREATE TABLE session (
  session_id    BLOB    NOT NULL PRIMARY KEY CHECK (length(session_id) = 16),
  user_id       BLOB    NOT NULL CHECK (length(user_id) = 16),
  sealed_key    BLOB    NOT NULL,
  created_at_ms INTEGER NOT NULL,
  last_used_ms  INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  high          INTEGER NOT NULL,
  seen          BLOB    NOT NULL CHECK (length(seen) = 128)
) STRICT, WITHOUT ROWID;

CREATE INDEX session_user ON session (user_id, created_at_ms);

CREATE TABLE rate_limit (
  bucket           TEXT    NOT NULL PRIMARY KEY,
  failures         INTEGER NOT NULL,
  blocked_until_ms INTEGER NOT NULL,
  updated_at_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX rate_limit_updated ON rate_limit (updated_at_ms);

CREATE TABLE invite (
  code_hash     TEXT    NOT NULL PRIMARY KEY,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  used_at_ms    INTEGER,
  conflicts     INTEGER NOT NULL,
  hint          TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE request (
  user_id    BLOB NOT NULL CHECK (length(user_id) = 16),
  request_id BLOB NOT NULL CHECK (length(request_id) = 16),
  body_hash  BLOB NOT NULL CHECK (length(body_hash) = 32),
  operation  TEXT NOT NULL,
  status     TEXT NOT NULL,
  reply      TEXT NOT NULL,
  PRIMARY KEY (user_id, request_id)
) STRICT;

CREATE TABLE reservation (
  user_id       BLOB    NOT NULL CHECK (length(user_id) = 16),
  key_id        BLOB    NOT NULL CHECK (length(key_id) = 16),
  request_id    BLOB    NOT NULL CHECK (length(request_id) = 16),
  random        BLOB    NOT NULL,
  created_at_ms INTEGER NOT NULL,
  PRIMARY KEY (user_id, key_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX reservation_request ON reservation (user_id, request_id);
CREATE INDEX reservation_age ON reservation (created_at_ms);

-- The newest change of each key: what a client that syncs asks for.
CREATE TABLE secret (
  user_id  BLOB    NOT NULL CHECK (length(user_id) = 16),
  key_id   BLOB    NOT NULL CHECK (length(key_id) = 16),
  serial   INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  PRIMARY KEY (user_id, key_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX secret_revision ON secret (user_id, revision);

CREATE TABLE leaf (
  user_id     BLOB    NOT NULL,
  key_id      BLOB    NOT NULL,
  serial      INTEGER NOT NULL CHECK (serial > 0),
  version     INTEGER NOT NULL CHECK (version > 0),
  sealed_hash BLOB    NOT NULL CHECK (length(sealed_hash) = 32),
  meta_hash   BLOB    NOT NULL CHECK (length(meta_hash) = 32),
  meta        BLOB,
  public_key  BLOB,
  status      TEXT    NOT NULL CHECK (status IN ('live', 'removed', 'purged')),
  previous    BLOB    NOT NULL CHECK (length(previous) = 32),
  PRIMARY KEY (user_id, key_id, serial),
  FOREIGN KEY (user_id, key_id) REFERENCES secret (user_id, key_id)
) STRICT;

CREATE TABLE sealed_value (
  user_id BLOB    NOT NULL,
  key_id  BLOB    NOT NULL,
  version INTEGER NOT NULL CHECK (version > 0),
  sealed  BLOB    NOT NULL,
  PRIMARY KEY (user_id, key_id, version),
  FOREIGN KEY (user_id, key_id) REFERENCES secret (user_id, key_id)
) STRICT;

-- expires_at_ms marks the shadow log of an unknown name; null an account's own.
CREATE TABLE audit_head (
  user_id       BLOB    NOT NULL PRIMARY KEY CHECK (length(user_id) = 16),
  seq           INTEGER NOT NULL CHECK (seq >= 0),
  link          BLOB    NOT NULL CHECK (length(link) = 32),
  expires_at_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_head_expiry ON audit_head (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

-- Of an erased account only user_id, seq and link remain.
CREATE TABLE audit_entry (
  user_id       BLOB    NOT NULL,
  seq           INTEGER NOT NULL CHECK (seq > 0),
  link          BLOB    NOT NULL CHECK (length(link) = 32),
  salt          BLOB    CHECK (length(salt) = 32),
  at_ms         INTEGER,
  action        TEXT,
  status        TEXT,
  key_id        BLOB,
  request_id    BLOB,
  session_id    BLOB,
  body_hash     BLOB,
  state_hash    BLOB,
  count         INTEGER,
  previous      BLOB,
  expires_at_ms INTEGER,
  PRIMARY KEY (user_id, seq),
  FOREIGN KEY (user_id) REFERENCES audit_head (user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_entry_expiry ON audit_entry (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

CREATE TABLE setting (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
