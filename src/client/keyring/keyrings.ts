import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { asHashId, asId, isHashId, type KeyringId, type UserId } from "../../ids.ts";
import { type Manifest, manifestBytes, manifestHash, type SignedManifest } from "../../protocol/federation/manifest.ts";
import { digestWords } from "../../protocol/federation/words.ts";
import { verifyEvidence } from "../../protocol/keyring/evidence.ts";
import { keyringIdOf } from "../../protocol/keyring/keyring.ts";
import { equivocationProof } from "../../wire/keyring/records.ts";
import type { KeyringView, PartyView } from "../../wire/keyring/views.ts";
import type { InputOf } from "../../wire/operations.ts";
import type { HeldFederation } from "../federation/held.ts";
import { newestOf } from "../federation/keeping.ts";
import { chainTo, followTo } from "../federation/manifests.ts";
import type { KeyringClient, KeyringInfo, PartyInfo } from "../keyringapi.ts";
import { keyOf } from "./documents.ts";
import { checked, everyPage, type Ground, lie, oneOf } from "./ground.ts";
import { knownId, ofKnown } from "./names.ts";

/** A connector that was not heard of for so long is told as away, in milliseconds. */
const SEEN_MS = 120_000;

/** A keyring with the manifests of its federation as they were verified here, oldest first. */
export interface KnownKeyring {
  readonly view: KeyringView;
  readonly manifests: readonly SignedManifest[];
}

/** The manifest that new requests go by. */
export const manifestOf = ({ view }: KnownKeyring): Manifest => view.manifest.manifest;

/** The manifest of one epoch. @throws Fault unavailable where no server gave it */
export function epochOf({ view, manifests }: KnownKeyring, epoch: number): Manifest {
  const found = manifests.find(({ manifest }) => manifest.epoch === epoch)?.manifest;
  if (found) return found;
  throw new Fault("unavailable", `nobody shows the manifest of epoch ${epoch} of the keyring "${view.name}"`, {
    hint: "join its federation: keyhold federation join URL#PIN",
  });
}

const isPinOf = (ground: Ground, keyringId: KeyringId) => (pin: { registry: Uint8Array; keyringId: KeyringId }) =>
  pin.keyringId === keyringId && equalBytes(pin.registry, ground.identity);

/** Manifests as {@link followTo} takes them. */
const asFederation = ({ manifest }: SignedManifest, manifests: readonly SignedManifest[]): HeldFederation => ({
  federationId: manifest.federationId,
  name: manifest.name,
  manifests: [...manifests],
  joinedAtMs: 0,
  servers: [],
  policies: [],
});

/** Verifies the federation of a keyring: what this vault has pinned or joined, and what follows it. */
async function verified(ground: Ground, view: KeyringView): Promise<KnownKeyring> {
  const { manifest: shown, keyringId } = view;
  const { federationId, epoch, servers } = shown.manifest;
  const { keyringPins, federations } = ground.held();
  const pin = keyringPins.find(isPinOf(ground, keyringId));
  const joined = federations.find((one) => one.federationId === federationId);
  const pinned = pin?.manifests.at(-1)?.manifest;
  if (pinned && pinned.federationId !== federationId)
    throw lie(ground, `the keyring "${view.name}" with another federation than the one that is pinned`);
  if (pinned && epoch < pinned.epoch)
    throw lie(ground, `an older manifest of the keyring "${view.name}" than this device has seen`);
  const own = joined?.manifests.find(({ manifest }) => manifest.epoch === epoch);
  if (own && !equalBytes(manifestBytes(own.manifest), manifestBytes(shown.manifest)))
    throw lie(ground, `another manifest of the federation "${own.manifest.name}" than the one that is joined`);
  const before = pin?.manifests ?? joined?.manifests.filter(({ manifest }) => manifest.epoch <= epoch) ?? [];
  const sources = ground.manifestsFrom(servers);
  try {
    const manifests =
      before.length > 0
        ? (await followTo(asFederation(shown, before), shown, sources)).manifests
        : await chainTo(shown, sources);
    return { view, manifests };
  } catch (error) {
    if (!(error instanceof Fault) || error.code === "unavailable") throw error;
    throw lie(ground, `the keyring "${view.name}" with a manifest that does not hold`, error.message);
  }
}

