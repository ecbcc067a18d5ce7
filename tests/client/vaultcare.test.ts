import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { initLocal } from "../../src/client/enrol.ts";
import { type Home, openOffline, vaultPath } from "../../src/client/home.ts";
import { bind, decodeModel, newModel } from "../../src/client/model.ts";
import { type Profile, readProfile } from "../../src/client/profile.ts";
import { createVaultFile, type VaultBox, withVault } from "../../src/client/vaultbox.ts";
import { backupVault, restoreVault } from "../../src/client/vaultcare.ts";
import { readPending } from "../../src/client/vaultfile.ts";
import { type DeviceId, type IncarnationId, newId, type UserId } from "../../src/ids.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import { createVault, openVaultWithPassword } from "../../src/protocol/vault.ts";
import { passwordOf, random, testSurroundings } from "../support/harness.ts";
import { rejected, storing } from "../support/hostile.ts";

const PASSWORD = "a password of ada";
const around = testSurroundings();
const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

function folder(): string {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-care-"));
  ends.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A home with a local vault that holds one secret. */
async function localHome(): Promise<{ home: Home; profile: Profile; path: string }> {
  const directory = folder();
  const home = { profiles: join(directory, "config"), vaults: join(directory, "data") };
  await initLocal(home, { profile: "default", password: passwordOf(PASSWORD), kdf: "test" }, around);
  const profile = readProfile(home.profiles, "default");
  if (!profile) throw new Error("no profile");
  const client = await openOffline(home, profile, passwordOf(PASSWORD), around);
  await client.store(storing("a", "value"));
  await client.close();
  return { home, profile, path: vaultPath(home, profile) };
}

/** A vault that is bound to an account, in a directory of its own. */
async function boundVault(userId: UserId): Promise<VaultBox> {
  const zeros = new Uint8Array(32);
  const state = {
    incarnation: newId<IncarnationId>(random),
    userId,
    deviceId: newId<DeviceId>(random),
    revision: 1,
    previous: zeros,
    requestId: newId<never>(random),
    requestHash: zeros,
    root: zeros,
    settingsHash: zeros,
    auditSeq: 1,
    auditLink: zeros,
  };
  const device = { id: state.deviceId, publicKey: zeros, name: Uint8Array.of(1), tokenHash: zeros, addedAtMs: 1 };
  const bound = bind(
    {
      account: "ada",
      userId,
      deviceId: state.deviceId,
      deviceSeed: random(32),
      serverIdentity: random(32),
      statementNumber: 1,
      head: { state, identitySignature: new Uint8Array(64), deviceSignature: new Uint8Array(64) },
      settings: {
        identity: zeros,
        devices: [device],
        wrappedAccountKey: Uint8Array.of(1),
        masterCommitment: zeros,
        wrappedIdentity: Uint8Array.of(1),
        credentialTag: zeros,
        credentialRevision: 1,
        kit: null,
        kitWrapped: null,
        rotations: [],
      },
      audit: { seq: 1, link: zeros },
    },
    1,
  );
  const model = newModel(userId, random(32), bound);
  bound.head = { ...bound.head, state: { ...state, root: model.map.root() } };
  const vault = await createVault(passwordOf(PASSWORD), { cost: KDF.test, allowTestKdf: true }, random);
  const box = { path: join(folder(), "data", "default.vault"), vault, model };
  await createVaultFile(box, around);
  return box;
}

const backup = (path: string): string => {
  const out = join(folder(), "backup");
  backupVault(path, out);
  return out;
};
const restore = (path: string, file: string, userId: UserId | null) =>
  restoreVault(path, file, passwordOf(PASSWORD), { allowTestKdf: true, userId });

describe("vault restore", () => {
  test("puts a backup of the same vault back as a newer generation", async () => {
    const { home, profile, path } = await localHome();
    const file = backup(path);
    const client = await openOffline(home, profile, passwordOf(PASSWORD), around);
    await client.remove({ name: "a", purge: true });
    await client.close();
    const before = openVaultWithPassword(readFileSync(path), passwordOf(PASSWORD), { allowTestKdf: true });
    const facts = await restore(path, file, null);
    expect(facts.generation).toBe((await before).vault.generation + 1);
    const again = await openVaultWithPassword(readFileSync(path), passwordOf(PASSWORD), { allowTestKdf: true });
    expect([...decodeModel(again.body).secrets.values()].map(({ meta }) => meta?.name)).toEqual(["a"]);
  });

  test("refuses another local vault where one lies, and takes it where none does", async () => {
    const mine = await localHome();
    const file = backup((await localHome()).path);
    const before = readFileSync(mine.path);
    const fault = await rejected(restore(mine.path, file, null), "conflict");
    expect(fault.hint).toContain("move");
    expect(readFileSync(mine.path).equals(before)).toBe(true);
    rmSync(mine.path);
    expect((await restore(mine.path, file, null)).generation).toBeGreaterThan(0);
  });

  test("refuses a vault of another account, and one of an account for a local profile, and the other way round", async () => {
    const [ada, eve] = [newId<UserId>(random), newId<UserId>(random)];
    const [mine, theirs, local] = [await boundVault(ada), await boundVault(eve), await localHome()];
    const [before, localBefore] = [readFileSync(mine.path), readFileSync(local.path)];
    await rejected(restore(mine.path, backup(theirs.path), ada), "conflict");
    await rejected(restore(mine.path, backup(local.path), ada), "conflict");
    await rejected(restore(local.path, backup(theirs.path), null), "conflict");
    rmSync(local.path);
    await rejected(restore(local.path, backup(theirs.path), null), "conflict");
    expect(readFileSync(mine.path).equals(before)).toBe(true);
    expect(localBefore.length).toBeGreaterThan(0);
    expect((await restore(mine.path, backup(mine.path), ada)).generation).toBe(2);
  });

  test("drops a pending request that the restored vault's key does not open, and keeps one that it opens", async () => {
    const ada = newId<UserId>(random);
    const [mine, earlier] = [await boundVault(ada), await boundVault(ada)];
    const own = backup(mine.path);
    await withVault(mine, around, (held) => held.keepPending(Uint8Array.of(1)));
    await restore(mine.path, own, ada);
    expect(readPending(mine.path)).not.toBeNull();
    await restore(mine.path, backup(earlier.path), ada);
    expect(readPending(mine.path)).toBeNull();
  });
});
