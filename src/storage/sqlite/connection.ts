import type { Database, SQLQueryBindings, Statement } from "bun:sqlite";
import type { Fault } from "../../errors.ts";
import { sqliteFault } from "./faults.ts";

/** What a statement takes: blobs are copied while it runs. */
type Bindable = Uint8Array | string | number | null;

/** The one connection, its statements prepared once each. */
export interface Connection {
  readonly db: Database;
  statement(sql: string): Statement<unknown, SQLQueryBindings[]>;
  /** Runs a statement without parameters and results, such as COMMIT. */
  exec(sql: string): void;
  close(): void;
}

/** Wraps an open database; the connection owns it from here on. */
export function connect(db: Database): Connection {
  const statements = new Map<string, Statement<unknown, SQLQueryBindings[]>>();
  function statement(sql: string): Statement<unknown, SQLQueryBindings[]> {
    const known = statements.get(sql);
    if (known) return known;
    const made = db.prepare<unknown, SQLQueryBindings[]>(sql);
    statements.set(sql, made);
    return made;
  }
  return {
    db,
    statement,
    exec: (sql) => {
      statement(sql).run();
    },
    close: () => {
      for (const made of statements.values()) made.finalize();
      statements.clear();
      db.close(true);
    },
  };
}

/** Statements inside one transaction. STRICT tables hold the types that the row types promise. */
export interface Query {
  get<R>(sql: string, ...params: Bindable[]): R | null;
  all<R>(sql: string, ...params: Bindable[]): R[];
  /** @returns how many rows changed. */
  run(sql: string, ...params: Bindable[]): number;
  /** Says that bytes were deleted which must not stay readable in the files after the commit. */
  erased(): void;
}

/** Makes the {@link Query} of a connection. `failed` learns the fault of each statement. */
export function query(connection: Connection, hooks: { failed(fault: Fault): void; erased(): void }): Query {
  function step<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      const fault = sqliteFault(error, "cannot use the database");
      hooks.failed(fault);
      throw fault;
    }
  }
  return {
    get: <R>(sql: string, ...params: Bindable[]) => step(() => connection.statement(sql).get(...params) as R | null),
    all: <R>(sql: string, ...params: Bindable[]) => step(() => connection.statement(sql).all(...params) as R[]),
    run: (sql, ...params) => step(() => connection.statement(sql).run(...params).changes),
    erased: hooks.erased,
  };
}
