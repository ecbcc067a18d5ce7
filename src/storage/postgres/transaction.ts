import { Fault } from "../../errors.ts";
import { type Bindable, bound, type Connection, type Rows, rowOf } from "./connection.ts";
import { type Failure, failureOf } from "./faults.ts";

/** Statements inside one transaction. What needs no answer is sent without waiting for one. */
export interface Query {
  get<R>(sql: string, ...params: Bindable[]): Promise<R | undefined>;
  all<R>(sql: string, ...params: Bindable[]): Promise<R[]>;
  /** @returns how many rows changed. */
  run(sql: string, ...params: Bindable[]): Promise<number>;
  /** Writes; a failure fails the transaction, at the latest at its end. */
  send(sql: string, ...params: Bindable[]): void;
  /** Writes; that no row changed fails the transaction with `fault`. */
  demand(fault: Fault, sql: string, ...params: Bindable[]): void;
}

/** What came of a piece of work. */
export type Outcome =
  | { readonly ok: true; readonly value: unknown }
  /** `duplicate`: for a row that stands already, perhaps one that came after the snapshot. */
  | { readonly ok: false; readonly error: unknown; readonly duplicate?: boolean };

/** One piece of work on a connection. */
export interface Attempt {
  readonly query: Query;
  /** Runs `work` and waits for all that it sent. Ends one that waits for anything but its statements. */
  run(work: () => Promise<unknown>): Promise<Outcome>;
  /** The first failure of a statement: whatever the work made of it, nothing of it may be kept. */
  failure(): Failure | undefined;
  /** True if anything was sent that may change a row. */
  wrote(): boolean;
}

const WHAT = "cannot use the database";
const WRITES = /^\s*(?:INSERT|UPDATE|DELETE|WITH)\b/;

/** Begins an attempt on a connection that stands in a transaction. */
export function attempt(connection: Connection): Attempt {
  let open = true;
  let wrote = false;
  let failure: Failure | undefined;
  let waiting = 0;
  let settled: (() => void) | undefined;
  let stalled: (() => void) | undefined;

  function guard(): void {
    if (!open) throw new Fault("internal", "a transaction was used after its end");
  }

  function failed(error: unknown): Fault {
    // what comes after the first failure only says that the transaction has failed
    failure ??= failureOf(error, WHAT);
    return failure.fault;
  }

  /** All microtasks have run when this does: work that has sent nothing by then waits for something else. */
  function watch(): void {
    setImmediate(() => {
      if (waiting === 0) stalled?.();
    });
  }

  function answered(): void {
    waiting -= 1;
    if (waiting > 0) return;
    settled?.();
    if (open) watch();
  }

  /** Sends what `bound` made; a write that changes no row fails with `unchanged`, where one is given. */
  async function step(sql: string, values: readonly Bindable[], unchanged?: Fault): Promise<Rows> {
    wrote ||= WRITES.test(sql);
    waiting += 1;
    try {
      const rows = await connection.query(sql, values);
      if (unchanged && rows.count === 0) throw unchanged;
      return rows;
    } catch (error) {
      throw failed(error);
    } finally {
      answered();
    }
  }

  async function ask(sql: string, params: readonly Bindable[]): Promise<Rows> {
    guard();
    return step(sql, bound(params));
  }

  /** The failure is kept in `failure`; nobody waits for the promise. */
  function tell(sql: string, params: readonly Bindable[], unchanged?: Fault): void {
    guard();
    step(sql, bound(params), unchanged).catch(() => undefined);
  }

  const query: Query = {
    get: async <R>(sql: string, ...params: Bindable[]) => {
      const [row] = await ask(sql, params);
      return row ? rowOf<R>(row) : undefined;
    },
    all: async <R>(sql: string, ...params: Bindable[]) => (await ask(sql, params)).map((row) => rowOf<R>(row)),
    run: async (sql, ...params) => (await ask(sql, params)).count,
    send: (sql, ...params) => tell(sql, params),
    demand: (fault, sql, ...params) => tell(sql, params, fault),
  };

  function race(work: () => Promise<unknown>): Promise<Outcome> {
    return new Promise((resolve) => {
      stalled = () =>
        resolve({ ok: false, error: new Fault("internal", "a transaction waited for something outside it") });
      try {
        work().then(
          (value) => resolve({ ok: true, value }),
          (error: unknown) => resolve({ ok: false, error }),
        );
        if (waiting === 0) watch();
      } catch (error) {
        resolve({ ok: false, error });
      }
    });
  }

  return {
    query,
    async run(work) {
      const outcome = await race(work);
      open = false;
      if (waiting > 0) {
        await new Promise<void>((resolve) => {
          settled = resolve;
        });
      }
      if (!failure) return outcome;
      return { ok: false, error: failure.fault, duplicate: failure.kind === "duplicate" };
    },
    failure: () => failure,
    wrote: () => wrote,
  };
}
