import { randomBytes } from "node:crypto";
import { closeSync, constants, fsyncSync, openSync, writeSync } from "node:fs";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { closeVault, openVaultWithPassword, readVaultHeader, writeVault } from "../protocol/vault.ts";
import { VAULT_MAX_BYTES } from "../protocol/vaultlayout.ts";
import { decodeModel } from "./model.ts";
import { readPrivateFile } from "./privatefile.ts";
import { readVaultFile, replaceVaultFile, withVaultLock } from "./vaultfile.ts";

/** What a vault file says of itself, without its key. */
export interface VaultFacts {
  readonly generation: number;
  readonly bytes: number;
  readonly memoryKib: number;
  readonly passes: number;
}

function factsOf(bytes: Uint8Array): VaultFacts {
  const { generation, cost } = readVaultHeader(bytes);
  return { generation, bytes: bytes.length, memoryKib: cost.memoryKib, passes: cost.passes };
}

function present(path: string): Uint8Array {
  const bytes = readVaultFile(path);
  if (!bytes) throw new Fault("not_found", "there is no vault", { hint: "keyhold vault restore FILE" });
  return bytes;
}

/** Reads the header of a vault file. @throws Fault not_found, corrupt */
export function checkVault(path: string): VaultFacts {
  return factsOf(present(path));
}

/** Copies the vault, encrypted as it is, to a new file (0600). @throws Fault exists, storage, corrupt */
export function backupVault(path: string, out: string): VaultFacts {
  const bytes = present(path);
  const facts = factsOf(bytes);
  let fd: number;
  try {
    fd = openSync(out, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
  } catch {
    throw new Fault("exists", `cannot make ${JSON.stringify(out)}`, {
      why: "it exists, or its directory cannot be written",
    });
  }
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  return facts;
}

/**
 * Puts a backup in the vault's place after opening it; the vault before is kept as the previous generation.
 *
 * @throws Fault wrong_password, corrupt, not_found, storage
 */
export async function restoreVault(
  path: string,
  file: string,
  password: Uint8Array,
  options: { readonly allowTestKdf: boolean },
): Promise<VaultFacts> {
  const backup = readPrivateFile(file, { maxBytes: VAULT_MAX_BYTES, loose: "tighten" });
  if (!backup) throw new Fault("not_found", `there is no file ${JSON.stringify(file)}`);
  const opened = await openVaultWithPassword(backup, password, options);
  try {
    decodeModel(opened.body);
    return await withVaultLock(path, async (lock) => {
      const now = readVaultFile(path);
      const current = now ? readVaultHeader(now).generation : null;
      const vault = { ...opened.vault, generation: Math.max(opened.vault.generation, current ?? 0) };
      const bytes = writeVault(vault, opened.body, (length) => new Uint8Array(randomBytes(length)));
      await replaceVaultFile(path, bytes, { expectGeneration: current, lock });
      return factsOf(bytes);
    });
  } finally {
    wipe(opened.body);
    closeVault(opened.vault);
  }
}