/** One by its id. @throws Fault not_found, integrity */
export async function keyringById(ground: Ground, keyringId: KeyringId): Promise<KnownKeyring> {
  const view = await ground.call("keyring.get", { keyringId });
  if (view.keyringId !== keyringId) throw lie(ground, "another keyring than the one that was asked for");
  return verified(ground, view);
}

const listed = (ground: Ground): Promise<readonly KeyringView[]> =>
  everyPage<KeyringView>(ground, (last) => ground.call("keyring.list", { after: last?.keyringId ?? null }));

/** All keyrings of the registry, each verified. */
export async function allKeyrings(ground: Ground): Promise<readonly KnownKeyring[]> {
  return Promise.all((await listed(ground)).map((view) => verified(ground, view)));
}

/** A keyring by its name, its id or the beginning of it. @throws Fault not_found, ambiguous, integrity */
export async function findKeyring(ground: Ground, wanted: string): Promise<KnownKeyring> {
  if (isHashId(wanted)) return keyringById(ground, asHashId(wanted));
  const known = knownId(ground, "keyring", wanted);
  if (known !== null) return ofKnown("keyring", wanted, known, () => keyringById(ground, asHashId<KeyringId>(known)));
  const view = oneOf(await listed(ground), wanted, {
    what: "keyring",
    name: (one) => one.name,
    id: (one) => one.keyringId,
    hint: "keyhold keyring list",
  });
  return verified(ground, view);
}

/** Keeps the federation of a keyring that is used: from now on no other one is taken for it. */
export async function pinKeyring(ground: Ground, { view, manifests }: KnownKeyring): Promise<void> {
  const isPin = isPinOf(ground, view.keyringId);
  const known = ground.held().keyringPins.find(isPin);
  if (known && known.manifests.length >= manifests.length) return;
  const { keyringId } = view;
  const name = known?.name ?? view.name;
  const next = { registry: ground.identity, keyringId, name, manifests: [...manifests] };
  await ground.change((held) => {
    const now = held.keyringPins.find(isPin);
    if (now && now.manifests.length >= next.manifests.length) return held;
    return { ...held, keyringPins: [...held.keyringPins.filter((one) => !isPin(one)), next] };
  });
}

const dated = (atMs: number | null): string | null => (atMs === null ? null : new Date(atMs).toISOString());

/** What is wrong with a party, in words. */
function stateOf(ground: Ground, one: PartyView): string {
  if (one.quarantined) return "quarantined: it said two things about one request";
  if (!one.enrolled) return "no connector has enrolled with its key";
  if (one.lastSeenAtMs === null) return "its connector was never seen";
  if (ground.now() - one.lastSeenAtMs > SEEN_MS) return `its connector is away since ${dated(one.lastSeenAtMs)}`;
  return one.state === "" ? "ok" : one.state;
}

