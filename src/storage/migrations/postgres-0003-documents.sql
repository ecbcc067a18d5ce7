-- Records of the server's further roles: federations, requests, keys and sealed shares (docs/protocol.md §8).

CREATE TABLE document (
  kind    TEXT   NOT NULL,
  -- In UTF-8: bytes have one order everywhere, texts that of the database's locale.
  id      BYTEA  NOT NULL,
  -- Whom lists are asked for: an account, a federation, another record, or nobody.
  owner   TEXT   NOT NULL,
  place   BIGINT NOT NULL CHECK (place >= 0),
  body    BYTEA  NOT NULL,
  version BIGINT NOT NULL CHECK (version > 0),
  PRIMARY KEY (kind, id)
);

CREATE INDEX document_owner ON document (owner, kind, place, id);
