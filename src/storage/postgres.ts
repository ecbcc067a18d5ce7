import { Fault } from "../errors.ts";
import { type Migration, POSTGRES_MIGRATIONS } from "./migrations.ts";
import { checkDatabase } from "./postgres/check.ts";
import { connect, TIMING, type Timing } from "./postgres/connection.ts";
import { createLanes, LANE_LIMITS, type LaneLimits } from "./postgres/lanes.ts";
import { openDatabase } from "./postgres/open.ts";
import { targetOf } from "./postgres/target.ts";
import type { CommitObserver, Store } from "./store.ts";
import { copyOut } from "./transfer.ts";

/**
 * Opens a store on PostgreSQL, which any number of processes may share. Makes the tables in an empty database; processes
 * that start together take turns.
 *
 * Transactions have one snapshot each (REPEATABLE READ) and lock the account that they read, so that those of one
 * account are serial; what conflicts runs again. A commit whose reply is lost is looked up by its mark; only if the
 * database does not come back in time its works fail with `outcome_unknown`.
 *
 * @param spec `postgres://USER@HOST:PORT/DATABASE`; no message or log names its password.
 * @throws Fault bad_input, denied, not_found, tls_refused, unavailable, corrupt, unsupported: the database is left as
 *   it is.
 */
export async function openPostgres(
  spec: string,
  options: {
    readonly migrations?: readonly Migration[];
    readonly limits?: Partial<LaneLimits>;
    readonly timing?: Partial<Timing>;
    readonly committed?: CommitObserver;
    readonly env?: Readonly<Record<string, string | undefined>>;
  } = {},
): Promise<Store> {
  const target = targetOf(spec, options.env);
  const migrations = options.migrations ?? POSTGRES_MIGRATIONS;
  const timing = { ...TIMING, ...options.timing };
  const limits = { ...LANE_LIMITS, ...options.limits };
  const first = await openDatabase(target, migrations, timing);
  // what fails from now on is told to clients too: the database's address is nothing for them
  const unnamed = { ...target, shown: "of this server" };
  const lanes = createLanes(() => connect(unnamed, timing), first, limits, options.committed);
  let closing: Promise<void> | undefined;

  function assertOpen(): void {
    if (closing !== undefined) throw new Fault("unavailable", "cannot use the database: it is closed");
  }

  return {
    engine: "postgres",
    transaction: async (work, near) => {
      assertOpen();
      return lanes.push(work, near);
    },
    check: async () => {
      assertOpen();
      const connection = await connect(target, timing);
      try {
        return await checkDatabase(connection, target, migrations);
      } finally {
        connection.close();
      }
    },
    backup: async (path) => {
      assertOpen();
      await copyOut(target, path);
    },
    close: () => {
      closing ??= lanes.idle().then(() => lanes.close());
      return closing;
    },
  };
}
