import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { KeyringId, WorkspaceId } from "../../ids.ts";
import { DEFAULTS } from "../../protocol/defaults.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import {
  type FederatedRequest,
  type RequestBody,
  requestBytes,
  requestIdOf,
  type SignedRequest,
  signRequest,
} from "../../protocol/federation/request.ts";
import { keyringRequestIdOf } from "../../protocol/keyring/keyring.ts";
import { isOpenLife } from "../../protocol/keyring/requestlife.ts";
import { transactionFacts } from "../../protocol/transaction/index.ts";
import type { KeyringClient, KeyringRequestInfo, SignatureItem } from "../keyringapi.ts";
import { isAway } from "../opened.ts";
import { isOwner } from "./chains.ts";
import type { Ground } from "./ground.ts";
import type { KeyringDraft } from "./held.ts";
import { findKeyring, manifestOf, pinKeyring } from "./keyrings.ts";
import { findKey, type KnownKey, signingType } from "./keys.ts";
import { answered, type KnownRequest } from "./known.ts";
import { type Looks, looksOf } from "./looks.ts";
import { ownerSigner, recipientOf, registryInfo } from "./owner.ts";
import { signableBy } from "./usefacts.ts";
import { requestInfo } from "./views.ts";
import { bringVotes } from "./voting.ts";
import { findWorkspace } from "./workspaces.ts";

/** Where a request belongs. */
interface Place {
  readonly workspaceId: WorkspaceId;
  readonly keyringId: KeyringId;
  readonly manifest: Manifest;
  /** Credits that it may cost; null: whatever it costs. */
  readonly feeMax: number | null;
}

/** A new item, signed with the owner key; `body` may depend on its nonce. */
async function newItem(
  ground: Ground,
  { workspaceId, keyringId, manifest }: Place,
  bodyOf: (nonce: Uint8Array) => Promise<RequestBody> | RequestBody,
): Promise<SignedRequest> {
  const signer = ownerSigner(ground);
  const nonce = ground.random(32);
  const createdAtMs = ground.now();
  return signRequest(signer, {
    federationId: manifest.federationId,
    epoch: manifest.epoch,
    requester: signer.publicKey,
    nonce,
    createdAtMs,
    expiresAtMs: createdAtMs + DEFAULTS.requestMs,
    keyring: { registry: ground.identity, keyringId, workspaceId },
    body: await bodyOf(nonce),
  });
}

const NONE = new Uint8Array(32);

/** A request without what is drawn afresh each time. */
function wish({ request }: SignedRequest): Uint8Array {
  const { body } = request;
  const plain: FederatedRequest = {
    ...request,
    nonce: NONE,
    createdAtMs: 0,
    expiresAtMs: 0,
    body: "recipient" in body ? { ...body, recipient: NONE } : body,
  };
  return requestBytes(plain);
}

function isSameWish(draft: KeyringDraft, items: readonly SignedRequest[]): boolean {
  const both = draft.items.length === items.length;
  return both && draft.items.every((item, i) => items[i] !== undefined && equalBytes(wish(item), wish(items[i])));
}

const isLive = (nowMs: number) => (draft: KeyringDraft) =>
  draft.items.every(({ request }) => request.expiresAtMs > nowMs);

const withoutDraft = (drafts: readonly KeyringDraft[], gone: KeyringDraft): KeyringDraft[] =>
  drafts.filter((one) => !equalBytes(one.items[0]?.signature ?? NONE, gone.items[0]?.signature ?? NONE));

/**
 * What was signed is in the vault before it is sent, until the registry has answered: who asks for the same after a
 * crash, or after a lost answer, sends the very same request.
 */
async function submit(ground: Ground, place: Place, fresh: readonly SignedRequest[]): Promise<KnownRequest> {
  const { workspaceId, keyringId, feeMax } = place;
  const live = isLive(ground.now());
  const known = ground
    .held()
    .keyringDrafts.find((one) => live(one) && equalBytes(one.registry, ground.identity) && isSameWish(one, fresh));
  const draft: KeyringDraft = known ?? { registry: ground.identity, workspaceId, keyringId, items: [...fresh] };
  if (!known) {
    await ground.change((held) => ({ ...held, keyringDrafts: [...held.keyringDrafts.filter(live), draft] }));
  }
  const drop = () => ground.change((held) => ({ ...held, keyringDrafts: withoutDraft(held.keyringDrafts, draft) }));
  try {
    const view = await ground.call("keyring.request", { workspaceId, keyringId, items: draft.items, feeMax });
    const ids = draft.items.map(({ request }) => requestIdOf(request));
    const request = answered(ground, keyringRequestIdOf(keyringId, workspaceId, ids), view);
    await drop();
    return request;
  } catch (error) {
    // away: nobody knows whether it has arrived
    if (error instanceof Fault && !isAway(error)) await drop();
    throw error;
  }
}

