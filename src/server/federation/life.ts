import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId, FederatedRequestId, UserId } from "../../ids.ts";
import { orderHash, type RequestBody } from "../../protocol/federation/request.ts";
import { isOpen, type RequestLife } from "../../protocol/federation/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import { actsFor, type Holder } from "./connectors.ts";
import {
  APPROVAL,
  approvalId,
  DEADLINE,
  eachStored,
  OPEN_REQUEST,
  PENDING_SHARE,
  putStored,
  REQUEST,
  type RequestBodyRow,
  readStored,
  removeStored,
  type Stored,
} from "./documents.ts";

/** A request as this server keeps it. */
export interface StoredRequest extends Stored<RequestBodyRow> {
  readonly id: FederatedRequestId;
  readonly owner: Holder;
}

/** The same answer for an id that never was and for one that is another's (P8). */
export const noSuchRequest = () => new Fault("not_found", "no such request");
export const noSuchKey = () => new Fault("not_found", "no such key");
export const changedMeanwhile = () => new Fault("unavailable", "another process changed this record: try again");

/** The key that a request uses or reshapes; null for one that makes a key. */
export function keyOf(body: RequestBody): FederatedKeyId | null {
  return "keyId" in body ? body.keyId : null;
}

/** Whose turn it is to change a request: all of one key, or the request alone. */
export const turnOf = (id: FederatedRequestId, body: RequestBody): string => keyOf(body) ?? id;

/** What decides about its next transition. */
export function lifeOf(row: RequestBodyRow): RequestLife {
  const { request } = row.request;
  return {
    kind: request.body.kind,
    expiresAtMs: request.expiresAtMs,
    status: row.status,
    attempt: row.attempt,
    orderHash: row.order && orderHash(row.order.order),
    signed: row.signed,
    decision: row.decision?.decision ?? null,
    contradiction: row.contradiction?.decision ?? null,
  };
}

/** @throws Fault corrupt */
export async function readRequest(tx: Tx, id: FederatedRequestId): Promise<StoredRequest | undefined> {
  return (await readStored(tx, REQUEST, id)) as StoredRequest | undefined;
}

/** The caller's own request, or one of a registry whose connector it is. @throws Fault not_found, corrupt */
export async function ownRequest(tx: Tx, id: FederatedRequestId, userId: UserId): Promise<StoredRequest> {
  const found = await readRequest(tx, id);
  if (!found || !(await actsFor(tx, userId, found.owner))) throw noSuchRequest();
  return found;
}

async function index(tx: Tx, kind: typeof OPEN_REQUEST, row: StoredRequest, at: { owner: string; place: number }) {
  if ((await readStored(tx, kind, row.id)) === undefined)
    await putStored(tx, kind, { id: row.id, ...at, value: {} }, 0);
}

/**
 * Writes a request with the entries that list it as open and as ended by time.
 *
 * @throws Fault unavailable when it was changed meanwhile
 */
export async function saveRequest(tx: Tx, row: StoredRequest, value: RequestBodyRow): Promise<StoredRequest> {
  const next = { ...row, value };
  if (!(await putStored(tx, REQUEST, next, row.version))) throw changedMeanwhile();
  const life = lifeOf(value);
  if (isOpen(life)) await index(tx, OPEN_REQUEST, row, { owner: row.owner, place: row.place });
  else await removeStored(tx, OPEN_REQUEST, row.id);
  const ends = (isOpen(life) || life.status === "failed") && life.signed.length === 0;
  if (ends) await index(tx, DEADLINE, row, { owner: "", place: life.expiresAtMs });
  else await removeStored(tx, DEADLINE, row.id);
  return { ...next, version: row.version + 1 };
}

/** Drops the confirmed shares of a request that wait for a decision. */
export async function dropPending(tx: Tx, id: FederatedRequestId): Promise<void> {
  for (const pending of await eachStored(tx, PENDING_SHARE, id)) await removeStored(tx, PENDING_SHARE, pending.id);
}

/** Keys, each once: two policies may name one. */
export function distinctKeys(keys: readonly Uint8Array[]): readonly Uint8Array[] {
  return keys.filter((key, i) => !keys.slice(0, i).some((one) => equalBytes(one, key)));
}

/** Puts a request on the lists of those whose approval it may take, newest first. */
export async function callApprovers(
  tx: Tx,
  { id: requestId, place }: Pick<StoredRequest, "id" | "place">,
  keys: readonly Uint8Array[],
): Promise<void> {
  for (const key of keys) {
    const id = approvalId(key, requestId);
    if (await readStored(tx, APPROVAL, id)) continue;
    await putStored(tx, APPROVAL, { id, owner: key.toHex(), place, value: { requestId } }, 0);
  }
}

/** Takes it off their lists again. */
export async function recallApprovers(tx: Tx, id: FederatedRequestId, keys: readonly Uint8Array[]): Promise<void> {
  for (const key of keys) await removeStored(tx, APPROVAL, approvalId(key, id));
}
