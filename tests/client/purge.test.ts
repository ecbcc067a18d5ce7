import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { decodeModel, type Model } from "../../src/client/model.ts";
import { readPreviousVaultFile, readVaultFile } from "../../src/client/vaultfile.ts";
import type { KeyId } from "../../src/ids.ts";
import { openVaultWithKey } from "../../src/protocol/vault.ts";
import { addTestDevice, registerDevice, type TestDevice } from "../support/harness.ts";
import { EVERYTHING, startVillain, storing, type Villain } from "../support/hostile.ts";

const PASSWORD = "a password of ada";
let villain: Villain;
let count = 0;
const ends: (() => Promise<void>)[] = [];
beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function devices(): Promise<{ ada: TestDevice; other: TestDevice }> {
  const account = `ada ${count++}`;
  const ada = await registerDevice(villain.link, account, PASSWORD);
  const other = await addTestDevice(villain.link, account, PASSWORD);
  ends.push(
    () => ada.end(),
    () => other.end(),
  );
  return { ada, other };
}

/** Every generation of a device's vault that lies on the disk, opened. */
function generations({ open }: TestDevice): Model[] {
  const { path, vault } = open.box;
  return [readVaultFile(path), readPreviousVaultFile(path)].flatMap((bytes) =>
    bytes === null ? [] : [decodeModel(openVaultWithKey(bytes, vault.key).body)],
  );
}

/** True when a generation on the disk holds the secret's value or its name. */
const remembers = (device: TestDevice, keyId: KeyId): boolean =>
  generations(device).some((model) => {
    const secret = model.secrets.get(keyId);
    if (!secret) return false;
    const values = secret.place === "local" ? secret.values.length : secret.sealed === null ? 0 : 1;
    const leaves = secret.place === "local" ? secret.leaves : [secret.leaf];
    return values > 0 || leaves.some(({ meta }) => meta !== null);
  });

describe("a purged secret", () => {
  for (const where of ["both", "local", "server"] as const) {
    test(`kept in ${where}: no generation of the vault holds it any more`, async () => {
      const { ada } = await devices();
      const { info } = await ada.client.store(storing("x", "value", { where }));
      await ada.client.remove({ name: "x", purge: false });
      expect(remembers(ada, info.keyId)).toBe(true);
      await ada.client.remove({ name: "x", purge: true });
      expect(remembers(ada, info.keyId)).toBe(false);
    });
  }

  test("on another device: gone there with the synchronisation that tells of it", async () => {
    for (const learn of [
      (device: TestDevice) => device.client.sync(),
      (device: TestDevice) => device.client.list(EVERYTHING),
      (device: TestDevice) => device.client.store(storing("y", "value")),
    ]) {
      const { ada, other } = await devices();
      const { info } = await other.client.store(storing("x", "value"));
      await ada.client.sync();
      await ada.client.remove({ name: "x", purge: true });
      expect(remembers(other, info.keyId)).toBe(true);
      await learn(other);
      expect(remembers(other, info.keyId)).toBe(false);
    }
  });

  test("other writes keep the generation before", async () => {
    const { ada } = await devices();
    await ada.client.store(storing("x", "value"));
    await ada.client.remove({ name: "x", purge: true });
    await ada.client.store(storing("y", "value"));
    expect(generations(ada)).toHaveLength(2);
  });
});
