import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { type DeviceId, newId, type RequestId } from "../../src/ids.ts";
import type { AccountState, Device, Settings } from "../../src/protocol/state.ts";
import { requestHash } from "../../src/wire/operations.ts";
import {
  call,
  logInRaw,
  logOf,
  type RawAnswer,
  type RawOwner,
  type RawSession,
  registerRaw,
  signNext,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { type FileStore, fileStore } from "../support/storeprobe.ts";

let file: FileStore;
let server: TestServer;
let alice: RawOwner;
let session: RawSession;

beforeEach(async () => {
  file = fileStore();
  server = await startTestServer({ path: file.path });
  alice = await registerRaw(server, "alice");
  session = await logInRaw(server, "alice", alice.password);
});

afterEach(async () => {
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

/** What a refused mutation may touch: its sequence, and the log. */
const TRACES = ["session", "audit_entry", "audit_head"];
const freshId = () => newId<RequestId>(random);

/** A mutation that must fail: one audit entry with the code, nothing else changed. */
async function refuses(send: () => Promise<RawAnswer>, except: string[] = []): Promise<RawAnswer> {
  const before = file.dump(...TRACES, ...except);
  const answer = await send();
  expect(answer.code).not.toBe("ok");
  expect(answer.status).toBeLessThan(500);
  expect(answer.sealed).toBe(true);
  expect(file.dump(...TRACES, ...except)).toBe(before);
  const entries = await logOf(server, alice.userId, answer.requestId);
  expect(entries.map(({ status }) => status)).toEqual([answer.code]);
  return answer;
}

describe("a change of the settings", () => {
  async function addDevice(
    settings: Settings,
    deviceSeed: Uint8Array,
    deviceId: DeviceId,
    twist: Partial<AccountState> = {},
  ) {
    const requestId = freshId();
    const hash = requestHash("account.device.add", { settings, state: alice.state });
    const signers = { identity: alice.identity, device: signerFromSeed(deviceSeed) };
    const state = signNext(alice, requestId, hash, alice.map.root(), settings, { deviceId, ...twist }, signers);
    return call(server, session, "account.device.add", { settings, state }, { requestId });
  }
  const newcomer = () => {
    const seed = random(32);
    const device: Device = {
      id: newId<DeviceId>(random),
      publicKey: signerFromSeed(seed).publicKey,
      name: random(40),
      tokenHash: random(32),
      addedAtMs: 1,
    };
    return { seed, device };
  };

  test("adds one device that signs for itself", async () => {
    const { seed, device } = newcomer();
    const settings = { ...alice.settings, devices: [...alice.settings.devices, device] };
    expect((await addDevice(settings, seed, device.id)).code).toBe("ok");
  });

  const WRONG: [string, (settings: Settings, device: Device) => Settings][] = [
    [
      "another device's key swapped on the way",
      (s, d) => ({ ...s, devices: [...s.devices.map((old) => ({ ...old, publicKey: random(32) })), d] }),
    ],
    [
      "another device's token swapped on the way",
      (s, d) => ({ ...s, devices: [...s.devices.map((old) => ({ ...old, tokenHash: random(32) })), d] }),
    ],
    [
      "another device's name swapped on the way",
      (s, d) => ({ ...s, devices: [...s.devices.map((old) => ({ ...old, name: random(9) })), d] }),
    ],
    ["another device dropped", (s, d) => ({ ...s, devices: [d] })],
    ["a device listed twice", (s, d) => ({ ...s, devices: [...s.devices, ...s.devices, d] })],
    ["two devices at once", (s, d) => ({ ...s, devices: [...s.devices, newcomer().device, d] })],
    ["the account key replaced", (s, d) => ({ ...s, devices: [...s.devices, d], wrappedAccountKey: random(73) })],
    ["the identity replaced", (s, d) => ({ ...s, devices: [...s.devices, d], identity: random(32) })],
    [
      "a recovery kit slipped in",
      (s, d) => ({ ...s, devices: [...s.devices, d], kit: random(64), kitWrapped: random(80) }),
    ],
  ];
  test.each(WRONG)("with %s is refused", async (_what, make) => {
    const { seed, device } = newcomer();
    const answer = await refuses(() => addDevice(make(alice.settings, device), seed, device.id));
    expect(answer.code).toBe("bad_input");
  });

  test("does not touch the secrets: another root is refused", async () => {
    const { seed, device } = newcomer();
    const settings = { ...alice.settings, devices: [...alice.settings.devices, device] };
    expect((await refuses(() => addDevice(settings, seed, device.id, { root: random(32) }))).code).toBe("bad_input");
  });

  async function changePassword(changes: Partial<Settings>, at = session, twist: Partial<AccountState> = {}) {
    const requestId = freshId();
    const settings = { ...alice.settings, credentialRevision: 2, ...changes };
    const record = random(192);
    const hash = requestHash("account.password", { record, settings, state: alice.state });
    const state = signNext(alice, requestId, hash, alice.map.root(), settings, twist);
    return call(server, at, "account.password", { record, settings, state }, { requestId });
  }

  test("for a password change closes the other sessions and half logins, and kills the old password", async () => {
    const { startRaw, finishRaw } = await import("../support/attacker.ts");
    const other = await logInRaw(server, "alice", alice.password);
    const half = await startRaw(server, "alice", alice.password);
    const token = await startRaw(server, "alice", alice.password, { token: alice.token });
    expect((await changePassword({ wrappedAccountKey: random(73) })).code).toBe("ok");
    expect((await call(server, other, "session.check", {})).code).toBe("session_invalid");
    expect((await call(server, session, "session.check", {})).code).toBe("ok");
    for (const started of [half, token]) expect((await finishRaw(server, started)).status).toBe(401);
  });

  const BAD_PASSWORD: [string, Partial<Settings>, Partial<AccountState>][] = [
    ["another credential revision", { credentialRevision: 3 }, {}],
    ["the devices changed", { devices: [] }, {}],
    ["the identity's wrapping changed", { wrappedIdentity: random(73) }, {}],
    ["the identity replaced", { identity: random(32) }, {}],
    ["a recovery kit slipped in", { kit: random(64), kitWrapped: random(80) }, {}],
    ["another root", {}, { root: random(32) }],
  ];
  test.each(BAD_PASSWORD)("for a password change with %s is refused", async (_what, changes, twist) => {
    const devices = changes.devices ? [newcomer().device] : alice.settings.devices;
    const answer = await refuses(() => changePassword({ ...changes, devices }, session, twist));
    expect(answer.code).toBe("bad_input");
  });

  test("for a password change needs a login of the last five minutes", async () => {
    server.advance(5 * 60_000 + 1_000);
    expect((await refuses(() => changePassword({}))).code).toBe("denied");
  });
});
