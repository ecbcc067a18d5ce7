import { concat, equalBytes, wipe } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import { manifestHash } from "../../protocol/federation/manifest.ts";
import { openFederationParcel, sealFederationParcel } from "../../protocol/federation/parcel.ts";
import type { KitKeys } from "../../protocol/kit.ts";
import { bytes, decodeJson, encodeJson, type Of, struct, uint } from "../../wire/codec.ts";
import { lockKey } from "../../wire/lockedmemory.ts";
import { boundOf, signersOf } from "../model.ts";
import type { Open } from "../opened.ts";
import type { Session } from "../session.ts";
import { type FederationPin, federationPins, type Held, type HeldFederation } from "./held.ts";
import { changeHeld, heldIn, newestOf } from "./keeping.ts";

/** What a new device needs of federations: F, and which ones there are. */
export const federationParcel = struct({
  v: uint(1, 1),
  federationSecret: bytes({ length: 32 }),
  federations: federationPins,
});
export type FederationParcel = Of<typeof federationParcel>;

/** Bytes that a parcel's JSON may have: sealed it must fit into 4,096. */
const PARCEL_MAX = 3_900;
/** Servers that a pin names at most; a power of two. */
const CONTACTS_MAX = 8;

function pinOf(federation: HeldFederation, contacts: number): FederationPin {
  const { federationId, name } = federation;
  const newest = newestOf(federation);
  const { epoch, servers } = newest;
  return {
    federationId,
    name,
    epoch,
    hash: manifestHash(newest),
    contacts: servers.slice(0, contacts).map(({ url, pin }) => ({ url, pin })),
  };
}

/**
 * The parcel of what a vault holds, with as many servers of each federation as fit; null where it has no secret. Where
 * even one server each does not fit, federations are left out: they can be joined again by hand.
 */
export function parcelOf(held: Held): FederationParcel | null {
  const { federationSecret, federations, federationPins: waiting } = held;
  if (federationSecret === null) return null;
  for (let contacts = CONTACTS_MAX, from = 0; ; ) {
    const named = [...federations.map((one) => pinOf(one, contacts)), ...waiting.map((pin) => nearer(pin, contacts))];
    const parcel = { v: 1, federationSecret, federations: named.slice(from) };
    if (from === named.length || encodeJson(federationParcel, parcel).length <= PARCEL_MAX) return parcel;
    if (contacts > 1) contacts /= 2;
    else from += 1;
  }
}

const nearer = (pin: FederationPin, contacts: number): FederationPin => ({
  ...pin,
  contacts: pin.contacts.slice(0, contacts),
});

/** Puts a parcel into what a vault holds; what it has already stays. */
export function withParcel(held: Held, parcel: FederationParcel): Held {
  if (held.federationSecret !== null) return held;
  const known = new Set(held.federations.map(({ federationId }) => federationId));
  const pins = parcel.federations.filter(({ federationId }) => !known.has(federationId));
  const federationSecret = lockKey(new Uint8Array(parcel.federationSecret));
  return { ...held, federationSecret, federationPins: pins };
}

/**
 * Leaves F and the federations at the account's server for the holder of the recovery kit, sealed to the kit's key;
 * anew when kit, account identity or any of it changed, else nothing is sent (docs/protocol.md §8.2).
 *
 * @throws Fault unreachable and the like
 */
export async function keepParcel(open: Open, session: Session): Promise<void> {
  const { model } = open.box;
  const { kit, identity } = boundOf(model).settings;
  const parcel = parcelOf(heldIn(open));
  if (parcel === null || kit === null) return;
  const plain = new TextEncoder().encode(encodeJson(federationParcel, parcel));
  try {
    const stamp = sha256(concat(kit, identity, plain));
    const kept = heldIn(open).federationParcel;
    if (kept !== null && equalBytes(kept, stamp)) return;
    const sealed = await sealFederationParcel(signersOf(model).identity, model.owner, kit, plain, open.around.random);
    await session.call("account.parcel.put", { sealed });
    await changeHeld(open, (held) => ({ ...held, federationParcel: stamp }));
  } finally {
    wipe(plain);
  }
}

/** {@link keepParcel} after something that is done already: what keeps it is told, and the next command tries again. */
export async function keepParcelToo(open: Open, session: Session): Promise<void> {
  try {
    await keepParcel(open, session);
  } catch (error) {
    if (!(error instanceof Fault) || error.code === "integrity") throw error;
    open.around.notice(`the recovery kit does not open the federation secret of now yet: ${error.message}`);
  }
}

/**
 * Fetches and opens the parcel with the kit; null where the server keeps none.
 *
 * @param identity The account identity as the signed settings name it.
 * @throws Fault integrity
 */
export async function takeParcel(
  session: Session,
  kit: KitKeys,
  userId: UserId,
  identity: Uint8Array,
): Promise<FederationParcel | null> {
  const { sealed } = (await session.call("account.parcel", {})).output;
  if (sealed === null) return null;
  const plain = await openFederationParcel(kit, userId, identity, sealed);
  try {
    return decodeJson(federationParcel, plain);
  } catch {
    throw new Fault("integrity", "what the server keeps for the recovery kit is not in the documented form");
  } finally {
    wipe(plain);
  }
}
