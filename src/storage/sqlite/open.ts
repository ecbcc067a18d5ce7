import { Database } from "bun:sqlite";
import { accessSync, closeSync, constants, fsyncSync, openSync, readSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { Fault } from "../../errors.ts";
import { type AppliedMigration, type Migration, migrationHash, pendingMigrations } from "../migrations.ts";
import { type Connection, connect } from "./connection.ts";
import { sqliteFault } from "./faults.ts";

/** "KHLD": the mark of keyhold's databases in the header of the file. */
const APPLICATION_ID = 0x4b48_4c44;
/** Before it, a WAL could be reset under a reader and be corrupted. */
const OLDEST_SQLITE = [3, 51, 3] as const;
/** How long a statement waits for another connection. */
export const BUSY_TIMEOUT_MS = 5_000;
/** After a checkpoint the WAL is cut to this many bytes. */
const WAL_KEPT_BYTES = 64 * 1_024 * 1_024;
/** Pages in the WAL at which a commit carries them into the main file. */
const WAL_PAGES = 4_000;
const CACHE_KIB = 16_384;

/** True for a version of SQLite that keyhold accepts. */
export function isSqliteFit(version: string): boolean {
  const parts = version.split(".").map(Number);
  for (const [index, least] of OLDEST_SQLITE.entries()) {
    const part = parts[index] ?? 0;
    if (part !== least) return part > least;
  }
  return true;
}

function systemFault(error: unknown, what: string): Fault {
  if (error instanceof Fault) return error;
  const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
  const whys: Record<string, string> = {
    EACCES: "permission is denied",
    EPERM: "permission is denied",
    EROFS: "the file system is read-only",
    ENOENT: "there is no such file or directory",
    ENOTDIR: "there is no such file or directory",
    EISDIR: "it is a directory",
    ENOSPC: "the disk is full",
  };
  const why = whys[code] ?? `the system says ${code}`;
  return new Fault("storage", `${what}: ${why}`, { why: `${why}.` });
}

function foreign(path: string, why: string): Fault {
  return new Fault("corrupt", `cannot use "${path}" as the database: ${why}`, {
    why: `${why}.`,
    hint: "name another file, or restore a backup",
  });
}

/** Reads the file's header without SQLite, which would begin to recover and so change a file that is not ours. */
function inspect(path: string): "absent" | "empty" | "ours" {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) return "absent";
  if (!stat.isFile()) throw foreign(path, "it is not a file");
  if (stat.size === 0) return "empty";
  const header = new Uint8Array(100);
  const file = openSync(path, constants.O_RDONLY);
  try {
    const read = readSync(file, header, 0, header.length, 0);
    if (read < header.length || Buffer.compare(header.subarray(0, 16), Buffer.from("SQLite format 3\0")) !== 0) {
      throw foreign(path, "it is not an SQLite database, or it is damaged");
    }
  } finally {
    closeSync(file);
  }
  const view = new DataView(header.buffer);
  if (view.getUint32(68) !== APPLICATION_ID) throw foreign(path, "it belongs to another program");
  const pageBytes = view.getUint16(16) === 1 ? 65_536 : view.getUint16(16);
  const pages = view.getUint32(28);
  const wal = statSync(`${path}-wal`, { throwIfNoEntry: false });
  // With a WAL the missing pages may still stand there.
  if ((wal?.size ?? 0) === 0 && stat.size < pageBytes * pages) throw foreign(path, "its end is missing");
  return "ours";
}

/** Endings of the files that SQLite keeps beside a database. */
const BESIDE = ["-journal", "-wal", "-shm"] as const;

