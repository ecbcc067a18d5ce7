import { Database, type SQLQueryBindings, type Statement } from "bun:sqlite";
import { closeSync, fsyncSync, openSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { Fault } from "../errors.ts";
import { POSTGRES_MIGRATIONS } from "./migrations.ts";
import { type Bindable, type Connection, connect, rowOf, TIMING } from "./postgres/connection.ts";
import { failureOf } from "./postgres/faults.ts";
import { demandEmpty, fillEmpty } from "./postgres/open.ts";
import { type Target, targetOf } from "./postgres/target.ts";
import { openSqlite } from "./sqlite.ts";

/** Rows that are on their way at a time; a value has up to 74,000 bytes. */
const PAGE = 200;
/** Copying a table of many rows takes longer than a request may. */
const PATIENT = { ...TIMING, statementMs: 600_000, idleMs: 600_000, silentMs: 660_000 };

/** One column, as both engines have it. */
interface Column {
  readonly name: string;
  /** Type in SQLite: INTEGER, TEXT or BLOB. */
  readonly here: string;
  /** Type in PostgreSQL. */
  readonly there: string;
}

interface Table {
  readonly name: string;
  readonly columns: readonly Column[];
}

const mismatch = (what: string) => new Fault("internal", `the engines' schemas differ: ${what}`);

/** The tables of an embedded database that hold data, with the types of their columns in both engines. */
async function tablesOf(db: Database, connection: Connection): Promise<readonly Table[]> {
  const names = db
    .query<{ name: string }, []>(
      "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'migration'",
    )
    .all();
  const rows = await connection.query(
    `SELECT c.relname::text AS table, a.attname::text AS column, t.typname::text AS type
     FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
     WHERE n.nspname = current_schema() AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped`,
    [],
  );
  const types = new Map(rows.map((row) => [`${row["table"]}.${row["column"]}`, String(row["type"])]));
  return names.map(({ name }) => {
    const columns = db
      .query<{ name: string; type: string }, []>(`SELECT name, type FROM pragma_table_info('${name}')`)
      .all()
      .map((column) => {
        const there = types.get(`${name}.${column.name}`);
        if (there === undefined) throw mismatch(`${name}.${column.name}`);
        return { name: column.name, here: column.type, there };
      });
    const extra = [...types.keys()].filter((key) => key.startsWith(`${name}.`)).length - columns.length;
    if (extra !== 0) throw mismatch(name);
    return { name, columns };
  });
}

const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true });

/** A value of PostgreSQL as SQLite keeps it. */
function inward(value: unknown, { here, there }: Column): SQLQueryBindings {
  if (value === null || value === undefined) return null;
  if (there === "bool") return value === true ? 1 : 0;
  if (there === "bytea" && here === "TEXT") return text.decode(value as Uint8Array);
  return value as SQLQueryBindings;
}

/** A value of SQLite as PostgreSQL takes it. */
function outward(value: unknown, { here, there }: Column): Bindable {
  if (value === null || value === undefined) return null;
  if (there === "bool") return value === 1;
  if (there === "bytea" && here === "TEXT") return utf8.encode(String(value));
  return value instanceof Uint8Array ? new Uint8Array(value) : (value as Bindable);
}

const list = ({ columns }: Table): string => columns.map(({ name }) => name).join(", ");

async function pull(connection: Connection, db: Database, table: Table): Promise<void> {
  await connection.exec(`DECLARE rows NO SCROLL CURSOR FOR SELECT ${list(table)} FROM ${table.name}`);
  const marks = table.columns.map((_, i) => `?${i + 1}`).join(", ");
  const insert: Statement = db.prepare(`INSERT INTO ${table.name} (${list(table)}) VALUES (${marks})`);
  try {
    for (;;) {
      const page = await connection.query(`FETCH ${PAGE} FROM rows`, []);
      for (const raw of page) {
        const row = rowOf<Record<string, unknown>>(raw);
        insert.run(...table.columns.map((column) => inward(row[column.name], column)));
      }
      if (page.length < PAGE) break;
    }
  } finally {
    insert.finalize();
  }
  await connection.exec("CLOSE rows");
}

