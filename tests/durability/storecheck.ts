import { ZERO_HASH_BYTES } from "../../src/crypto/bytes.ts";
import { continueAudit } from "../../src/protocol/audit.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Store } from "../../src/storage/store.ts";
import { EVERY, userId } from "../storage/rows.ts";

/** Audit logs that storewriter.ts writes to in turn. */
export const LOGS = 3;

/** What transaction `n` wrote under both its names. */
export const pairValue = (n: number): string => `${n} `.padEnd(150 + ((n * 31) % 400), "x");

/** What recovery made of a crashed store. */
export interface Recovered {
  /** Acknowledged transactions that are gone. */
  readonly lost: readonly number[];
  /** What does not fit together, in words. */
  readonly corrupt: readonly string[];
}

/**
 * Opens a store as the server does and holds it to what storewriter.ts said.
 *
 * @param acknowledged Numbers that were said.
 * @param limit Numbers that can have been begun, from 0 up.
 */
export async function recoverStore(path: string, acknowledged: readonly number[], limit: number): Promise<Recovered> {
  let store: Store;
  try {
    store = await openSqlite(path);
  } catch (error) {
    return { lost: [], corrupt: [`it does not open: ${String(error)}`] };
  }
  try {
    const corrupt = [...(await store.check())];
    const lost: number[] = [];
    const counts = await store.transaction(async (tx) => {
      const said = new Set(acknowledged);
      const present = new Array<number>(LOGS).fill(0);
      for (let n = 0; n < limit; n++) {
        const [a, b] = [await tx.setting(`a${n}`), await tx.setting(`b${n}`)];
        if (a !== b) corrupt.push(`transaction ${n} is there by half`);
        else if (a !== undefined && a !== pairValue(n)) corrupt.push(`transaction ${n} holds something else`);
        else if (a !== undefined) present[n % LOGS] = (present[n % LOGS] ?? 0) + 1;
        if (a === undefined && said.has(n)) lost.push(n);
      }
      return present;
    });
    for (const [log, count] of counts.entries()) {
      const entries = await store.transaction((tx) => tx.audit(userId(log), EVERY));
      const result = continueAudit({ seq: 0, link: ZERO_HASH_BYTES }, userId(log), entries);
      if (!result.ok) corrupt.push(`log ${log} breaks at entry ${result.broken.seq}`);
      else if (result.head.seq !== count)
        corrupt.push(`log ${log} has ${result.head.seq} entries for ${count} changes`);
    }
    return { lost, corrupt };
  } catch (error) {
    return { lost: [], corrupt: [`it cannot be read: ${String(error)}`] };
  } finally {
    await store.close();
  }
}