/** Sends a request, and the asker's own approval where the workspace's policy counts it. */
async function ask(looks: Looks, place: Place, items: readonly SignedRequest[]): Promise<KeyringRequestInfo> {
  const { ground } = looks;
  const { head } = await looks.chain(place.workspaceId);
  if (!isOwner(head, ownerSigner(ground).publicKey)) {
    throw new Fault("denied", "only owners of a workspace ask for its keys", {
      why: `this account's key is ${ownerSigner(ground).publicKey.toHex()}`,
      hint: "an owner adds it: keyhold workspace owner add",
    });
  }
  const request = await submit(ground, place, items);
  const counts = head.rules.some((rule) => rule.effect === "allow" && rule.requesterMayApprove);
  const waits = isOpenLife(request.view) && !request.view.approved;
  if (!counts || !waits) return requestInfo(looks, request);
  return requestInfo(looks, await bringVotes(looks, request, "approve", ""));
}

/** Asks for a new key. @throws Fault not_found, ambiguous, denied, conflict, integrity, unreachable */
export async function requestKey(
  ground: Ground,
  input: Parameters<KeyringClient["requestKey"]>[0],
): Promise<KeyringRequestInfo> {
  const { type } = input;
  if (type === "bytes" || type === "ristretto255") {
    throw new Fault("bad_input", `workspaces have no keys of type ${type}`, {
      hint: "one of: ed25519, schnorr, secp256k1, p256",
    });
  }
  const { workspaceId } = (await findWorkspace(ground, input.workspace)).view;
  const keyring = await findKeyring(ground, input.keyring);
  await registryInfo(ground);
  await pinKeyring(ground, keyring);
  const { keyringId } = keyring.view;
  const place = { workspaceId, keyringId, manifest: manifestOf(keyring), feeMax: input.feeMax ?? null };
  const item = await newItem(ground, place, () => ({
    kind: "generate",
    type,
    length: 32,
    custody: "delegated",
    control: "shared",
    policy: workspaceId,
    owner: null,
  }));
  return ask(looksOf(ground), place, [item]);
}

/** Looks up the keys of a batch: all of one workspace and one keyring. */
async function keysOf(looks: Looks, items: readonly SignatureItem[]): Promise<readonly KnownKey[]> {
  const keys: KnownKey[] = [];
  for (const { key } of items) keys.push(await findKey(looks, key));
  const [first] = keys;
  if (!first) throw new Fault("bad_input", "nothing is to be signed");
  const one = keys.every(
    ({ view }) => view.workspaceId === first.view.workspaceId && view.keyringId === first.view.keyringId,
  );
  if (!one) throw new Fault("bad_input", "one request signs with keys of one workspace and one keyring");
  return keys;
}

/** What asks for one signature: of ECDSA keys the shares are let out to this client. */
async function useOf(
  ground: Ground,
  key: KnownKey,
  item: SignatureItem,
  sealing: Uint8Array,
  nonce: Uint8Array,
): Promise<RequestBody> {
  const type = signingType(key.certificate);
  const { form, message, input } = item;
  const { publicKey, keyId, generation } = key.certificate;
  const said = transactionFacts({ form, message, input }, { type, publicKey });
  const amount = item.amount ?? said?.amount ?? null;
  const common = { keyId, generation, form, input, message, amount };
  const body =
    type === "ed25519" || type === "schnorr"
      ? ({ kind: "sign", ...common, recipient: sealing } as const)
      : ({
          kind: "release",
          purpose: "sign",
          ...common,
          recipient: (await recipientOf(ground, nonce)).publicKey,
        } as const);
  signableBy(key, body);
  return body;
}

/** Asks for signatures, all together. @throws Fault bad_input, not_found, ambiguous, denied, conflict, integrity */
export async function requestSignatures(
  ground: Ground,
  { items, feeMax }: Parameters<KeyringClient["requestSignatures"]>[0],
): Promise<KeyringRequestInfo> {
  const looks = looksOf(ground);
  const keys = await keysOf(looks, items);
  const [first] = keys;
  if (!first) throw new Fault("bad_input", "nothing is to be signed");
  const { workspaceId, keyringId } = first.view;
  const { sealing } = await registryInfo(ground);
  const place = {
    workspaceId,
    keyringId,
    manifest: manifestOf(await looks.keyring(keyringId)),
    feeMax: feeMax ?? null,
  };
  const signed: SignedRequest[] = [];
  for (const [i, key] of keys.entries()) {
    const item = items[i];
    if (item) signed.push(await newItem(ground, place, (nonce) => useOf(ground, key, item, sealing, nonce)));
  }
  return ask(looks, place, signed);
}
