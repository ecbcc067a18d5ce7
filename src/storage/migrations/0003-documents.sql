-- Records of the server's further roles: federations, requests, keys and sealed shares (docs/protocol.md §8).

CREATE TABLE document (
  kind    TEXT    NOT NULL,
  id      TEXT    NOT NULL,
  -- Whom lists are asked for: an account, a federation, another record, or nobody.
  owner   TEXT    NOT NULL,
  place   INTEGER NOT NULL CHECK (place >= 0),
  body    BLOB    NOT NULL,
  version INTEGER NOT NULL CHECK (version > 0),
  PRIMARY KEY (kind, id)
) STRICT;

CREATE INDEX document_owner ON document (owner, kind, place, id);
