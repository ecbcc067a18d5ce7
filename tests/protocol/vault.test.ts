import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { forge, seededRandom, type VaultVector, vaultVectors, vaultVectorText } from "../../scripts/vectors-vault.ts";
import { type ErrorCode, Fault } from "../../src/errors.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import {
  closeVault,
  createVault,
  type OpenedVault,
  openPending,
  openVaultWithAccountKey,
  openVaultWithKey,
  openVaultWithKit,
  openVaultWithPassword,
  readVaultHeader,
  rekeyVault,
  sealPending,
  setAccountSlot,
  setKitSlot,
  type Vault,
  writeVault,
} from "../../src/protocol/vault.ts";
import { VAULT_AT } from "../../src/protocol/vaultlayout.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
const password = utf8("a long enough password");
const cheap = { cost: KDF.test, allowTestKdf: true };
const random = seededRandom("vault test");

async function sample(): Promise<{ vault: Vault; file: Uint8Array; accountKey: Uint8Array; kit: Uint8Array }> {
  const accountKey = random(32);
  const kit = random(32);
  const made = setAccountSlot(await createVault(password, cheap, random), accountKey, random);
  const vault = setKitSlot(made, kit, random);
  return { vault, file: writeVault(vault, utf8("body"), random), accountKey, kit };
}

/** The code of the fault that `work` ends with; fails the test for anything else. */
async function faultOf(work: () => unknown): Promise<ErrorCode> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Fault) return error.code;
    throw error;
  }
  throw new Error("no fault");
}

function openVector({ fileHex, with: how, allowTestKdf }: VaultVector): Promise<OpenedVault> | OpenedVault {
  const file = Uint8Array.fromHex(fileHex);
  if ("password" in how) return openVaultWithPassword(file, utf8(how.password), { allowTestKdf });
  if ("accountKeyHex" in how) return openVaultWithAccountKey(file, Uint8Array.fromHex(how.accountKeyHex));
  if ("kitHex" in how) return openVaultWithKit(file, Uint8Array.fromHex(how.kitHex));
  return openVaultWithKey(file, Uint8Array.fromHex(how.vaultKeyHex));
}

describe("vectors", async () => {
  const text = await Bun.file(new URL("../vectors/vault.json", import.meta.url)).text();
  const { vectors } = JSON.parse(text) as { vectors: readonly VaultVector[] };
  test("come out of the script unchanged", async () => {
    expect(await vaultVectorText()).toBe(text);
    expect(vectors.length).toBe((await vaultVectors()).length);
  });
  test.each(vectors.map((vector) => [vector.name, vector] as const))("%s", async (_name, vector) => {
    if ("fault" in vector.expect) {
      expect(await faultOf(async () => openVector(vector))).toBe(vector.expect.fault);
      return;
    }
    const { vault, body } = await openVector(vector);
    expect({ generation: vault.generation, vaultKeyHex: vault.key.toHex(), bodyHex: body.toHex() }).toEqual(
      vector.expect,
    );
  });
});

test("any body comes back, through each of the four keys", async () => {
  const { vault, accountKey, kit } = await sample();
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 5_000 }), async (content) => {
      const body = new Uint8Array(content);
      const file = writeVault(vault, body, random);
      expect((await openVaultWithPassword(file, password, { allowTestKdf: true })).body).toEqual(body);
      expect(openVaultWithAccountKey(file, accountKey).body).toEqual(body);
      expect(openVaultWithKey(file, vault.key).body).toEqual(body);
      expect(openVaultWithKit(file, kit).body).toEqual(body);
    }),
    { numRuns: 30 },
  );
});

