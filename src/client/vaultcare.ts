import { randomBytes } from "node:crypto";
import { closeSync, constants, fsyncSync, openSync, writeSync } from "node:fs";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import {
  closeVault,
  openPending,
  openVaultWithPassword,
  readVaultHeader,
  type Vault,
  writeVault,
} from "../protocol/vault.ts";
import { VAULT_MAX_BYTES } from "../protocol/vaultlayout.ts";
import { decodeModel } from "./model.ts";
import { readPrivateFile } from "./privatefile.ts";
import { clearPending, readPending, readVaultFile, replaceVaultFile, withVaultLock } from "./vaultfile.ts";

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
      hint: "choose another file",
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
 * Puts a backup in the vault's place after opening it; the vault before is kept as the previous generation. A pending
 * request that the restored vault's key does not open is dropped.
 *
 * @param options.userId Account of the profile, or null for a profile without a server.
 * @throws Fault wrong_password, corrupt, not_found, storage; conflict for a vault of another account, or for another
 * local vault than the one that lies there.
 */
export async function restoreVault(
  path: string,
  file: string,
  password: Uint8Array,
  options: { readonly allowTestKdf: boolean; readonly userId: UserId | null },
): Promise<VaultFacts> {
  const backup = readPrivateFile(file, { maxBytes: VAULT_MAX_BYTES, loose: "tighten" });
  if (!backup) throw new Fault("not_found", `there is no file ${JSON.stringify(file)}`, { hint: "check the path" });
  const opened = await openVaultWithPassword(backup, password, options);
  try {
    const { bound } = decodeModel(opened.body);
    if ((bound?.userId ?? null) !== options.userId) {
      throw new Fault("conflict", "the backup is a vault of another account than the profile's", {
        hint: "choose the profile that it belongs to: --profile NAME",
      });
    }
    return await withVaultLock(path, async (lock) => {
      const now = readVaultFile(path);
      if (now && bound === null && !equalBytes(readVaultHeader(now).vaultId, opened.vault.vaultId)) {
        throw new Fault("conflict", "the backup is of another vault than the one that lies here", {
          hint: "move the vault away first, or restore into another profile",
        });
      }
      const current = now ? readVaultHeader(now).generation : null;
      const vault = { ...opened.vault, generation: Math.max(opened.vault.generation, current ?? 0) };
      const bytes = writeVault(vault, opened.body, (length) => new Uint8Array(randomBytes(length)));
      await replaceVaultFile(path, bytes, { expectGeneration: current, lock });
      if (!opensPending(path, vault)) await clearPending(path, { lock });
      return factsOf(bytes);
    });
  } finally {
    wipe(opened.body);
    closeVault(opened.vault);
  }
}

function opensPending(path: string, vault: Vault): boolean {
  const sealed = readPending(path);
  if (sealed === null) return true;
  try {
    wipe(openPending(vault, sealed));
    return true;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return false;
  }
}