function syncPath(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A connection of its own, whose failures become faults. */
async function withConnection<T>(target: Target, work: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = await connect(target, PATIENT);
  try {
    return await work(connection);
  } catch (error) {
    throw error instanceof Fault ? error : failureOf(error, `cannot copy ${target.shown}`).fault;
  } finally {
    connection.close();
  }
}

const sqliteCode = (error: unknown): string | undefined =>
  error instanceof Error && error.name === "SQLiteError" && "code" in error ? String(error.code) : undefined;

/**
 * Writes a database of PostgreSQL, as of one moment, into a new embedded one: durable on return. Transactions go on.
 *
 * @param to A file that does not exist.
 * @throws Fault storage, unavailable
 */
export async function copyOut(target: Target, to: string): Promise<void> {
  try {
    await (await openSqlite(to)).close();
    const db = new Database(to, { readwrite: true, strict: true });
    try {
      // nothing is kept of a copy that fails
      for (const pragma of ["journal_mode = OFF", "synchronous = OFF", "foreign_keys = 0"]) db.run(`PRAGMA ${pragma}`);
      await withConnection(target, async (connection) => {
        await connection.exec("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        db.run("BEGIN");
        for (const table of await tablesOf(db, connection)) await pull(connection, db, table);
        db.run("COMMIT");
        await connection.exec("COMMIT");
      });
    } finally {
      db.close();
    }
    syncPath(to);
    if (process.platform !== "win32") syncPath(dirname(to));
  } catch (error) {
    for (const ending of ["", "-wal", "-shm", "-journal"]) rmSync(to + ending, { force: true });
    const code = sqliteCode(error);
    throw code === undefined
      ? error
      : new Fault("storage", "cannot copy the database", { why: `SQLite says ${code}.` });
  }
}

async function push(connection: Connection, db: Database, table: Table): Promise<void> {
  const marks = table.columns.map((_, i) => `$${i + 1}`).join(", ");
  const insert = `INSERT INTO ${table.name} (${list(table)}) VALUES (${marks})`;
  let page: Promise<unknown>[] = [];
  const rows = db.query<Record<string, unknown>, []>(`SELECT ${list(table)} FROM ${table.name}`).iterate();
  for (const row of rows) {
    const values = table.columns.map((column) => outward(row[column.name], column));
    page.push(connection.query(insert, values));
    if (page.length < PAGE) continue;
    await Promise.all(page);
    page = [];
  }
  await Promise.all(page);
}

/** Refuses a database of PostgreSQL that holds anything. @throws Fault exists, corrupt, unavailable */
export async function demandEmptyPostgres(spec: string): Promise<void> {
  const target = targetOf(spec);
  await withConnection(target, (connection) => demandEmpty(connection, target));
}

/** True for a database of PostgreSQL that holds nothing. @throws Fault corrupt, unavailable */
export async function isEmptyPostgres(spec: string): Promise<boolean> {
  try {
    await demandEmptyPostgres(spec);
    return true;
  } catch (error) {
    if (error instanceof Fault && error.code === "exists") return false;
    throw error;
  }
}

/**
 * Fills an empty database of PostgreSQL with an embedded one, in one transaction: cut short, it is empty still.
 *
 * @throws Fault exists for one that is not empty; unavailable, storage
 */
export async function copyIn(spec: string, from: string): Promise<void> {
  const target = targetOf(spec);
  const db = new Database(from, { readonly: true, strict: true });
  try {
    await withConnection(target, (connection) =>
      fillEmpty(connection, target, POSTGRES_MIGRATIONS, async () => {
        for (const table of await tablesOf(db, connection)) await push(connection, db, table);
      }),
    );
  } finally {
    db.close();
  }
}
