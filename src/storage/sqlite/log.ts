import { Fault } from "../../errors.ts";
import { idColumn } from "../columns.ts";
import { type HeadColumns, headOf, type LogHeadColumns, logHeadOf, unlogged } from "../rows.ts";
import type { CheckpointRow, LogLeaf, Tx } from "../store.ts";
import type { Query } from "./connection.ts";

type Leaf = LogLeaf & { readonly index: number };

const NOWHERE = new Uint8Array(0);

function putLeaves(q: Query, from: number, leaves: readonly LogLeaf[]): void {
  leaves.forEach((leaf, i) => {
    q.run(
      "INSERT INTO log_leaf (idx, hash, pseudonym, seq, link) VALUES (?1, ?2, ?3, ?4, ?5)",
      from + i,
      leaf.hash,
      leaf.pseudonym,
      leaf.seq,
      leaf.link,
    );
  });
}

const append =
  (q: Query): Tx["appendLog"] =>
  async (expected, next, { leaves, nodes, heads }) => {
    const moved = q.run(
      "UPDATE log_head SET size = ?1, root = ?2 WHERE id = 1 AND size = ?3 AND root = ?4",
      next.size,
      next.root,
      expected.size,
      expected.root,
    );
    if (moved === 0) return false;
    putLeaves(q, expected.size, leaves);
    for (const { level, index, hash } of nodes) {
      q.run("INSERT INTO log_node (level, idx, hash) VALUES (?1, ?2, ?3)", level, index, hash);
    }
    for (const { userId, seq } of heads) {
      q.run("UPDATE audit_head SET logged_seq = max(logged_seq, ?2) WHERE user_id = ?1", idColumn(userId), seq);
    }
    return true;
  };

const start =
  (q: Query): Tx["startLog"] =>
  async ({ origin, size, root, restart }, leaves) => {
    if (leaves.length > 1 || leaves.length !== size) throw new Fault("internal", "a log begins with at most one leaf");
    for (const table of ["log_node", "log_leaf", "log_head", "checkpoint"]) q.run(`DELETE FROM ${table}`);
    q.run("UPDATE audit_head SET logged_seq = 0 WHERE logged_seq > 0");
    q.run(
      `INSERT INTO log_head (id, origin, size, root, restart_origin, restart_size, restart_root)
       VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)`,
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
  async (ids) =>
    ids.map(({ level, index }) => {
      const row =
        level === 0
          ? q.get<{ hash: Uint8Array }>("SELECT hash FROM log_leaf WHERE idx = ?1", index)
          : q.get<{ hash: Uint8Array }>("SELECT hash FROM log_node WHERE level = ?1 AND idx = ?2", level, index);
      if (!row) throw new Fault("corrupt", "the server-wide log lacks a node", { hint: "keyhold server check" });
      return row.hash;
    });

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
    unloggedHeads: async (after, limit) =>
      q
        .all<HeadColumns>(
          `SELECT * FROM audit_head WHERE seq > logged_seq AND (log_salt IS NOT NULL OR pseudonym IS NOT NULL)
             AND user_id > ?1 ORDER BY user_id LIMIT ?2`,
          after === null ? NOWHERE : idColumn(after),
          limit,
        )
        .flatMap(unlogged),
    logHead: async () => {
      const row = q.get<LogHeadColumns>("SELECT * FROM log_head WHERE id = 1");
      return row ? logHeadOf(row) : undefined;
    },
    startLog: start(q),
    appendLog: append(q),
    logNodes: nodes(q),
    logLeaves: async (from, limit) =>
      q.all<Leaf>(
        `SELECT idx AS "index", hash, pseudonym, seq, link FROM log_leaf WHERE idx >= ?1 ORDER BY idx LIMIT ?2`,
        from,
        limit,
      ),
    logCounts: async () =>
      q.get<{ leaves: number; nodes: number }>(
        "SELECT (SELECT count(*) FROM log_leaf) AS leaves, (SELECT count(*) FROM log_node) AS nodes",
      ) ?? { leaves: 0, nodes: 0 },
    loggedPosition: async (pseudonym, size) =>
      q.get<Omit<Leaf, "hash">>(
        `SELECT idx AS "index", pseudonym, seq, link FROM log_leaf WHERE pseudonym = ?1 AND idx < ?2
         ORDER BY idx DESC LIMIT 1`,
        pseudonym,
        size,
      ) ?? undefined,
    checkpoint: async () => q.get<CheckpointRow>("SELECT size, note FROM checkpoint WHERE id = 1") ?? undefined,
    putCheckpoint: async ({ size, note }) =>
      q.run(
        `INSERT INTO checkpoint (id, size, note) VALUES (1, ?1, ?2)
         ON CONFLICT (id) DO UPDATE SET size = excluded.size, note = excluded.note WHERE size <= excluded.size`,
        size,
        note,
      ) === 1,
    auditHeads: async (after, limit) =>
      q
        .all<HeadColumns>(
          "SELECT * FROM audit_head WHERE user_id > ?1 ORDER BY user_id LIMIT ?2",
          after === null ? NOWHERE : idColumn(after),
          limit,
        )
        .map(headOf),
    auditLinks: async (userId, after, limit) =>
      q.all<{ seq: number; link: Uint8Array; expiresAtMs: number | null }>(
        `SELECT seq, link, expires_at_ms AS expiresAtMs FROM audit_entry WHERE user_id = ?1 AND seq > ?2
         ORDER BY seq LIMIT ?3`,
        idColumn(userId),
        after,
        limit,
      ),
  };
}
