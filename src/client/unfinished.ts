import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { closeVault, openVaultWithPassword } from "../protocol/vault.ts";
import { type Home, type Kdf, vaultPath } from "./home.ts";
import { decodeModel } from "./model.ts";
import { addProfile, asProfileName, localProfile, type Profile, readProfile, removeProfile } from "./profile.ts";
import { readPreviousVaultFile, readVaultFile, removeVaultFile } from "./vaultfile.ts";

/** What lies under a profile's name. */
export type HomeState =
  | { readonly at: "nothing" }
  /** A vault whose profile is missing: a set-up was cut short, or the profile was lost. */
  | { readonly at: "orphan"; readonly path: string }
  /** A registration that the server may or may not have taken. */
  | { readonly at: "registering"; readonly profile: Profile }
  | { readonly at: "ready"; readonly profile: Profile };

/** Looks at what there is under a profile's name. @throws Fault bad_input, denied, corrupt, storage */
export function homeState(home: Home, name: string): HomeState {
  const profile = readProfile(home.profiles, asProfileName(name));
  if (profile) {
    const unfinished = profile.server !== null && profile.userId === null;
    return { at: unfinished ? "registering" : "ready", profile };
  }
  const path = vaultPath(home, { vault: `${name}.vault` });
  if (readVaultFile(path) === null && readPreviousVaultFile(path) === null) return { at: "nothing" };
  return { at: "orphan", path };
}

/**
 * Gives a vault without a server its profile back.
 *
 * @throws Fault wrong_password, corrupt, not_found; conflict for a vault of an account, which needs to know its server
 */
export async function adoptVault(home: Home, name: string, password: Uint8Array, kdf: Kdf): Promise<Profile> {
  const vault = `${asProfileName(name)}.vault`;
  const bytes = readVaultFile(vaultPath(home, { vault }));
  if (!bytes) {
    throw new Fault("not_found", "only the generation before of that vault is left", {
      hint: `rename it: the file that ends in .previous becomes ${vault}`,
    });
  }
  const opened = await openVaultWithPassword(bytes, password, { allowTestKdf: kdf === "test" });
  try {
    if (decodeModel(opened.body).bound !== null) {
      throw new Fault("conflict", "this vault belongs to an account", {
        hint: "move it away, then: keyhold login --server URL --pin PIN --account NAME",
      });
    }
  } finally {
    wipe(opened.body);
    closeVault(opened.vault);
  }
  const profile = localProfile(name, kdf, vault);
  await addProfile(home.profiles, profile);
  return profile;
}

/** Drops a registration that was cut short, with its vault; nothing else. @throws Fault conflict, storage */
export async function dropUnfinished(home: Home, name: string): Promise<void> {
  const state = homeState(home, name);
  if (state.at !== "registering") throw new Fault("conflict", "there is no unfinished registration");
  await removeVaultFile(vaultPath(home, state.profile));
  await removeProfile(home.profiles, name);
}
