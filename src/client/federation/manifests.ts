import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederationId } from "../../ids.ts";
import {
  checkManifest,
  isSignedBy,
  manifestBytes,
  manifestHash,
  type SignedManifest,
  verifyManifest,
} from "../../protocol/federation/manifest.ts";
import type { FederationPin, HeldFederation } from "./held.ts";
import { newestOf } from "./keeping.ts";

/**
 * Takes a later manifest in that follows the pinned one.
 *
 * @throws Fault integrity, bad_input
 */
export function withManifest(federation: HeldFederation, next: SignedManifest): HeldFederation {
  verifyManifest(next, newestOf(federation));
  return { ...federation, manifests: [...federation.manifests, next] };
}

/** True for the manifest that a pin names. */
export function isPinned({ manifest }: SignedManifest, pin: FederationPin): boolean {
  return manifest.federationId === pin.federationId && equalBytes(manifestHash(manifest), pin.hash);
}

/** Asks one server for the manifest of an epoch; null where it does not have it. */
export type ManifestSource = (federationId: FederationId, epoch: number) => Promise<SignedManifest | null>;

/** The first answer that there is. */
async function manifestFrom(
  sources: readonly ManifestSource[],
  federationId: FederationId,
  epoch: number,
): Promise<SignedManifest | null> {
  for (const source of sources) {
    const found = await source(federationId, epoch);
    if (found) return found;
  }
  return null;
}

/** A newest manifest for whoever has none before it to hold it against: the word of all its members. */
export function verifyAlone(signed: SignedManifest): SignedManifest {
  checkManifest(signed.manifest);
  if (signed.manifest.servers.every(({ identity }) => isSignedBy(signed, identity))) return signed;
  throw new Fault("integrity", "not every server of this federation has signed its manifest");
}

/**
 * Every epoch that leads to a manifest, from the first one that a server still has: from epoch 1 as a rule. What is
 * older than that is missed by nobody but keys of then.
 *
 * @throws Fault integrity
 */
export async function chainTo(
  newest: SignedManifest,
  sources: readonly ManifestSource[],
): Promise<readonly SignedManifest[]> {
  const { federationId, epoch } = newest.manifest;
  const chain: SignedManifest[] = [newest];
  for (let at = epoch - 1; at >= 1; at--) {
    const found = await manifestFrom(sources, federationId, at);
    if (!found) break;
    chain.unshift(found);
  }
  const [first, ...later] = chain;
  if (!first) throw new Fault("internal", "an empty chain");
  let before = first.manifest.epoch === 1 ? verifyManifest(first, null) : verifyAlone(first).manifest;
  for (const signed of later) before = verifyManifest(signed, before);
  return chain;
}

/**
 * Holds the newest manifest that a server shows against what is pinned, and fetches and verifies what leads to it.
 *
 * @returns The federation as it is now: the same object where nothing is new.
 * @throws Fault integrity for another manifest at a pinned epoch, or one that does not follow
 */
export async function followTo(
  federation: HeldFederation,
  newest: SignedManifest,
  sources: readonly ManifestSource[],
): Promise<HeldFederation> {
  const { federationId, epoch } = newest.manifest;
  const pinned = federation.manifests.find(({ manifest }) => manifest.epoch === epoch);
  if (pinned) {
    if (equalBytes(manifestBytes(pinned.manifest), manifestBytes(newest.manifest))) return federation;
    throw new Fault("integrity", `it shows another manifest of epoch ${epoch} than the one that is pinned`);
  }
  let now = federation;
  for (let at = newestOf(now).epoch + 1; at <= epoch; at++) {
    const next = at === epoch ? newest : await manifestFrom(sources, federationId, at);
    if (!next) throw new Fault("unavailable", `no server shows the manifest of epoch ${at}`);
    now = withManifest(now, next);
  }
  return now;
}
