import { Database } from "bun:sqlite";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Store, Tx } from "../../src/storage/store.ts";

/** Stores and databases under the eyes of a test: watched, lied to, broken, or read from outside. */

// ---- A store that watches, lies or fails ----

/** Runs around each statement of a transaction; may change its arguments, its answer, or throw. */
export type Hook = (
  method: string,
  args: readonly unknown[],
  run: (...args: unknown[]) => Promise<unknown>,
) => Promise<unknown>;

/** A store whose transactions go through `hook` while there is one. */
export interface HookedStore {
  hook: Hook | null;
  /** Sees each transaction as a whole. */
  around: (<T>(run: () => Promise<T>) => Promise<T>) | null;
  wrap(store: Store): Store;
}

export function hookedStore(): HookedStore {
  const hooked: HookedStore = {
    hook: null,
    around: null,
    wrap: (store) => ({
      engine: store.engine,
      check: () => store.check(),
      backup: (path) => store.backup(path),
      close: () => store.close(),
      transaction: (work) => {
        const run = () => store.transaction((tx) => work(through(tx)));
        return hooked.around ? hooked.around(run) : run();
      },
    }),
  };
  function through(tx: Tx): Tx {
    return new Proxy(tx, {
      get(target, name) {
        const method = Reflect.get(target, name) as (...args: unknown[]) => Promise<unknown>;
        return (...args: unknown[]) => {
          const run = (...given: unknown[]) => method.apply(target, given);
          return hooked.hook ? hooked.hook(String(name), args, run) : run(...args);
        };
      },
    });
  }
  return hooked;
}

/** A hook that writes down each statement with the form of what it writes: names of fields, lengths, null or not. */
export function recorder(): { readonly lines: string[]; readonly hook: Hook } {
  const lines: string[] = [];
  return {
    lines,
    hook: (method, args, run) => {
      lines.push(`${method}(${args.map((arg) => formOf(arg, method)).join(", ")})`);
      return run(...args);
    },
  };
}

function formOf(value: unknown, path: string): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === "string") return /^(account|device|address):/.exec(value)?.[0] ?? `${value.length} characters`;
  if (typeof value !== "object" || value === null) {
    // a shadow entry differs in its expiry alone, an account's own numbers in their size
    return path === "appendAudit" ? "-" : typeof value === "number" ? "number" : String(value);
  }
  return `{${Object.entries(value)
    .map(([name, field]) => `${name}: ${formOf(field, path)}`)
    .join(", ")}}`;
}

// ---- A database on disk, seen from outside ----

/** A server's database file; `sql` is a second connection, as a thief or an intruder would have it. */
export interface FileStore {
  readonly directory: string;
  readonly path: string;
  sql<R = Record<string, unknown>>(text: string, ...values: (string | number | Uint8Array | null)[]): R[];
  /** Everything but the tables named, as text to compare. */
  dump(...except: string[]): string;
  end(): void;
}

export function fileStore(): FileStore {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-server-"));
  const path = join(directory, "keyhold.db");
  function sql<R>(text: string, ...values: (string | number | Uint8Array | null)[]): R[] {
    const db = new Database(path);
    try {
      db.run("PRAGMA busy_timeout = 5000");
      return db.query(text).all(...values) as R[];
    } finally {
      db.close();
    }
  }
  return {
    directory,
    path,
    sql,
    dump(...except) {
      const tables = sql<{ name: string }>("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
      return tables
        .filter(({ name }) => !except.includes(name))
        .map(({ name }) => `${name}: ${JSON.stringify(sql(`SELECT * FROM ${name}`), shown)}`)
        .join("\n");
    },
    end: () => rmSync(directory, { recursive: true, force: true }),
  };
}

const shown = (_key: string, value: unknown): unknown => (value instanceof Uint8Array ? value.toHex() : value);
