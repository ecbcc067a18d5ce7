import type { FederatedKeyId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { putStored, readStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { KEY, KEY_OF, type KeyRow, keysOwner } from "./requestdocuments.ts";
import { type ItemScene, itemsOf, type Scene } from "./scene.ts";

/** Keeps the key of a fulfilled request, and tells of what was fulfilled (docs/protocol.md §9.6). */
export async function keepKeys(scene: Scene): Promise<void> {
  const { tx, nowMs, requestId } = scene;
  const { workspaceId, life } = scene.value;
  if (life.kind !== "key") return;
  const { keyringId } = life;
  for (const item of await itemsOf(scene)) {
    const { certificate } = item.value;
    if (!certificate) continue;
    const { keyId, type } = certificate.certificate;
    const responses = life.items.find(({ itemId }) => itemId === item.id)?.responses ?? [];
    const value = { workspaceId, keyringId, requestId, certificate, responses, released: false, createdAtMs: nowMs };
    const place = Number.MAX_SAFE_INTEGER - nowMs;
    if (!(await putStored(tx, KEY, { id: keyId, owner: workspaceId, place, value }, 0))) throw changedMeanwhile();
    for (const keyring of [null, keyringId]) {
      for (const kind of [null, type]) {
        const owner = keysOwner(workspaceId, keyring, kind);
        await putStored(tx, KEY_OF, { id: `${owner}:${keyId}`, owner, place, value: {} }, 0);
      }
    }
    await scene.tell({ event: "key.created", workspaceId, keyringId, requestId, keyId, detail: type });
  }
}

/** Responses that came after the request was fulfilled stand beside its key too. */
export async function keepLateResponse(scene: Scene, item: ItemScene): Promise<void> {
  const keyId = item.value.certificate?.certificate.keyId;
  if (!keyId || scene.value.life.kind !== "key") return;
  const row = await readKey(scene.tx, keyId);
  const responses = scene.value.life.items.find(({ itemId }) => itemId === item.id)?.responses ?? [];
  if (!row || row.value.responses.length === responses.length) return;
  if (!(await putStored(scene.tx, KEY, { ...row, value: { ...row.value, responses } }, row.version)))
    throw changedMeanwhile();
}

/** @throws Fault corrupt */
export function readKey(tx: Tx, keyId: FederatedKeyId): Promise<Stored<KeyRow> | undefined> {
  return readStored(tx, KEY, keyId);
}

/** Marks the key of an item whose shares were let out: for good. */
export async function markReleased(scene: Scene, item: ItemScene): Promise<void> {
  const keyId = item.value.certificate?.certificate.keyId;
  const row = keyId && (await readKey(scene.tx, keyId));
  if (!row || row.value.released) return;
  if (!(await putStored(scene.tx, KEY, { ...row, value: { ...row.value, released: true } }, row.version)))
    throw changedMeanwhile();
  const { workspaceId, life } = scene.value;
  const { requestId } = scene;
  await scene.tell({ event: "key.released", workspaceId, keyringId: life.keyringId, requestId, keyId });
}
