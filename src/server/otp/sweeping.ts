import type { StoredKeyId } from "../../ids.ts";
import { STORED_KEY } from "../ceremony/storedkeys.ts";
import type { ServerContext } from "../context.ts";
import { listStored, readStored } from "../documents.ts";
import { inBatches } from "../floodnotes.ts";
import { DUE, KNOWN_KEY } from "./documents.ts";
import { forgetHandout, forgetKey } from "./keys.ts";
import { sweepRefused } from "./refusals.ts";

/** Keys that one sweep looks for. */
const KEYS = 256;

/** What time alone ends, and what is left of keys whose issuer's account is gone. */
export function createSweep(ctx: ServerContext): () => Promise<void> {
  let after: string | null = null;

  async function forgetDue(limit: number): Promise<number> {
    return ctx.store.transaction(async (tx) => {
      const rows = await listStored(tx, DUE, "", null, limit);
      const due = rows.filter(({ place }) => place <= ctx.now());
      for (const { id, value } of due) await forgetHandout(tx, value.keyId, id);
      return due.length;
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
