import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import type { DeviceId, UserId } from "../../src/ids.ts";
import {
  accountKeys,
  credentialTag,
  openDeviceName,
  passwordKeys,
  sealDeviceName,
  unwrapAccountKey,
  unwrapIdentity,
  wrapAccountKey,
  wrapIdentity,
} from "../../src/protocol/account.ts";
import type { Settings } from "../../src/protocol/state.ts";
import { anyId, bentFields, bytesOf, settingsArbitrary } from "../support/arbitraries.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

function expectIntegrity(work: () => unknown): void {
  let caught: unknown;
  try {
    work();
  } catch (error) {
    caught = error;
  }
  expect(caught).toBeInstanceOf(Fault);
  expect((caught as Fault).code).toBe("integrity");
}

const user = anyId<UserId>();
const revision = fc.integer({ min: 1, max: 1_000 });

describe("account key under a password", () => {
  test("opens with the same export key, account and settings", () => {
    fc.assert(
      fc.property(bytesOf(64), user, revision, bytesOf(32), settingsArbitrary, (exportKey, userId, at, key, base) => {
        const settings: Settings = { ...base, ...wrapAccountKey(exportKey, userId, at, key, random) };
        expect(settings.credentialRevision).toBe(at);
        expect(unwrapAccountKey(exportKey, userId, settings).toHex()).toBe(key.toHex());
      }),
      { numRuns: 50 },
    );
  });

  test("does not open with another export key, another account, or any of its four fields changed", () => {
    fc.assert(
      fc.property(bytesOf(64), user, revision, settingsArbitrary, (exportKey, userId, at, base) => {
        const wrapped = wrapAccountKey(exportKey, userId, at, random(32), random);
        const settings: Settings = { ...base, ...wrapped };
        for (const { value } of bentFields({ exportKey, userId })) {
          expectIntegrity(() => unwrapAccountKey(value.exportKey, value.userId, settings));
        }
        for (const { value } of bentFields(wrapped)) {
          if (value.credentialRevision < 0) continue;
          expectIntegrity(() => unwrapAccountKey(exportKey, userId, { ...settings, ...value }));
        }
      }),
      { numRuns: 25 },
    );
  });

  test("settings of another password are refused, whole or in part", () => {
    const userId = random(16).toHex() as UserId;
    const base = fc.sample(settingsArbitrary, 1)[0] as Settings;
    const mine = random(64);
    const old = { ...base, ...wrapAccountKey(random(64), userId, 3, random(32), random) };
    const now = { ...base, ...wrapAccountKey(mine, userId, 4, random(32), random) };
    expectIntegrity(() => unwrapAccountKey(mine, userId, old));
    expectIntegrity(() => unwrapAccountKey(mine, userId, { ...now, wrappedAccountKey: old.wrappedAccountKey }));
    expectIntegrity(() => unwrapAccountKey(mine, userId, { ...now, masterCommitment: old.masterCommitment }));
    expectIntegrity(() => unwrapAccountKey(mine, userId, { ...now, credentialTag: old.credentialTag }));
    // an older envelope of the same password under its own revision is not this revision's
    const earlier = { ...base, ...wrapAccountKey(mine, userId, 2, random(32), random) };
    expectIntegrity(() => unwrapAccountKey(mine, userId, { ...now, wrappedAccountKey: earlier.wrappedAccountKey }));
    expectIntegrity(() => unwrapAccountKey(mine, userId, { ...now, credentialTag: earlier.credentialTag }));
  });

  test("credential tag depends on export key, account and revision; what is in clear never holds the master key", () => {
    fc.assert(
      fc.property(bytesOf(64), user, revision, (exportKey, userId, at) => {
        const tag = credentialTag(exportKey, userId, at).toHex();
        expect(credentialTag(exportKey, userId, at).toHex()).toBe(tag);
        for (const { value } of bentFields({ exportKey, userId })) {
          expect(credentialTag(value.exportKey, value.userId, at).toHex()).not.toBe(tag);
        }
        expect(credentialTag(exportKey, userId, at + 1).toHex()).not.toBe(tag);
        const keys = passwordKeys(exportKey, userId);
        expect(new Set([keys.master.toHex(), keys.commitment.toHex(), tag]).size).toBe(3);
      }),
      { numRuns: 40 },
    );
  });
});

describe("keys under the account key", () => {
  test("differ by purpose, account key and account", () => {
    fc.assert(
      fc.property(bytesOf(32), user, (accountKey, userId) => {
        const all = (k: Uint8Array, u: UserId) => Object.values(accountKeys(k, u)).map((key) => key.toHex());
        const mine = all(accountKey, userId);
        expect(new Set(mine).size).toBe(4);
        for (const { value } of bentFields({ accountKey, userId })) {
          for (const other of all(value.accountKey, value.userId)) expect(mine).not.toContain(other);
        }
      }),
      { numRuns: 40 },
    );
  });

  test("the wrapped identity opens for its account and key alone", () => {
    const userId = random(16).toHex() as UserId;
    const other = random(16).toHex() as UserId;
    const keys = accountKeys(random(32), userId);
    const seed = random(32);
    const wrapped = wrapIdentity(keys, userId, seed, random);
    expect(unwrapIdentity(keys, userId, wrapped)).toEqual(seed);
    expectIntegrity(() => unwrapIdentity(keys, other, wrapped));
    expectIntegrity(() => unwrapIdentity({ ...keys, identity: keys.index }, userId, wrapped));
    expectIntegrity(() => unwrapIdentity(keys, userId, wrapped.subarray(1)));
  });

  test("a device's name opens for that device alone", () => {
    const userId = random(16).toHex() as UserId;
    const [one, two] = [random(16).toHex(), random(16).toHex()] as [DeviceId, DeviceId];
    const keys = accountKeys(random(32), userId);
    const sealed = sealDeviceName(keys, userId, one, "Ada's laptop ❤", random);
    expect(openDeviceName(keys, userId, one, sealed)).toBe("Ada's laptop ❤");
    expectIntegrity(() => openDeviceName(keys, userId, two, sealed));
    expectIntegrity(() => openDeviceName(keys, random(16).toHex() as UserId, one, sealed));
    expectIntegrity(() => openDeviceName({ ...keys, index: keys.record }, userId, one, sealed));
  });
});
