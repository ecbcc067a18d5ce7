import { Fault } from "../../errors.ts";
import type { FederatedKeyId, KeyringId, UserId, WorkspaceId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import type { KeyringKeyView } from "../../wire/keyring/views.ts";
import { listStored } from "../documents.ts";
import { readKey } from "./keykeeping.ts";
import { KEY_OF, keysOwner } from "./requestdocuments.ts";
import type { RegistryService, RegistrySite } from "./service.ts";
import { keyView } from "./views.ts";
import { demandOwner } from "./workspaces.ts";

/** Keys in one answer: as many as the codec takes. */
const PAGE = 8;

const noSuchKey = () => new Fault("not_found", "no such key");

/** Which keys of a workspace are asked for. */
export interface KeyFilter {
  readonly workspaceId: WorkspaceId;
  readonly keyringId: KeyringId | null;
  readonly type: string | null;
  readonly after: FederatedKeyId | null;
}

/** Keys of fulfilled requests, newest first. @throws Fault not_found, corrupt */
export async function keysPage(tx: Tx, filter: KeyFilter): Promise<{ items: KeyringKeyView[]; more: boolean }> {
  const { workspaceId, keyringId, type, after } = filter;
  const owner = keysOwner(workspaceId, keyringId, type);
  const last = after === null ? undefined : await readKey(tx, after);
  if (after !== null && last?.value.workspaceId !== workspaceId) throw noSuchKey();
  const from = last ? { place: last.place, id: `${owner}:${after}` } : null;
  const rows = await listStored(tx, KEY_OF, owner, from, PAGE + 1);
  const items: KeyringKeyView[] = [];
  for (const { id } of rows.slice(0, PAGE)) {
    const key = await readKey(tx, id.slice(owner.length + 1) as FederatedKeyId);
    if (key) items.push(keyView(key));
  }
  return { items, more: rows.length > PAGE };
}

/** A key of a workspace that the caller owns; all others are like one that does not exist (P8). @throws Fault not_found */
export async function ownKey(tx: Tx, keyId: FederatedKeyId, userId: UserId): Promise<KeyringKeyView> {
  const key = await readKey(tx, keyId);
  if (!key) throw noSuchKey();
  await demandOwner(tx, key.value.workspaceId, userId).catch((error: unknown) => {
    if (error instanceof Fault && error.code === "not_found") throw noSuchKey();
    throw error;
  });
  return keyView(key);
}

/** Looking at keys (docs/protocol.md §9.6). */
export function createKeys(site: RegistrySite): Pick<RegistryService, "keyring.keys" | "keyring.key"> {
  const { store } = site.ctx;
  return {
    "keyring.keys": ({ account: { userId } }, filter) =>
      store.transaction(async (tx) => {
        await demandOwner(tx, filter.workspaceId, userId);
        return keysPage(tx, filter);
      }),
    "keyring.key": ({ account: { userId } }, { keyId }) => store.transaction((tx) => ownKey(tx, keyId, userId)),
  };
}
