import { expect, test } from "bun:test";
import { commitChanges } from "../../src/client/commit.ts";
import { decodeModel } from "../../src/client/model.ts";
import { withVault } from "../../src/client/vaultbox.ts";
import { readVaultFile } from "../../src/client/vaultfile.ts";
import { type KeyId, newId } from "../../src/ids.ts";
import { sealedHash, sealMeta, sealValue } from "../../src/protocol/secret.ts";
import { openVaultWithKey } from "../../src/protocol/vault.ts";
import { addTestDevice, random, registerDevice, startTestServer, type TestDevice } from "../support/harness.ts";
import { asking, EVERYTHING, storing } from "../support/hostile.ts";

/** Commits a secret whose metadata only a later version understands. */
async function storeFromTheFuture(device: TestDevice): Promise<KeyId> {
  const { box, session, around } = device.open;
  if (!session) throw new Error("no session");
  const { model } = box;
  const keyId = newId<KeyId>(random);
  const meta = new TextEncoder().encode(JSON.stringify({ name: "future", type: "hologram", fields: [1, 2] }));
  const sealedMeta = sealMeta(model.keys.index, model.owner, keyId, 1, meta, random);
  const context = { userId: model.owner, keyId, version: 1, type: "hologram" };
  const sealed = sealValue(model.keys.record, context, Uint8Array.of(1), random);
  const leaf = {
    keyId,
    serial: 1,
    version: 1,
    sealedHash: sealedHash(sealed),
    metaHash: sealedHash(sealedMeta),
    meta: sealedMeta,
    publicKey: null,
    status: "live" as const,
    previous: new Uint8Array(32),
  };
  await withVault(box, around, (held) =>
    commitChanges(model, held, session, around, "secret.import", () => [{ leaf, sealed, keep: false }]),
  );
  return keyId;
}

test("a secret that a newer version wrote closes neither the account nor the vault to this one", async () => {
  const server = await startTestServer();
  const link = server.link();
  const newer = await registerDevice(link, "ada", "correct horse");
  const older = await addTestDevice(link, "ada", "correct horse");
  await newer.client.store(storing("known", "1"));
  const keyId = await storeFromTheFuture(newer);
  const { items } = await older.client.list(EVERYTHING);
  expect(items.map((item) => item.name)).toEqual(["known", `unreadable/${keyId}`]);
  expect(items.find((item) => item.keyId === keyId)?.origin).toBe("newer-version");
  for (const work of [
    older.client.get(asking(`unreadable/${keyId}`)),
    older.client.rename({ from: `unreadable/${keyId}`, to: "mine" }),
    older.client.store(storing(`unreadable/${keyId}`, "overwritten")),
  ]) {
    expect(await work.catch((error: unknown) => error)).toMatchObject({ code: "unsupported" });
  }
  await older.client.store({ ...storing("mine", "precious"), where: "local" });
  const bytes = readVaultFile(older.open.box.path);
  if (!bytes) throw new Error("no vault");
  const { body } = openVaultWithKey(bytes, older.open.box.vault.key);
  expect([...decodeModel(body).secrets.keys()].length).toBe(3);
  await newer.end();
  await older.end();
  await server.close();
});

test("values of many are asked for again when another device wrote meanwhile", async () => {
  const server = await startTestServer();
  const link = server.link();
  const writer = await registerDevice(link, "ada", "correct horse");
  await writer.client.store(storing("k", "old"));
  const reader = await addTestDevice(link, "ada", "correct horse");
  await writer.client.store(storing("k", "rotated"));
  const refs = [{ name: "k", version: null }];
  const [got] = await reader.client.getMany({ refs, fresh: true, purpose: "get" });
  expect(new TextDecoder().decode(got?.value ?? new Uint8Array(0))).toBe("rotated");
  expect(got?.version).toBe(2);
  await writer.end();
  await reader.end();
  await server.close();
});
