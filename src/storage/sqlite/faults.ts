import { SQLiteError } from "bun:sqlite";
import { Fault } from "../../errors.ts";

const SPACE = { why: "the disk is full.", hint: "free disk space, then try again" };
const READONLY = {
  why: "it is read-only.",
  hint: "make the database file and its directory writable for keyhold, then try again",
};

/** Details by primary result code; the extended code (`SQLITE_IOERR_WRITE`) begins with it. */
const STORAGE: readonly (readonly [prefix: string, details: { why: string; hint: string }])[] = [
  ["SQLITE_FULL", SPACE],
  ["SQLITE_READONLY", READONLY],
  ["SQLITE_PERM", READONLY],
  ["SQLITE_IOERR", { why: "reading or writing the disk failed.", hint: "check the disk, then try again" }],
  ["SQLITE_CANTOPEN", { why: "the file cannot be opened.", hint: "check the path and its permissions" }],
  ["SQLITE_BUSY", { why: "another program holds it.", hint: "end the other program, then try again" }],
  ["SQLITE_LOCKED", { why: "another program holds it.", hint: "end the other program, then try again" }],
  ["SQLITE_NOMEM", { why: "memory is short.", hint: "free memory, then try again" }],
];

/**
 * The fault for what SQLite, or our own code on top of it, threw. Faults pass as they are; SQLite's texts stay out,
 * since they may quote what was stored.
 *
 * @param what What could not be done: "cannot write the database".
 */
export function sqliteFault(error: unknown, what: string): Fault {
  if (error instanceof Fault) return error;
  if (!(error instanceof SQLiteError)) return new Fault("internal", what);
  const code = error.code ?? "unknown";
  if (code === "SQLITE_CONSTRAINT_UNIQUE" || code === "SQLITE_CONSTRAINT_PRIMARYKEY") {
    return new Fault("conflict", `${what}: it has such a row already`);
  }
  if (code.startsWith("SQLITE_CORRUPT") || code === "SQLITE_NOTADB") {
    return new Fault("corrupt", `${what}: the file is damaged`, { hint: "restore a backup" });
  }
  for (const [prefix, details] of STORAGE) {
    if (code.startsWith(prefix)) return new Fault("storage", `${what}: ${details.why.slice(0, -1)}`, details);
  }
  return new Fault("internal", `${what}: ${code}`);
}

/** True for faults after which nothing of the transaction may be kept, whatever its work made of them. */
export function isFatal(fault: Fault): boolean {
  return fault.code === "storage" || fault.code === "corrupt" || fault.code === "internal";
}
