import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { ADDRESS_RULES, type AddressInput, type AddressKey, addressOf } from "../../formats/address.ts";
import { asHashId, type FederatedKeyId, isHashId } from "../../ids.ts";
import { type Certificate, certificateHash } from "../../protocol/federation/certificate.ts";
import { verifyFulfilment } from "../../protocol/keyring/fulfilment.ts";
import type { KeyringKeyView } from "../../wire/keyring/views.ts";
import { shownPublicKey } from "../federation/making.ts";
import type { KeyringClient, KeyringKeyInfo } from "../keyringapi.ts";
import { ownerName } from "./chains.ts";
import { checked, everyPage, type Ground, lie, oneOf } from "./ground.ts";
import { epochOf, findKeyring, pinKeyring } from "./keyrings.ts";
import { type KnownRequest, onlyItem, requestById } from "./known.ts";
import type { Looks } from "./looks.ts";
import { allWorkspaces, findWorkspace } from "./workspaces.ts";

/** A key whose making was verified here. */
export interface KnownKey {
  readonly view: KeyringKeyView;
  readonly certificate: Certificate;
  /** Names of parties, at least the threshold of them. */
  readonly confirmedBy: readonly string[];
}

/**
 * Verifies the key that a request is said to have made: by an owner's signature, the pinned federation, and the threshold
 * of the keyring's parties (docs/protocol.md §9.4).
 *
 * @throws Fault integrity
 */
export async function verifyMade(
  looks: Looks,
  request: KnownRequest,
  shown: Pick<KeyringKeyView, "certificate" | "responses">,
): Promise<Pick<KnownKey, "certificate" | "confirmedBy">> {
  const { ground } = looks;
  const { view } = request;
  const item = onlyItem(request);
  const keyring = await looks.keyring(view.keyringId);
  const chain = await looks.chain(view.workspaceId);
  const { certificate } = shown.certificate;
  if (ownerName(chain, request.requester) === null)
    throw lie(ground, "a key that nobody of the workspace has asked for", `key ${certificate.keyId}`);
  const manifest = epochOf(keyring, certificate.epoch);
  const confirmedBy = checked(ground, `the key ${certificate.keyId.slice(0, 16)}, which does not verify`, () =>
    verifyFulfilment({
      registry: ground.identity,
      manifest,
      keyringId: view.keyringId,
      workspaceId: view.workspaceId,
      requestId: view.requestId,
      item: item.request,
      snapshot: view,
      certificate: shown.certificate,
      responses: [...shown.responses, ...item.responses],
    }),
  );
  await pinKeyring(ground, keyring);
  return { certificate, confirmedBy };
}

async function verified(looks: Looks, view: KeyringKeyView): Promise<KnownKey> {
  const { ground } = looks;
  const request = await requestById(ground, view.requestId);
  const { workspaceId, keyringId } = request.view;
  if (view.keyId !== view.certificate.certificate.keyId)
    throw lie(ground, "a key under another id than its certificate's");
  if (workspaceId !== view.workspaceId || keyringId !== view.keyringId)
    throw lie(ground, "a key of another workspace or keyring than its request's");
  return { view, ...(await verifyMade(looks, request, view)) };
}

/** One by its id. @throws Fault not_found, integrity */
export async function keyById(looks: Looks, keyId: FederatedKeyId): Promise<KnownKey> {
  const view = await looks.ground.call("keyring.key", { keyId });
  if (view.keyId !== keyId) throw lie(looks.ground, "another key than the one that was asked for");
  return verified(looks, view);
}

/** A key by its id or the beginning of it, over all workspaces. @throws Fault not_found, ambiguous, integrity */
export async function findKey(looks: Looks, wanted: string): Promise<KnownKey> {
  if (isHashId(wanted)) return looks.key(asHashId(wanted));
  const { ground } = looks;
  const views: KeyringKeyView[] = [];
  for (const { view } of await allWorkspaces(ground)) {
    const { workspaceId } = view;
    views.push(...(await pagesOf(ground, { workspaceId, keyringId: null, type: null })));
  }
  const { keyId } = oneOf(views, wanted, {
    what: "key",
    name: () => "",
    id: (one) => one.keyId,
    hint: "a key is named by its id or the first 4 or more digits of it",
  });
  return looks.key(keyId);
}

