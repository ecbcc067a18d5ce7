import { Database } from "bun:sqlite";
import { writeSync } from "node:fs";
import { openSqlite } from "../../src/storage/sqlite.ts";
import { filled, keyId, leaf, record, userId } from "../storage/rows.ts";
import { LOGS, pairValue } from "./storecheck.ts";

/**
 * The traced side of powerloss.ts: `storewriter.ts PATH TRANSACTIONS WRITERS [relaxed]`. Each transaction writes two
 * settings and an audit entry, some a secret, and now and then one is erased; its number is said when it is durable.
 */

const [path = "", count = "1", writers = "1", mode = ""] = process.argv.slice(2);

if (mode === "relaxed") {
  // the control: the same store, with the syncs of its commits left to the next checkpoint
  const { run } = Database.prototype;
  Database.prototype.run = function (this: Database, sql: string, ...rest: never[]) {
    return run.call(this, sql === "PRAGMA synchronous = FULL" ? "PRAGMA synchronous = NORMAL" : sql, ...rest);
  } as typeof run;
}

const ERASE_EVERY = 40;
const store = await openSqlite(path);
let next = 0;

async function write(): Promise<void> {
  while (next < Number(count)) {
    const n = next++;
    await store.transaction(async (tx) => {
      await tx.putSetting(`a${n}`, pairValue(n));
      await record(tx, n % LOGS, { count: n + 1 });
      if (n % 3 === 0) await tx.appendLeaf(userId(1), n + 1, leaf(n), filled(n, 300 + ((n * 97) % 3_000)));
      if (n % ERASE_EVERY === ERASE_EVERY - 1) await tx.eraseSecret(userId(1), keyId(n - (n % 3)));
      await tx.putSetting(`b${n}`, pairValue(n));
    });
    writeSync(1, `${n}\n`);
  }
}

await Promise.all(Array.from({ length: Number(writers) }, write));
await store.close();
