import { basename, dirname } from "node:path";
import { Fault } from "../errors.ts";
import { readVaultHeader } from "../protocol/vault.ts";
import { VAULT_MAX_BYTES, VAULT_START_BYTES } from "../protocol/vaultlayout.ts";
import { type FileLock, takeFileLock, tryFileLock } from "../wire/filelock.ts";
import {
  makePrivateDirectory,
  readPrivateFile,
  readPrivateStart,
  removePrivateFile,
  replacePrivateFile,
  strayTemps,
  sweepTemps,
} from "./privatefile.ts";

/** Proof that this process holds the vault's lock; valid while the work of {@link withVaultLock} runs. */
export interface VaultLock {
  readonly path: string;
}

const LOCK_WAIT_MS = 30_000;
const PENDING_MAX_BYTES = 64 * 1_024 * 1_024;

/**
 * Runs `work` while no other process changes the vault, its previous generation or its pending request; makes the
 * directory (0700) and sweeps stray temporary files first. Not reentrant: pass the lock on to the functions here.
 *
 * @throws Fault timed_out when another process keeps the lock for `timeoutMs` (default 30 s); denied; storage.
 */
export async function withVaultLock<T>(
  path: string,
  work: (lock: VaultLock) => Promise<T>,
  options: { readonly timeoutMs?: number } = {},
): Promise<T> {
  makePrivateDirectory(dirname(path));
  const held = await takeFileLock(lockPath(path), { timeoutMs: options.timeoutMs ?? LOCK_WAIT_MS });
  try {
    sweepTemps(dirname(path), belongsTo(path));
    return await work({ path });
  } finally {
    held.release();
  }
}

/**
 * Reads the vault file, tightening its mode to 0600; sweeps what killed writers left, unless one is writing now.
 *
 * @returns null when there is none.
 * @throws Fault denied for a link or a special file in the way; corrupt above 512 MiB; storage.
 */
export function readVaultFile(path: string): Uint8Array | null {
  sweepStrays(path);
  return readPrivateFile(path, { maxBytes: VAULT_MAX_BYTES, loose: "tighten" });
}

function sweepStrays(path: string): void {
  if (strayTemps(dirname(path), belongsTo(path)).length > 0) {
    const held: FileLock | null = tryFileLock(lockPath(path));
    if (held) {
      try {
        sweepTemps(dirname(path), belongsTo(path));
      } finally {
        held.release();
      }
    }
  }
}

/**
 * The generation of the vault file by its header alone, however long the file is; sweeps like {@link readVaultFile}.
 *
 * @returns null when there is none.
 * @throws Fault as {@link readVaultFile}; corrupt for a damaged header or a file that is cut short.
 */
export function vaultGeneration(path: string): number | null {
  sweepStrays(path);
  return generationOf(path);
}

function generationOf(path: string): number | null {
  const file = readPrivateStart(path, VAULT_START_BYTES, { maxBytes: VAULT_MAX_BYTES, loose: "tighten" });
  return file && readVaultHeader(file.start, file.size).generation;
}

/** Reads the generation before the current one, or null; for recovery by hand. Throws like {@link readVaultFile}. */
export function readPreviousVaultFile(path: string): Uint8Array | null {
  return readPrivateFile(previousPath(path), { maxBytes: VAULT_MAX_BYTES, loose: "tighten" });
}

/**
 * Replaces the vault file durably; the file before is kept beside it with the ending `.previous`.
 *
 * @param options.expectGeneration Generation of the file to be replaced; null when there must be none.
 * @param options.lock The lock, if the caller holds it already.
 * @param options.forgetPrevious Removes the generation before instead of keeping it (after a new password).
 * @throws Fault stale when the file has another generation; corrupt when it is damaged; denied; timed_out;
 * storage, with the old file intact.
 */
export async function replaceVaultFile(
  path: string,
  bytes: Uint8Array,
  options: {
    readonly expectGeneration: number | null;
    readonly lock?: VaultLock;
    readonly forgetPrevious?: boolean;
  },
): Promise<void> {
  await locked(path, options.lock, async () => {
    const generation = generationOf(path);
    if (generation !== options.expectGeneration) {
      throw new Fault("stale", "cannot write the vault: another process has changed it", {
        why: `generation ${generation ?? "none"} instead of ${options.expectGeneration ?? "none"}`,
      });
    }
    if (readVaultHeader(bytes).generation <= (generation ?? 0)) {
      throw new Fault("internal", "a vault generation must count up");
    }
    if (options.forgetPrevious) {
      // first, so that a kill in between leaves no file under the old password beside the new one
      removePrivateFile(previousPath(path));
      replacePrivateFile(path, bytes);
    } else replacePrivateFile(path, bytes, { previous: previousPath(path) });
  });
}

/** Persists the sealed pending request beside the vault, durably, before it is sent. Throws like a replacement. */
export async function writePending(path: string, sealed: Uint8Array, options: Held = {}): Promise<void> {
  await locked(path, options.lock, async () => replacePrivateFile(pendingPath(path), sealed));
}

/** The sealed pending request, or null. @throws Fault denied, corrupt, storage */
export function readPending(path: string): Uint8Array | null {
  return readPrivateFile(pendingPath(path), { maxBytes: PENDING_MAX_BYTES, loose: "tighten" });
}

/** Removes the pending request; without one it does nothing. */
export async function clearPending(path: string, options: Held = {}): Promise<void> {
  await locked(path, options.lock, async () => {
    removePrivateFile(pendingPath(path));
  });
}

/** Removes the vault, its previous generation and its pending request; the lock file stays. */
export async function removeVaultFile(path: string, options: Held = {}): Promise<void> {
  await locked(path, options.lock, async () => {
    for (const file of [pendingPath(path), previousPath(path), path]) removePrivateFile(file);
  });
}

interface Held {
  /** The lock, if the caller holds it already. */
  readonly lock?: VaultLock;
}

async function locked(path: string, lock: VaultLock | undefined, work: () => Promise<void>): Promise<void> {
  if (!lock) return withVaultLock(path, work);
  if (lock.path !== path) throw new Fault("internal", "the lock belongs to another vault");
  return work();
}

function lockPath(path: string): string {
  return `${path}.lock`;
}

function previousPath(path: string): string {
  return `${path}.previous`;
}

function pendingPath(path: string): string {
  return `${path}.pending`;
}

function belongsTo(path: string): (name: string) => boolean {
  const names = new Set([path, previousPath(path), pendingPath(path)].map((file) => basename(file)));
  return (name) => names.has(name);
}
