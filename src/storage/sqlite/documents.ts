import type { DocumentRow, Tx } from "../store.ts";
import type { Query } from "./connection.ts";

/** Above no id, for every id is a text. */
const BEFORE_ALL = { place: -1, id: "" };

/** Bytes of a body that says nothing. */
const EMPTY_BYTES = 2;

type Documents = "document" | "putDocument" | "removeDocument" | "documents" | "documentCount";

/** The part of a transaction that concerns the records of further roles. */
export function documentsTx(q: Query): Pick<Tx, Documents> {
  return {
    document: async (kind, id) =>
      q.get<DocumentRow>("SELECT * FROM document WHERE kind = ?1 AND id = ?2", kind, id) ?? undefined,
    putDocument: async ({ kind, id, owner, place, body }, expected) => {
      if (expected === 0)
        return (
          q.run(
            `INSERT INTO document (kind, id, owner, place, body, version) VALUES (?1, ?2, ?3, ?4, ?5, 1)
             ON CONFLICT DO NOTHING`,
            ...[kind, id, owner, place, body],
          ) === 1
        );
      // a statement that names a column of an index writes that index anew, changed or not
      const stays = q.run(
        `UPDATE document SET body = ?5, version = version + 1
         WHERE kind = ?1 AND id = ?2 AND version = ?6 AND owner = ?3 AND place = ?4`,
        ...[kind, id, owner, place, body, expected],
      );
      if (stays === 1) return true;
      return (
        q.run(
          `UPDATE document SET owner = ?3, place = ?4, body = ?5, version = version + 1
           WHERE kind = ?1 AND id = ?2 AND version = ?6`,
          ...[kind, id, owner, place, body, expected],
        ) === 1
      );
    },
    removeDocument: async (kind, id) => {
      const gone = q.get<{ size: number }>(
        "DELETE FROM document WHERE kind = ?1 AND id = ?2 RETURNING length(body) AS size",
        kind,
        id,
      );
      if (!gone) return false;
      // it may have been a share, unless it is the body "{}" of a mere index
      if (gone.size > EMPTY_BYTES) q.erased();
      return true;
    },
    documents: async (kind, owner, after, limit) => {
      const { place, id } = after ?? BEFORE_ALL;
      return q.all<DocumentRow>(
        `SELECT * FROM document WHERE owner = ?1 AND kind = ?2 AND (place, id) > (?3, ?4)
         ORDER BY place, id LIMIT ?5`,
        ...[owner, kind, place, id, limit],
      );
    },
    documentCount: async (kind, owner, limit) =>
      q.get<{ count: number }>(
        "SELECT count(*) AS count FROM (SELECT 1 FROM document WHERE owner = ?1 AND kind = ?2 LIMIT ?3)",
        ...[owner, kind, limit],
      )?.count ?? 0,
  };
}
