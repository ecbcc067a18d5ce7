import { Fault } from "../../errors.ts";
import { connectFault } from "./faults.ts";
import type { Target } from "./target.ts";

/** What a statement takes. */
export type Bindable = Uint8Array | string | number | boolean | null;

/** What a statement gave. */
export interface Rows extends ReadonlyArray<Record<string, unknown>> {
  /** Rows found or changed. */
  readonly count: number;
  /** `SELECT`, `COMMIT`, …: what the database did, which may not be what it was told. */
  readonly command: string;
}

/** One connection: what is sent runs in order, without waiting for the answer before. */
export interface Connection {
  /** Sends a statement. It is parsed once for the connection's life. */
  query(sql: string, params: readonly Bindable[]): Promise<Rows>;
  /** Sends text without parameters, several statements too; gives the last one's command. */
  exec(sql: string): Promise<string>;
  /** True once it cannot be used any more. */
  lost(): boolean;
  /** Ends it at once; what has no answer fails. */
  close(): void;
}

/** Times after which a connection gives up, in milliseconds. */
export interface Timing {
  /** The database server cancels a statement after it. */
  readonly statementMs: number;
  /** Waiting longer for a row that another transaction changes counts as a conflict. Below the deadlock check of 1 s. */
  readonly lockMs: number;
  /** A process that stands still in a transaction loses its rows after it. Below the patience for a lost commit. */
  readonly idleMs: number;
  /** A statement without an answer for so long means a dead connection. */
  readonly silentMs: number;
  /** For making a connection. */
  readonly connectMs: number;
}

export const TIMING: Timing = {
  statementMs: 15_000,
  lockMs: 400,
  idleMs: 5_000,
  silentMs: 20_000,
  connectMs: 3_000,
};

/** Settings of each connection, over whatever the server's or the role's defaults are. */
const settingsOf = ({ statementMs, lockMs, idleMs }: Timing): string => `SET statement_timeout = ${statementMs};
SET lock_timeout = ${lockMs};
SET idle_in_transaction_session_timeout = ${idleMs};
SET client_min_messages = 'error';`;
const DURABLE = "SET synchronous_commit = 'on'";

/** Opens one connection. @throws Fault denied, not_found, tls_refused, unavailable */
export async function connect(target: Target, timing: Timing = TIMING): Promise<Connection> {
  let gone = false;
  let waiting = 0;
  let heardAt = 0;
  const sql = new Bun.SQL({
    ...target.options,
    adapter: "postgres",
    max: 1,
    bigint: true,
    prepare: true,
    idleTimeout: 0,
    maxLifetime: 0,
    connectionTimeout: timing.connectMs / 1_000,
    onclose: () => {
      gone = true;
    },
  });
  let reserved: Bun.ReservedSQL;
  try {
    reserved = await sql.reserve();
  } catch (error) {
    void sql.close({ timeout: 0 }).catch(() => undefined);
    throw connectFault(error, target.shown);
  }
  const watch = setInterval(() => {
    if (waiting > 0 && performance.now() - heardAt > timing.silentMs) close();
  }, timing.silentMs / 10);
  watch.unref();

  function close(): void {
    gone = true;
    clearInterval(watch);
    void sql.close({ timeout: 0 }).catch(() => undefined);
  }

  /** Counts what is on its way; the driver sends it at once. */
  function sent<T>(query: PromiseLike<T>): Promise<T> {
    if (waiting === 0) heardAt = performance.now();
    waiting += 1;
    const heard = () => {
      waiting -= 1;
      heardAt = performance.now();
    };
    return Promise.resolve(query).then(
      (value) => {
        heard();
        return value;
      },
      (error: unknown) => {
        heard();
        throw error;
      },
    );
  }

  const connection: Connection = {
    query: (text, params) => sent(reserved.unsafe<Rows>(text, [...params])),
    exec: (text) => sent(reserved.unsafe(text)).then((rows) => String(Reflect.get(Object(rows), "command") ?? "")),
    lost: () => gone,
    close,
  };
  try {
    await connection.exec(settingsOf(timing));
    // a server or role whose default is faster than durable is overruled
    const [row] = await connection.query("SELECT current_setting('synchronous_commit') AS level", []);
    if (row?.["level"] === "off") await connection.exec(DURABLE);
    return connection;
  } catch (error) {
    close();
    throw connectFault(error, target.shown);
  }
}

/** A value as the port gives it: blobs are plain arrays of their own, integers numbers. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  return value instanceof Uint8Array ? new Uint8Array(value) : value;
}

/** A row as the port gives it. */
export function rowOf<R>(row: Record<string, unknown>): R {
  const out: Record<string, unknown> = {};
  for (const name of Object.keys(row)) out[name] = plain(row[name]);
  return out as R;
}

/**
 * Parameters as they are sent later: blobs are copied, for their owner may wipe them meanwhile.
 *
 * @throws Fault internal for a number that the database would round.
 */
export function bound(params: readonly Bindable[]): readonly Bindable[] {
  return params.map((param) => {
    if (typeof param === "number" && !Number.isSafeInteger(param)) {
      throw new Fault("internal", "cannot use the database: a number is no integer");
    }
    return param instanceof Uint8Array ? new Uint8Array(param) : param;
  });
}
