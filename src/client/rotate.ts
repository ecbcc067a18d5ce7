import { equalBytes, wipe } from "../crypto/bytes.ts";
import { signerFromSeed } from "../crypto/identity.ts";
import { Fault } from "../errors.ts";
import { type DeviceId, newId, type RequestId } from "../ids.ts";
import {
  accountKeys,
  openDeviceName,
  passwordKeys,
  sealDeviceName,
  wrapAccountKey,
  wrapIdentity,
  wrapPreviousKey,
} from "../protocol/account.ts";
import { kitIdentity, resealToKit } from "../protocol/kit.ts";
import { keptRotations } from "../protocol/rotation.ts";
import { handoverBytes, type Settings } from "../protocol/state.ts";
import { requestHash } from "../wire/operations.ts";
import { checkReceipt, lostTurn, nextState, rebase, send } from "./commit.ts";
import { closeQuietly, type FreshLogin, type Home, logInFreshly, vaultCost } from "./home.ts";
import { boundOf, identityOf, type Model, type Surroundings } from "./model.ts";
import { startOpaque } from "./opaque.ts";
import { online } from "./opened.ts";
import type { Profile } from "./profile.ts";
import { renewModel } from "./renew.ts";
import { registerPassword } from "./reregister.ts";
import { finishRewrapping } from "./rewrapping.ts";
import type { Answer } from "./session.ts";
import { checkHead, synchronise } from "./sync.ts";
import { type HeldVault, withVault } from "./vaultbox.ts";

/** What a rotation changes beside the keys. */
export interface Renewal {
  /** The new password, or null to keep the one that the login was made with. */
  readonly next: Uint8Array | null;
  /** Device that is taken off the account: a whole id, or a prefix that only one has. */
  readonly revoke: string | null;
}

/** A device as it was taken off. */
export interface Revoked {
  readonly id: DeviceId;
  readonly name: string;
}

/** What a rotation did. */
export interface Renewed {
  readonly requestId: RequestId;
  readonly revoked: Revoked | null;
  /** Keys of values and metadata that were wrapped anew on the server. */
  readonly rewrapped: number;
}

/** Secrets of one rotation: what stays the same when it must be built again. 32 bytes each. */
interface NewKeys {
  readonly accountKey: Uint8Array;
  readonly identitySeed: Uint8Array;
}

/** Finds the device to revoke. @throws Fault not_found, ambiguous, bad_input for this device */
function findDevice(model: Model, given: string): Revoked {
  const { settings, deviceId } = boundOf(model);
  const wanted = given.toLowerCase();
  const found = /^[0-9a-f]{1,32}$/.test(wanted) ? settings.devices.filter(({ id }) => id.startsWith(wanted)) : [];
  const [device] = found;
  if (!device) throw new Fault("not_found", "the account has no such device", { hint: "keyhold account device list" });
  if (found.length > 1) {
    throw new Fault("ambiguous", "more than one device fits", {
      why: found.map(({ id }) => id).join(", "),
      hint: "give more of the id",
    });
  }
  if (device.id === deviceId) {
    throw new Fault("bad_input", "this is the device that you are using", {
      hint: "run the command on another device, or remove this one's data: keyhold profile remove",
    });
  }
  return { id: device.id, name: openDeviceName(model.keys, model.owner, device.id, device.name) };
}

/** Refuses to let go of the identity that the recovery kit was made for. @throws Fault conflict */
function demandKitKept(before: Settings): void {
  const { kitWrapped } = before;
  const kept = keptRotations(before);
  const gone = before.rotations.slice(0, before.rotations.length - kept.length);
  if (kitWrapped === null || !gone.some(({ identity }) => equalBytes(identity, kitIdentity(kitWrapped)))) return;
  throw new Fault("conflict", "the recovery kit is too old for another renewal of the keys", {
    hint: "keyhold account recovery-kit, then again",
  });
}

/** The settings of a rotation (docs/protocol.md §5.7). */
async function rotatedSettings(
  model: Model,
  revision: number,
  fresh: NewKeys,
  exportKey: Uint8Array,
  revoked: Revoked | null,
  around: Surroundings,
): Promise<Settings> {
  const { random } = around;
  const { owner, keys: old } = model;
  const { settings: before } = boundOf(model);
  const { accountKey, identitySeed } = fresh;
  const keys = accountKeys(accountKey, owner);
  const identity = signerFromSeed(identitySeed).publicKey;
  const handover = identityOf(old, owner, before).sign(handoverBytes(owner, before.identity, identity, revision));
  demandKitKept(before);
  const wrapped = wrapPreviousKey(keys, owner, revision, model.accountKey, random);
  return {
    ...before,
    ...wrapAccountKey(exportKey, owner, revision, accountKey, random),
    identity,
    wrappedIdentity: wrapIdentity(keys, owner, identitySeed, random),
    devices: before.devices
      .filter(({ id }) => id !== revoked?.id)
      .map((device) => {
        const name = openDeviceName(old, owner, device.id, device.name);
        return { ...device, name: sealDeviceName(keys, owner, device.id, name, random) };
      }),
    kitWrapped: await resealToKit(before, owner, accountKey, random),
    rotations: [...keptRotations(before), { revision, identity: before.identity, wrapped, handover }],
  };
}

