import type { DocumentRow, Tx } from "../store.ts";
import type { Query } from "./transaction.ts";

interface DocumentColumns extends Omit<DocumentRow, "id"> {
  readonly id: Uint8Array;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const documentOf = (row: DocumentColumns): DocumentRow => ({ ...row, id: decoder.decode(row.id) });

/** Above no id, for every id is a text. */
const BEFORE_ALL = { place: -1, id: "" };

type Documents = "document" | "putDocument" | "removeDocument" | "documents" | "documentCount";

/** The part of a transaction that concerns the records of further roles. */
export function documentsTx(q: Query): Pick<Tx, Documents> {
  return {
    // one that a transaction looks at stays as it is until that ends: transactions over one record are serial
    document: async (kind, id) => {
      const row = await q.get<DocumentColumns>(
        "SELECT * FROM document WHERE kind = $1 AND id = $2 FOR NO KEY UPDATE",
        kind,
        encoder.encode(id),
      );
      return row ? documentOf(row) : undefined;
    },
    putDocument: async ({ kind, id, owner, place, body }, expected) => {
      const values = [kind, encoder.encode(id), owner, place, body] as const;
      const changed = await (expected === 0
        ? q.run(
            `INSERT INTO document (kind, id, owner, place, body, version) VALUES ($1, $2, $3, $4, $5, 1)
             ON CONFLICT DO NOTHING`,
            ...values,
          )
        : q.run(
            `UPDATE document SET owner = $3, place = $4, body = $5, version = version + 1
             WHERE kind = $1 AND id = $2 AND version = $6`,
            ...values,
            expected,
          ));
      return changed === 1;
    },
    removeDocument: async (kind, id) =>
      (await q.run("DELETE FROM document WHERE kind = $1 AND id = $2", kind, encoder.encode(id))) === 1,
    documents: async (kind, owner, after, limit) => {
      const { place, id } = after ?? BEFORE_ALL;
      const rows = await q.all<DocumentColumns>(
        `SELECT * FROM document WHERE owner = $1 AND kind = $2 AND (place, id) > ($3::bigint, $4::bytea)
         ORDER BY place, id LIMIT $5`,
        owner,
        kind,
        place,
        encoder.encode(id),
        limit,
      );
      return rows.map(documentOf);
    },
    documentCount: async (kind, owner, limit) => {
      const counted = await q.get<{ count: number }>(
        `SELECT count(*)::int AS count
         FROM (SELECT 1 FROM document WHERE owner = $1 AND kind = $2 LIMIT $3) AS counted`,
        ...[owner, kind, limit],
      );
      return counted?.count ?? 0;
    },
  };
}
