import type { StoredKeyId, UserId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { appendEvent } from "../audit.ts";
import type { ServerContext } from "../context.ts";
import { shortId } from "../federation/named.ts";
import { countWindowed, inBatches } from "../floodnotes.ts";
import { readEntry } from "./keys.ts";

/** Begins the bucket that counts the refused codes of a key's running window. */
const PREFIX = "otp-refused:";

function note(ctx: ServerContext, tx: Tx, keyId: StoredKeyId, userId: UserId, count: number) {
  return appendEvent(ctx, tx, { userId, action: "otp.verify", status: "denied", keyId: shortId(keyId), count });
}

/**
 * Adds a refused code to the issuer's log: one counted entry a window of `loginBackoffMaxMs`. What comes later in it is
 * counted by the next entry, or by {@link sweepRefused}.
 */
export async function noteRefused(ctx: ServerContext, tx: Tx, keyId: StoredKeyId, userId: UserId): Promise<void> {
  const count = await countWindowed(ctx, tx, `${PREFIX}${keyId}`);
  if (count !== null) await note(ctx, tx, keyId, userId, count);
}

/** Adds to the logs what was only counted in windows that are over. */
export async function sweepRefused(ctx: ServerContext): Promise<void> {
  await inBatches((limit) =>
    ctx.store.transaction(async (tx) => {
      const rows = await tx.takeLimits(PREFIX, ctx.now() - ctx.limits.loginBackoffMaxMs, limit);
      for (const { bucket, count } of rows) {
        const keyId = bucket.slice(PREFIX.length) as StoredKeyId;
        const entry = count === 0 ? undefined : await readEntry(tx, keyId);
        if (entry) await note(ctx, tx, keyId, entry.value.issuer, count);
      }
      return rows.length;
    }),
  );
}
