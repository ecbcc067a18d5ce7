import { wipe } from "../crypto/bytes.ts";
import { signerFromSeed } from "../crypto/identity.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { type DeviceId, newId, type RequestId } from "../ids.ts";
import { accountKeys, sealDeviceName, wrapAccountKey, wrapIdentity } from "../protocol/account.ts";
import { type Device, type Settings, settingsHash, signState } from "../protocol/state.ts";
import { requestHash } from "../wire/operations.ts";
import { acceptedCosts, callClear, finishOpaque, type Stretching } from "./login.ts";
import { bind, type Model, newModel, type Surroundings, witness } from "./model.ts";
import { startOpaque } from "./opaque.ts";
import type { Link } from "./session.ts";

/** This device as it enters an account: its key, its token, its name for people. */
export interface NewDevice {
  readonly id: DeviceId;
  /** 32 bytes each. */
  readonly seed: Uint8Array;
  readonly token: Uint8Array;
  readonly name: string;
}

/** Draws a device's id, key and token. */
export function newDevice(name: string, around: Surroundings): NewDevice {
  return { id: newId<DeviceId>(around.random), seed: around.random(32), token: around.random(32), name };
}

/** The device as the signed settings list it. */
export function deviceEntry(model: Pick<Model, "keys" | "owner">, device: NewDevice, around: Surroundings): Device {
  return {
    id: device.id,
    publicKey: signerFromSeed(device.seed).publicKey,
    name: sealDeviceName(model.keys, model.owner, device.id, device.name, around.random),
    tokenHash: sha256(device.token),
    addedAtMs: around.now(),
  };
}

/** A registration that is ready to be finished: all of it is known before the server commits it. */
export interface Prepared {
  readonly model: Model;
  readonly requestId: RequestId;
  /** Commits on the server; the same call again is the same registration. @throws Fault exists, denied, timed_out */
  finish(): Promise<void>;
}

/**
 * Registers an account (docs/protocol.md §3.2): makes account key, identity and device, and the signed state of
 * revision 1. Nothing is committed before `finish`, so that the vault can be written first.
 *
 * @param input.identitySeed Seed of the account identity, 32 bytes, not retained; drawn where there is none.
 * @throws Fault exists, denied, rate_limited, integrity, unreachable
 */
export async function prepareRegistration(
  link: Link,
  server: { url: string; kdf: Stretching },
  input: { account: string; invite: string | null; device: NewDevice; identitySeed?: Uint8Array },
  password: Uint8Array,
  around: Surroundings,
): Promise<Prepared> {
  const exchange = await startOpaque("register", password);
  try {
    const { account, invite, device } = input;
    const started = await callClear(link, "account.register.start", { account, invite, request: exchange.request });
    const [cost] = acceptedCosts([started.ksf], server.url, server.kdf);
    if (!cost) throw new Fault("internal", "no cost was accepted");
    const done = await finishOpaque(exchange, account, [started.response], [cost]);
    if (!done?.record) throw new Fault("internal", "the registration was refused locally");
    const known = link.opaqueKeys[0];
    if (!known || Buffer.compare(known, done.serverKey) !== 0) {
      throw new Fault("integrity", "the server registers with another OPAQUE key than its identity signed");
    }
    const { userId, incarnation } = started;
    const accountKey = around.random(32);
    const keys = accountKeys(accountKey, userId);
    const identitySeed = new Uint8Array(input.identitySeed ?? around.random(32));
    const identity = signerFromSeed(identitySeed);
    const settings: Settings = {
      identity: identity.publicKey,
      devices: [deviceEntry({ keys, owner: userId }, device, around)],
      ...wrapAccountKey(done.exportKey, userId, 1, accountKey, around.random),
      wrappedIdentity: wrapIdentity(keys, userId, identitySeed, around.random),
      kit: null,
      kitWrapped: null,
      rotations: [],
    };
    wipe(identitySeed, done.exportKey);
    const requestId = newId<RequestId>(around.random);
    const zeros = new Uint8Array(32);
    const body = { requestId, account, invite, record: done.record, settings };
    const first = {
      incarnation,
      userId,
      deviceId: device.id,
      revision: 1,
      previous: zeros,
      requestId,
      requestHash: zeros,
      root: zeros,
      settingsHash: settingsHash(settings),
      auditSeq: 0,
      auditLink: zeros,
    };
    const unsigned = { state: first, identitySignature: new Uint8Array(64), deviceSignature: new Uint8Array(64) };
    const hash = requestHash("account.register", { ...body, state: unsigned });
    const state = signState({ ...first, requestHash: hash }, identity, signerFromSeed(device.seed));
    const bound = bind(
      {
        account,
        userId,
        deviceId: device.id,
        deviceSeed: device.seed,
        serverIdentity: link.identity,
        statementNumber: link.statementNumber,
        head: state,
        settings,
        audit: { seq: 0, link: zeros },
      },
      around.now(),
    );
    const model = newModel(userId, accountKey, bound);
    return {
      model,
      requestId,
      async finish() {
        const receipt = await callClear(link, "account.register", { ...body, state });
        witness(model, { seq: receipt.auditSeq, link: receipt.auditLink });
      },
    };
  } finally {
    exchange.end();
  }
}
