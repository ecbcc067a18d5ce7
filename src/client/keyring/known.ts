import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { asHashId, isHashId, type KeyringRequestId } from "../../ids.ts";
import { type FederatedRequest, verifyRequest } from "../../protocol/federation/request.ts";
import { keyringRequestIdOf } from "../../protocol/keyring/keyring.ts";
import type { KeyringItemView, KeyringRequestView } from "../../wire/keyring/views.ts";
import { checked, everyPage, type Ground, lie, oneOf } from "./ground.ts";
import { allWorkspaces } from "./workspaces.ts";

/** A request that the registry shows: its id, and the signature of one owner under each item, are verified. */
export interface KnownRequest {
  readonly view: KeyringRequestView;
  /** Owner key of whoever asked, 32 bytes. */
  readonly requester: Uint8Array;
}

/** The item of a request for a key. */
export function onlyItem({ view }: KnownRequest): KeyringItemView {
  const [item, another] = view.items;
  if (item && !another && view.kind === "key") return item;
  throw new Fault("integrity", "this request asks for no key");
}

/** What may stand in a request of this kind. */
function fits(kind: KeyringRequestView["kind"], { body }: FederatedRequest): boolean {
  if (kind === "key") return body.kind === "generate";
  return body.kind === "sign" || (body.kind === "release" && body.purpose === "sign" && body.message !== null);
}

function checkItem(ground: Ground, view: KeyringRequestView, item: KeyringItemView, requester: Uint8Array): void {
  const { request } = item.request;
  const itemId = checked(ground, "a request that nobody has signed", () => verifyRequest(item.request));
  if (itemId !== item.itemId) throw lie(ground, "an item under another id than its own");
  const mark = request.keyring;
  const marked =
    mark !== null &&
    equalBytes(mark.registry, ground.identity) &&
    mark.keyringId === view.keyringId &&
    mark.workspaceId === view.workspaceId;
  if (!marked) throw lie(ground, "an item that belongs to another registry, keyring or workspace");
  if (!equalBytes(request.requester, requester)) throw lie(ground, "items of several requesters as one request");
  if (!fits(view.kind, request)) throw lie(ground, `an item that asks for something else than a ${view.kind}`);
}

/**
 * Verifies what a request is: signed by one owner, of this registry, keyring and workspace, and its id the hash of that.
 *
 * @throws Fault integrity
 */
export function knownRequest(ground: Ground, view: KeyringRequestView): KnownRequest {
  const requester = view.items[0]?.request.request.requester;
  if (!requester) throw lie(ground, "a request for nothing");
  for (const item of view.items) checkItem(ground, view, item, requester);
  const ids = view.items.map(({ itemId }) => itemId);
  if (keyringRequestIdOf(view.keyringId, view.workspaceId, ids) !== view.requestId)
    throw lie(ground, "a request under another id than its own");
  if (view.kind === "key" && view.items.length !== 1) throw lie(ground, "a request for several keys at once");
  return { view, requester };
}

/** One by its id. @throws Fault not_found, integrity */
export async function requestById(ground: Ground, requestId: KeyringRequestId): Promise<KnownRequest> {
  return answered(ground, requestId, await ground.call("keyring.request.get", { requestId }));
}

/** What the registry answers about one request. @throws Fault integrity for another one */
export function answered(ground: Ground, requestId: KeyringRequestId, view: KeyringRequestView): KnownRequest {
  if (view.requestId !== requestId) throw lie(ground, "another request than the one that was asked for");
  return knownRequest(ground, view);
}

/** A request by its id or the beginning of it, over all workspaces. @throws Fault not_found, ambiguous, integrity */
export async function findRequest(ground: Ground, wanted: string): Promise<KnownRequest> {
  if (isHashId(wanted)) return requestById(ground, asHashId(wanted));
  const views: KeyringRequestView[] = [];
  for (const { view } of await allWorkspaces(ground)) views.push(...(await requestPages(ground, view, null)));
  const found = oneOf(views, wanted, {
    what: "request",
    name: () => "",
    id: (one) => one.requestId,
    hint: "a request is named by its id or the first 4 or more digits of it",
  });
  // what it is now: a list tells what was stored last
  return requestById(ground, found.requestId);
}

/** Requests of one workspace, newest first as the registry lists them; not verified yet. */
export function requestPages(
  ground: Ground,
  { workspaceId }: Pick<KeyringRequestView, "workspaceId">,
  status: KeyringRequestView["status"] | null,
): Promise<readonly KeyringRequestView[]> {
  return everyPage<KeyringRequestView>(ground, (last) =>
    ground.call("keyring.requests", { workspaceId, status, after: last?.requestId ?? null }),
  );
}