test("each write counts the generation up and keeps slots and key", async () => {
  const { vault, file, accountKey } = await sample();
  const first = await openVaultWithPassword(file, password, { allowTestKdf: true });
  const second = openVaultWithAccountKey(writeVault(first.vault, utf8("two"), random), accountKey);
  expect([vault.generation, first.vault.generation, second.vault.generation]).toEqual([0, 1, 2]);
  expect(second.vault).toEqual({ ...first.vault, generation: 2 });
  expect(readVaultHeader(file)).toEqual({
    vaultId: vault.vaultId,
    generation: 1,
    cost: KDF.test,
    hasAccountSlot: true,
    hasKitSlot: true,
  });
});

test("two writes of one content share no ciphertext", async () => {
  const { vault } = await sample();
  expect(writeVault(vault, utf8("same"), random)).not.toEqual(writeVault(vault, utf8("same"), random));
});

test("cut at every length: corrupt, with every key", async () => {
  const { vault, file, accountKey, kit } = await sample();
  for (let length = 0; length < file.length; length++) {
    const cut = file.slice(0, length);
    expect(await faultOf(() => openVaultWithPassword(cut, password, { allowTestKdf: true }))).toBe("corrupt");
    expect(await faultOf(() => openVaultWithAccountKey(cut, accountKey))).toBe("corrupt");
    expect(await faultOf(() => openVaultWithKey(cut, vault.key))).toBe("corrupt");
    expect(await faultOf(() => openVaultWithKit(cut, kit))).toBe("corrupt");
  }
});

test("a flip of any bit is damage, never a wrong password; of the version byte, perhaps a newer version", async () => {
  const { vault, file, accountKey, kit } = await sample();
  for (let at = 0; at < file.length; at++) {
    const allowed: ErrorCode[] = at === VAULT_AT.version ? ["corrupt", "bad_input"] : ["corrupt"];
    for (let bit = 0; bit < 8; bit++) {
      const damaged = new Uint8Array(file);
      damaged[at] = (damaged[at] ?? 0) ^ (1 << bit);
      expect(allowed).toContain(await faultOf(() => openVaultWithPassword(damaged, password, { allowTestKdf: true })));
      expect(allowed).toContain(await faultOf(() => openVaultWithAccountKey(damaged, accountKey)));
      expect(allowed).toContain(await faultOf(() => openVaultWithKey(damaged, vault.key)));
      expect(allowed).toContain(await faultOf(() => openVaultWithKit(damaged, kit)));
    }
  }
});

test("an edit of any header byte with a mended check never opens", async () => {
  const { vault, file, accountKey, kit } = await sample();
  const end = VAULT_AT.slots + 2 * 73 + 4;
  for (let at = 0; at < end; at++) {
    const forged = forge(file, at, [(file[at] ?? 0) ^ 0x40]);
    const password_ = await faultOf(() => openVaultWithPassword(forged, password, { allowTestKdf: true }));
    expect(["corrupt", "bad_input", "wrong_password"]).toContain(password_);
    expect(["corrupt", "bad_input", "wrong_password"]).toContain(
      await faultOf(() => openVaultWithAccountKey(forged, accountKey)),
    );
    expect(["corrupt", "bad_input", "wrong_password"]).toContain(await faultOf(() => openVaultWithKit(forged, kit)));
    expect(["corrupt", "bad_input", "locked"]).toContain(await faultOf(() => openVaultWithKey(forged, vault.key)));
  }
});

test("random bytes after the magic: a typed fault", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 600 }), async (tail) => {
      const file = new Uint8Array([...utf8("keyhold-vault"), ...tail]);
      expect(["corrupt", "bad_input"]).toContain(await faultOf(() => openVaultWithPassword(file, password)));
    }),
  );
});

test("costs outside the limits are refused at creation and rekeying too", async () => {
  const low = { cost: { ...KDF.vaultSmall, passes: 1 } };
  const high = { cost: { ...KDF.vaultSmall, memoryKib: KDF.vaultCeiling.memoryKib + 1 } };
  const { vault } = await sample();
  for (const options of [low, high, { cost: KDF.test }]) {
    expect(await faultOf(() => createVault(password, options, random))).toBe("bad_input");
    expect(await faultOf(() => rekeyVault(vault, password, options, random))).toBe("bad_input");
  }
});

