import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, KeyringRequestId, WorkspaceId } from "../../ids.ts";
import { isOpenLife } from "../../protocol/keyring/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import { eachStored, listStored, putStored, readStored, removeStored } from "../documents.ts";
import { reconsider, steer } from "./coordinator.ts";
import { wakeAtMs } from "./course.ts";
import { perform } from "./performing.ts";
import {
  ALARM,
  DEADLINE,
  dueOwner,
  ITEM,
  laterOwner,
  OF_STATUS,
  OPEN_COUNT,
  statusOwner,
  TASK,
} from "./requestdocuments.ts";
import { type Desk, itemOf } from "./scene.ts";

/** Alarms and deadlines that one look takes care of. */
const LOOK = 16;
/** Looks of one sweep. */
const LOOKS_MAX = 64;

/** An item whose time has come. */
async function ring(desk: Desk, itemId: FederatedRequestId): Promise<void> {
  const { store } = desk.site.ctx;
  const item = await store.transaction((tx) => readStored(tx, ITEM, itemId));
  if (!item) {
    await store.transaction((tx) => removeStored(tx, ALARM, itemId));
    return;
  }
  await perform(desk, item.value.requestId, async (scene) => {
    const found = await itemOf(scene, itemId);
    if (isOpenLife(scene.value.life)) await steer(scene, found, { type: "tick" });
    const alarm = await readStored(scene.tx, ALARM, itemId);
    if (!alarm || alarm.place > scene.nowMs) return;
    const at = wakeAtMs(found.value.course, desk.patience);
    if (at === null) await removeStored(scene.tx, ALARM, itemId);
    else await putStored(scene.tx, ALARM, { ...alarm, place: Math.max(at, scene.nowMs + 1) }, alarm.version);
  });
}

/** A request whose time is over. */
async function expire(desk: Desk, requestId: KeyringRequestId): Promise<void> {
  try {
    // time comes first whatever is done
    await perform(desk, requestId, async () => undefined);
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "not_found") throw error;
    await desk.site.ctx.store.transaction((tx) => removeStored(tx, DEADLINE, requestId));
  }
}

const looking = new WeakMap<Desk, Promise<boolean>>();

/** Does what is due by the clock; true when there may be more of it. Costs two empty lists as a rule. */
export function runAlarms(desk: Desk): Promise<boolean> {
  const running = looking.get(desk) ?? look(desk).finally(() => looking.delete(desk));
  looking.set(desk, running);
  return running;
}

async function look(desk: Desk): Promise<boolean> {
  const { store, now } = desk.site.ctx;
  const { alarms, deadlines } = await store.transaction(async (tx) => {
    const nowMs = now();
    const due = async (kind: typeof ALARM) =>
      (await listStored(tx, kind, "", null, LOOK)).filter(({ place }) => place <= nowMs).map(({ id }) => id);
    return { alarms: await due(ALARM), deadlines: await due(DEADLINE) };
  });
  for (const id of deadlines) await expire(desk, id as KeyringRequestId);
  for (const id of alarms) await ring(desk, id as FederatedRequestId);
  return alarms.length + deadlines.length >= LOOK;
}

/** Ends requests whose time is over, and moves attempts that stand still (docs/protocol.md §9.6). */
export async function sweepRequests(desk: Desk): Promise<void> {
  for (let looks = 0; looks < LOOKS_MAX; looks++) if (!(await runAlarms(desk))) return;
}

/** Open requests that a new link of a policy is brought to at once, of each status; others when they are looked at. */
const RERULED = 64;

/** Asks the newest link of a workspace's policy about its open requests, newest first: who must agree, and whether at all. */
export async function reruleOpen(desk: Desk, workspaceId: WorkspaceId): Promise<void> {
  const ids = await desk.site.ctx.store.transaction(async (tx) => {
    const all: KeyringRequestId[] = [];
    for (const status of ["pending", "partial"] as const) {
      const rows = await listStored(tx, OF_STATUS, statusOwner(workspaceId, status), null, RERULED);
      all.push(...rows.map(({ id }) => id.slice(status.length + 1) as KeyringRequestId));
    }
    return all;
  });
  for (const id of ids) {
    try {
      await perform(desk, id, reconsider);
    } catch (error) {
      // the link counts all the same: whoever looks at the request next finds out
      if (!(error instanceof Fault)) throw error;
    }
  }
}

/** Tasks of a party that are looked through: those that it is given come first. */
const TASKS = 32;

/**
 * Whether a party's key is in the snapshot of an open request of a workspace, or still has something to do for one of
 * its requests that are over.
 *
 * @throws Fault corrupt
 */
export async function hasOpenRequest(tx: Tx, workspaceId: WorkspaceId, partyKey: Uint8Array): Promise<boolean> {
  const counts = await eachStored(tx, OPEN_COUNT, workspaceId);
  if (counts.some(({ value }) => value.parties.some((key) => equalBytes(key, partyKey)))) return true;
  for (const owner of [dueOwner(partyKey), laterOwner(partyKey)]) {
    const tasks = await listStored(tx, TASK, owner, null, TASKS);
    if (tasks.some(({ value }) => value.workspaceId === workspaceId)) return true;
  }
  return false;
}
