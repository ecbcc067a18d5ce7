import { equalBytes } from "../../crypto/bytes.ts";
import type { CeremonyId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { appendEvent } from "../audit.ts";
import type { ServerContext } from "../context.ts";
import { eachStored, readStored } from "../documents.ts";
import { shortId } from "../federation/named.ts";
import { CEREMONY, HEAD } from "./documents.ts";
import { eraseCeremony } from "./erasing.ts";

/**
 * Erases open ceremonies for which no enclave signs anything any more, not even their end: after a restore, or when the
 * enclave that they began with is lost. Their organisers' logs say so; their participants find none.
 *
 * @param enclave Identity of the one that goes on with its own, 32 bytes; null: none are gone on with.
 * @returns how many.
 */
export async function giveUpCeremonies(ctx: ServerContext, tx: Tx, enclave: Uint8Array | null): Promise<number> {
  let count = 0;
  for (const { id } of await eachStored(tx, HEAD, "")) {
    const ceremony = await readStored(tx, CEREMONY, id);
    if (!ceremony) continue;
    const { manifest, organiser: userId } = ceremony.value;
    if (enclave && equalBytes(manifest.manifest.draft.key.key.enclave, enclave)) continue;
    const ceremonyId = id as CeremonyId;
    await eraseCeremony(ctx, tx, ceremonyId, manifest.manifest.draft);
    await appendEvent(ctx, tx, { userId, action: "ceremony.abort", status: "stale", keyId: shortId(ceremonyId) });
    count += 1;
  }
  return count;
}
