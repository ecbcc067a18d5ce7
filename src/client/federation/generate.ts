import { SEAL_OVERHEAD } from "../../crypto/aead.ts";
import { wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { PolicyId } from "../../ids.ts";
import { ownerSeed, requestSigner } from "../../protocol/federation/credentials.ts";
import { importedScalar, shareOut } from "../../protocol/federation/custody.ts";
import type { FederatedType, ImportOrigin } from "../../protocol/federation/kinds.ts";
import { rosterMin } from "../../protocol/federation/manifest.ts";
import { ownerPart, ownerScalar } from "../../protocol/federation/owner.ts";
import type { ImportBody, KeyPurpose } from "../../protocol/federation/request.ts";
import { sealValue } from "../../protocol/federation/sharedvalue.ts";
import type { FederatedResult, GenerateFederated } from "../federationapi.ts";
import { everyone } from "./answers.ts";
import { randomContribution } from "./attempt.ts";
import { keepRequest, newRequest } from "./drive.ts";
import type { Ground } from "./ground.ts";
import type { HeldRequest } from "./held.ts";
import { ceremonyPlan, make } from "./making.ts";
import { SHARE_BYTES } from "./pending.ts";
import { widest } from "./standing.ts";

/** Bytes of every private key and point's scalar; of `bytes` the owner says how many. */
const SCALAR_LENGTH = 32;
/** Bytes of one federated value at most. */
export const VALUE_MAX = 64 * 1_024 - SEAL_OVERHEAD;

export interface NewKey extends Pick<GenerateFederated, "name" | "type" | "custody" | "control"> {
  /** Bytes of a `bytes` key. */
  readonly bytes: number;
  readonly policy: PolicyId | null;
}

/**
 * The owner's part c of a self-custodial key of this account: 32 bytes, the caller's to wipe.
 *
 * @param nonce Nonce of the request that made the key.
 */
export function ownerPartOf(
  { secret, fleet }: Pick<Ground, "secret" | "fleet">,
  type: FederatedType,
  nonce: Uint8Array,
): Uint8Array {
  const seed = ownerSeed(secret, fleet.manifest.federationId, nonce, type);
  try {
    return ownerScalar(type, seed);
  } finally {
    wipe(seed);
  }
}

/** @throws Fault bad_input, exists */
function checkNew({ keeping, fleet }: Ground, { name, type, bytes, control, policy }: NewKey): void {
  const { federationId } = fleet.manifest;
  const taken = (one: { readonly name: string | null; readonly federationId: string }) =>
    one.name === name && one.federationId === federationId;
  if (keeping.keys().some(taken))
    throw new Fault("exists", `there is a federated key "${name}" already`, {
      hint: "keyhold key list",
    });
  const open = keeping.requests().find((held) => taken(held) && isMaking(held) && held.decision === null);
  if (open) {
    throw new Fault("exists", `a key "${name}" is being made`, {
      hint: `keyhold request watch ${open.requestId}`,
      requestId: open.requestId,
    });
  }
  if (type === "bytes" && (!Number.isInteger(bytes) || bytes < 1 || bytes > VALUE_MAX)) {
    throw new Fault("bad_input", `a federated value has 1 to ${VALUE_MAX} bytes`);
  }
  if ((control === "shared") !== (policy !== null)) {
    throw new Fault("bad_input", "a key under shared control, and no other, names its policy", {
      hint: "--control shared --policy NAME",
    });
  }
}

const isMaking = ({ request }: HeldRequest): boolean =>
  request.request.body.kind === "generate" || request.request.body.kind === "import";

/** What stands in the request of either way to a key. */
function purposeOf(
  ground: Ground,
  { type, bytes, custody, control, policy }: NewKey,
  nonce: Uint8Array,
  scalar: Uint8Array | null,
): KeyPurpose {
  const { federationId } = ground.fleet.manifest;
  const requester = requestSigner(ground.secret, federationId).publicKey;
  const owner = scalar && ownerPart(type, scalar, federationId, nonce, requester, ground.random);
  return { type, length: type === "bytes" ? bytes : SCALAR_LENGTH, custody, control, policy, owner };
}

function labelled(ground: Ground, held: HeldRequest): HeldRequest {
  const { nonce, body } = held.request.request;
  const self = "custody" in body && body.custody === "self";
  return { ...held, label: ground.sealLabel(held.requestId, { name: held.name, nonce: self ? nonce : null }) };
}

/**
 * Asks for a new key, and brings the request as far as it goes now.
 *
 * @throws Fault bad_input, exists, denied, integrity, unavailable
 */
export async function generateKey(ground: Ground, input: NewKey): Promise<FederatedResult> {
  checkNew(ground, input);
  const nonce = ground.random(32);
  const scalar = input.custody === "self" ? ownerPartOf(ground, input.type, nonce) : null;
  try {
    const body = { kind: "generate" as const, ...purposeOf(ground, input, nonce, scalar) };
    return await goOnMaking(ground, await begin(ground, newRequest(ground, body, { name: input.name, nonce })));
  } finally {
    wipe(scalar ?? undefined);
  }
}

const begin = (ground: Ground, held: HeldRequest): Promise<HeldRequest> => keepRequest(ground, labelled(ground, held));

/**
 * Shares an existing secret out among the servers: it is drawn and dealt here, and marked with where it comes from.
 *
 * @param value Of `bytes` any bytes, otherwise a private key; wiped.
 * @throws Fault bad_input, exists, denied, integrity, unavailable
 */
export async function importKey(
  ground: Ground,
  input: NewKey,
  value: Uint8Array,
  origin: ImportOrigin,
): Promise<FederatedResult> {
  const { fleet, random, secret } = ground;
  const { federationId, threshold } = fleet.manifest;
  const sized = { ...input, bytes: value.length };
  const secrets: Uint8Array[] = [value];
  const keep = (bytes: Uint8Array): Uint8Array => {
    secrets.push(bytes);
    return bytes;
  };
  try {
    checkNew(ground, sized);
    const { type } = input;
    const nonce = random(32);
    const scalar = keep(importedScalar(type, value, random));
    const owner = input.custody === "self" ? keep(ownerPartOf(ground, type, nonce)) : null;
    const holders = everyone(fleet);
    const dealt = shareOut({ type, threshold, holders, scalar, ownerScalar: owner, random });
    const material = new Uint8Array(holders.length * SHARE_BYTES);
    dealt.shares.forEach(({ share }, place) => {
      material.set(keep(share), place * SHARE_BYTES);
    });
    const requester = requestSigner(secret, federationId).publicKey;
    const place = { federationId, requester, nonce };
    const body: ImportBody = {
      kind: "import",
      ...purposeOf(ground, sized, nonce, owner),
      origin,
      threshold,
      holders,
      commitments: dealt.commitments,
      sealedValue: type === "bytes" ? sealValue(scalar, place, value, random) : null,
    };
    const held = { ...newRequest(ground, body, { name: input.name, nonce }), material };
    return await goOnMaking(ground, await begin(ground, held));
  } finally {
    wipe(...secrets);
  }
}

/** Each holder's share of an import, as it lies in the request's material. */
function shareFor({ request, material }: HeldRequest): (index: number) => Uint8Array | null {
  const { body } = request.request;
  return (index) => {
    const place = body.kind === "import" ? body.holders.indexOf(index) : -1;
    if (place < 0 || material === null) return null;
    return material.slice(place * SHARE_BYTES, (place + 1) * SHARE_BYTES);
  };
}

/** Goes on with a request that makes a key. @throws Fault denied, integrity, unavailable, conflict */
export async function goOnMaking(ground: Ground, held: HeldRequest): Promise<FederatedResult> {
  const { servers, threshold } = ground.fleet.manifest;
  const least = rosterMin(servers.length, threshold);
  const imports = held.request.request.body.kind === "import";
  const contribute = imports ? shareFor(held) : randomContribution(ground);
  return (await make(ground, held, ceremonyPlan(ground, widest(least), contribute, null), null)).result;
}
