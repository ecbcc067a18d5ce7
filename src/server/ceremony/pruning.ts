import type { CeremonyId } from "../../ids.ts";
import type { ServerContext } from "../context.ts";
import { listStored, type Stored } from "../documents.ts";
import { HEAD, type HeadBody, OVER } from "./documents.ts";
import { eraseCeremony } from "./erasing.ts";
import { readHead } from "./scene.ts";

/** Ceremonies that are over, of one look. */
const PAGE = 64;

/**
 * Forgets ceremonies that were aborted longer ago than `ceremonyKeptMs`, transcript and all: what is left is the entry in
 * the organiser's log, and the draft, which opens no other one. Those that have made a key stay: their transcripts vouch
 * for it (docs/protocol.md §10.4).
 */
export function createPruning(ctx: ServerContext): () => Promise<void> {
  let after: Stored<HeadBody> | null = null;

  async function forget(id: CeremonyId): Promise<void> {
    await ctx.store.transaction(async (tx) => {
      const at = await readHead(tx, id);
      if (at?.head.value.status === "aborted")
        await eraseCeremony(ctx, tx, id, at.ceremony.value.manifest.manifest.draft);
    }, id);
  }

  return async () => {
    const from: Stored<HeadBody> | null = after;
    const page = await ctx.store.transaction((tx) => listStored(tx, HEAD, OVER, from, PAGE));
    const old = page.filter(({ place }) => place <= ctx.now() - ctx.limits.ceremonyKeptMs);
    for (const { id, value } of old) if (value.status === "aborted") await forget(id as CeremonyId);
    // the oldest stand first: after the first young one there are no old ones
    after = old.length < PAGE ? null : (old.at(-1) ?? null);
  };
}
