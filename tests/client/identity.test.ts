import { expect, test } from "bun:test";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { settingsHash, signState, stateHash } from "../../src/protocol/state.ts";
import { addTestDevice, random, registerDevice } from "../support/harness.ts";
import { startVillain, storing } from "../support/hostile.ts";

test("replace the account identity at a new device's first login: only the owner's account key wraps it", async () => {
  const villain = await startVillain();
  const owner = await registerDevice(villain.link, "ada", "correct horse battery");
  await owner.client.store(storing("keep", "v1"));
  const { userId } = owner.login;
  const { store } = villain.server;
  const account = await store.transaction((tx) => tx.account(userId));
  if (!account) throw new Error("no account");
  const [identity, device] = [signerFromSeed(random(32)), signerFromSeed(random(32))];
  const devices = account.settings.devices.map((one) => ({ ...one, publicKey: device.publicKey }));
  const settings = { ...account.settings, identity: identity.publicKey, devices };
  const forged = signState({ ...account.state.state, settingsHash: settingsHash(settings) }, identity, device);
  const next = { state: forged, stateHash: stateHash(forged.state), settings };
  expect(await store.transaction((tx) => tx.swapState(userId, account.stateHash, next))).toBe(true);
  const login = addTestDevice(villain.link, "ada", "correct horse battery");
  expect(await login.catch((error: unknown) => error)).toMatchObject({ code: "integrity", exit: 8 });
  await owner.end();
  await villain.server.close();
});
