-- Accounts, sessions, secrets and audit logs of one key server: the tables of 0001-house.sql as PostgreSQL has them.
-- Ids are 16 bytes, hashes and links 32 bytes, times milliseconds since 1970. No row refers to another by a constraint:
-- its check would cost every insert a look-up; the store's check looks for rows that point to nothing.

CREATE TABLE account (
  user_id        BYTEA   NOT NULL PRIMARY KEY CHECK (octet_length(user_id) = 16),
  credential_id  BYTEA   NOT NULL UNIQUE CHECK (octet_length(credential_id) = 32),
  sealed_name    BYTEA   NOT NULL,
  record         BYTEA   NOT NULL,
  record_version BIGINT  NOT NULL,
  setup_id       TEXT    NOT NULL,
  disabled       BOOLEAN NOT NULL,
  created_at_ms  BIGINT  NOT NULL,
  settings       TEXT    NOT NULL, -- JSON of wire/records.ts
  state          TEXT    NOT NULL, -- JSON of wire/records.ts
  state_hash     BYTEA   NOT NULL CHECK (octet_length(state_hash) = 32)
);

-- Tokens of the devices in an account's settings, with the failed logins since each last opened a session.
CREATE TABLE device_token (
  user_id    BYTEA  NOT NULL CHECK (octet_length(user_id) = 16),
  token_hash BYTEA  NOT NULL CHECK (octet_length(token_hash) = 32),
  failures   BIGINT NOT NULL CHECK (failures >= 0),
  PRIMARY KEY (user_id, token_hash)
);

CREATE TABLE account_state (
  user_id  BYTEA  NOT NULL CHECK (octet_length(user_id) = 16),
  revision BIGINT NOT NULL CHECK (revision > 0),
  state    TEXT   NOT NULL, -- JSON of wire/records.ts
  PRIMARY KEY (user_id, revision)
);

-- The last state of an account that its owner deleted, for each token of the devices that it listed.
CREATE TABLE closed_account (
  user_id      BYTEA  NOT NULL CHECK (octet_length(user_id) = 16),
  token_hash   BYTEA  NOT NULL CHECK (octet_length(token_hash) = 32),
  state        TEXT   NOT NULL, -- JSON of wire/records.ts
  closed_at_ms BIGINT NOT NULL,
  PRIMARY KEY (user_id, token_hash)
);

CREATE TABLE login_state (
  session_id     BYTEA  NOT NULL PRIMARY KEY CHECK (octet_length(session_id) = 16),
  credential_id  BYTEA  NOT NULL CHECK (octet_length(credential_id) = 32),
  user_id        BYTEA  NOT NULL CHECK (octet_length(user_id) = 16),
  record_version BIGINT NOT NULL,
  expires_at_ms  BIGINT NOT NULL,
  sealed         BYTEA  NOT NULL,
  bucket         TEXT   NOT NULL,
  address_bucket TEXT   NOT NULL
);

CREATE INDEX login_state_expiry ON login_state (expires_at_ms);
CREATE INDEX login_state_user ON login_state (user_id);

CREATE TABLE session (
  session_id    BYTEA  NOT NULL PRIMARY KEY CHECK (octet_length(session_id) = 16),
  user_id       BYTEA  NOT NULL CHECK (octet_length(user_id) = 16),
  sealed_key    BYTEA  NOT NULL,
  created_at_ms BIGINT NOT NULL,
  last_used_ms  BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  high          BIGINT NOT NULL,
  seen          BYTEA  NOT NULL CHECK (octet_length(seen) = 128)
);

CREATE INDEX session_user_id ON session (user_id, created_at_ms);

-- The bucket's name in UTF-8: bytes have one order everywhere, texts that of the database's locale.
CREATE TABLE rate_limit (
  bucket           BYTEA  NOT NULL PRIMARY KEY,
  failures         BIGINT NOT NULL,
  blocked_until_ms BIGINT NOT NULL,
  updated_at_ms    BIGINT NOT NULL
);

CREATE INDEX rate_limit_updated ON rate_limit (updated_at_ms);

CREATE TABLE invite (
  code_hash     TEXT   NOT NULL PRIMARY KEY,
  created_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  used_at_ms    BIGINT,
  conflicts     BIGINT NOT NULL,
  hint          TEXT   NOT NULL
);

