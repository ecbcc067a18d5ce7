import { createHash } from "node:crypto";
import { Fault } from "../errors.ts";
import house from "./migrations/0001-house.sql" with { type: "text" };
import serverLog from "./migrations/0002-log.sql" with { type: "text" };
import documents from "./migrations/0003-documents.sql" with { type: "text" };
import factor from "./migrations/0004-factor.sql" with { type: "text" };
import postgresHouse from "./migrations/postgres-0001-house.sql" with { type: "text" };
import postgresLog from "./migrations/postgres-0002-log.sql" with { type: "text" };
import postgresDocuments from "./migrations/postgres-0003-documents.sql" with { type: "text" };
import postgresFactor from "./migrations/postgres-0004-factor.sql" with { type: "text" };

/** One step of the schema; `name` begins with its number, from 0001 without a gap. */
export interface Migration {
  readonly name: string;
  readonly sql: string;
}

/** A step as a database remembers it. */
export interface AppliedMigration {
  readonly name: string;
  /** SHA-256 of the step's SQL, hexadecimal. */
  readonly sha256: string;
}

/** The steps this build knows, oldest first. A released step never changes: a correction is a new step. */
export const SQLITE_MIGRATIONS: readonly Migration[] = [
  { name: "0001-house", sql: house },
  { name: "0002-log", sql: serverLog },
  { name: "0003-documents", sql: documents },
  { name: "0004-factor", sql: factor },
];

/** The same for PostgreSQL. */
export const POSTGRES_MIGRATIONS: readonly Migration[] = [
  { name: "0001-house", sql: postgresHouse },
  { name: "0002-log", sql: postgresLog },
  { name: "0003-documents", sql: postgresDocuments },
  { name: "0004-factor", sql: postgresFactor },
];

/** SHA-256 of a step's SQL in UTF-8, 64 hexadecimal digits. */
export function migrationHash(migration: Migration): string {
  return createHash("sha256").update(migration.sql).digest("hex");
}

/**
 * The steps that are still to run on a database which remembers `applied`, in order.
 *
 * @param database Name of the database for the error text.
 * @throws Fault unsupported when it has steps that this build does not know, corrupt when a step differs.
 */
export function pendingMigrations(
  database: string,
  applied: readonly AppliedMigration[],
  known: readonly Migration[] = SQLITE_MIGRATIONS,
): readonly Migration[] {
  applied.forEach((step, index) => {
    const ours = known[index];
    if (!ours) {
      throw new Fault("unsupported", `cannot use "${database}": a newer keyhold has changed its schema`, {
        why: `migration "${step.name}" is unknown to this keyhold.`,
        hint: "run the keyhold that wrote it, or a newer one",
      });
    }
    if (step.name !== ours.name || step.sha256 !== migrationHash(ours)) {
      throw new Fault("corrupt", `cannot use "${database}": its schema is not the one that keyhold makes`, {
        why: `migration "${step.name}" differs from this keyhold's "${ours.name}".`,
        hint: "run the keyhold that wrote it, or restore a backup",
      });
    }
  });
  return known.slice(applied.length);
}
