import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { Fault } from "../../errors.ts";

/** Where a database lies and how to get in. */
export interface Target {
  /** For the driver. The password is asked for at each connection. */
  readonly options: Bun.SQL.PostgresOrMySQLOptions;
  /** The database as messages name it: without its password. */
  readonly shown: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

const DEFAULT_PORT = 5_432;
const MODES = ["disable", "require", "verify-full"] as const;
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[?::1\]?)$/;

/** True for the address of a PostgreSQL database. */
export function isPostgres(spec: string): boolean {
  return /^postgres(?:ql)?:\/\//i.test(spec);
}

/** True for an address that holds a password, which does not belong on a command line. */
export function holdsPassword(spec: string): boolean {
  return isPostgres(spec) && (URL.parse(spec)?.password ?? "") !== "";
}

const bad = (why: string) =>
  new Fault("bad_input", `cannot use this database: ${why}`, {
    hint: "postgres://USER@HOST:PORT/DATABASE, see docs/operations.md",
  });

/** Splits a line of a password file at its colons; `\:` and `\\` stand for themselves. */
function fieldsOf(line: string): string[] {
  const fields = [""];
  for (let i = 0; i < line.length; i += 1) {
    const letter = line[i] ?? "";
    const last = fields.length - 1;
    if (letter === "\\" && i + 1 < line.length) {
      i += 1;
      fields[last] += line[i] ?? "";
    } else if (letter === ":" && fields.length < 5) fields.push("");
    else fields[last] += letter;
  }
  return fields;
}

/** The password for a database in libpq's password file, the first line that fits. @throws Fault denied */
function fromFile(path: string, wanted: readonly string[], demanded: boolean): string | undefined {
  let text: string;
  try {
    if (process.platform !== "win32" && (statSync(path).mode & 0o077) !== 0) {
      // libpq passes over such a file too; one that was named outright is worth a word
      if (!demanded) return undefined;
      throw new Fault("denied", `cannot use the password file ${JSON.stringify(path)}: others may read it`, {
        hint: `chmod 600 ${path}`,
      });
    }
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Fault) throw error;
    if (!demanded) return undefined;
    throw new Fault("denied", `cannot read the password file ${JSON.stringify(path)}`);
  }
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith("#")) continue;
    const fields = fieldsOf(line);
    const fits = wanted.every((value, i) => fields[i] === "*" || fields[i] === value);
    if (fits && fields[4] !== undefined) return fields[4];
  }
  return undefined;
}

function tlsOf(host: string | null, query: URLSearchParams): Bun.SQL.PostgresOrMySQLOptions {
  const local = host === null || LOOPBACK.test(host);
  const mode = query.get("sslmode") ?? (local ? "disable" : "verify-full");
  if (!MODES.some((known) => known === mode)) throw bad(`sslmode takes ${MODES.join(", ")}`);
  if (mode === "disable") return { tls: false };
  const authority = query.get("sslrootcert");
  const trusted = authority === null ? {} : { ca: Bun.file(authority) };
  return { tls: { rejectUnauthorized: mode === "verify-full", ...trusted } };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw bad("it has a broken escape");
  }
}

const PARAMETERS: ReadonlySet<string> = new Set(["host", "port", "user", "sslmode", "sslrootcert"]);

/** The address without what may be secret or malformed; its query must hold only known parameters. */
function addressOf(spec: string): URL {
  const url = URL.parse(spec);
  if (!url || !isPostgres(spec)) throw bad("its address is malformed");
  for (const name of url.searchParams.keys()) {
    if (!PARAMETERS.has(name)) throw bad(`unknown parameter ${JSON.stringify(name)}`);
  }
  return url;
}

function portOf(url: URL): number {
  const text = url.searchParams.get("port") ?? url.port;
  if (text === "") return DEFAULT_PORT;
  if (!/^[1-9]\d{0,4}$/.test(text) || Number(text) > 65_535) throw bad("its port is none");
  return Number(text);
}

/**
 * Takes `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?…]` apart, or for a Unix socket
 * `postgres:///DATABASE?host=DIRECTORY&user=USER[&port=PORT]`. Without a password there, it comes from PGPASSWORD, or
 * from the file of PGPASSFILE or `~/.pgpass`.
 *
 * @throws Fault bad_input, denied; no text holds the password.
 */
export function targetOf(spec: string, env: Environment = process.env): Target {
  const url = addressOf(spec);
  const query = url.searchParams;
  const username = query.get("user") ?? decoded(url.username);
  if (username === "") throw bad("its address names no user");
  const database = decoded(url.pathname.slice(1)) || username;
  const directory = query.get("host");
  if (directory !== null && !directory.startsWith("/")) throw bad("host= takes the directory of a Unix socket");
  if (directory === null && url.hostname === "") throw bad("its address names no host");
  const port = portOf(url);
  const host = directory === null ? decoded(url.hostname).replace(/^\[(.*)\]$/, "$1") : null;
  const file = env["PGPASSFILE"];
  const wanted = [host ?? "localhost", String(port), database, username];
  const password =
    decoded(url.password) ||
    env["PGPASSWORD"] ||
    fromFile(file ?? join(env["HOME"] ?? homedir(), ".pgpass"), wanted, file !== undefined) ||
    "";
  return {
    options: {
      // without one the driver takes parameters from DATABASE_URL
      url: "postgres://localhost",
      ...(host === null ? { path: join(directory ?? "/", `.s.PGSQL.${port}`) } : { hostname: host, port }),
      ...tlsOf(host, query),
      username,
      password,
      database,
      connection: { application_name: "keyhold" },
    },
    shown:
      host === null
        ? `postgres:///${database}?host=${directory}&user=${username}`
        : `postgres://${username}@${url.hostname}:${port}/${database}`,
  };
}
