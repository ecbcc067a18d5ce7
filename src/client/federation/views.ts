import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId } from "../../ids.ts";
import { certificateHash, verifyCertificate } from "../../protocol/federation/certificate.ts";
import { requestSigner } from "../../protocol/federation/credentials.ts";
import { verifyRequest } from "../../protocol/federation/request.ts";
import type { KeyView, RequestView } from "../../wire/federation/operations.ts";
import type { Open } from "../opened.ts";
import type { HeldFederation, HeldKey } from "./held.ts";
import { changeHeld, heldIn, secretIn } from "./keeping.ts";
import { openLabel } from "./labels.ts";
import { atServer, type Members } from "./members.ts";
import { type Tried, tryAll } from "./reaching.ts";

/** Pages of one server's list that are read at most. */
const PAGES_MAX = 4_096;

/** Everything of a list that a server gives page by page. @throws Fault integrity for pages without end */
async function allOf<T, I>(
  page: (after: I | null) => Promise<{ readonly items: readonly T[]; readonly more: boolean }>,
  idOf: (item: T) => I,
): Promise<readonly T[]> {
  const all: T[] = [];
  let after: I | null = null;
  for (let i = 0; i < PAGES_MAX; i++) {
    const { items, more }: { readonly items: readonly T[]; readonly more: boolean } = await page(after);
    all.push(...items);
    const last = items.at(-1);
    if (!more || last === undefined) return all;
    after = idOf(last);
  }
  throw new Fault("integrity", "it sends pages without end");
}

/** What each server knows of this account's keys: certificates verified against the pinned manifests. */
export function keyViews(
  open: Open,
  members: Members,
  federation: HeldFederation,
): Promise<readonly Tried<number, readonly KeyView[]>[]> {
  const { federationId } = federation;
  const owner = requestSigner(secretIn(open), federationId).publicKey;
  const manifestOf = (epoch: number) => {
    const found = federation.manifests.find(({ manifest }) => manifest.epoch === epoch);
    if (found) return found.manifest;
    throw new Fault("integrity", `it shows a certificate of epoch ${epoch}, which nobody knows`);
  };
  return tryAll(
    members.manifest.servers.map(({ index }) => index),
    async (index) => {
      const views = await allOf(
        (after: FederatedKeyId | null) => members.call(index, "federation.keys", { federationId, after }),
        ({ certificate }) => certificate.certificate.keyId,
      );
      for (const { certificate } of views) {
        const { epoch, owner: named } = certificate.certificate;
        try {
          verifyCertificate(certificate, manifestOf(epoch));
          if (!equalBytes(named, owner)) throw new Fault("integrity", "it shows another owner's key");
        } catch (error) {
          const server = members.manifest.servers.find((one) => one.index === index);
          throw server ? atServer(server, error) : error;
        }
      }
      return views;
    },
  );
}

/** Every request of this account that a server knows; signatures and ids verified. */
export function requestViews(members: Members, index: number): Promise<readonly RequestView[]> {
  const { federationId } = members;
  return allOf(
    async (after: RequestView["requestId"] | null) => {
      const page = await members.call(index, "federation.requests", { federationId, role: "requester", after });
      for (const { request, requestId } of page.items) {
        if (verifyRequest(request) !== requestId) throw new Fault("integrity", "it shows a request under another's id");
      }
      return page;
    },
    ({ requestId }) => requestId,
  );
}

/** The newest view of each key, with who has that very certificate and who has a live share of it. */
export interface KeyStanding {
  readonly newest: KeyView;
  /** Labels that servers with that certificate keep. */
  readonly labels: readonly Uint8Array[];
  readonly certified: readonly number[];
  readonly live: readonly number[];
  /** Servers that show another certificate of the same generation. */
  readonly contradicting: readonly number[];
}

/** Puts what all servers say of each key together. */
export function standings(views: readonly Tried<number, readonly KeyView[]>[]): readonly KeyStanding[] {
  const all = views.flatMap((one) => (one.ok ? one.value.map((view) => ({ index: one.server, view })) : []));
  const ids = [...new Set(all.map(({ view }) => view.certificate.certificate.keyId))].sort();
  return ids.flatMap((keyId) => {
    const of = all.filter(({ view }) => view.certificate.certificate.keyId === keyId);
    const generation = Math.max(...of.map(({ view }) => view.certificate.certificate.generation));
    const latest = of.filter(({ view }) => view.certificate.certificate.generation === generation);
    const [first] = latest;
    if (!first) return [];
    const hash = certificateHash(first.view.certificate.certificate);
    const same = latest.filter(({ view }) => equalBytes(certificateHash(view.certificate.certificate), hash));
    return [
      {
        newest: first.view,
        labels: same.flatMap(({ view }) => view.label ?? []),
        certified: same.map(({ index }) => index),
        live: same.filter(({ view }) => view.held).map(({ index }) => index),
        contradicting: latest.filter((one) => !same.includes(one)).map(({ index }) => index),
      },
    ];
  });
}

/**
 * Takes keys in that this vault does not have: made on another device, or before the account was recovered. Their names
 * and the nonces of their owner's parts come from the labels that the servers keep.
 */
export async function adoptKeys(open: Open, federation: HeldFederation, found: readonly KeyStanding[]): Promise<void> {
  const { federationId } = federation;
  const known = new Set(heldIn(open).federatedKeys.map(({ keyId }) => keyId));
  const added = found.flatMap(({ newest, labels }): readonly HeldKey[] => {
    const { certificate, released } = newest;
    const { keyId, requestId } = certificate.certificate;
    if (known.has(keyId)) return [];
    const place = { federationId, requestId };
    // a server that was brought into this generation later still has the label of the one before
    const read = labels.map((label) => openLabel(secretIn(open), place, label)).find((one) => one !== null);
    const name = read?.name ?? null;
    return [{ name, federationId, keyId, certificate, nonce: read?.nonce ?? null, released, sealed: null }];
  });
  if (added.length === 0) return;
  await changeHeld(open, (held) => {
    const ids = new Set(held.federatedKeys.map(({ keyId }) => keyId));
    const names = new Set(held.federatedKeys.map(({ name }) => name));
    const news = added
      .filter(({ keyId }) => !ids.has(keyId))
      .map((one) => (one.name !== null && names.has(one.name) ? { ...one, name: null } : one));
    return { ...held, federatedKeys: [...held.federatedKeys, ...news] };
  });
}
