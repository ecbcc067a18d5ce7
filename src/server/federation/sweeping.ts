import type { FederatedRequestId } from "../../ids.ts";
import { advance } from "../../protocol/federation/requestlife.ts";
import { withLife } from "./attempts.ts";
import { DEADLINE, listStored, removeStored } from "./documents.ts";
import { note } from "./events.ts";
import { dropPending, lifeOf, readRequest, recallApprovers, saveRequest, turnOf } from "./life.ts";
import type { Desk } from "./ruling.ts";

/** Requests that one sweep looks at. */
const SWEEP = 256;

/** True when the request is over now. */
async function expire(desk: Desk, id: FederatedRequestId): Promise<boolean> {
  const { site } = desk;
  return site.ctx.store.transaction(async (tx) => {
    const row = await readRequest(tx, id);
    if (!row) {
      await removeStored(tx, DEADLINE, id);
      return false;
    }
    const nowMs = site.ctx.now();
    const { life, effects } = advance(lifeOf(row.value), { type: "tick", nowMs });
    if (!effects.includes("forget")) return false;
    await saveRequest(tx, row, { ...withLife(row.value, life, nowMs), called: [], why: "nobody ended it in time" });
    await recallApprovers(tx, id, row.value.called);
    await dropPending(tx, id);
    await note(site, tx, { owner: row.owner, action: "federation.expire", status: "timed_out", requestId: id });
    return true;
  });
}

/**
 * Ends requests whose time is over, as long as this server has signed no certificate of theirs
 * (docs/protocol.md §8.3); says how many.
 */
export async function sweepFederation(desk: Desk): Promise<number> {
  const { site, turns } = desk;
  const nowMs = site.ctx.now();
  const due = await site.ctx.store.transaction((tx) => listStored(tx, DEADLINE, "", null, SWEEP));
  let ended = 0;
  for (const { id: text, place } of due) {
    if (place >= nowMs) break;
    const id = text as FederatedRequestId;
    const row = await site.ctx.store.transaction((tx) => readRequest(tx, id));
    const turn = row ? turnOf(id, row.value.request.request.body) : id;
    const over = await turns.take(turn, () => expire(desk, id));
    if (!over) continue;
    ended += 1;
    await site.enclave.call("forget", { requestId: id }).catch(() => undefined);
  }
  return ended;
}
