import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { detachProfile } from "../../src/client/detach.ts";
import { openProfile, vaultPath } from "../../src/client/home.ts";
import { makeRecoveryKit } from "../../src/client/kit.ts";
import { boundOf, type Model } from "../../src/client/model.ts";
import { deviceEntry, newDevice } from "../../src/client/register.ts";
import { renewAccount } from "../../src/client/rotate.ts";
import { open } from "../../src/crypto/aead.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { newId, type RequestId, type SessionId } from "../../src/ids.ts";
import { accountKeys, unwrapIdentity, wrapIdentity, wrapPreviousKey } from "../../src/protocol/account.ts";
import {
  handoverBytes,
  type Settings,
  type SignedState,
  settingsHash,
  signState,
  stateHash,
} from "../../src/protocol/state.ts";
import { addDevice } from "../../src/server/handlers/account.ts";
import type { SessionRow } from "../../src/storage/store.ts";
import { requestHash } from "../../src/wire/operations.ts";
import { type AccountWorld, openAccountWorld, PASSWORD, type Person } from "../support/accountworld.ts";
import { passwordOf, random, testSurroundings } from "../support/harness.ts";
import { asking, rejected, storing, textOf } from "../support/hostile.ts";

const NEXT = "another password of ada";

let world: AccountWorld;
/** The owner's device, the one that is revoked, and one that sleeps meanwhile. */
let desk: Person;
let phone: Person;
let tablet: Person;

beforeEach(async () => {
  world = await openAccountWorld();
  desk = await world.register("ada");
  phone = await world.another("ada");
  tablet = await world.another("ada");
  const client = await desk.login();
  await client.store(storing("old", "known to all"));
  await client.close();
  for (const person of [phone, tablet]) {
    const other = await person.login();
    await other.sync();
    await other.get(asking("old", { save: true }));
    await other.close();
  }
});
afterEach(async () => {
  expect(world.server.faults).toEqual([]);
  await world.close();
});

const idOf = async (person: Person) => boundOf(await person.model()).deviceId;
const revoke = async (next: string | null = null) =>
  renewAccount(
    desk.home,
    desk.profile(),
    passwordOf(PASSWORD),
    { next: next === null ? null : passwordOf(next), revoke: await idOf(phone) },
    testSurroundings(desk.notices),
  );
const rowOf = async (person: Person) => {
  const { userId } = person.profile();
  const row = await world.server.store.transaction((tx) => (userId ? tx.account(userId) : Promise.resolve(undefined)));
  if (!row) throw new Error("no account");
  return row;
};

/** Everything that a thief of the device has: its keys and the identity's seed. */
async function thiefOf(person: Person) {
  const model = await person.model();
  const bound = boundOf(model);
  const seed = unwrapIdentity(model.keys, model.owner, bound.settings.wrappedIdentity);
  return { model, seed, identity: signerFromSeed(seed), device: signerFromSeed(bound.deviceSeed) };
}

/** A server that makes whatever it is given the account's newest state, also in the list of its states. */
async function putOnServer(state: SignedState, settings: Settings): Promise<void> {
  const { userId, revision } = state.state;
  world.file.sql(
    "DELETE FROM account_state WHERE user_id = ?1 AND revision >= ?2",
    Uint8Array.fromHex(userId),
    revision,
  );
  await world.server.store.transaction(async (tx) => {
    const row = await tx.account(userId);
    if (!row) throw new Error("no account");
    await tx.swapState(row.userId, row.stateHash, { state, stateHash: stateHash(state.state), settings });
    await tx.appendState(userId, state);
  });
}