/**
 * Refuses to go on with the record that there was at the login: another device registered anew meanwhile, and what is
 * wrapped under the export key of before would open for nobody.
 *
 * @throws Fault conflict
 */
function demandSameRecord(model: Model, exportKey: Uint8Array): void {
  const { master, commitment } = passwordKeys(exportKey, model.owner);
  wipe(master);
  if (equalBytes(commitment, boundOf(model).settings.masterCommitment)) return;
  throw new Fault("conflict", "another device renewed how the account opens", { hint: "run the command again" });
}

/** Commits the rotation and takes it in; on return server and vault have it. */
async function commitRotation(
  model: Model,
  held: HeldVault,
  { open }: FreshLogin,
  fresh: NewKeys,
  exportKey: Uint8Array,
  record: Uint8Array | null,
  wanted: string | null,
): Promise<{ requestId: RequestId; revoked: Revoked | null }> {
  const { session, around } = open;
  const identity = signerFromSeed(fresh.identitySeed);
  const beganMs = around.now();
  for (let attempt = 0; ; attempt++) {
    const bound = boundOf(model);
    if (record === null) demandSameRecord(model, exportKey);
    const revoked = wanted === null ? null : findDevice(model, wanted);
    const requestId = newId<RequestId>(around.random);
    const revision = bound.head.state.revision + 1;
    const settings = await rotatedSettings(model, revision, fresh, exportKey, revoked, around);
    const body = { record, settings };
    const hash = requestHash("account.rotate", { ...body, state: bound.head });
    const state = nextState(model, requestId, hash, model.map.root(), settings, identity);
    let receipt: Answer<unknown>;
    try {
      receipt = await send(held, session, "account.rotate", requestId, { ...body, state }, [], fresh.accountKey);
      checkReceipt(state, receipt);
    } catch (error) {
      if (!(await lostTurn(error, attempt, beganMs, around))) throw error;
      await rebase(model, session, around, state);
      continue;
    }
    renewModel(model, new Uint8Array(fresh.accountKey), settings, revision, around.random);
    bound.head = state;
    bound.settings = settings;
    bound.syncedAtMs = around.now();
    checkHead(model, receipt.head);
    await held.renew(null);
    await held.dropPending();
    return { requestId, revoked };
  }
}

/**
 * Renews account key and identity, with another password and with one device fewer where wanted: a fresh login, one
 * signed change, then every wrapped key on the server (docs/protocol.md §5.7). Cut short after the change, the rest is
 * done by the next command.
 *
 * @param password The password of now.
 * @throws Fault login_failed, rate_limited, unreachable, not_found, ambiguous, bad_input
 */
export async function renewAccount(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  { next, revoke }: Renewal,
  around: Surroundings,
): Promise<Renewed> {
  if (!profile.server) throw new Fault("bad_input", "this profile has no account", { hint: "keyhold vault rekey" });
  const fresh = await logInFreshly(home, profile, password, around, { exportKey: true });
  const { open, done } = fresh;
  const { box } = open;
  const keys: NewKeys = { accountKey: around.random(32), identitySeed: around.random(32) };
  const exchange = next === null ? null : await startOpaque("register", next);
  try {
    // what is still wrapped by an earlier key would be lost with that key, which a later rotation lets go
    await online(open, true, () => finishRewrapping(open));
    const renewed = await online(open, true, async (at) => {
      const made =
        exchange === null
          ? null
          : await registerPassword(profile, { session: fresh.open.session, link: fresh.link }, exchange);
      const exportKey = made?.exportKey ?? done.exportKey;
      try {
        return await withVault(box, around, async (held) => {
          const { model } = box;
          // the settings that are sent must hold what other devices added since
          if (at?.moved()) await synchronise(model, done.session, around);
          const committed = await commitRotation(model, held, fresh, keys, exportKey, made?.record ?? null, revoke);
          const bound = boundOf(model);
          bound.keyedRevision = bound.settings.credentialRevision;
          await held.renew({ password: next ?? password, cost: vaultCost(profile.kdf) });
          return committed;
        });
      } finally {
        wipe(exportKey);
      }
    });
    const rewrapped = await finishRewrapping(open);
    if (box.model.held.federationSecret !== null) {
      await (await import("./federation/parcel.ts")).keepParcelToo(open, fresh.open.session);
    }
    await closeQuietly(done);
    if (renewed.revoked !== null && boundOf(box.model).settings.kit !== null) {
      // it vouches for the identity of before, which the device has: with a server's help that could recover to a fork
      around.notice("the recovery kit is older than the revocation: make a new one: keyhold account recovery-kit");
    }
    return { ...renewed, rewrapped };
  } finally {
    exchange?.end();
    wipe(done.accountKey, done.exportKey, keys.accountKey, keys.identitySeed);
  }
}
