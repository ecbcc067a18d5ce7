import type { Tx } from "../store.ts";
import { accountsTx } from "./accounts.ts";
import { auditTx } from "./audit.ts";
import type { Query } from "./connection.ts";
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
    ...settingsTx(q),
  };
}