/** A keyring as the client tells of it. @throws Fault integrity for evidence that proves nothing */
export function keyringInfo(ground: Ground, known: KnownKeyring): KeyringInfo {
  const { view } = known;
  const manifest = manifestOf(known);
  const parties = view.parties.map((one): PartyInfo => {
    const { party } = one;
    const server = manifest.servers.find(({ index }) => index === party.index);
    return {
      name: party.name,
      index: party.index,
      url: server?.url ?? "",
      keyHex: party.key.toHex(),
      state: server ? stateOf(ground, one) : "its server is no member of the federation",
      quarantined: one.quarantined,
      enrolled: one.enrolled,
      lastSeenAt: dated(one.lastSeenAtMs),
      lastResponseAt: dated(one.lastResponseAtMs),
      backlog: one.backlog,
      deadLetters: one.deadLetters,
      version: one.version,
    };
  });
  return {
    keyringId: view.keyringId,
    name: view.name,
    federation: manifest.name,
    words: digestWords(manifestHash(manifest)),
    threshold: view.threshold,
    fees: view.fees,
    active: view.active,
    own: view.own,
    parties,
    evidence: view.evidence.map(({ first, second, atMs }) => {
      const { key } = first.response;
      checked(ground, "evidence against a party that proves nothing", () =>
        verifyEvidence({ keyring: view.keyringId, party: key, first, second }),
      );
      return {
        party: view.parties.find(({ party }) => equalBytes(party.key, key))?.party.name ?? key.toHex(),
        at: new Date(atMs).toISOString(),
        // the form in which it is handed on (docs/protocol.md §9.4)
        proof: equivocationProof.encode({ keyring: view.keyringId, party: key, first, second }),
      };
    }),
  };
}

/** Makes a keyring of a federation that this vault has joined. @throws Fault not_found, bad_input, exists */
export async function createKeyring(
  ground: Ground,
  input: Parameters<KeyringClient["createKeyring"]>[0],
): Promise<KeyringInfo> {
  const joined = oneOf(ground.held().federations, input.federation, {
    what: "federation",
    name: (one) => one.name,
    id: (one) => one.federationId,
    hint: "join it first: keyhold federation join URL#PIN",
  });
  const manifest = joined.manifests.at(-1);
  if (!manifest) throw new Fault("corrupt", "the vault holds a federation without a manifest");
  const parties = input.parties.map(({ name, index, keyHex }) => ({ name, index, key: keyOf(keyHex) }));
  const { name, fees } = input;
  const nonce = ground.random(32);
  const view = await ground.call("keyring.create", {
    name,
    nonce,
    manifest,
    threshold: input.threshold ?? newestOf(joined).threshold,
    fees,
    parties,
  });
  if (view.keyringId !== keyringIdOf(ground.identity, name, nonce)) throw lie(ground, "another keyring than was made");
  const known = await verified(ground, view);
  await pinKeyring(ground, known);
  return keyringInfo(ground, known);
}

type Change = Parameters<KeyringClient["changeKeyring"]>[0]["change"];
type WireChange = InputOf<"keyring.change">["change"];

/** A change as the wire has it. */
function wireChange(ground: Ground, known: KnownKeyring, change: Change): WireChange {
  switch (change.kind) {
    case "partyAdded":
      return { set: change.kind, party: { name: change.name, index: change.index, key: keyOf(change.keyHex) } };
    case "partyRemoved":
    case "partyCleared":
      return { set: change.kind, name: change.name };
    case "threshold":
      return { set: change.kind, threshold: change.threshold };
    case "fees":
      return { set: change.kind, fees: { key: change.key, signature: change.signature } };
    case "active":
      return { set: change.kind, active: change.active };
    case "adminAdded":
    case "adminRemoved":
      return { set: change.kind, userId: asId<UserId>(change.userId) };
    case "manifest": {
      const { federationId, name } = manifestOf(known);
      const manifest = ground
        .held()
        .federations.find((one) => one.federationId === federationId)
        ?.manifests.at(-1);
      if (manifest) return { set: change.kind, manifest };
      throw new Fault("not_found", `this vault has not joined the federation "${name}"`, {
        hint: "keyhold federation join URL#PIN",
      });
    }
  }
}

/** Changes a keyring, as one of its admins. @throws Fault not_found, bad_input, denied, conflict */
export async function changeKeyring(ground: Ground, wanted: string, change: Change): Promise<KeyringInfo> {
  const known = await findKeyring(ground, wanted);
  const { keyringId } = known.view;
  const view = await ground.call("keyring.change", { keyringId, change: wireChange(ground, known, change) });
  if (view.keyringId !== keyringId) throw lie(ground, "another keyring than the one that was changed");
  return keyringInfo(ground, await verified(ground, view));
}
