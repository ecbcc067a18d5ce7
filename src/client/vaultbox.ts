import { wipe } from "../crypto/bytes.ts";
import type { Argon2Cost } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import {
  openPending,
  openVaultWithKey,
  rekeyVault,
  sealPending,
  setAccountSlot,
  setKitSlot,
  type Vault,
  writeVault,
} from "../protocol/vault.ts";
import { adoptReceipts, decodeModel, encodeModel, type Model, type Surroundings } from "./model.ts";
import {
  clearPending,
  readPending,
  readVaultFile,
  replaceVaultFile,
  type VaultLock,
  vaultGeneration,
  withVaultLock,
  writePending,
} from "./vaultfile.ts";

/** An open vault: its key, and the account as it was last read or written. */
export interface VaultBox {
  readonly path: string;
  vault: Vault;
  model: Model;
}

/** What may be done while the vault's lock is held. */
export interface HeldVault {
  /**
   * Writes the model as the next generation: durable on return. The generation before is kept beside it, unless a
   * purge came in since: it would still hold what was purged.
   */
  save(): Promise<void>;
  /** Writes the model under a new password; the generation before, which the old one opens, is not kept. */
  rekey(password: Uint8Array, cost: { cost: Argon2Cost; allowTestKdf?: boolean }): Promise<void>;
  /** Writes the model with the slot of a new recovery kit; the generation before, which the old one opens, is not kept. */
  newKit(entropy: Uint8Array): Promise<void>;
  /**
   * Writes the model under its account key as it is now, and where a password is given under that one and, unless a
   * request is pending, under a new vault key; the generation before is not kept.
   */
  renew(to: { password: Uint8Array; cost: { cost: Argon2Cost; allowTestKdf?: boolean } } | null): Promise<void>;
  /** Persists a request before it is sent. */
  keepPending(plaintext: Uint8Array): Promise<void>;
  /** The persisted request of a process that did not learn its outcome, or null. */
  pending(): Uint8Array | null;
  dropPending(): Promise<void>;
}

/** Writes nothing: for changes that are begun again where they were cut short, and find what is there already. */
export const NO_VAULT: HeldVault = {
  save: async () => undefined,
  rekey: async () => undefined,
  renew: async () => undefined,
  keepPending: async () => undefined,
  pending: () => null,
  newKit: async () => undefined,
  dropPending: async () => undefined,
};

/** Takes in what another process wrote since. */
export function refresh(box: VaultBox): void {
  if (vaultGeneration(box.path) === box.vault.generation) return;
  const bytes = readVaultFile(box.path);
  if (bytes === null)
    throw new Fault("not_found", "the vault is gone", { hint: "keyhold vault restore, or log in again" });
  const opened = openVaultWithKey(bytes, box.vault.key);
  try {
    const before = box.model;
    box.model = decodeModel(opened.body);
    box.vault = opened.vault;
    if (before.bound && box.model.bound && before.unsaved) {
      adoptReceipts(box.model.bound, before.bound);
      box.model.unsaved = true;
    }
  } finally {
    wipe(opened.body);
  }
}

/** Runs `work` under the vault's lock, on the newest generation. */
export function withVault<T>(
  box: VaultBox,
  around: Pick<Surroundings, "random">,
  work: (held: HeldVault) => Promise<T>,
): Promise<T> {
  return withVaultLock(box.path, async (lock) => {
    refresh(box);
    return work(heldVault(box, lock, around));
  });
}

function heldVault(box: VaultBox, lock: VaultLock, around: Pick<Surroundings, "random">): HeldVault {
  const write = async (forgetPrevious: boolean): Promise<void> => {
    const body = encodeModel(box.model);
    try {
      const bytes = writeVault(box.vault, body, around.random);
      const before = box.vault.generation;
      await replaceVaultFile(box.path, bytes, {
        expectGeneration: before === 0 ? null : before,
        lock,
        forgetPrevious: forgetPrevious || box.model.erased,
      });
      box.model.erased = false;
      box.vault = { ...box.vault, generation: before + 1 };
      box.model.unsaved = false;
    } finally {
      wipe(body);
    }
  };
  return {
    save: () => write(false),
    async rekey(password, cost) {
      box.vault = await rekeyVault(box.vault, password, cost, around.random);
      await write(true);
    },
    async newKit(entropy) {
      box.vault = setKitSlot(box.vault, entropy, around.random);
      await write(true);
    },
    async renew(to) {
      const before = box.vault;
      if (to !== null) {
        // a pending request is sealed under the vault key
        const newKey = readPending(box.path) === null;
        box.vault = await rekeyVault(before, to.password, { ...to.cost, newKey }, around.random);
      }
      box.vault = setAccountSlot(box.vault, box.model.accountKey, around.random);
      await write(true);
      if (box.vault.key !== before.key) wipe(before.key);
    },
    keepPending: (plaintext) => writePending(box.path, sealPending(box.vault, plaintext, around.random), { lock }),
    pending() {
      const sealed = readPending(box.path);
      return sealed === null ? null : openPending(box.vault, sealed);
    },
    dropPending: () => clearPending(box.path, { lock }),
  };
}

/** Writes a new vault where none is yet. */
export function createVaultFile(box: VaultBox, around: Pick<Surroundings, "random">): Promise<void> {
  return withVaultLock(box.path, (lock) => heldVault(box, lock, around).save());
}
