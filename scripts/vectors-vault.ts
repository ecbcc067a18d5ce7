import { concat, type RandomSource } from "../src/crypto/bytes.ts";
import { sha256 } from "../src/crypto/kdf.ts";
import type { ErrorCode } from "../src/errors.ts";
import { KDF } from "../src/protocol/defaults.ts";
import { createVault, rekeyVault, setAccountSlot, setKitSlot, writeVault } from "../src/protocol/vault.ts";
import { slotsLength, VAULT_AT, vaultCheck } from "../src/protocol/vaultlayout.ts";

/** Writes tests/vectors/vault.json (docs/vault-format.md §7): `bun scripts/vectors-vault.ts`. */

/** One file and what opening it must give. */
export interface VaultVector {
  readonly name: string;
  readonly fileHex: string;
  /** How it is opened: UTF-8 password, account key, vault key or a recovery kit's entropy. */
  readonly with:
    | { readonly password: string }
    | { readonly accountKeyHex: string }
    | { readonly vaultKeyHex: string }
    | { readonly kitHex: string };
  readonly allowTestKdf: boolean;
  readonly expect:
    | { readonly generation: number; readonly vaultKeyHex: string; readonly bodyHex: string }
    | { readonly fault: ErrorCode };
}

/** A stream of SHA-256(seed ‖ counter), so that the vectors come out the same each time. */
export function seededRandom(seed: string): RandomSource {
  let counter = 0;
  return (length) => {
    let out: Uint8Array = new Uint8Array();
    while (out.length < length) out = concat(out, sha256(new TextEncoder().encode(`${seed} ${counter++}`)));
    return out.subarray(0, length);
  };
}

/** Changes bytes and mends the check, as a forger would. */
export function forge(file: Uint8Array, at: number, bytes: readonly number[]): Uint8Array {
  const out = new Uint8Array(file);
  out.set(bytes, at);
  const checkAt = VAULT_AT.slots + slotsLength(out[VAULT_AT.slotFlags] ?? 0) + 4;
  out.set(vaultCheck(out.slice(0, checkAt)), checkAt);
  return out;
}

