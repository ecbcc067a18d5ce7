import type { CeremonyId, UserId } from "../../ids.ts";
import type { CeremonyDraft } from "../../protocol/ceremony/model.ts";
import type { Tx } from "../../storage/store.ts";
import type { ServerContext } from "../context.ts";
import { type DocumentKind, eachStored, removeStored } from "../documents.ts";
import { CEREMONY, ENTRY, HEAD, OPENING, PART, RELEASE } from "./documents.ts";
import { unlist } from "./ending.ts";
import { STORED_KEY, STORED_KEY_BEFORE } from "./storedkeys.ts";

async function removeAll(tx: Tx, kind: DocumentKind<unknown>, owner: string): Promise<void> {
  for (const row of await eachStored(tx, kind, owner)) await removeStored(tx, kind, row.id);
}

/** Erases a ceremony but for its draft, by which nobody opens another one. A key that it made stays. */
export async function eraseCeremony(ctx: ServerContext, tx: Tx, id: CeremonyId, draft: CeremonyDraft): Promise<void> {
  for (const kind of [ENTRY, OPENING, PART, RELEASE]) await removeAll(tx, kind, id);
  await unlist(ctx, tx, id, draft);
  for (const kind of [HEAD, CEREMONY]) await removeStored(tx, kind, id);
}

/**
 * Erases what hangs on an account's ceremonies and stored keys but is not the account's own in the store: for the end
 * of the account, before the account goes. Transcripts stay with those who took part.
 */
export async function eraseCeremonies(ctx: ServerContext, tx: Tx, userId: UserId): Promise<void> {
  for (const key of await eachStored(tx, STORED_KEY, userId)) await removeAll(tx, STORED_KEY_BEFORE, key.id);
  for (const { id, value } of await eachStored(tx, CEREMONY, userId))
    await eraseCeremony(ctx, tx, id as CeremonyId, value.manifest.manifest.draft);
}
