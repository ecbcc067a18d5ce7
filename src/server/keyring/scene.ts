import { equalBytes } from "../../crypto/bytes.ts";
import { type HpkeKeyPair, hpkeKeyPair } from "../../crypto/hpke.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, KeyringRequestId } from "../../ids.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import type { SignedRequest } from "../../protocol/federation/request.ts";
import type { Party } from "../../protocol/keyring/keyring.ts";
import { isOpenLife } from "../../protocol/keyring/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import type { Exchange } from "../../wire/federation/exchange.ts";
import { putStored, readStored, removeStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { createTurns, type Turns } from "../federation/turns.ts";
import { type Patience, wakeAtMs } from "./course.ts";
import type { Tell } from "./events.ts";
import {
  ALARM,
  APPROVAL,
  ASKED,
  approvalId,
  DEADLINE,
  doneOwner,
  dueOwner,
  ITEM,
  type ItemRow,
  laterOwner,
  MANIFEST,
  OF_STATUS,
  OPEN_COUNT,
  REQUEST,
  type RequestRow,
  statusEntryId,
  statusOwner,
  TASK,
  type TaskWork,
  taskId,
} from "./requestdocuments.ts";
import type { RegistrySite } from "./service.ts";
import { createWaiting, type Waiting } from "./waiting.ts";

/** How long the coordination waits unless told otherwise: for stragglers, for one step, before it asks once more. */
export const PATIENCE: Patience & { readonly laterMs: number } = { graceMs: 20_000, stepMs: 30_000, laterMs: 2_000 };

/** Attempts of which this process remembers what was verified. */
const REMEMBERED = 1_024;

/** An attempt as far as one version of its item has come: only ever a shortcut, all of it is stored. */
export interface Remembered {
  readonly attempt: number;
  /** Of the item's document. */
  readonly version: number;
  readonly exchange: Exchange;
}

/** What all work on requests through keyrings shares. */
export interface Desk {
  readonly site: RegistrySite;
  readonly turns: Turns;
  readonly waiting: Waiting;
  readonly patience: Patience & { readonly laterMs: number };
  readonly remembered: Map<FederatedRequestId, Remembered>;
  /** Opens partial signatures. */
  readonly pair: Promise<HpkeKeyPair>;
}

/** Makes the desk of one process. */
export function createDesk(site: RegistrySite, patience: Desk["patience"] = PATIENCE): Desk {
  const pair = hpkeKeyPair(site.sealingSeed);
  return { site, turns: createTurns(), waiting: createWaiting(), patience, remembered: new Map(), pair };
}

/** One item within a {@link Scene}. */
export interface ItemScene {
  readonly id: FederatedRequestId;
  readonly stored: Stored<ItemRow>;
  value: ItemRow;
  exchange: Exchange | null;
}

/**
 * Work that is done between two transactions: to seal randomness to the servers of a new attempt, or to open the partial
 * signatures of one.
 */
export type NextWork =
  | {
      readonly do: "order";
      readonly itemId: FederatedRequestId;
      readonly attempt: number;
      readonly roster: readonly number[];
    }
  | { readonly do: "sign"; readonly itemId: FederatedRequestId; readonly attempt: number };

/** One request within one transaction: read once, changed in memory, written at the end. */
export interface Scene {
  readonly desk: Desk;
  readonly tx: Tx;
  readonly tell: Tell;
  readonly nowMs: number;
  readonly requestId: KeyringRequestId;
  readonly stored: Stored<RequestRow>;
  value: RequestRow;
  readonly items: Map<FederatedRequestId, ItemScene>;
  /** Parties, by their keys in hexadecimal, that have something new to do. */
  readonly woken: Set<string>;
  /** What takes more than the store: done after the transaction, and wished again if that never happens. */
  readonly next: NextWork[];
}

/** The same answer for a request that never was and for one of others (P8). */
export const noSuchRequest = () => new Fault("not_found", "no such request");

/** @throws Fault not_found, corrupt */
export async function openScene(desk: Desk, tx: Tx, tell: Tell, requestId: KeyringRequestId): Promise<Scene> {
  const stored = await readStored(tx, REQUEST, requestId);
  if (!stored) throw noSuchRequest();
  return sceneOf(desk, tx, tell, requestId, stored);
}

/** A scene of what was read, or is to be written for the first time (`version` 0). */
export function sceneOf(
  desk: Desk,
  tx: Tx,
  tell: Tell,
  requestId: KeyringRequestId,
  stored: Stored<RequestRow>,
): Scene {
  const nowMs = desk.site.ctx.now();
  const parts = { items: new Map(), woken: new Set<string>(), next: [] };
  return { desk, tx, tell, nowMs, requestId, stored, value: stored.value, ...parts };
}

/** An item of the request. @throws Fault not_found, corrupt */
export async function itemOf(scene: Scene, id: FederatedRequestId): Promise<ItemScene> {
  const known = scene.items.get(id);
  if (known) return known;
  const stored = await readStored(scene.tx, ITEM, id);
  if (stored?.value.requestId !== scene.requestId) throw noSuchRequest();
  const item: ItemScene = { id, stored, value: stored.value, exchange: null };
  scene.items.set(id, item);
  return item;
}

/** All items, in their order. @throws Fault corrupt */
export async function itemsOf(scene: Scene): Promise<readonly ItemScene[]> {
  const items: ItemScene[] = [];
  for (const { itemId } of scene.value.life.items) items.push(await itemOf(scene, itemId));
  return items;
}

/** What the owner signed. @throws Fault corrupt */
export async function askedOf(tx: Tx, id: FederatedRequestId): Promise<SignedRequest> {
  const found = await readStored(tx, ASKED, id);
  if (!found) throw new Fault("corrupt", "a request lies in the database without what its owner signed");
  return found.value.request;
}

/** The manifest under which the request was made. @throws Fault corrupt */
export async function manifestOf({ tx, value }: Scene): Promise<Manifest> {
  const found = await readStored(tx, MANIFEST, value.manifestHash.toHex());
  if (!found) throw new Fault("corrupt", "a request lies in the database without its federation's manifest");
  return found.value.manifest.manifest;
}

/** A party of the snapshot, by its key or the index of its server. */
export function partyOf({ value }: Pick<Scene, "value">, by: Uint8Array | number): Party | undefined {
  return value.parties.find(({ index, key }) => (typeof by === "number" ? index === by : equalBytes(key, by)));
}

/** When a party is to do something: at once, after a while, or there is nothing. */
type When = "due" | "later" | "done";

/** Gives a party something to do for an item, in place of what it had. */
export async function putTask(
  scene: Scene,
  item: ItemScene,
  index: number,
  work: TaskWork,
  when: When = "due",
): Promise<void> {
  const party = partyOf(scene, index);
  if (!party) return;
  const { tx, desk, nowMs, requestId } = scene;
  const { key } = party;
  const id = taskId(key, item.id);
  const before = await readStored(tx, TASK, id);
  if (when === "done" && (!before || before.value.work.do === "nothing")) return;
  const rank = scene.value.createdAtMs;
  item.value = { ...item.value, seq: item.value.seq + 1 };
  const { seq } = item.value;
  const { workspaceId, life } = scene.value;
  const value = { itemId: item.id, requestId, keyringId: life.keyringId, workspaceId, seq, rank, work };
  const owner = { due: dueOwner(key), later: laterOwner(key), done: doneOwner(key) }[when];
  const place = when === "later" ? nowMs + desk.patience.laterMs : rank;
  if (!(await putStored(tx, TASK, { id, owner, place, value }, before?.version ?? 0))) throw changedMeanwhile();
  if (when === "due") scene.woken.add(key.toHex());
}

/** Takes a party's task for an item away. The document stays: to erase one costs more than to keep it. */
export function removeTask(scene: Scene, item: ItemScene, index: number): Promise<void> {
  return putTask(scene, item, index, { do: "nothing" }, "done");
}

/** Puts a request on the lists of owners whose vote it waits for, and takes it off the others'. */
export async function callOwners(scene: Scene, keys: readonly Uint8Array[]): Promise<void> {
  const { tx, requestId, value, stored } = scene;
  const has = (all: readonly Uint8Array[], key: Uint8Array) => all.some((one) => equalBytes(one, key));
  if (keys.length === value.called.length && keys.every((key) => has(value.called, key))) return;
  for (const key of value.called) if (!has(keys, key)) await removeStored(tx, APPROVAL, approvalId(key, requestId));
  for (const key of keys) {
    if (has(value.called, key)) continue;
    const row = { id: approvalId(key, requestId), owner: key.toHex(), place: stored.place, value: {} };
    if (!(await putStored(tx, APPROVAL, row, 0))) throw changedMeanwhile();
  }
  scene.value = { ...scene.value, called: keys };
}

/** Ids under which open requests are counted. */
export const openCounts = ({ userId, workspaceId, life }: Pick<RequestRow, "userId" | "workspaceId" | "life">) =>
  [
    { id: userId as string, owner: "" },
    { id: `${workspaceId}:${life.keyringId}`, owner: workspaceId as string },
  ] as const;

async function count(scene: Scene, by: 1 | -1): Promise<void> {
  const { tx, value } = scene;
  const [account, workspace] = openCounts(value);
  for (const at of [account, workspace]) {
    const before = await readStored(tx, OPEN_COUNT, at.id);
    const left = Math.max(0, (before?.value.count ?? 0) + by);
    const known = left === 0 ? [] : (before?.value.parties ?? []);
    const fresh =
      at === workspace && by === 1
        ? value.parties.map(({ key }) => key).filter((key) => !known.some((one) => equalBytes(one, key)))
        : [];
    const next = { count: left, parties: [...known, ...fresh] };
    if (!(await putStored(tx, OPEN_COUNT, { ...at, place: 0, value: next }, before?.version ?? 0)))
      throw changedMeanwhile();
  }
}

/** Keeps the lists on which a request stands by its status. */
async function list(scene: Scene): Promise<void> {
  const { tx, requestId, value, stored } = scene;
  const { status, expiresAtMs } = value.life;
  const before = stored.version === 0 ? null : stored.value.life;
  if (before?.status === status) return;
  if (before) await removeStored(tx, OF_STATUS, statusEntryId(before.status, requestId));
  const owner = statusOwner(value.workspaceId, status);
  const entry = { id: statusEntryId(status, requestId), owner, place: stored.place, value: {} };
  if (!(await putStored(tx, OF_STATUS, entry, 0))) throw changedMeanwhile();
  const was = before !== null && isOpenLife(before);
  const is = isOpenLife(value.life);
  if (is && before === null) {
    await putStored(tx, DEADLINE, { id: requestId, owner: "", place: expiresAtMs, value: {} }, 0);
    await count(scene, 1);
  }
  if (was && !is) {
    await removeStored(tx, DEADLINE, requestId);
    await count(scene, -1);
  }
}

async function saveItem(scene: Scene, item: ItemScene): Promise<void> {
  const { tx, desk } = scene;
  if (item.value === item.stored.value && item.stored.version > 0) return;
  if (!(await putStored(tx, ITEM, { ...item.stored, value: item.value }, item.stored.version)))
    throw changedMeanwhile();
  const at = wakeAtMs(item.value.course, desk.patience);
  if (at === null) return;
  const alarm = await readStored(tx, ALARM, item.id);
  // an earlier one looks and sets itself anew
  if (alarm && alarm.place <= at) return;
  await removeStored(tx, ALARM, item.id);
  await putStored(tx, ALARM, { id: item.id, owner: "", place: at, value: {} }, 0);
}

/** Writes what has changed. @throws Fault unavailable when another process was first */
export async function closeScene(scene: Scene): Promise<void> {
  for (const item of scene.items.values()) await saveItem(scene, item);
  const { tx, stored } = scene;
  if (scene.value === stored.value && stored.version > 0) return;
  if (!isOpenLife(scene.value.life)) await callOwners(scene, []);
  await list(scene);
  scene.value = { ...scene.value, updatedAtMs: scene.nowMs };
  if (!(await putStored(tx, REQUEST, { ...stored, value: scene.value }, stored.version))) throw changedMeanwhile();
}

/** After the transaction: what was verified is remembered, and who has something to do is woken. */
export function settleScene({ desk, items, woken }: Scene): void {
  for (const { id, value, stored, exchange } of items.values()) {
    if (exchange === null || value.course.stage !== "running") continue;
    const version = stored.version + (value === stored.value ? 0 : 1);
    if (desk.remembered.size >= REMEMBERED) {
      const oldest = desk.remembered.keys().next().value;
      if (oldest !== undefined) desk.remembered.delete(oldest);
    }
    desk.remembered.set(id, { attempt: value.course.attempt, version, exchange });
  }
  for (const party of woken) desk.waiting.wake(party);
}
