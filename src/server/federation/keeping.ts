import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId } from "../../ids.ts";
import { type Certificate, certificateHash, type SignedCertificate } from "../../protocol/federation/certificate.ts";
import { erasureHolds } from "../../protocol/federation/erasure.ts";
import type { SignedManifest } from "../../protocol/federation/manifest.ts";
import type { Tx } from "../../storage/store.ts";
import type { Erasure } from "../../wire/federation/operations.ts";
import { demandSameKey } from "./acceptance.ts";
import type { Holder } from "./connectors.ts";
import {
  eachStored,
  KEY,
  type KeyBody,
  PENDING_SHARE,
  pendingShareId,
  putStored,
  readStored,
  removeStored,
  SHARE,
  type Stored,
  shareId,
} from "./documents.ts";
import { note } from "./events.ts";
import { enclaveIdentity } from "./evidence.ts";
import { changedMeanwhile } from "./life.ts";
import type { Desk } from "./ruling.ts";
import { manifestAt } from "./service.ts";
import { newestErasures } from "./views.ts";

const frozenKey = () => new Fault("conflict", "this key is frozen: its owner has signed two contradictory decisions");

/** Marks a key as frozen, for good. */
export async function freezeKey(desk: Desk, tx: Tx, owner: Holder, keyId: FederatedKeyId): Promise<void> {
  const key = await readStored(tx, KEY, keyId);
  if (!key || key.owner !== owner || key.value.frozen) return;
  if (!(await putStored(tx, KEY, { ...key, value: { ...key.value, frozen: true } }, key.version)))
    throw changedMeanwhile();
  await note(desk.site, tx, { owner, action: "federation.freeze", status: "conflict", keyId });
}

/** What is to be kept, verified; and what is written in the same transaction. */
export interface Keeping {
  readonly owner: Holder;
  readonly signed: SignedCertificate;
  readonly label: Uint8Array | null;
  /** Only the certificate: of a request that was cancelled first. */
  readonly frozen: boolean;
  /** The request that it answers, in the same transaction. */
  readonly also: (tx: Tx) => Promise<void>;
}

/** Where a certificate stands to the one that is held. */
function compared(held: Certificate | undefined, c: Certificate): "first" | "newer" | "same" | "older" | "other" {
  if (!held) return "first";
  demandSameKey(held, c);
  if (c.generation !== held.generation) return c.generation > held.generation ? "newer" : "older";
  return equalBytes(certificateHash(held), certificateHash(c)) ? "same" : "other";
}

/** The pending share of a certificate's attempt, sealed anew as the live one; null where this server holds none. */
async function liveShare(desk: Desk, manifest: SignedManifest, index: number | null, signed: SignedCertificate) {
  const { site } = desk;
  const { requestId, attempt, holders } = signed.certificate;
  if (index === null || !holders.includes(index)) return null;
  const pending = await site.ctx.store.transaction((tx) =>
    readStored(tx, PENDING_SHARE, pendingShareId(requestId, attempt)),
  );
  if (!pending) return null;
  try {
    const input = { manifest, certificate: signed, sealed: pending.value.sealed };
    return (await site.enclave.call("confirm", input)).sealed;
  } catch (error) {
    // a share that does not fit is no share: the certificate is kept all the same
    if (error instanceof Fault && (error.code === "integrity" || error.code === "corrupt")) return null;
    throw error;
  }
}

/**
 * Keeps an accepted certificate with the share that belongs to it, in one transaction; shares of earlier generations
 * go, and the enclave signs that they are gone. An earlier certificate changes nothing.
 *
 * @throws Fault conflict, and the key is frozen, for another certificate of the same generation; integrity, unavailable
 */
