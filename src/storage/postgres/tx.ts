import type { Tx } from "../store.ts";
import { accountsTx } from "./accounts.ts";
import { auditTx } from "./audit.ts";
import { documentsTx } from "./documents.ts";
import { logTx } from "./log.ts";
import { invitesTx, limitsTx, requestsTx, settingsTx } from "./requests.ts";
import { secretsTx } from "./secrets.ts";
import { sessionsTx } from "./sessions.ts";
import type { Query } from "./transaction.ts";

/** The whole transaction over one {@link Query}. */
export function postgresTx(q: Query): Tx {
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
