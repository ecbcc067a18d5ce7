import { existsSync } from "node:fs";
import { Fault } from "../errors.ts";
import { databaseFile } from "../storage/open.ts";
import { holdsPassword } from "../storage/postgres/target.ts";
import { directoryPaths } from "./directory.ts";

/**
 * Holds what was asked for against what goes together.
 *
 * @param database The database to use, or null for the directory's own.
 * @param asked `flag` is what stood on the command line, which every process of the machine may read.
 * @throws Fault usage, unsupported, bad_input
 */
export function demandDatabase(
  database: string | null,
  asked: { readonly flag: string | null; readonly reusePort: boolean },
): void {
  if (asked.flag !== null && holdsPassword(asked.flag)) {
    throw new Fault("usage", "a password does not belong on the command line", {
      hint: "KEYHOLD_DATABASE; or leave it out and set PGPASSWORD, or PGPASSFILE to a file of mode 0600",
    });
  }
  const file = database === null ? "" : databaseFile(database);
  if (!asked.reusePort) return;
  if (process.platform !== "linux") throw new Fault("unsupported", "--reuse-port works on Linux alone");
  if (file !== undefined) {
    throw new Fault("usage", "--reuse-port needs a database that several processes share", {
      hint: "--database postgres://USER@HOST/DATABASE",
    });
  }
}

/**
 * Refuses a file that is not there, so that work on a stopped server never begins an empty database beside the one
 * that it serves.
 *
 * @throws Fault not_found
 */
export function demandDatabaseFile(dir: string, database: string | null): void {
  const file = database === null ? directoryPaths(dir).database : databaseFile(database);
  if (file === undefined || existsSync(file)) return;
  throw new Fault("not_found", `there is no database ${JSON.stringify(file)}`, {
    why: "no server runs on this directory that could say where its data is",
    hint: "if it is elsewhere: KEYHOLD_DATABASE=postgres://USER@HOST/DATABASE, or sqlite:PATH",
  });
}
