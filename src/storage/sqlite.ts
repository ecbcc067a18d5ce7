import { Fault } from "../errors.ts";
import { type Migration, SQLITE_MIGRATIONS } from "./migrations.ts";
import { type Connection, query } from "./sqlite/connection.ts";
import { isFatal, sqliteFault } from "./sqlite/faults.ts";
import { BUSY_TIMEOUT_MS, openDatabase } from "./sqlite/open.ts";
import { createQueue, type Engine } from "./sqlite/queue.ts";
import { snapshot } from "./sqlite/snapshot.ts";
import { sqliteTx, txHandles } from "./sqlite/tx.ts";
import type { CommitObserver, Store, Tx } from "./store.ts";

/** Problems that a check lists at most. */
const CHECK_LINES = 100;

function createEngine(connection: Connection, readonly: boolean): Engine<Tx> {
  let erased = false;
  /** Why the running job's writes may not stay. */
  let forbids: Fault | undefined;
  const handleOf = txHandles(
    sqliteTx(
      query(connection, {
        failed: (fault) => {
          if (isFatal(fault)) forbids ??= fault;
        },
        erased: () => {
          erased = true;
        },
      }),
    ),
  );

  /** Carries the commit into the main file and empties the WAL, which still holds what was erased. */
  function checkpointErased(): void {
    connection.db.run("PRAGMA busy_timeout = 0");
    try {
      const row = connection.statement("PRAGMA wal_checkpoint(TRUNCATE)").get() as { busy: number } | null;
      erased = row?.busy !== 0;
    } catch {
      // The commit is durable; the next commit or start tries again.
    } finally {
      connection.db.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    }
  }

  return {
    begin: () => connection.exec(readonly ? "BEGIN" : "BEGIN IMMEDIATE"),
    commit: () => {
      connection.exec("COMMIT");
      if (erased) checkpointErased();
    },
    rollback: () => connection.exec("ROLLBACK"),
    savepoint: () => connection.exec("SAVEPOINT job"),
    release: () => connection.exec("RELEASE job"),
    rollbackTo: () => connection.exec("ROLLBACK TO job"),
    inTransaction: () => connection.db.inTransaction,
    handle: () => {
      forbids = undefined;
      const { tx, end } = handleOf();
      return {
        context: tx,
        end: () => {
          end();
          return forbids;
        },
      };
    },
    fault: (error) => sqliteFault(error, "cannot write the database"),
  };
}

function checkConnection(connection: Connection): readonly string[] {
  const structure = connection.statement(`PRAGMA integrity_check(${CHECK_LINES})`).values();
  const references = connection.statement("PRAGMA foreign_key_check").values();
  return [
    ...structure.map(([line]) => String(line)).filter((line) => line !== "ok"),
    ...references.slice(0, CHECK_LINES).map(([table]) => `a row of ${String(table)} points to nothing`),
  ];
}

/**
 * Opens the embedded store: one process, one connection, WAL, synchronous FULL, commits shared by waiting
 * transactions. The caller holds the lock of the directory (`lockDirectory`).
 *
 * @param path The database file, made 0600 if there is none; `:memory:` for tests.
 * @param options `readonly` refuses every write; `migrations` is for tests; `committed` learns of each commit.
 * @throws Fault corrupt, unsupported, storage: the file is left as it is.
 */
export async function openSqlite(
  path: string,
  options: {
    readonly readonly?: boolean;
    readonly migrations?: readonly Migration[];
    readonly committed?: CommitObserver;
  } = {},
): Promise<Store> {
  const readonly = options.readonly ?? false;
  const connection = openDatabase(path, readonly, options.migrations ?? SQLITE_MIGRATIONS);
  const queue = createQueue(createEngine(connection, readonly), undefined, options.committed);
  let closing: Promise<void> | undefined;

  function assertOpen(): void {
    if (closing !== undefined) throw new Fault("unavailable", "cannot use the database: it is closed");
  }

  return {
    engine: "sqlite",
    transaction: async (work) => {
      assertOpen();
      return queue.push(work);
    },
    backup: async (to) => {
      assertOpen();
      if (path === ":memory:") throw new Fault("unsupported", "a database in memory has no backup");
      await snapshot(path, to);
    },
    check: async () => {
      assertOpen();
      try {
        return checkConnection(connection);
      } catch (error) {
        const fault = sqliteFault(error, "cannot check the database");
        if (fault.code === "corrupt") return [fault.message];
        throw fault;
      }
    },
    close: () => {
      closing ??= queue.idle().then(() => connection.close());
      return closing;
    },
  };
}
