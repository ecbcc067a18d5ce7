import { Fault } from "../../errors.ts";
import { type AppliedMigration, type Migration, pendingMigrations } from "../migrations.ts";
import { type Connection, rowOf } from "./connection.ts";
import { failureOf } from "./faults.ts";
import type { Target } from "./target.ts";

/** Rows that point to nothing: what foreign keys would refuse, at a cost for each insert. */
const REFERENCES = [
  ["leaf", "secret", "p.user_id = c.user_id AND p.key_id = c.key_id"],
  ["sealed_value", "secret", "p.user_id = c.user_id AND p.key_id = c.key_id"],
  ["audit_entry", "audit_head", "p.user_id = c.user_id"],
] as const;

/**
 * Looks over schema and references; lists what is wrong, in words. The structure of its files is the database
 * server's own to verify (data checksums, `pg_amcheck`).
 */
export async function checkDatabase(
  connection: Connection,
  target: Target,
  known: readonly Migration[],
): Promise<readonly string[]> {
  const wrong: string[] = [];
  try {
    const rows = await connection.query("SELECT name, sha256 FROM migration ORDER BY id", []);
    const steps = rows.map((row) => rowOf<AppliedMigration>(row));
    if (pendingMigrations(target.shown, steps, known).length > 0) wrong.push("its schema is older than this keyhold");
    for (const [child, parent, on] of REFERENCES) {
      const [row] = await connection.query(
        `SELECT count(*) AS lost FROM ${child} AS c WHERE NOT EXISTS (SELECT 1 FROM ${parent} AS p WHERE ${on})`,
        [],
      );
      const lost = Number(row?.["lost"] ?? 0);
      if (lost > 0) wrong.push(`${lost} row(s) of ${child} point to nothing`);
    }
    return wrong;
  } catch (error) {
    const { kind, fault } = failureOf(error, "cannot check the database");
    if (kind === "refused" && (error instanceof Fault || fault.code === "corrupt" || fault.code === "internal")) {
      return [...wrong, fault.message];
    }
    throw fault;
  }
}
