import type { StoredKeyId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { STORED_KEY } from "../ceremony/storedkeys.ts";
import type { ServerContext } from "../context.ts";
import { listStored, putStored, readStored, removeStored, type Stored } from "../documents.ts";
import { inBatches } from "../floodnotes.ts";
import { DUE, type DueBody, HANDOUT, type HandoutBody, KNOWN_KEY, MINUTE, newestFirst } from "./documents.ts";
import { forgetHandout, forgetKey } from "./keys.ts";
import { sweepRefused } from "./refusals.ts";

/** Keys that one sweep looks for. */
const KEYS = 256;

/** Hand-outs that are read at once. */
const PAGE = 64;

/** All that were made in one minute. */
async function handoutsOf(tx: Tx, keyId: StoredKeyId, minute: number): Promise<readonly Stored<HandoutBody>[]> {
  const last = newestFirst(minute * MINUTE);
  const all: Stored<HandoutBody>[] = [];
  for (let from = { place: newestFirst((minute + 1) * MINUTE), id: "~" }; ; ) {
    const page = await listStored(tx, HANDOUT, keyId, from, PAGE);
    all.push(...page.filter(({ place }) => place <= last));
    const end = page.at(-1);
    if (!end || page.length < PAGE || end.place > last) return all;
    from = end;
  }
}

/** What time alone ends, and what is left of keys whose issuer's account is gone. */
export function createSweep(ctx: ServerContext): () => Promise<void> {
  let after: string | null = null;

  const dueMs = ({ value }: Stored<HandoutBody>) => value.expiresAtMs + ctx.limits.otpHandoutKeptMs;

  /** Forgets at most `limit` of a minute's hand-outs that are due, and notes when the next of them is; says how many. */
  async function forgetMinute(tx: Tx, row: Stored<DueBody>, limit: number): Promise<number> {
    const { keyId, minute } = row.value;
    const all = await handoutsOf(tx, keyId, minute);
    const due = all.filter((one) => dueMs(one) <= ctx.now()).slice(0, limit);
    for (const one of due) await forgetHandout(tx, keyId, one);
    const left = all.filter((one) => !due.includes(one));
    if (left.length === 0) await removeStored(tx, DUE, row.id);
    else await putStored(tx, DUE, { ...row, place: Math.min(...left.map(dueMs)) }, row.version);
    return due.length;
  }

  async function forgetDue(limit: number): Promise<number> {
    return ctx.store.transaction(async (tx) => {
      const rows = await listStored(tx, DUE, "", null, limit);
      let done = 0;
      for (const row of rows.filter(({ place }) => place <= ctx.now()))
        if (done < limit) done += Math.max(1, await forgetMinute(tx, row, limit - done));
      return done;
    });
  }

  async function forgetLost(): Promise<void> {
    const from: string | null = after;
    const page = await ctx.store.transaction((tx) =>
      listStored(tx, KNOWN_KEY, "", from === null ? null : { place: 0, id: from }, KEYS),
    );
    for (const { id } of page) {
      const keyId = id as StoredKeyId;
      for (let done = false; !done; )
        done = await ctx.store.transaction(
          async (tx) => (await readStored(tx, STORED_KEY, id)) !== undefined || (await forgetKey(tx, keyId)),
          keyId,
        );
    }
    after = page.length < KEYS ? null : (page.at(-1)?.id ?? null);
  }

  return async () => {
    await inBatches(forgetDue);
    await sweepRefused(ctx);
    await forgetLost();
  };
}
