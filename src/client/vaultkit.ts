import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { KIT_BYTES, kitEntropy, kitWords } from "../protocol/kit.ts";
import {
  closeVault,
  type OpenedVault,
  openVaultWithKit,
  openVaultWithPassword,
  readVaultHeader,
} from "../protocol/vault.ts";
import { type Home, vaultBytes, vaultCost, vaultPath } from "./home.ts";
import type { ReadKit, VaultKit } from "./kit.ts";
import { decodeModel, type Surroundings } from "./model.ts";
import type { Profile } from "./profile.ts";
import { type VaultBox, withVault } from "./vaultbox.ts";

function boxOf(home: Home, profile: Profile, opened: OpenedVault): VaultBox {
  try {
    return { path: vaultPath(home, profile), vault: opened.vault, model: decodeModel(opened.body) };
  } finally {
    wipe(opened.body);
  }
}

function demandLocal(profile: Profile, instead: string): void {
  if (!profile.server) return;
  throw new Fault("bad_input", "this vault belongs to an account, which has a recovery kit of its own", {
    hint: instead,
  });
}

/**
 * Makes a new recovery kit for a vault without a server (docs/vault-format.md §3); the one before opens nothing that is
 * written from now on.
 *
 * @param password Not retained.
 * @throws Fault wrong_password, bad_input for a vault of an account, not_found, corrupt, storage
 */
export async function makeVaultKit(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
): Promise<{ kit: VaultKit; replaced: boolean }> {
  demandLocal(profile, "keyhold account recovery-kit");
  const opened = await openVaultWithPassword(vaultBytes(home, profile), password, {
    allowTestKdf: profile.kdf === "test",
  });
  const box = boxOf(home, profile, opened);
  const entropy = around.random(KIT_BYTES);
  try {
    return await withVault(box, around, async (held) => {
      const replaced = box.vault.kit !== null;
      await held.newKit(entropy);
      const kit = { profile: profile.name, vaultId: box.vault.vaultId.toHex(), words: kitWords(entropy) };
      return { kit, replaced };
    });
  } finally {
    wipe(entropy);
    closeVault(box.vault);
  }
}

/**
 * Gives a vault without a server a new password with its recovery kit, which stays in force.
 *
 * @param next The new password, not retained.
 * @throws Fault bad_input for words that are none, for an account's kit and for an account's vault; wrong_password for
 * another vault's kit or one that a later one replaced; not_found, corrupt, storage
 */
export async function recoverVault(
  home: Home,
  profile: Profile,
  given: Pick<ReadKit, "words" | "vaultId" | "account">,
  next: Uint8Array,
  around: Surroundings,
): Promise<void> {
  const box = openWithKit(home, profile, given);
  try {
    await withVault(box, around, (held) => held.rekey(next, vaultCost(profile.kdf)));
  } finally {
    closeVault(box.vault);
  }
}

/** Refuses a kit that does not open this vault, before a new password is chosen. @throws As {@link recoverVault} */
export function checkVaultKit(
  home: Home,
  profile: Profile,
  given: Pick<ReadKit, "words" | "vaultId" | "account">,
): void {
  closeVault(openWithKit(home, profile, given).vault);
}

function openWithKit(home: Home, profile: Profile, given: Pick<ReadKit, "words" | "vaultId" | "account">): VaultBox {
  demandLocal(profile, "keyhold account recover --kit-file FILE");
  if (given.account !== null) {
    throw new Fault("bad_input", `this is the recovery kit of the account "${given.account}"`, {
      hint: "keyhold account recover --kit-file FILE",
    });
  }
  const bytes = vaultBytes(home, profile);
  const entropy = kitEntropy(given.words);
  try {
    const { vaultId } = readVaultHeader(bytes);
    if (given.vaultId !== null && !sameId(given.vaultId, vaultId)) {
      throw new Fault("wrong_password", "this is the recovery kit of another vault", {
        why: `its vault-id begins with ${given.vaultId.slice(0, 8)}, this vault's with ${vaultId.toHex().slice(0, 8)}`,
        hint: "choose the profile that it belongs to: --profile NAME",
      });
    }
    return boxOf(home, profile, openVaultWithKit(bytes, entropy));
  } finally {
    wipe(entropy);
  }
}

function sameId(text: string, id: Uint8Array): boolean {
  return /^[0-9a-f]{32}$/.test(text) && equalBytes(Uint8Array.fromHex(text), id);
}
