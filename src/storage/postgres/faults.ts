import { Fault } from "../../errors.ts";

/** What a refused caller is told to wait. */
export const RETRY_AFTER_MS = 1_000;

/** What a failed statement means for its transaction. */
export type Failure =
  /** The database undid it, or will: the whole transaction may run again. */
  | { readonly kind: "retry"; readonly fault: Fault }
  /** The connection is gone. */
  | { readonly kind: "lost"; readonly fault: Fault }
  /** There is such a row, which the transaction's snapshot may not have shown: a second look tells. */
  | { readonly kind: "duplicate"; readonly fault: Fault }
  /** The statement itself was refused. */
  | { readonly kind: "refused"; readonly fault: Fault };

/** The part of the driver's error that decides; its texts stay out, since they may quote what was stored. */
interface DriverError {
  readonly code: string;
  /** SQLSTATE, five letters or digits; empty where the database said nothing. */
  readonly state: string;
  readonly severity: string;
}

function textOf(error: object, field: string): string {
  const value: unknown = Reflect.get(error, field);
  return typeof value === "string" ? value : "";
}

/** The driver's error taken apart, or undefined for anything else. */
function driverError(error: unknown): DriverError | undefined {
  if (!(error instanceof Bun.SQL.PostgresError)) return undefined;
  return { code: textOf(error, "code"), state: textOf(error, "errno"), severity: textOf(error, "severity") };
}

/** Serialization failure, deadlock, a lock not had in time: a new try may do. */
const RETRIED: ReadonlySet<string> = new Set(["40001", "40P01", "55P03"]);
/** Cancelled by time, too many connections, standby, shutting down. */
const UNAVAILABLE: ReadonlySet<string> = new Set(["57014", "53300", "25006", "57P03"]);
const DAMAGED: ReadonlySet<string> = new Set(["XX001", "XX002"]);

const unavailable = (what: string, why: string) =>
  new Fault("unavailable", `${what}: ${why}`, { why: `${why}.`, retryAfterMs: RETRY_AFTER_MS });

function refusedFault(what: string, { code, state }: DriverError): Fault {
  if (UNAVAILABLE.has(state)) return unavailable(what, `the database server refuses it (SQLSTATE ${state})`);
  if (DAMAGED.has(state)) {
    return new Fault("corrupt", `${what}: it is damaged (SQLSTATE ${state})`, { hint: "restore a backup" });
  }
  if (state.startsWith("53")) {
    const why = state === "53100" ? "its disk is full" : "its server is short of resources";
    return new Fault("storage", `${what}: ${why}`, {
      why: `${why}.`,
      hint: "give the database server more, then retry",
    });
  }
  if (state === "42501") {
    return new Fault("denied", `${what}: the role may not use it`, {
      hint: "make keyhold's role the owner of the database, its schema and its tables",
    });
  }
  return new Fault("internal", `${what}: ${state === "" ? code : `SQLSTATE ${state}`}`);
}

/**
 * What the failure of a statement comes to. Faults pass as they are.
 *
 * @param what What could not be done: "cannot use the database".
 */
export function failureOf(error: unknown, what: string): Failure {
  if (error instanceof Fault) return { kind: "refused", fault: error };
  const driver = driverError(error);
  if (!driver) return { kind: "refused", fault: new Fault("internal", what) };
  const { state, severity, code } = driver;
  if (RETRIED.has(state)) return { kind: "retry", fault: unavailable(what, "others change the same rows") };
  if (state === "23505") {
    return { kind: "duplicate", fault: new Fault("conflict", `${what}: it has such a row already`) };
  }
  const ended = severity === "FATAL" || severity === "PANIC" || state.startsWith("08") || state.startsWith("57P");
  if (ended || (state === "" && code !== "ERR_POSTGRES_SERVER_ERROR")) {
    return { kind: "lost", fault: unavailable(what, "the connection to the database server was lost") };
  }
  return { kind: "refused", fault: refusedFault(what, driver) };
}

/** The fault for a connection that could not be made. @param shown The database without its password. */
export function connectFault(error: unknown, shown: string): Fault {
  if (error instanceof Fault) return error;
  const what = `cannot open the database ${shown}`;
  const driver = driverError(error);
  if (!driver) return new Fault("internal", what);
  const { state, code } = driver;
  if (state.startsWith("28")) {
    return new Fault("denied", `${what}: the database server refuses role or password`, {
      hint: "give the password in PGPASSWORD or in the file that PGPASSFILE names",
    });
  }
  if (state === "3D000") {
    return new Fault("not_found", `${what}: there is no such database`, { hint: "make it with createdb" });
  }
  if (code.startsWith("ERR_POSTGRES_TLS") || code.includes("CERT") || code.includes("SELF_SIGNED")) {
    return new Fault("tls_refused", `${what}: no trusted TLS connection`, {
      why: "the server offers no TLS, or a certificate that is not trusted.",
      hint: "sslrootcert=FILE names the authority; see docs/operations.md",
    });
  }
  if (state.startsWith("53") || state.startsWith("57")) return unavailable(what, `its server says SQLSTATE ${state}`);
  return unavailable(what, "its server does not answer");
}