describe("a revoked device", () => {
  test("knows what the recovery kit of before vouches for: the owner is told to make a new one, if there is a kit", async () => {
    const said = () => desk.notices.filter((text) => text.includes("recovery kit"));
    await makeRecoveryKit(desk.home, desk.profile(), passwordOf(PASSWORD), testSurroundings());
    const plainly = { next: null, revoke: null };
    await renewAccount(desk.home, desk.profile(), passwordOf(PASSWORD), plainly, testSurroundings(desk.notices));
    expect(said()).toEqual([]);
    await revoke();
    expect(said()).toEqual([expect.stringContaining("keyhold account recovery-kit")]);
  });

  test("is listed no more; its session, token and login are worth nothing, its vault stays readable", async () => {
    const session = await phone.login();
    const { revoked } = await revoke();
    expect(revoked?.id).toBe(await idOf(phone));
    const client = await desk.login();
    expect((await client.devices()).items.map(({ deviceId }) => deviceId)).toEqual([
      await idOf(desk),
      await idOf(tablet),
    ]);
    await client.store(storing("new", "after"));

    const fault = await rejected(session.get(asking("old")), "session_invalid");
    expect(fault.exit).toBe(4);
    const before = await rowOf(desk);
    const refused = await rejected(phone.login(), "denied");
    expect([refused.exit, refused.why]).toEqual([5, expect.stringContaining("revoked")]);
    expect((await rowOf(desk)).stateHash).toEqual(before.stateHash);
    const offline = await phone.offline();
    expect((await offline.get(asking("old", { fresh: false }))).from).toBe("vault");
    await offline.close();
    // what it has is its owner's: it becomes a vault without a server
    const files = {
      profiles: phone.home.profiles,
      profile: phone.profile(),
      vault: vaultPath(phone.home, phone.profile()),
    };
    expect(await detachProfile(files, passwordOf(PASSWORD), testSurroundings())).toEqual({ kept: 1, dropped: 0 });
    const { client: local } = await openProfile(phone.home, phone.profile(), passwordOf(PASSWORD), testSurroundings(), {
      keep: false,
    });
    expect(new TextDecoder().decode((await local.get(asking("old", { fresh: false }))).value ?? undefined)).toBe(
      "known to all",
    );
    await local.store(storing("more", "in the vault alone"));
    await local.close();
  });

  test("its copied vault and old session read nothing new, even from a server that keeps the session alive", async () => {
    const client = await phone.login();
    const copy = world.copyOf(phone);
    const sessions = await world.server.store.transaction((tx) =>
      tx.sessionsOf((phone.profile().userId ?? "") as never),
    );
    await revoke();
    await (await desk.login()).store(storing("new", "after"));
    await world.server.store.transaction(async (tx) => {
      for (const row of sessions as readonly SessionRow[]) {
        if (!(await tx.session(row.sessionId))) await tx.putSession(row);
      }
    });
    const fault = await rejected(client.sync(), "integrity");
    expect(fault.why).toContain("identity key was replaced");
    await rejected(client.get(asking("new")), "integrity");
    // with bare hands: no wrapped key of the new value opens with what the copied vault holds
    const thief = await thiefOf(copy);
    const row = await rowOf(desk);
    expect(() => unwrapIdentity(thief.model.keys, thief.model.owner, row.settings.wrappedIdentity)).toThrow();
    const sealed = world.file.sql<{ sealed: Uint8Array }>("SELECT sealed FROM sealed_value");
    for (const { key_id, version, sealed: bytes } of world.file.sql<{
      key_id: Uint8Array;
      version: number;
      sealed: Uint8Array;
    }>("SELECT key_id, version, sealed FROM sealed_value")) {
      const keyId = key_id.toHex() as never;
      const context = { kind: "data-key", userId: thief.model.owner, keyId, version } as const;
      expect(() => open(thief.model.keys.record, context, bytes.subarray(0, 73))).toThrow();
    }
    expect(sealed.length).toBe(2);
  });

  test("its old identity neither writes nor adds a device back, through the honest server's own rules", async () => {
    await phone.login();
    const sessions = await world.server.store.transaction((tx) =>
      tx.sessionsOf((phone.profile().userId ?? "") as never),
    );
    const held = await phone.login();
    const rows = await world.server.store.transaction((tx) => tx.sessionsOf((phone.profile().userId ?? "") as never));
    const mine = rows.filter(({ sessionId }) => !sessions.some((one) => one.sessionId === sessionId));
    const id = (await held.status()).session?.id as SessionId;
    expect(mine.map(({ sessionId }) => sessionId)).toEqual([id]);
    const thief = await thiefOf(phone);
    await revoke();
    await world.server.store.transaction(async (tx) => {
      for (const one of mine) await tx.putSession(one);
    });
    const row = await rowOf(desk);
    const dispatchRejects = async (settings: Settings) => {
      const requestId = newId<RequestId>(random);
      const base = {
        ...row.state.state,
        deviceId: boundOf(thief.model).deviceId,
        revision: row.state.state.revision + 1,
        previous: row.stateHash,
        requestId,
        settingsHash: settingsHash(settings),
      };
      const unsigned = { ...row.state, state: base };
      const requestHashOf = requestHash("account.device.add", { settings, state: unsigned });
      const state = signState({ ...base, requestHash: requestHashOf }, thief.identity, thief.device);
      const work = world.server.store.transaction((tx) =>
        addDevice(
          world.server.ctx,
          tx,
          { account: row, sessionId: id, requestId, address: "127.0.0.1", bodyHash: requestHashOf },
          { settings, state },
        ),
      );
      await rejected(work, "bad_input");
    };
    const self = boundOf(thief.model).settings.devices.find(({ id: one }) => one === boundOf(thief.model).deviceId);
    if (!self) throw new Error("no device");
    const fresh = deviceEntry(thief.model, newDevice("thief", testSurroundings()), testSurroundings());
    for (const device of [self, fresh]) {
      await dispatchRejects({ ...row.settings, devices: [...row.settings.devices, device] });
    }
    await dispatchRejects(boundOf(thief.model).settings);
    expect((await rowOf(desk)).stateHash).toEqual(row.stateHash);
  });
});

