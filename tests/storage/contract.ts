import { afterEach, beforeEach, describe } from "bun:test";
import type { Store } from "../../src/storage/store.ts";
import { accountsContract } from "./contract/accounts.ts";
import { auditContract } from "./contract/audit.ts";
import { documentsContract } from "./contract/documents.ts";
import { logContract } from "./contract/log.ts";
import { requestsContract } from "./contract/requests.ts";
import { secretsContract } from "./contract/secrets.ts";
import { sessionsContract } from "./contract/sessions.ts";
import { transactionsContract } from "./contract/transactions.ts";

/**
 * Holds one engine to the storage port.
 *
 * @param open Gives an empty store; each test closes its own.
 */
export function storeContract(name: string, open: () => Promise<Store>): void {
  describe(`store contract: ${name}`, () => {
    let current: Store | undefined;
    const store = (): Store => {
      if (!current) throw new Error("no store is open");
      return current;
    };
    beforeEach(async () => {
      current = await open();
    });
    afterEach(async () => {
      await current?.close();
      current = undefined;
    });
    transactionsContract(store);
    accountsContract(store);
    sessionsContract(store);
    requestsContract(store);
    secretsContract(store);
    auditContract(store);
    logContract(store);
    documentsContract(store);
  });
}
