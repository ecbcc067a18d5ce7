import { resolve } from "node:path";
import { Fault } from "../errors.ts";
import { isPostgres } from "./postgres/target.ts";
import { openPostgres } from "./postgres.ts";
import { openSqlite } from "./sqlite.ts";
import type { CommitObserver, Store } from "./store.ts";

const SQLITE = "sqlite:";

/** Where an embedded database lies, or undefined for one that a server of its own keeps. @throws Fault bad_input */
export function databaseFile(database: string): string | undefined {
  if (isPostgres(database)) return undefined;
  if (database.startsWith(SQLITE) && database.length > SQLITE.length) return resolve(database.slice(SQLITE.length));
  // what was given is not repeated: it may hold a password
  throw new Fault("bad_input", "cannot use this database: its kind is unknown", {
    hint: "sqlite:PATH, or postgres://USER@HOST/DATABASE",
  });
}

/**
 * Opens a store. Of an embedded one the caller holds the lock of its directory.
 *
 * @param database `sqlite:PATH` or `postgres://…`.
 * @throws Fault bad_input and what {@link openSqlite} and {@link openPostgres} throw
 */
export async function openStore(
  database: string,
  options: { readonly committed?: CommitObserver } = {},
): Promise<Store> {
  const path = databaseFile(database);
  return path === undefined ? openPostgres(database, options) : openSqlite(path, options);
}