CREATE TABLE request (
  user_id    BYTEA NOT NULL CHECK (octet_length(user_id) = 16),
  request_id BYTEA NOT NULL CHECK (octet_length(request_id) = 16),
  body_hash  BYTEA NOT NULL CHECK (octet_length(body_hash) = 32),
  operation  TEXT  NOT NULL,
  status     TEXT  NOT NULL,
  reply      TEXT  NOT NULL,
  PRIMARY KEY (user_id, request_id)
);

CREATE TABLE reservation (
  user_id       BYTEA  NOT NULL CHECK (octet_length(user_id) = 16),
  key_id        BYTEA  NOT NULL CHECK (octet_length(key_id) = 16),
  request_id    BYTEA  NOT NULL CHECK (octet_length(request_id) = 16),
  random        BYTEA  NOT NULL,
  created_at_ms BIGINT NOT NULL,
  PRIMARY KEY (user_id, key_id)
);

CREATE INDEX reservation_request ON reservation (user_id, request_id);
CREATE INDEX reservation_age ON reservation (created_at_ms);

-- The newest change of each key: what a client that syncs asks for.
CREATE TABLE secret (
  user_id  BYTEA  NOT NULL CHECK (octet_length(user_id) = 16),
  key_id   BYTEA  NOT NULL CHECK (octet_length(key_id) = 16),
  serial   BIGINT NOT NULL,
  revision BIGINT NOT NULL,
  PRIMARY KEY (user_id, key_id)
);

CREATE INDEX secret_revision ON secret (user_id, revision);

CREATE TABLE leaf (
  user_id     BYTEA  NOT NULL,
  key_id      BYTEA  NOT NULL,
  serial      BIGINT NOT NULL CHECK (serial > 0),
  version     BIGINT NOT NULL CHECK (version > 0),
  sealed_hash BYTEA  NOT NULL CHECK (octet_length(sealed_hash) = 32),
  meta_hash   BYTEA  NOT NULL CHECK (octet_length(meta_hash) = 32),
  meta        BYTEA,
  public_key  BYTEA,
  status      TEXT   NOT NULL CHECK (status IN ('live', 'removed', 'purged')),
  previous    BYTEA  NOT NULL CHECK (octet_length(previous) = 32),
  PRIMARY KEY (user_id, key_id, serial)
);

CREATE TABLE sealed_value (
  user_id BYTEA  NOT NULL,
  key_id  BYTEA  NOT NULL,
  version BIGINT NOT NULL CHECK (version > 0),
  sealed  BYTEA  NOT NULL,
  PRIMARY KEY (user_id, key_id, version)
);

-- expires_at_ms marks the shadow log of an unknown name; null an account's own.
CREATE TABLE audit_head (
  user_id       BYTEA  NOT NULL PRIMARY KEY CHECK (octet_length(user_id) = 16),
  seq           BIGINT NOT NULL CHECK (seq >= 0),
  link          BYTEA  NOT NULL CHECK (octet_length(link) = 32),
  expires_at_ms BIGINT
);

CREATE INDEX audit_head_expiry ON audit_head (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

-- Of an erased account only user_id, seq and link remain.
CREATE TABLE audit_entry (
  user_id       BYTEA  NOT NULL,
  seq           BIGINT NOT NULL CHECK (seq > 0),
  link          BYTEA  NOT NULL CHECK (octet_length(link) = 32),
  salt          BYTEA  CHECK (octet_length(salt) = 32),
  at_ms         BIGINT,
  action        TEXT,
  status        TEXT,
  key_id        BYTEA,
  request_id    BYTEA,
  session_id    BYTEA,
  body_hash     BYTEA,
  state_hash    BYTEA,
  count         BIGINT,
  previous      BYTEA,
  expires_at_ms BIGINT,
  PRIMARY KEY (user_id, seq)
);

CREATE INDEX audit_entry_expiry ON audit_entry (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

CREATE TABLE setting (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);

-- The newest batch that each connection of a server process committed: tells a commit whose reply was lost.
CREATE TABLE commit_mark (
  lane       BYTEA       NOT NULL PRIMARY KEY CHECK (octet_length(lane) = 16),
  batch      BIGINT      NOT NULL,
  touched_at TIMESTAMPTZ NOT NULL
);