test("a new password under the old vault key keeps the other slots", async () => {
  const { vault, accountKey, kit } = await sample();
  const next = utf8("the next password");
  const file = writeVault(await rekeyVault(vault, next, cheap, random), utf8("body"), random);
  expect((await openVaultWithPassword(file, next, { allowTestKdf: true })).vault.key).toEqual(vault.key);
  expect(openVaultWithAccountKey(file, accountKey).vault.key).toEqual(vault.key);
  expect(openVaultWithKit(file, kit).vault.key).toEqual(vault.key);
  expect(await faultOf(() => openVaultWithPassword(file, password, { allowTestKdf: true }))).toBe("wrong_password");
});

test("a password slot of an older file does not open a newer one", async () => {
  const { vault, file } = await sample();
  const newer = writeVault(await rekeyVault(vault, utf8("the next password"), cheap, random), utf8("body"), random);
  const mixed = forge(newer, VAULT_AT.cost, [...file.slice(VAULT_AT.cost, VAULT_AT.generation)]);
  expect(await faultOf(() => openVaultWithPassword(mixed, password, { allowTestKdf: true }))).toBe("corrupt");
});

test("a kit opens what is written with it, and nothing before or after", async () => {
  const { vault, kit } = await sample();
  const next = random(32);
  const before = writeVault(vault, utf8("before"), random);
  const replaced = writeVault({ ...setKitSlot(vault, next, random), generation: 1 }, utf8("after"), random);
  const none = writeVault(setKitSlot(vault, null, random), utf8("none"), random);
  const stranger = setKitSlot(await createVault(password, cheap, random), random(32), random);
  expect(new TextDecoder().decode(openVaultWithKit(before, kit).body)).toBe("before");
  expect(new TextDecoder().decode(openVaultWithKit(replaced, next).body)).toBe("after");
  for (const file of [replaced, none, writeVault(stranger, utf8("body"), random)]) {
    expect(await faultOf(() => openVaultWithKit(file, kit))).toBe("wrong_password");
  }
  expect(await faultOf(() => openVaultWithKit(before, next))).toBe("wrong_password");
  expect(readVaultHeader(none).hasKitSlot).toBe(false);
});

test("a kit's slot of an older file does not open a newer one", async () => {
  const { vault, file, kit } = await sample();
  const newer = writeVault(setKitSlot(vault, random(32), random), utf8("body"), random);
  const at = VAULT_AT.slots + 73;
  const mixed = forge(newer, at, [...file.slice(at, at + 73)]);
  expect(await faultOf(() => openVaultWithKit(mixed, kit))).toBe("corrupt");
});

test("the account slot can be taken away", async () => {
  const { vault, accountKey } = await sample();
  const file = writeVault(setAccountSlot(vault, null, random), utf8("body"), random);
  expect(readVaultHeader(file).hasAccountSlot).toBe(false);
  expect(await faultOf(() => openVaultWithAccountKey(file, accountKey))).toBe("wrong_password");
});

test("a pending request opens with its vault only, unaltered", async () => {
  const { vault } = await sample();
  const sealed = sealPending(vault, utf8("request"), random);
  expect(openPending(vault, sealed)).toEqual(utf8("request"));
  const other = (await sample()).vault;
  expect(await faultOf(() => openPending(other, sealed))).toBe("corrupt");
  sealed[sealed.length - 1] = (sealed.at(-1) ?? 0) ^ 1;
  expect(await faultOf(() => openPending(vault, sealed))).toBe("corrupt");
});

test("closing wipes the key; opening with a key copies it", async () => {
  const { vault, file } = await sample();
  const opened = openVaultWithKey(file, vault.key);
  closeVault(vault);
  expect(vault.key).toEqual(new Uint8Array(32));
  expect(opened.vault.key).not.toEqual(new Uint8Array(32));
});
