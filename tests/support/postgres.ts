import { chownSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { testUnless } from "./skip.ts";

/** A PostgreSQL of its own for tests: on the loopback address, with a password, gone afterwards. */
export interface TestPostgres {
  readonly port: number;
  readonly password: string;
  /** Directory of its Unix socket. */
  readonly socket: string;
  /** Address of a database in it, as `--database` takes it. */
  url(database: string, options?: { readonly user?: string; readonly password?: string | null }): string;
  /** A connection of its owner, for looking and breaking; closed with the server. */
  admin(database?: string): Bun.SQL;
  /** Makes a database and gives its address. */
  create(): Promise<string>;
  /** Ends it as a shutdown (`fast`) or a crash (`immediate`) does. */
  stop(mode?: "fast" | "immediate"): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
}

const USER = "keyhold";
const PASSWORD = "a password with ünïcode, spaces & signs: /@?#";
/** For hooks that start one. */
export const POSTGRES_MS = 60_000;

/** Directory of the newest server's programs, or undefined where none is installed. */
function programs(): string | undefined {
  const found = [...new Bun.Glob("/usr/lib/postgresql/*/bin/initdb").scanSync({ onlyFiles: true })];
  const version = (path: string) => Number(/postgresql\/(\d+)/.exec(path)?.[1] ?? 0);
  const newest = found.toSorted((a, b) => version(b) - version(a))[0] ?? Bun.which("initdb");
  return newest?.replace(/\/initdb$/, "");
}

/** The user as whom the server runs when the tests run as root, which it refuses. */
function unprivileged(): { uid: number; gid: number; command: string[] } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const accounts = readFileSync("/etc/passwd", "utf8").split("\n");
  const fields = ["nobody", "postgres"].flatMap((name) => accounts.filter((line) => line.startsWith(`${name}:`)))[0];
  const [, , uid, gid] = (fields ?? "").split(":").map(Number);
  if (uid === undefined || gid === undefined) throw new Error("there is no user to run PostgreSQL as");
  return { uid, gid, command: ["setpriv", "--reuid", `${uid}`, "--regid", `${gid}`, "--clear-groups"] };
}

const reason = (): string | undefined => (programs() === undefined ? "needs PostgreSQL" : undefined);

/** True where the tests can start one; `KEYHOLD_TEST_NO_SKIP=1` demands it. */
export const hasPostgres = reason() === undefined || process.env["KEYHOLD_TEST_NO_SKIP"] === "1";

/** Registers a test that needs PostgreSQL; skipped, and counted so, where none is installed. */
export function testWithPostgres(name: string, body: () => void | Promise<unknown>, timeoutMs = POSTGRES_MS): void {
  testUnless(reason(), name, body, timeoutMs);
}

async function run(command: readonly string[], env: Record<string, string> = {}): Promise<void> {
  const child = Bun.spawn([...command], {
    env: { PATH: process.env["PATH"] ?? "", LC_ALL: "C", ...env },
    cwd: "/",
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const errors = await child.stderr.text();
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")}: ${errors}`);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

/** Starts one in a directory of its own. */
export async function startPostgres(settings: readonly string[] = []): Promise<TestPostgres> {
  const bin = programs();
  if (bin === undefined) throw new Error("PostgreSQL is not installed");
  const other = unprivileged();
  const prefix = other?.command ?? [];
  const directory = mkdtempSync(join(tmpdir(), "keyhold-pg-"));
  if (other) chownSync(directory, other.uid, other.gid);
  const data = join(directory, "data");
  const passwordFile = join(directory, "password");
  writeFileSync(passwordFile, PASSWORD, { mode: 0o600 });
  if (other) chownSync(passwordFile, other.uid, other.gid);
  const port = await freePort();
  const admins: Bun.SQL[] = [];
  const control = (...args: string[]) =>
    run([...prefix, join(bin, "pg_ctl"), "-D", data, "-l", join(directory, "log"), "-w", "-t", "30", ...args]);
  let databases = 0;

  const postgres: TestPostgres = {
    port,
    password: PASSWORD,
    socket: directory,
    url(database, { user = USER, password = PASSWORD } = {}) {
      const secret = password === null ? "" : `:${encodeURIComponent(password)}`;
      return `postgres://${user}${secret}@127.0.0.1:${port}/${database}`;
    },
    admin(database = "postgres") {
      const sql = new Bun.SQL({
        adapter: "postgres",
        hostname: "127.0.0.1",
        port,
        username: USER,
        password: PASSWORD,
        database,
        max: 2,
        bigint: true,
      });
      admins.push(sql);
      return sql;
    },
    async create() {
      databases += 1;
      const name = `test_${databases}`;
      await run([join(bin, "createdb"), "-h", "127.0.0.1", "-p", `${port}`, "-U", USER, name], {
        PGPASSWORD: PASSWORD,
      });
      return postgres.url(name);
    },
    stop: (mode = "fast") => control("-m", mode, "stop"),
    start: () => control("start"),
    async close() {
      await Promise.all(admins.splice(0).map((sql) => sql.close({ timeout: 0 }).catch(() => undefined)));
      await postgres.stop("immediate").catch(() => undefined);
      rmSync(directory, { recursive: true, force: true });
    },
  };
  try {
    await run([
      ...prefix,
      join(bin, "initdb"),
      "-D",
      data,
      "-U",
      USER,
      "--auth=scram-sha-256",
      `--pwfile=${passwordFile}`,
      "--encoding=UTF8",
      "--no-sync",
    ]);
    const lines = [
      "listen_addresses = '127.0.0.1'",
      `port = ${port}`,
      `unix_socket_directories = '${directory}'`,
      "shared_buffers = 32MB",
      "max_connections = 60",
      ...settings,
    ];
    writeFileSync(join(data, "postgresql.auto.conf"), `${lines.join("\n")}\n`);
    await postgres.start();
    return postgres;
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}