type KeyQuery = {
  readonly workspaceId: KeyringKeyView["workspaceId"];
  readonly keyringId: KeyringKeyView["keyringId"] | null;
  readonly type: string | null;
};

const pagesOf = (ground: Ground, query: KeyQuery): Promise<readonly KeyringKeyView[]> =>
  everyPage<KeyringKeyView>(ground, (last) => ground.call("keyring.keys", { ...query, after: last?.keyId ?? null }));

/** Keys of a workspace, each verified. @throws Fault not_found, integrity */
export async function listKeys(
  looks: Looks,
  input: Parameters<KeyringClient["keyringKeys"]>[0],
): Promise<readonly KeyringKeyInfo[]> {
  const { ground } = looks;
  const { workspaceId } = (await findWorkspace(ground, input.workspace)).view;
  const keyringId = input.keyring === null ? null : (await findKeyring(ground, input.keyring)).view.keyringId;
  const found: KeyringKeyInfo[] = [];
  for (const view of await pagesOf(ground, { workspaceId, keyringId, type: input.type })) {
    if (view.workspaceId !== workspaceId) throw lie(ground, "a key of another workspace");
    found.push(await keyInfo(looks, await verified(looks, view)));
  }
  return found;
}

/** Shares were let out, as this vault knows or the registry says. */
const isReleased = ({ ground }: Looks, { view }: KnownKey): boolean =>
  view.released || ground.held().keyringReleased.includes(view.keyId);

/** A key as the client tells of it. */
export async function keyInfo(looks: Looks, key: KnownKey): Promise<KeyringKeyInfo> {
  const { view, certificate, confirmedBy } = key;
  const workspace = (await looks.chain(view.workspaceId)).head.name;
  return {
    keyId: view.keyId,
    workspace,
    keyring: (await looks.keyring(view.keyringId)).view.name,
    type: certificate.type,
    publicKeyHex: shownPublicKey(certificate),
    shown: isReleased(looks, key) ? "released" : "delegated",
    threshold: certificate.threshold,
    holders: certificate.holders,
    createdAt: new Date(view.createdAtMs).toISOString(),
    confirmedBy,
  };
}

/** Of `btc-p2tr` the certificate's key is the output's own: tweaked again, it would lock the money away. */
const addressKey = ({ type, publicKey }: Certificate): AddressKey =>
  type === "schnorr" ? { outputKey: publicKey } : { publicKey };

/** Derives an address of a verified key. @throws Fault bad_input, not_found, integrity */
export async function keyAddress(
  looks: Looks,
  { key: wanted, kind, network, prefix }: Parameters<KeyringClient["keyringAddress"]>[0],
): Promise<{ readonly address: string }> {
  const { certificate } = await findKey(looks, wanted);
  const { type } = ADDRESS_RULES[kind];
  if (certificate.type !== type) {
    throw new Fault("bad_input", `${kind} addresses are made of ${type} keys`, {
      why: `this key is one of type ${certificate.type}`,
    });
  }
  const input: AddressInput = { ...addressKey(certificate), as: kind, network, prefix };
  return { address: addressOf(input) };
}

/** Holds the certificate that a request shows beside a use to the key that was verified. @throws Fault integrity */
export function checkSameKey(ground: Ground, key: KnownKey, shown: Certificate | null): void {
  if (shown === null || equalBytes(certificateHash(shown), certificateHash(key.certificate))) return;
  throw lie(ground, "another certificate of a key beside its use");
}

/** What does not sign is asked for nothing. @throws Fault bad_input */
export function signingType({ type }: Certificate): "ed25519" | "schnorr" | "secp256k1" | "p256" {
  if (type !== "bytes" && type !== "ristretto255") return type;
  throw new Fault("bad_input", `a key of type ${type} does not sign`);
}
