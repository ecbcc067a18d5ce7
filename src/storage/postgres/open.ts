import { Fault } from "../../errors.ts";
import { type AppliedMigration, type Migration, migrationHash, pendingMigrations } from "../migrations.ts";
import { type Connection, connect, rowOf, type Timing } from "./connection.ts";
import { failureOf } from "./faults.ts";
import type { Target } from "./target.ts";

/** PostgreSQL 13; what speaks its protocol says so too. */
const OLDEST = 130_000;
const TRIES = 40;
const PAUSE_MS = 50;
/** Two processes that make the tables at once: the second sees the first one's. */
const MADE_MEANWHILE = /SQLSTATE 42P07/;

async function one(connection: Connection, sql: string): Promise<Record<string, unknown>> {
  const [row] = await connection.query(sql, []);
  return rowOf(row ?? {});
}

function foreign(target: Target, why: string): Fault {
  return new Fault("corrupt", `cannot use ${target.shown} as the database: ${why}`, {
    why: `${why}.`,
    hint: "name another database, or an empty one",
  });
}

/** What stands in the schema, judged without a change. */
async function inspect(connection: Connection, target: Target): Promise<"empty" | "ours"> {
  const server = await one(
    connection,
    `SELECT current_setting('server_version_num')::bigint AS version, current_setting('server_encoding') AS encoding,
       current_schema() AS schema`,
  );
  if (Number(server["version"]) < OLDEST) {
    throw new Fault("unsupported", `cannot use ${target.shown}: its server is older than PostgreSQL 13`);
  }
  if (server["encoding"] !== "UTF8") throw foreign(target, "its encoding is not UTF8");
  if (typeof server["schema"] !== "string") throw foreign(target, "the role's search_path names no schema of it");
  const found = await one(
    connection,
    `SELECT count(*) AS things, count(*) FILTER (WHERE c.relname = 'migration' AND c.relkind = 'r') AS marks
     FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')`,
  );
  if (found["things"] === 0) return "empty";
  const shape = await one(
    connection,
    `SELECT string_agg(a.attname::text, ' ' ORDER BY a.attnum) AS columns
     FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND c.relname = 'migration' AND a.attnum > 0 AND NOT a.attisdropped`,
  );
  if (found["marks"] !== 1 || shape["columns"] !== "id name sha256") {
    throw foreign(target, "it holds tables of another program");
  }
  return "ours";
}

async function applied(connection: Connection): Promise<readonly AppliedMigration[]> {
  const rows = await connection.query("SELECT name, sha256 FROM migration ORDER BY id", []);
  return rows.map((row) => rowOf<AppliedMigration>(row));
}

/** Refuses a database that holds anything, keyhold's tables too. @throws Fault exists, corrupt */
export async function demandEmpty(connection: Connection, target: Target): Promise<void> {
  if ((await inspect(connection, target)) === "empty") return;
  throw new Fault("exists", `cannot restore into ${target.shown}: it is not empty`, { hint: "name an empty database" });
}

async function make(connection: Connection): Promise<void> {
  await connection.exec(
    "CREATE TABLE migration (id BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL)",
  );
}

async function apply(connection: Connection, step: Migration): Promise<void> {
  await connection.exec(step.sql);
  await connection.query("INSERT INTO migration (id, name, sha256) VALUES ($1, $2, $3)", [
    Number.parseInt(step.name.replace(/^\D+/, ""), 10),
    step.name,
    migrationHash(step),
  ]);
}

/**
 * Makes the tables in an empty database and fills them, in one transaction: both or nothing.
 *
 * @throws Fault exists, corrupt, and what `fill` throws
 */
export async function fillEmpty(
  connection: Connection,
  target: Target,
  known: readonly Migration[],
  fill: () => Promise<void>,
): Promise<void> {
  await connection.exec("BEGIN ISOLATION LEVEL READ COMMITTED");
  await demandEmpty(connection, target);
  await make(connection);
  for (const step of known) await apply(connection, step);
  await fill();
  if ((await connection.exec("COMMIT")) !== "COMMIT") throw new Fault("internal", "the copy was not committed");
}

/** Runs what is pending in one transaction, which holds the first step's row: others that start wait or try again. */
async function migrate(connection: Connection, target: Target, known: readonly Migration[]): Promise<void> {
  await connection.exec("BEGIN ISOLATION LEVEL READ COMMITTED");
  const found = await inspect(connection, target);
  if (found === "empty") await make(connection);
  else await connection.exec("SELECT id FROM migration WHERE id = 1 FOR UPDATE");
  for (const step of pendingMigrations(target.shown, await applied(connection), known)) await apply(connection, step);
  if ((await connection.exec("COMMIT")) !== "COMMIT") throw new Fault("internal", "a migration was not committed");
}

/** True when the schema is there and this build's; says why it is not, or that it is to be made or brought up to date. */
async function upToDate(connection: Connection, target: Target, known: readonly Migration[]): Promise<boolean> {
  if ((await inspect(connection, target)) === "empty") return false;
  return pendingMigrations(target.shown, await applied(connection), known).length === 0;
}

async function prepare(connection: Connection, target: Target, known: readonly Migration[]): Promise<void> {
  const what = `cannot open the database ${target.shown}`;
  for (let tries = 1; ; tries += 1) {
    try {
      if (await upToDate(connection, target, known)) return;
      await migrate(connection, target, known);
      return;
    } catch (error) {
      const failure = failureOf(error, what);
      if (failure.kind === "lost") throw failure.fault;
      await connection.exec("ROLLBACK");
      const raced =
        failure.kind === "retry" || failure.kind === "duplicate" || MADE_MEANWHILE.test(failure.fault.message);
      if (!raced || error instanceof Fault || tries === TRIES) throw failure.fault;
      await Bun.sleep(PAUSE_MS * (0.5 + Math.random()));
    }
  }
}

/**
 * Opens a database: makes its tables if it is empty, brings them up to date, or refuses it as it is.
 *
 * @throws Fault denied, not_found, tls_refused, unavailable; corrupt for another program's or a changed schema,
 *   unsupported for a newer one.
 */
export async function openDatabase(target: Target, known: readonly Migration[], timing: Timing): Promise<Connection> {
  const connection = await connect(target, timing);
  try {
    await prepare(connection, target, known);
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  }
}
