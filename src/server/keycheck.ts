import { macCanon } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { Store, Tx } from "../storage/store.ts";
import { type ServerKeys, shownKeyFile } from "./directory.ts";

type KeyName = "identity" | "accountName" | "sealing" | "shadow" | "log" | "opaque" | "registry";

const settingOf = (name: KeyName): string => `key:${name}`;

/** What tells one key from another and nothing else of it: HMAC under the key itself, hexadecimal. */
const print = (name: KeyName, key: Uint8Array) =>
  [name, macCanon(key, "keyhold/v1/key-fingerprint", name).toHex()] as const;

function fingerprints(keys: ServerKeys): readonly (readonly [KeyName, string])[] {
  return [
    print("identity", keys.identity.publicKey),
    print("accountName", keys.accountNameKey),
    print("sealing", keys.sealingKey),
    print("shadow", keys.shadowKey),
    print("log", keys.log.publicKey),
    print("opaque", new TextEncoder().encode(keys.opaque.current.setup)),
  ];
}

/** A key that is about to take another's place, so that a rotation that is cut short ends with either. */
const announced = (name: KeyName): string => `${settingOf(name)}:next`;

/** Says which keys a rotation is about to put in place. */
export async function announceKeys(tx: Tx, next: ServerKeys): Promise<void> {
  for (const [name, print] of fingerprints(next)) {
    if ((await tx.setting(settingOf(name))) !== print) await tx.putSetting(announced(name), print);
  }
}

/** True once a server has used the database, so that only that server's keys open anything in it. */
export async function hasKeys(store: Store): Promise<boolean> {
  return store.transaction(
    async (tx) => ((await tx.setting(settingOf("identity"))) ?? (await tx.setting("incarnation"))) !== undefined,
  );
}

/**
 * Holds the keys against those that the database was made with; the first start records them. Nothing is changed when
 * one differs.
 *
 * @param dir The server's directory, for the message.
 * @throws Fault corrupt naming the files
 */
export async function claimKeys(store: Store, keys: ServerKeys, dir: string): Promise<void> {
  await store.transaction(async (tx) => {
    const added: [KeyName, string][] = [];
    const wrong: string[] = [];
    for (const [name, print] of fingerprints(keys)) {
      const known = await tx.setting(settingOf(name));
      if (known === undefined) added.push([name, print]);
      else if (known !== print && (await tx.setting(announced(name))) === print) added.push([name, print]);
      else if (known !== print) wrong.push(shownKeyFile(dir, name));
    }
    if (wrong.length > 0) {
      throw new Fault("corrupt", "cannot start: these keys do not belong to the database", {
        why: `another key than that of ${wrong.join(", ")} was used with it`,
        hint: "put the keys of this database in their place: from their backup, or from another process's directory",
      });
    }
    for (const [name, print] of added) await tx.putSetting(settingOf(name), print);
  });
}

const REGISTRY_KEY = settingOf("registry");

/** True once a server on this database was a registry. */
export async function hasRegistryKey(store: Store): Promise<boolean> {
  return store.transaction(async (tx) => (await tx.setting(REGISTRY_KEY)) !== undefined);
}

/**
 * Holds a registry's seed against the one that the database was used with; the first start as a registry records it.
 *
 * @throws Fault corrupt naming the file
 */
export async function claimRegistryKey(store: Store, seed: Uint8Array, dir: string): Promise<void> {
  const [, own] = print("registry", seed);
  await store.transaction(async (tx) => {
    const known = await tx.setting(REGISTRY_KEY);
    if (known === undefined) await tx.putSetting(REGISTRY_KEY, own);
    else if (known !== own)
      throw new Fault("corrupt", "cannot start: the registry's key does not belong to the database", {
        why: `another key than that of ${shownKeyFile(dir, "registry")} was used with it`,
        hint: "put the key of this database in its place: from its backup, or from another process's directory",
      });
  });
}

/** False once another process has put other keys in their place: what these seal, nobody else opens. */
export async function keysFit(store: Store, keys: ServerKeys): Promise<boolean> {
  return store.transaction(async (tx) => {
    for (const [name, print] of fingerprints(keys)) {
      const known = await tx.setting(settingOf(name));
      if (known !== print && (await tx.setting(announced(name))) !== print) return false;
    }
    return true;
  });
}
