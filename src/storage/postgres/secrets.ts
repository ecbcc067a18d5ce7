import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import type { LeafRecord, LeafStatus } from "../../protocol/leaf.ts";
import { WRAPPED_BYTES } from "../../protocol/secret.ts";
import { idColumn, idOf } from "../columns.ts";
import type { Tx, WrapPlace, WrapRow } from "../store.ts";
import { mergeWraps, withWrap, wrapBound } from "../wraps.ts";
import type { Query } from "./transaction.ts";

interface LeafColumns {
  readonly key_id: Uint8Array;
  readonly serial: number;
  readonly version: number;
  readonly sealed_hash: Uint8Array;
  readonly meta_hash: Uint8Array;
  readonly meta: Uint8Array | null;
  readonly public_key: Uint8Array | null;
  readonly status: LeafStatus;
  readonly previous: Uint8Array;
}

const COLUMNS = "l.key_id, l.serial, l.version, l.sealed_hash, l.meta_hash, l.meta, l.public_key, l.status, l.previous";

function leafOf(row: LeafColumns): LeafRecord {
  return {
    keyId: idOf(row.key_id),
    serial: row.serial,
    version: row.version,
    sealedHash: row.sealed_hash,
    metaHash: row.meta_hash,
    meta: row.meta,
    publicKey: row.public_key,
    status: row.status,
    previous: row.previous,
  };
}

/** Moves the key to the new leaf and appends that, if it is newer than the one it had. */
const APPEND = `WITH moved AS (
    INSERT INTO secret (user_id, key_id, serial, revision) VALUES ($1, $2, $3, $4)
    ON CONFLICT (user_id, key_id) DO UPDATE SET serial = excluded.serial, revision = excluded.revision
    WHERE secret.serial < excluded.serial
    RETURNING 1
  )
  INSERT INTO leaf (user_id, key_id, serial, version, sealed_hash, meta_hash, meta, public_key, status, previous)
  SELECT $1::bytea, $2::bytea, $3::bigint, $5::bigint, $6::bytea, $7::bytea, $8::bytea, $9::bytea, $10::text,
    $11::bytea FROM moved`;

function append(q: Query, userId: UserId, revision: number, leaf: LeafRecord, sealed: Uint8Array | null): void {
  const user = idColumn(userId);
  const key = idColumn(leaf.keyId);
  q.demand(
    new Fault("conflict", "cannot append the change: the key has a newer one"),
    APPEND,
    user,
    key,
    leaf.serial,
    revision,
    leaf.version,
    leaf.sealedHash,
    leaf.metaHash,
    leaf.meta,
    leaf.publicKey,
    leaf.status,
    leaf.previous,
  );
  if (sealed) {
    q.send(
      "INSERT INTO sealed_value (user_id, key_id, version, sealed) VALUES ($1, $2, $3, $4)",
      user,
      key,
      leaf.version,
      sealed,
    );
  }
}

interface WrapColumns {
  readonly key_id: Uint8Array;
  readonly number: number;
  readonly wrapped: Uint8Array;
}

/** Where the ciphertexts of a kind lie. */
const WRAPS = {
  meta: { table: "leaf", number: "serial", column: "meta" },
  value: { table: "sealed_value", number: "version", column: "sealed" },
} as const;

async function wrapsOf(
  q: Query,
  userId: UserId,
  kind: WrapPlace["kind"],
  after: WrapPlace | null,
  limit: number,
): Promise<readonly WrapRow[]> {
  const { table, number, column } = WRAPS[kind];
  const bound = wrapBound(kind, after);
  const rows = await q.all<WrapColumns>(
    `SELECT key_id, ${number} AS number, substring(${column} FROM 1 FOR ${WRAPPED_BYTES}) AS wrapped FROM ${table}
     WHERE user_id = $1 AND (key_id, ${number}) > ($2, $3::bigint) AND ${column} IS NOT NULL
     ORDER BY key_id, ${number} LIMIT $4`,
    idColumn(userId),
    bound.key,
    bound.number,
    limit,
  );
  return rows.map((row) => ({ keyId: idOf(row.key_id), kind, number: row.number, wrapped: row.wrapped }));
}

async function rewrap(q: Query, userId: UserId, { keyId, kind, number: at, wrapped }: WrapRow): Promise<boolean> {
  const { table, number, column } = WRAPS[kind];
  const place = [idColumn(userId), idColumn(keyId), at] as const;
  const where = `WHERE user_id = $1 AND key_id = $2 AND ${number} = $3`;
  const row = await q.get<{ sealed: Uint8Array | null }>(`SELECT ${column} AS sealed FROM ${table} ${where}`, ...place);
  if (!row?.sealed) return false;
  q.send(`UPDATE ${table} SET ${column} = $4 ${where}`, ...place, withWrap(row.sealed, wrapped));
  return true;
}

type Secrets = "leaf" | "appendLeaf" | "eraseSecret" | "leavesSince" | "history" | "sealedValue" | "wraps" | "rewrap";

/** The part of a transaction that concerns secrets: leaves and sealed values. */
export function secretsTx(q: Query): Pick<Tx, Secrets> {
  return {
    leaf: async (userId, keyId) => {
      const row = await q.get<LeafColumns>(
        `SELECT ${COLUMNS} FROM leaf AS l WHERE l.user_id = $1 AND l.key_id = $2
          AND l.serial = (SELECT s.serial FROM secret AS s WHERE s.user_id = $1 AND s.key_id = $2)`,
        idColumn(userId),
        idColumn(keyId),
      );
      return row ? leafOf(row) : undefined;
    },
    appendLeaf: async (userId, revision, leaf, sealed) => append(q, userId, revision, leaf, sealed),
    eraseSecret: async (userId, keyId) => {
      const user = idColumn(userId);
      const key = idColumn(keyId);
      q.send("DELETE FROM sealed_value WHERE user_id = $1 AND key_id = $2", user, key);
      q.send("UPDATE leaf SET meta = NULL WHERE user_id = $1 AND key_id = $2 AND meta IS NOT NULL", user, key);
    },
    leavesSince: async (userId, revision, after, limit) => {
      const rows = await q.all<LeafColumns>(
        `SELECT ${COLUMNS} FROM secret AS s
         JOIN leaf AS l ON l.user_id = s.user_id AND l.key_id = s.key_id AND l.serial = s.serial
         WHERE s.user_id = $1 AND s.revision > $2 AND s.key_id > $3 ORDER BY s.key_id LIMIT $4`,
        idColumn(userId),
        revision,
        after === null ? new Uint8Array(0) : idColumn(after),
        limit,
      );
      return rows.map(leafOf);
    },
    history: async (userId, keyId, afterSerial, limit) => {
      const rows = await q.all<LeafColumns>(
        `SELECT ${COLUMNS} FROM leaf AS l WHERE user_id = $1 AND key_id = $2 AND serial > $3
         ORDER BY serial LIMIT $4`,
        idColumn(userId),
        idColumn(keyId),
        afterSerial,
        limit,
      );
      return rows.map(leafOf);
    },
    sealedValue: async (userId, keyId, version) => {
      const row = await q.get<{ sealed: Uint8Array }>(
        "SELECT sealed FROM sealed_value WHERE user_id = $1 AND key_id = $2 AND version = $3",
        idColumn(userId),
        idColumn(keyId),
        version,
      );
      return row?.sealed;
    },
    wraps: async (userId, after, limit) => {
      const metas = await wrapsOf(q, userId, "meta", after, limit);
      return mergeWraps(metas, await wrapsOf(q, userId, "value", after, limit), limit);
    },
    rewrap: async (userId, row) => rewrap(q, userId, row),
  };
}
