import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { signEcdsa } from "../../protocol/federation/ecdsa.ts";
import { combineRelease } from "../../protocol/federation/release.ts";
import { verifyOrder } from "../../protocol/federation/request.ts";
import { signatureHolds } from "../../protocol/federation/signing.ts";
import { type OpenedPartial, openPartial, type Use } from "../../protocol/federation/use.ts";
import type { KeyringItemView } from "../../wire/keyring/views.ts";
import type { KeyringClient, KeyringRequestInfo } from "../keyringapi.ts";
import { checked, type Ground, lie } from "./ground.ts";
import { epochOf } from "./keyrings.ts";
import type { KnownKey } from "./keys.ts";
import { answered, findRequest, type KnownRequest } from "./known.ts";
import { type Looks, looksOf } from "./looks.ts";
import { ownKey, recipientOf } from "./owner.ts";
import { signableBy, useBodyOf } from "./usefacts.ts";
import { isFinishable, isLetOut, requestInfo } from "./views.ts";

/** The use of one item, with the attempt that the registry ordered. @throws Fault integrity */
async function useOf(looks: Looks, request: KnownRequest, item: KeyringItemView, key: KnownKey): Promise<Use> {
  const { ground } = looks;
  const { order } = item;
  if (order === null) throw new Fault("internal", "no attempt of this item was ordered");
  checked(ground, "an attempt that it has not signed", () => verifyOrder(ground.identity, order));
  if (order.order.requestId !== item.itemId) throw lie(ground, "an attempt at another request");
  const signed = item.request.request;
  const manifest = epochOf(await looks.keyring(request.view.keyringId), signed.epoch);
  return { manifest, certificate: key.certificate, request: signed, order: order.order };
}

/** Every share that was let out to this client, opened; each is the caller's to wipe. */
async function openAll(ground: Ground, use: Use, item: KeyringItemView): Promise<readonly OpenedPartial[]> {
  const pair = await recipientOf(ground, use.request.nonce);
  const opened: OpenedPartial[] = [];
  for (const partial of item.partials) {
    try {
      const one = await openPartial(use, pair, partial);
      if (opened.every(({ index }) => index !== one.index)) opened.push(one);
      else wipe(one.value ?? undefined);
    } catch (error) {
      // a message that this server never said proves nothing against it
      if (!(error instanceof Fault)) throw error;
      ground.notice(`a share of request ${item.itemId.slice(0, 16)} does not hold: ${error.message}`);
    }
  }
  return opened;
}

/** Signs one item with the key that its shares make, which is wiped; null while there are too few of them. */
async function signItem(looks: Looks, request: KnownRequest, item: KeyringItemView): Promise<Uint8Array | null> {
  const { ground } = looks;
  const body = useBodyOf(item.request.request);
  if (body === null) throw new Fault("internal", "this item uses no key");
  const key = await looks.key(body.keyId);
  const { type, threshold } = key.certificate;
  if (type !== "secp256k1" && type !== "p256") throw lie(ground, `shares of a key of type ${type}`);
  await markReleased(ground, key);
  const use = await useOf(looks, request, item, key);
  const opened = await openAll(ground, use, item);
  try {
    if (opened.length < threshold) return null;
    const done = checkedRelease(ground, use, opened);
    if (done.culprits.length > 0) {
      const names = done.culprits.map(({ index }) => `server ${index}`).join(", ");
      ground.notice(`wrong shares were let out by ${names}`);
    }
    if (done.result === "failed") return null;
    try {
      const { bytes, prehashed } = signableBy(key, body);
      const { compact } = signEcdsa(type, done.scalar, bytes, prehashed);
      if (signatureHolds(key.certificate, bytes, compact, prehashed)) return compact;
      throw new Fault("internal", "the signature that was made here does not hold");
    } finally {
      wipe(done.scalar);
    }
  } finally {
    wipe(...opened.flatMap(({ value }) => value ?? []));
  }
}

const checkedRelease = (ground: Ground, use: Use, partials: readonly OpenedPartial[]) =>
  checked(ground, "shares that make another key", () => combineRelease({ ...use, partials, ownerScalar: null }));

/** Before the first share is opened, and for good. */
async function markReleased(ground: Ground, { view: { keyId } }: KnownKey): Promise<void> {
  if (ground.held().keyringReleased.includes(keyId)) return;
  await ground.change((held) => ({
    ...held,
    keyringReleased: held.keyringReleased.includes(keyId) ? held.keyringReleased : [...held.keyringReleased, keyId],
  }));
}

/**
 * Looks at a request, and where shares were let out to this client signs with them and brings the signatures.
 *
 * @throws Fault not_found, ambiguous, integrity, conflict
 */
export async function continueRequest(
  ground: Ground,
  { requestId: wanted }: Parameters<KeyringClient["continueKeyringRequest"]>[0],
): Promise<KeyringRequestInfo> {
  const looks = looksOf(ground);
  const request = await findRequest(ground, wanted);
  // what does not verify is not signed
  const info = await requestInfo(looks, request);
  if (!isFinishable(request, ownKey(ground))) return info;
  const results: { itemId: KeyringItemView["itemId"]; signature: Uint8Array }[] = [];
  for (const item of request.view.items.filter(isLetOut)) {
    const signature = await signItem(looks, request, item);
    if (signature) results.push({ itemId: item.itemId, signature });
  }
  if (results.length === 0) return info;
  const { requestId } = request.view;
  const after = answered(ground, requestId, await ground.call("keyring.finish", { requestId, results }));
  for (const { itemId, signature } of results) {
    const shown = after.view.items.find((item) => item.itemId === itemId)?.result ?? null;
    if (shown !== null && !equalBytes(shown, signature)) throw lie(ground, "another signature than was brought");
  }
  return requestInfo(looksOf(ground), after);
}
