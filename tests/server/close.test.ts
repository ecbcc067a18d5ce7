import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { boundOf, pinnedHash, signersOf } from "../../src/client/model.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { newId, type RequestId, type UserId } from "../../src/ids.ts";
import { type AccountState, closedHash, signState } from "../../src/protocol/state.ts";
import { requestHash } from "../../src/wire/operations.ts";
import {
  addTestDevice,
  random,
  registerDevice,
  startTestServer,
  type TestDevice,
  type TestServer,
} from "../support/harness.ts";
import { rejected, storing } from "../support/hostile.ts";

let server: TestServer;
let desk: TestDevice;
let phone: TestDevice;

beforeEach(async () => {
  server = await startTestServer({ limits: { loginFreeFailures: 1_000 } });
  desk = await registerDevice(server.link(), "ada", "a password of ada");
  phone = await addTestDevice(server.link(), "ada", "a password of ada");
  await desk.client.sync();
  await desk.client.store(storing("a", "value"));
});
afterEach(async () => {
  await desk.end();
  await phone.end();
  await server.close();
  expect(server.faults).toEqual([]);
});

const row = () => server.store.transaction((tx) => tx.account(desk.open.box.model.owner));

/** Sends a last state, changed before it is signed. */
function close(edit: Partial<AccountState> = {}, by: { identity?: Uint8Array; device?: Uint8Array } = {}) {
  const { session, box } = desk.open;
  if (!session) throw new Error("no session");
  const bound = boundOf(box.model);
  const honest = signersOf(box.model);
  const requestId = newId<RequestId>(random);
  const state = signState(
    {
      ...bound.head.state,
      deviceId: bound.deviceId,
      revision: bound.head.state.revision + 1,
      previous: pinnedHash(bound),
      requestId,
      requestHash: requestHash("account.delete", { state: bound.head }),
      root: new Uint8Array(32),
      settingsHash: closedHash(bound.userId),
      ...edit,
    },
    by.identity ? signerFromSeed(by.identity) : honest.identity,
    by.device ? signerFromSeed(by.device) : honest.device,
  );
  return session.call("account.delete", { state }, requestId);
}

describe("account.delete", () => {
  test("an honest last state ends the account, and every session with it", async () => {
    await close();
    expect(await row()).toBeUndefined();
    for (const { open } of [desk, phone]) {
      await rejected(open.session?.call("session.check", {}) ?? Promise.resolve(), "session_invalid");
    }
  });

  const WRONG: Record<string, () => Promise<unknown>> = {
    "secrets that are left": () => close({ root: boundOf(desk.open.box.model).head.state.root }),
    "settings that live on": () => close({ settingsHash: boundOf(desk.open.box.model).head.state.settingsHash }),
    "the end of another account": () => close({ settingsHash: closedHash("0".repeat(32) as UserId) }),
    "another account": () => close({ userId: "0".repeat(32) as UserId }),
    "another revision": () => close({ revision: 99 }),
    "another request": () => close({ requestId: newId<RequestId>(random) }),
    "another request's hash": () => close({ requestHash: random(32) }),
    "a log position that is not there yet": () => close({ auditSeq: 9_999 }),
    "another identity": () => close({}, { identity: random(32) }),
    "another device's key": () => close({}, { device: random(32) }),
    "a device that is not listed": () => close({ deviceId: newId<AccountState["deviceId"]>(random) }),
  };
  for (const [what, attempt] of Object.entries(WRONG)) {
    test(`${what}: refused, and nothing changes`, async () => {
      const before = await row();
      await rejected(attempt(), "bad_input");
      expect((await row())?.stateHash).toEqual(before?.stateHash ?? random(32));
      await phone.client.sync();
    });
  }

  test("a state that does not follow the newest one is stale", async () => {
    await rejected(close({ previous: random(32) }), "stale");
    expect(await row()).toBeDefined();
  });

  test("it needs a login of this moment", async () => {
    server.advance(6 * 60_000);
    await rejected(close(), "denied");
    expect(await row()).toBeDefined();
  });
});
