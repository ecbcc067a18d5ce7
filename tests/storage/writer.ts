import { writeSync } from "node:fs";
import { Fault } from "../../src/errors.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";

/**
 * Child of crash.test.ts: writes rows from FIRST on until it is killed or a write fails, and says each number after
 * its acknowledgement, on its own line.
 */
const [path = "", first = "0", writers = "8"] = process.argv.slice(2);
const store = await openSqlite(path);
let next = Number(first);
let failed: unknown;

async function write(): Promise<void> {
  while (failed === undefined) {
    const n = next;
    next += 1;
    try {
      await store.transaction(async (tx) => {
        await tx.putSetting(`a${n}`, "x".repeat(500));
        await tx.putSetting(`b${n}`, "x".repeat(500));
      });
    } catch (error) {
      failed = error;
      return;
    }
    writeSync(1, `${n}\n`);
  }
}

await Promise.all(Array.from({ length: Number(writers) }, write));
writeSync(1, `fault ${failed instanceof Fault ? failed.code : "none"}\n`);
writeSync(1, `read ${(await store.transaction(async (tx) => tx.setting(`b${first}`)))?.length}\n`);