/** All vectors, computed. */
export async function vaultVectors(): Promise<readonly VaultVector[]> {
  const random = seededRandom("keyhold vault vectors");
  const kitRandom = seededRandom("keyhold vault vectors: kit");
  const utf8 = (text: string) => new TextEncoder().encode(text);
  const options = { cost: KDF.test, allowTestKdf: true };
  const password = "correct horse battery staple";
  const accountKey = sha256(utf8("account key"));
  const body = utf8('{"note":"an example body"}');

  const fresh = await createVault(utf8(password), options, random);
  const plain = writeVault(fresh, body, random);
  const empty = writeVault({ ...fresh, generation: 1 }, new Uint8Array(), random);
  const bound = setAccountSlot({ ...fresh, generation: 2 }, accountKey, random);
  const withAccount = writeVault(bound, body, random);
  const rekeyed = await rekeyVault(
    { ...bound, generation: 3 },
    utf8("Ünïcode 密码"),
    { ...options, newKey: true },
    random,
  );
  const afterRekey = writeVault(rekeyed, body, random);
  const kit = sha256(utf8("recovery kit"));
  const kitted = setKitSlot({ ...fresh, generation: 6 }, kit, kitRandom);
  const withKit = writeVault(kitted, body, kitRandom);
  const withBoth = writeVault(setKitSlot({ ...bound, generation: 7 }, kit, kitRandom), body, kitRandom);
  const nextKit = sha256(kit);
  const replacedKit = writeVault(setKitSlot({ ...kitted, generation: 8 }, nextKit, kitRandom), body, kitRandom);
  const newKey = { ...options, newKey: true };
  const voidedKit = writeVault(await rekeyVault(kitted, utf8(password), newKey, kitRandom), body, kitRandom);
  const last = writeVault({ ...fresh, generation: Number.MAX_SAFE_INTEGER - 1 }, body, random);
  const highCost = await createVault(utf8(password), { cost: KDF.vaultSmall }, random);
  const smallest = writeVault(highCost, body, random);

  const opened = (generation: number, key: Uint8Array, content: Uint8Array) => ({
    generation,
    vaultKeyHex: key.toHex(),
    bodyHex: content.toHex(),
  });
  const byPassword = (text = password) => ({ with: { password: text }, allowTestKdf: true });
  const byAccount = (key: Uint8Array) => ({ with: { accountKeyHex: key.toHex() }, allowTestKdf: true });
  const byKey = (key: Uint8Array) => ({ with: { vaultKeyHex: key.toHex() }, allowTestKdf: true });
  const byKit = (entropy: Uint8Array) => ({ with: { kitHex: entropy.toHex() }, allowTestKdf: false });
  const flipped = (at: number) => {
    const out = new Uint8Array(withAccount);
    out[at] = (out[at] ?? 0) ^ 1;
    return out;
  };
  const ok = opened(1, fresh.key, body);
  const ok3 = opened(3, fresh.key, body);
  const rows: (Omit<VaultVector, "fileHex"> & { file: Uint8Array })[] = [
    { name: "opens with the password", file: plain, ...byPassword(), expect: ok },
    { name: "opens with the vault key", file: plain, ...byKey(fresh.key), expect: ok },
    { name: "an empty body", file: empty, ...byPassword(), expect: opened(2, fresh.key, new Uint8Array()) },
    { name: "account slot: opens with the account key", file: withAccount, ...byAccount(accountKey), expect: ok3 },
    { name: "account slot: opens with the password", file: withAccount, ...byPassword(), expect: ok3 },
    {
      name: "rekeyed: opens with the new password",
      file: afterRekey,
      ...byPassword("Ünïcode 密码"),
      expect: opened(4, rekeyed.key, body),
    },
    {
      name: "the highest generation",
      file: last,
      ...byPassword(),
      expect: opened(Number.MAX_SAFE_INTEGER, fresh.key, body),
    },
    {
      name: "the floor of the KDF cost, without the test setting",
      file: smallest,
      with: { password },
      allowTestKdf: false,
      expect: opened(1, highCost.key, body),
    },
    { name: "wrong password", file: plain, ...byPassword("wrong"), expect: { fault: "wrong_password" } },
    { name: "empty password", file: plain, ...byPassword(""), expect: { fault: "wrong_password" } },
    { name: "rekeyed: old password", file: afterRekey, ...byPassword(), expect: { fault: "wrong_password" } },
    { name: "rekeyed: old vault key", file: afterRekey, ...byKey(fresh.key), expect: { fault: "locked" } },
    {
      name: "rekeyed: account slot is gone",
      file: afterRekey,
      ...byAccount(accountKey),
      expect: { fault: "wrong_password" },
    },
    {
      name: "wrong account key",
      file: withAccount,
      ...byAccount(sha256(accountKey)),
      expect: { fault: "wrong_password" },
    },
    {
      name: "test cost without leave",
      file: plain,
      with: { password },
      allowTestKdf: false,
      expect: { fault: "bad_input" },
    },
    { name: "no bytes", file: new Uint8Array(), ...byPassword(), expect: { fault: "corrupt" } },
    { name: "another file", file: utf8("age-encryption.org/v1\n"), ...byPassword(), expect: { fault: "corrupt" } },
    { name: "cut in the header", file: plain.subarray(0, 200), ...byPassword(), expect: { fault: "corrupt" } },
    { name: "cut in the body", file: plain.subarray(0, -1), ...byPassword(), expect: { fault: "corrupt" } },
    { name: "a byte too many", file: concat(plain, Uint8Array.of(0)), ...byPassword(), expect: { fault: "corrupt" } },
    { name: "version 0", file: forge(plain, VAULT_AT.version, [0]), ...byPassword(), expect: { fault: "corrupt" } },
    { name: "version 2", file: forge(plain, VAULT_AT.version, [2]), ...byPassword(), expect: { fault: "bad_input" } },
    { name: "suite 2", file: forge(plain, VAULT_AT.suite, [2]), ...byPassword(), expect: { fault: "bad_input" } },
    { name: "bit flip in the salt", file: flipped(VAULT_AT.salt), ...byPassword(), expect: { fault: "corrupt" } },
    {
      name: "bit flip in the tag",
      file: flipped(withAccount.length - 1),
      ...byPassword(),
      expect: { fault: "corrupt" },
    },
    { name: "kit slot: opens with the kit", file: withKit, ...byKit(kit), expect: opened(7, fresh.key, body) },
    { name: "kit slot: opens with the password", file: withKit, ...byPassword(), expect: opened(7, fresh.key, body) },
    { name: "both slots: opens with the kit", file: withBoth, ...byKit(kit), expect: opened(8, fresh.key, body) },
    {
      name: "both slots: opens with the account key",
      file: withBoth,
      ...byAccount(accountKey),
      expect: opened(8, fresh.key, body),
    },
    { name: "a new kit: opens with it", file: replacedKit, ...byKit(nextKit), expect: opened(9, fresh.key, body) },
    { name: "a new kit: the one before", file: replacedKit, ...byKit(kit), expect: { fault: "wrong_password" } },
    { name: "no kit slot", file: withAccount, ...byKit(kit), expect: { fault: "wrong_password" } },
    { name: "another vault's kit", file: withKit, ...byKit(nextKit), expect: { fault: "wrong_password" } },
    { name: "rekeyed: kit slot is gone", file: voidedKit, ...byKit(kit), expect: { fault: "wrong_password" } },
    {
      name: "the account key is no kit",
      file: withBoth,
      ...byKit(accountKey),
      expect: { fault: "wrong_password" },
    },
    {
      name: "forged: kit slot",
      file: forge(withKit, VAULT_AT.slots + 40, [0, 0, 0]),
      ...byKit(kit),
      expect: { fault: "wrong_password" },
    },
    {
      name: "forged: kit slot, opened with the password",
      file: forge(withKit, VAULT_AT.slots + 40, [0, 0, 0]),
      ...byPassword(),
      expect: { fault: "corrupt" },
    },
    {
      name: "forged: the kit's slot as the account's, opened with the kit",
      file: forge(withKit, VAULT_AT.slotFlags, [1]),
      ...byKit(kit),
      expect: { fault: "wrong_password" },
    },
    {
      name: "forged: the slots of an older file of the same vault",
      file: forge(withKit, VAULT_AT.slots, [...replacedKit.subarray(VAULT_AT.slots, VAULT_AT.slots + 73)]),
      ...byKit(nextKit),
      expect: { fault: "corrupt" },
    },
    ...forgeries().map(([name, at, bytes, fault]) => ({
      name: `forged: ${name}`,
      file: forge(withAccount, at, bytes),
      ...byPassword(),
      expect: { fault },
    })),
    {
      name: "forged: account slot, opened with the account key",
      file: forge(withAccount, VAULT_AT.slots + 40, [0, 0, 0]),
      ...byAccount(accountKey),
      expect: { fault: "wrong_password" },
    },
  ];
  return rows.map(({ name, file, ...row }) => ({ name, fileHex: file.toHex(), ...row }));
}

