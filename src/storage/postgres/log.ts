import { Fault } from "../../errors.ts";
import { idColumn } from "../columns.ts";
import { type HeadColumns, headOf, type LogHeadColumns, logHeadOf, unlogged } from "../rows.ts";
import type { CheckpointRow, LogLeaf, Tx } from "../store.ts";
import type { Bindable } from "./connection.ts";
import type { Query } from "./transaction.ts";

type Leaf = LogLeaf & { readonly index: number };

const NOWHERE = new Uint8Array(0);

/** Items in one statement: far below the protocol's 65,535 parameters. */
const AT_ONCE = 500;

/** Inserts rows, many to a statement. */
function insertAll(q: Query, into: string, rows: readonly (readonly Bindable[])[]): void {
  for (let from = 0; from < rows.length; from += AT_ONCE) {
    const part = rows.slice(from, from + AT_ONCE);
    let n = 0;
    const places = part.map((row) => {
      const numbers = row.map(() => {
        n += 1;
        return `$${n}`;
      });
      return `(${numbers.join(", ")})`;
    });
    q.send(`INSERT INTO ${into} VALUES ${places.join(", ")}`, ...part.flat());
  }
}

function putLeaves(q: Query, from: number, leaves: readonly LogLeaf[]): void {
  const rows = leaves.map((leaf, i) => [from + i, leaf.hash, leaf.pseudonym, leaf.seq, leaf.link]);
  insertAll(q, "log_leaf (idx, hash, pseudonym, seq, link)", rows);
}

const append =
  (q: Query): Tx["appendLog"] =>
  async (expected, next, { leaves, nodes, heads }) => {
    // whoever comes second finds another head, or is sent back to look again
    const moved = await q.run(
      "UPDATE log_head SET size = $1, root = $2 WHERE id = 1 AND size = $3 AND root = $4",
      next.size,
      next.root,
      expected.size,
      expected.root,
    );
    if (moved === 0) return false;
    putLeaves(q, expected.size, leaves);
    insertAll(
      q,
      "log_node (level, idx, hash)",
      nodes.map(({ level, index, hash }) => [level, index, hash]),
    );
    for (const { userId, seq } of heads) {
      q.send("UPDATE audit_head SET logged_seq = greatest(logged_seq, $2) WHERE user_id = $1", idColumn(userId), seq);
    }
    return true;
  };

const start =
  (q: Query): Tx["startLog"] =>
  async ({ origin, size, root, restart }, leaves) => {
    if (leaves.length > 1 || leaves.length !== size) throw new Fault("internal", "a log begins with at most one leaf");
    for (const table of ["log_node", "log_leaf", "log_head", "checkpoint"]) q.send(`DELETE FROM ${table}`);
    q.send("UPDATE audit_head SET logged_seq = 0 WHERE logged_seq > 0");
    q.send(
      `INSERT INTO log_head (id, origin, size, root, restart_origin, restart_size, restart_root)
       VALUES (1, $1, $2, $3, $4, $5, $6)`,
      origin,
      size,
      root,
      restart?.origin ?? null,
      restart?.size ?? null,
      restart?.root ?? null,
    );
    putLeaves(q, 0, leaves);
  };

const nodes =
  (q: Query): Tx["logNodes"] =>
  async (ids) => {
    const found = await Promise.all(
      ids.map(({ level, index }) =>
        level === 0
          ? q.get<{ hash: Uint8Array }>("SELECT hash FROM log_leaf WHERE idx = $1", index)
          : q.get<{ hash: Uint8Array }>("SELECT hash FROM log_node WHERE level = $1 AND idx = $2", level, index),
      ),
    );
    return found.map((row) => {
      if (!row) throw new Fault("corrupt", "the server-wide log lacks a node", { hint: "keyhold server check" });
      return row.hash;
    });
  };

type Log =
  | "unloggedHeads"
  | "logHead"
  | "startLog"
  | "appendLog"
  | "logNodes"
  | "logLeaves"
  | "logCounts"
  | "loggedPosition"
  | "checkpoint"
  | "putCheckpoint"
  | "auditHeads"
  | "auditLinks";

/** The part of a transaction that concerns the server-wide log. */
export function logTx(q: Query): Pick<Tx, Log> {
  return {
    unloggedHeads: async (after, limit) => {
      // heads that move at this very moment come with a later batch: marking them would fail this whole one
      const rows = await q.all<HeadColumns>(
        `SELECT * FROM audit_head WHERE seq > logged_seq AND (log_salt IS NOT NULL OR pseudonym IS NOT NULL)
           AND user_id > $1 ORDER BY user_id LIMIT $2 FOR UPDATE SKIP LOCKED`,
        after === null ? NOWHERE : idColumn(after),
        limit,
      );
      return rows.flatMap(unlogged);
    },
    logHead: async () => {
      const row = await q.get<LogHeadColumns>("SELECT * FROM log_head WHERE id = 1");
      return row ? logHeadOf(row) : undefined;
    },
    startLog: start(q),
    appendLog: append(q),
    logNodes: nodes(q),
    logLeaves: async (from, limit) =>
      q.all<Leaf>(
        `SELECT idx AS "index", hash, pseudonym, seq, link FROM log_leaf WHERE idx >= $1 ORDER BY idx LIMIT $2`,
        from,
        limit,
      ),
    logCounts: async () =>
      (await q.get<{ leaves: number; nodes: number }>(
        "SELECT (SELECT count(*) FROM log_leaf) AS leaves, (SELECT count(*) FROM log_node) AS nodes",
      )) ?? { leaves: 0, nodes: 0 },
    loggedPosition: async (pseudonym, size) =>
      q.get<Omit<Leaf, "hash">>(
        `SELECT idx AS "index", pseudonym, seq, link FROM log_leaf WHERE pseudonym = $1 AND idx < $2
         ORDER BY idx DESC LIMIT 1`,
        pseudonym,
        size,
      ),
    checkpoint: async () => q.get<CheckpointRow>("SELECT size, note FROM checkpoint WHERE id = 1"),
    putCheckpoint: async ({ size, note }) =>
      (await q.run(
        `INSERT INTO checkpoint (id, size, note) VALUES (1, $1, $2)
         ON CONFLICT (id) DO UPDATE SET size = excluded.size, note = excluded.note
         WHERE checkpoint.size <= excluded.size`,
        size,
        note,
      )) === 1,
    auditHeads: async (after, limit) =>
      (
        await q.all<HeadColumns>(
          "SELECT * FROM audit_head WHERE user_id > $1 ORDER BY user_id LIMIT $2",
          after === null ? NOWHERE : idColumn(after),
          limit,
        )
      ).map(headOf),
    auditLinks: async (userId, after, limit) =>
      q.all<{ seq: number; link: Uint8Array; expiresAtMs: number | null }>(
        `SELECT seq, link, expires_at_ms AS "expiresAtMs" FROM audit_entry WHERE user_id = $1 AND seq > $2
         ORDER BY seq LIMIT $3`,
        idColumn(userId),
        after,
        limit,
      ),
  };
}
