-- The server-wide log: a Merkle tree over positions of accounts' logs, each under a pseudonym.

-- Makes the pseudonym: the salt of the log's first entry; erased with the account.
ALTER TABLE audit_head ADD COLUMN log_salt BYTEA CHECK (octet_length(log_salt) = 32);
-- The newest position that the tree holds.
ALTER TABLE audit_head ADD COLUMN logged_seq BIGINT NOT NULL DEFAULT 0 CHECK (logged_seq >= 0);
-- What stays of the salt once the account is gone.
ALTER TABLE audit_head ADD COLUMN pseudonym BYTEA CHECK (octet_length(pseudonym) = 32);

CREATE INDEX audit_head_unlogged ON audit_head (user_id)
  WHERE seq > logged_seq AND (log_salt IS NOT NULL OR pseudonym IS NOT NULL);

CREATE TABLE log_head (
  id     BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
  origin TEXT   NOT NULL,
  size   BIGINT NOT NULL CHECK (size >= 0),
  root   BYTEA  NOT NULL CHECK (octet_length(root) = 32),
  -- The checkpoint that the first leaf names, after a restore.
  restart_origin TEXT,
  restart_size   BIGINT,
  restart_root   BYTEA
);

CREATE TABLE log_leaf (
  idx       BIGINT NOT NULL PRIMARY KEY CHECK (idx >= 0),
  hash      BYTEA  NOT NULL CHECK (octet_length(hash) = 32),
  pseudonym BYTEA  NOT NULL CHECK (octet_length(pseudonym) = 32),
  seq       BIGINT NOT NULL CHECK (seq >= 0),
  link      BYTEA  NOT NULL CHECK (octet_length(link) = 32)
);

CREATE INDEX log_leaf_pseudonym ON log_leaf (pseudonym, idx);

-- Complete subtrees above the leaves.
CREATE TABLE log_node (
  level BIGINT NOT NULL CHECK (level > 0),
  idx   BIGINT NOT NULL CHECK (idx >= 0),
  hash  BYTEA  NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (level, idx)
);

-- The newest signed note.
CREATE TABLE checkpoint (
  id   BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
  size BIGINT NOT NULL CHECK (size >= 0),
  note TEXT   NOT NULL
);