function syncDirectory(path: string): void {
  if (process.platform === "win32") return;
  const directory = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

const PRAGMAS = [
  `busy_timeout = ${BUSY_TIMEOUT_MS}`,
  "synchronous = FULL",
  "foreign_keys = 1",
  "trusted_schema = 0",
  "cell_size_check = 1",
  "fullfsync = 1",
  "checkpoint_fullfsync = 1",
  "secure_delete = ON",
  "temp_store = MEMORY",
  `cache_size = -${CACHE_KIB}`,
  `wal_autocheckpoint = ${WAL_PAGES}`,
  `journal_size_limit = ${WAL_KEPT_BYTES}`,
] as const;

function openConnection(path: string, readonly: boolean): Connection {
  const flags = readonly ? { readonly: true } : { readwrite: true, create: path === ":memory:" };
  const connection = connect(new Database(path, { ...flags, strict: true }));
  try {
    for (const pragma of PRAGMAS) connection.db.run(`PRAGMA ${pragma}`);
    const found = connection.db.prepare<{ version: string }, []>("SELECT sqlite_version() AS version");
    const version = found.get()?.version ?? "";
    found.finalize();
    if (!isSqliteFit(version)) {
      throw new Fault(
        "unsupported",
        `cannot use SQLite ${version}: keyhold needs ${OLDEST_SQLITE.join(".")} or newer`,
        {
          hint: "install a newer SQLite, or a keyhold that brings its own",
        },
      );
    }
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  }
}

function appliedMigrations(connection: Connection): readonly AppliedMigration[] {
  return connection.statement("SELECT name, sha256 FROM migration ORDER BY id").all() as AppliedMigration[];
}

/** Runs what is pending in one transaction: a new database is whole or not there. */
function migrate(connection: Connection, isNew: boolean, pending: readonly Migration[]): void {
  if (!isNew && pending.length === 0) return;
  connection.exec("BEGIN IMMEDIATE");
  try {
    if (isNew) {
      connection.db.run(`PRAGMA application_id = ${APPLICATION_ID}`);
      connection.db.run(
        "CREATE TABLE migration (id INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT",
      );
    }
    for (const step of pending) {
      connection.db.run(step.sql);
      connection
        .statement("INSERT INTO migration (id, name, sha256) VALUES (?1, ?2, ?3)")
        .run(Number.parseInt(step.name, 10), step.name, migrationHash(step));
    }
    connection.exec("COMMIT");
  } catch (error) {
    if (connection.db.inTransaction) connection.exec("ROLLBACK");
    throw error;
  }
}

function withUmask<T>(work: () => T): T {
  const before = process.umask(0o077);
  try {
    return work();
  } finally {
    process.umask(before);
  }
}

function prepare(path: string, readonly: boolean, migrations: readonly Migration[]): Connection {
  const found = path === ":memory:" ? "empty" : inspect(path);
  if (found !== "ours" && readonly) throw foreign(path, found === "absent" ? "it is not there" : "it is empty");
  let pending = migrations;
  if (found === "ours") {
    // Before SQLite makes files beside it: they take its mode, and would stay unwritable after it was mended.
    if (!readonly) accessSync(path, constants.R_OK | constants.W_OK);
    // A connection that cannot write judges the schema: a refused file stays as it is.
    const reader = openConnection(path, true);
    try {
      pending = pendingMigrations(path, appliedMigrations(reader), migrations);
    } catch (error) {
      reader.close();
      throw error;
    }
    if (readonly && pending.length === 0) return reader;
    reader.close();
    if (readonly) {
      throw new Fault("unsupported", `cannot read "${path}": its schema is older than this keyhold`, {
        hint: "start the server once: it brings the schema up to date",
      });
    }
  }
  if (found !== "ours" && path !== ":memory:") createDatabase(path, migrations);
  const connection = openConnection(path, false);
  try {
    if (path === ":memory:") migrate(connection, true, migrations);
    else migrate(connection, false, found === "ours" ? pending : []);
    connection.db.run("PRAGMA journal_mode = WAL");
    // Finishes an erasure that a crash may have left in the WAL.
    connection.db.run("PRAGMA wal_checkpoint(TRUNCATE)");
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  }
}

/**
 * Makes a database beside its place and moves it there whole: a crash leaves either nothing or all of it, never a file
 * whose first pages wait in a journal.
 */
function createDatabase(path: string, migrations: readonly Migration[]): void {
  const draft = `${path}.new`;
  // what an earlier start left that was cut short; the caller holds the directory
  for (const ending of ["", ...BESIDE]) rmSync(`${draft}${ending}`, { force: true });
  // a log without its database would be played into the new one
  for (const ending of BESIDE) rmSync(`${path}${ending}`, { force: true });
  syncDirectory(dirname(path));
  closeSync(openSync(draft, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o600));
  try {
    const connection = openConnection(draft, false);
    try {
      migrate(connection, true, migrations);
      connection.db.run("PRAGMA journal_mode = WAL");
    } finally {
      connection.close();
    }
    renameSync(draft, path);
    syncDirectory(dirname(path));
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
}

/**
 * Opens keyhold's database at `path`, making it if there is none; `:memory:` for one that is forgotten.
 * A file that is not ours, is damaged or has another schema is refused as it is.
 *
 * @throws Fault corrupt, unsupported, storage
 */
export function openDatabase(path: string, readonly: boolean, migrations: readonly Migration[]): Connection {
  const what = `cannot open the database "${path}"`;
  try {
    return withUmask(() => prepare(path, readonly, migrations));
  } catch (error) {
    if (error instanceof Error && "syscall" in error) throw systemFault(error, what);
    throw sqliteFault(error, what);
  }
}