/** Header edits with a mended check; opened with the right password. */
function forgeries(): readonly (readonly [string, number, readonly number[], ErrorCode])[] {
  return [
    ["vault id", VAULT_AT.vaultId, [1, 2, 3], "wrong_password"],
    ["key commitment", VAULT_AT.keyCommitment, [1, 2, 3], "corrupt"],
    ["1 TiB of memory", VAULT_AT.cost, [0x40, 0, 0, 0], "bad_input"],
    ["memory above the ceiling", VAULT_AT.cost, [0, 0x10, 0, 1, 0, 0, 0, 3, 0, 0, 0, 4], "bad_input"],
    ["4 billion passes", VAULT_AT.cost, [0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 4], "bad_input"],
    ["17 lanes", VAULT_AT.cost, [0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 17], "bad_input"],
    ["no lane", VAULT_AT.cost, [0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0], "bad_input"],
    ["memory below the floor", VAULT_AT.cost, [0, 0, 0xff, 0xff, 0, 0, 0, 3, 0, 0, 0, 4], "bad_input"],
    ["passes below the floor", VAULT_AT.cost, [0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4], "bad_input"],
    ["salt", VAULT_AT.salt, [1, 2, 3], "wrong_password"],
    ["password commitment", VAULT_AT.passwordCommitment, [1, 2, 3], "wrong_password"],
    ["password slot", VAULT_AT.passwordSlot + 40, [1, 2, 3], "corrupt"],
    ["an older generation", VAULT_AT.generation, [0, 0, 0, 0, 0, 0, 0, 2], "corrupt"],
    ["generation 0", VAULT_AT.generation, [0, 0, 0, 0, 0, 0, 0, 0], "corrupt"],
    ["generation 2^53", VAULT_AT.generation, [0, 0x20, 0, 0, 0, 0, 0, 0], "corrupt"],
    ["account slot", VAULT_AT.slots + 40, [1, 2, 3], "corrupt"],
    ["the account slot as a kit's", VAULT_AT.slotFlags, [2], "corrupt"],
    ["slot flags 4", VAULT_AT.slotFlags, [4], "corrupt"],
    ["body length", VAULT_AT.slots + 73, [0xff, 0xff, 0xff, 0xff], "corrupt"],
  ];
}

/** The text of the vector file. */
export async function vaultVectorText(): Promise<string> {
  return `${JSON.stringify({ v: 1, vectors: await vaultVectors() }, null, 2)}\n`;
}

if (import.meta.main) {
  await Bun.write(new URL("../tests/vectors/vault.json", import.meta.url), await vaultVectorText());
}