/** A state after `head`, signed by whoever has these keys. */
function forged(
  model: Model,
  head: SignedState,
  settings: Settings,
  by: { identity: ReturnType<typeof signerFromSeed>; device: ReturnType<typeof signerFromSeed> },
): SignedState {
  return signState(
    {
      ...head.state,
      deviceId: boundOf(model).deviceId,
      revision: head.state.revision + 1,
      previous: stateHash(head.state),
      requestId: newId<RequestId>(random),
      settingsHash: settingsHash(settings),
    },
    by.identity,
    by.device,
  );
}

describe("a revoked device in league with the server", () => {
  test("cannot write for devices that know of the rotation", async () => {
    const thief = await thiefOf(phone);
    await revoke();
    const client = await desk.login();
    await client.sync();
    const row = await rowOf(desk);
    const old = boundOf(thief.model).settings;
    for (const settings of [row.settings, { ...row.settings, identity: old.identity }, old]) {
      const state = forged(thief.model, row.state, settings, thief);
      await putOnServer(state, settings);
      const fault = await rejected(client.sync(), "integrity");
      expect(fault.exit).toBe(8);
      await rejected(desk.login(), "integrity");
      await putOnServer(row.state, row.settings);
    }
    expect(await textOf(await desk.login(), "old")).toBe("known to all");
  });

  test("cannot hand the old identity over to one of its own: a sleeping device follows the owner alone", async () => {
    const thief = await thiefOf(phone);
    const { model } = thief;
    const before = await rowOf(desk);
    const old = before.settings;
    const seed = random(32);
    const own = signerFromSeed(seed);
    const revision = before.state.state.revision + 1;
    await revoke();
    const after = await rowOf(desk);
    // its account key is the old one, or a new one of its own: neither is what the password opens after a rotation
    for (const key of [model.accountKey, random(32)]) {
      const keys = accountKeys(key, model.owner);
      const rotation = {
        revision,
        identity: old.identity,
        wrapped: wrapPreviousKey(keys, model.owner, revision, model.accountKey, random),
        handover: thief.identity.sign(handoverBytes(model.owner, old.identity, own.publicKey, revision)),
      };
      const settings: Settings = {
        ...old,
        identity: own.publicKey,
        wrappedIdentity: wrapIdentity(keys, model.owner, seed, random),
        rotations: [rotation],
      };
      const state = forged(model, before.state, settings, { identity: own, device: thief.device });
      await putOnServer(state, settings);
      const path = vaultPath(tablet.home, tablet.profile());
      const bytes = await Bun.file(path).bytes();
      const fault = await rejected(tablet.login(), "integrity");
      expect(fault.exit).toBe(8);
      expect(Buffer.compare(await Bun.file(path).bytes(), bytes)).toBe(0);
      await putOnServer(after.state, after.settings);
    }
    expect(await textOf(await tablet.login(), "old")).toBe("known to all");
  });

  test("with a new password the account of before the rotation opens to nobody", async () => {
    const thief = await thiefOf(phone);
    const before = await rowOf(desk);
    await revoke(NEXT);
    const after = await rowOf(desk);
    const state = forged(thief.model, before.state, before.settings, thief);
    await putOnServer(state, before.settings);
    await world.server.store.transaction((tx) => tx.replaceRecord(before.userId, before.record, before.setupId));
    await rejected(tablet.login(NEXT), "login_failed");
    await rejected(desk.login(NEXT), "login_failed");
    await putOnServer(after.state, after.settings);
    await world.server.store.transaction((tx) => tx.replaceRecord(after.userId, after.record, after.setupId));
    expect(await textOf(await tablet.login(NEXT), "old")).toBe("known to all");
  });

  test("the rotation cannot be taken back for a device that followed it", async () => {
    const before = await rowOf(desk);
    await revoke();
    await (await tablet.login()).close();
    await putOnServer(before.state, before.settings);
    for (const person of [tablet, desk]) {
      const fault = await rejected(person.login(), "integrity");
      expect(fault.exit).toBe(8);
    }
  });
});
