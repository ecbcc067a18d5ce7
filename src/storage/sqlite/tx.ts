import { Fault } from "../../errors.ts";
import type { Tx } from "../store.ts";
import { accountsTx } from "./accounts.ts";
import { auditTx } from "./audit.ts";
import type { Query } from "./connection.ts";
import { documentsTx } from "./documents.ts";
import { logTx } from "./log.ts";
import { invitesTx, limitsTx, requestsTx, settingsTx } from "./requests.ts";
import { secretsTx } from "./secrets.ts";
import { sessionsTx } from "./sessions.ts";

/** The whole transaction over one {@link Query}. Each method runs its statements at once and never waits. */
export function sqliteTx(q: Query): Tx {
  return {
    ...accountsTx(q),
    ...sessionsTx(q),
    ...limitsTx(q),
    ...invitesTx(q),
    ...requestsTx(q),
    ...secretsTx(q),
    ...auditTx(q),
    ...logTx(q),
    ...documentsTx(q),
    ...settingsTx(q),
  };
}

/** A transaction that one job may use until `end`. */
export interface TxHandle {
  readonly tx: Tx;
  end(): void;
}

type Method = (...args: never[]) => Promise<unknown>;
const OPEN = Symbol("open");

/** Gives each job a handle of its own over the same methods: it costs one object, where methods of its own cost fifty. */
export function txHandles(methods: Tx): () => TxHandle {
  const shared: Record<string, unknown> = {};
  for (const [name, method] of Object.entries(methods) as [string, Method][]) {
    shared[name] = function (this: { readonly [OPEN]: boolean }, ...args: never[]) {
      if (this[OPEN]) return method(...args);
      return Promise.reject(new Fault("internal", "a transaction was used after its end"));
    };
  }
  return () => {
    const tx: Tx & { [OPEN]: boolean } = Object.create(shared);
    tx[OPEN] = true;
    return {
      tx,
      end() {
        tx[OPEN] = false;
      },
    };
  };
}
