-- The server-wide log: a Merkle tree over positions of accounts' logs, each under a pseudonym.

-- Makes the pseudonym: the salt of the log's first entry; erased with the account.
ALTER TABLE audit_head ADD COLUMN log_salt BLOB CHECK (length(log_salt) = 32);
-- The newest position that the tree holds.
ALTER TABLE audit_head ADD COLUMN logged_seq INTEGER NOT NULL DEFAULT 0 CHECK (logged_seq >= 0);
-- What stays of the salt once the account is gone.
ALTER TABLE audit_head ADD COLUMN pseudonym BLOB CHECK (length(pseudonym) = 32);

UPDATE audit_head SET log_salt =
  (SELECT salt FROM audit_entry WHERE audit_entry.user_id = audit_head.user_id AND audit_entry.seq = 1);
UPDATE audit_head SET pseudonym = randomblob(32)
  WHERE expires_at_ms IS NULL AND user_id NOT IN (SELECT user_id FROM account);

CREATE INDEX audit_head_unlogged ON audit_head (user_id)
  WHERE seq > logged_seq AND (log_salt IS NOT NULL OR pseudonym IS NOT NULL);

CREATE TABLE log_head (
  id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  origin  TEXT    NOT NULL,
  size    INTEGER NOT NULL CHECK (size >= 0),
  root    BLOB    NOT NULL CHECK (length(root) = 32),
  -- The checkpoint that the first leaf names, after a restore.
  restart_origin TEXT,
  restart_size   INTEGER,
  restart_root   BLOB
) STRICT;

CREATE TABLE log_leaf (
  idx       INTEGER NOT NULL PRIMARY KEY CHECK (idx >= 0),
  hash      BLOB    NOT NULL CHECK (length(hash) = 32),
  pseudonym BLOB    NOT NULL CHECK (length(pseudonym) = 32),
  seq       INTEGER NOT NULL CHECK (seq >= 0),
  link      BLOB    NOT NULL CHECK (length(link) = 32)
) STRICT;

CREATE INDEX log_leaf_pseudonym ON log_leaf (pseudonym, idx);

-- Complete subtrees above the leaves.
CREATE TABLE log_node (
  level INTEGER NOT NULL CHECK (level > 0),
  idx   INTEGER NOT NULL CHECK (idx >= 0),
  hash  BLOB    NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

-- The newest signed note.
CREATE TABLE checkpoint (
  id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  size INTEGER NOT NULL CHECK (size >= 0),
  note TEXT    NOT NULL
) STRICT;