export async function keepCertificate(desk: Desk, keeping: Keeping): Promise<void> {
  const { site } = desk;
  const { ctx } = site;
  const { owner, signed } = keeping;
  const { certificate: c } = signed;
  const identity = await enclaveIdentity(site);
  const { manifest, held } = await ctx.store.transaction(async (tx) => ({
    manifest: await manifestAt(tx, c.federationId, c.epoch),
    held: await readStored(tx, KEY, c.keyId),
  }));
  if (held && held.owner !== owner) throw new Fault("not_found", "no such key");
  const stands = compared(held?.value.certificate.certificate, c);
  if (stands === "other") {
    await ctx.store.transaction((tx) => freezeKey(desk, tx, owner, c.keyId));
    throw frozenKey();
  }
  if (held?.value.frozen && stands !== "older" && !keeping.frozen) throw frozenKey();
  const index = manifest.manifest.servers.find((server) => equalBytes(server.identity, identity))?.index ?? null;
  const useful = !keeping.frozen && stands !== "older";
  const sealed = useful ? await liveShare(desk, manifest, index, signed) : null;
  await ctx.store.transaction(async (tx) => {
    await keeping.also(tx);
    if (stands === "older") return;
    const nowMs = ctx.now();
    const before = held?.value;
    const value: KeyBody = {
      certificate: stands === "same" && before ? before.certificate : signed,
      // bound to the request of this generation
      label: keeping.label ?? before?.label ?? null,
      released: before?.released ?? false,
      frozen: keeping.frozen || (before?.frozen ?? false),
      erasures: before?.erasures ?? [],
      refreshedAtMs: stands === "same" && before ? before.refreshedAtMs : nowMs,
    };
    const row = { id: c.keyId, owner, place: held?.place ?? nowMs, value };
    if (!(await putStored(tx, KEY, row, held?.version ?? 0))) throw changedMeanwhile();
    const live = shareId(c.keyId, c.generation);
    for (const old of await eachStored(tx, SHARE, c.keyId)) if (old.id !== live) await removeStored(tx, SHARE, old.id);
    if (sealed && !(await readStored(tx, SHARE, live))) {
      const share = { id: live, owner: c.keyId, place: c.generation, value: { sealed } };
      if (!(await putStored(tx, SHARE, share, 0))) throw changedMeanwhile();
      await note(site, tx, { owner, action: "federation.seal", keyId: c.keyId, requestId: c.requestId });
    }
    if (stands === "newer")
      await note(site, tx, { owner, action: "federation.reshare", keyId: c.keyId, requestId: c.requestId });
  });
  await stateErasure(desk, owner, c.keyId);
}

async function mergeErasures(tx: Tx, key: Stored<KeyBody>, erasures: readonly Erasure[]): Promise<boolean> {
  const merged = newestErasures([...key.value.erasures, ...erasures]);
  const known = (e: Erasure) =>
    key.value.erasures.some((old) => old.index === e.index && old.generation === e.generation);
  if (merged.every(known)) return false;
  if (!(await putStored(tx, KEY, { ...key, value: { ...key.value, erasures: merged } }, key.version)))
    throw changedMeanwhile();
  return true;
}

/** Lets the enclave sign that the shares before the newest generation are gone; once, also after a crash between. */
export async function stateErasure(desk: Desk, owner: Holder, keyId: FederatedKeyId): Promise<void> {
  const { site } = desk;
  const { ctx } = site;
  const identity = await enclaveIdentity(site);
  const found = await ctx.store.transaction(async (tx) => {
    const key = await readStored(tx, KEY, keyId);
    if (!key || key.value.frozen) return undefined;
    const { certificate: c } = key.value.certificate;
    const manifest = await manifestAt(tx, c.federationId, c.epoch);
    const own = manifest.manifest.servers.find((server) => equalBytes(server.identity, identity));
    const stated = key.value.erasures.some((e) => e.index === own?.index && e.generation >= c.generation - 1);
    return own && c.generation > 0 && !stated ? { certificate: key.value.certificate, manifest } : undefined;
  });
  if (!found) return;
  const { erasures } = await site.enclave.call("erase", found);
  await ctx.store.transaction(async (tx) => {
    const key = await readStored(tx, KEY, keyId);
    if (key && (await mergeErasures(tx, key, erasures)))
      await note(site, tx, { owner, action: "federation.erase", keyId });
  });
}

/** Adds what other servers have stated, as far as it is signed by members. */
export async function addErasures(
  tx: Tx,
  keyId: FederatedKeyId,
  erasures: readonly Erasure[],
  manifests: readonly SignedManifest[],
): Promise<void> {
  const key = await readStored(tx, KEY, keyId);
  if (!key) return;
  const { generation } = key.value.certificate.certificate;
  const sound = erasures.filter(
    (e) =>
      e.keyId === keyId && e.generation < generation && manifests.some(({ manifest }) => erasureHolds(manifest, e)),
  );
  if (sound.length > 0) await mergeErasures(tx, key, sound);
}
