import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { RequestId } from "../ids.ts";
import { wrapAccountKey } from "../protocol/account.ts";
import type { Settings } from "../protocol/state.ts";
import { openVaultWithPassword } from "../protocol/vault.ts";
import { commitSettings } from "./commit.ts";
import { closeQuietly, type Home, logInFreshly, vaultBytes, vaultCost, vaultPath } from "./home.ts";
import { decodeModel, type Surroundings } from "./model.ts";
import { startOpaque } from "./opaque.ts";
import { online } from "./opened.ts";
import type { Profile } from "./profile.ts";
import { registerPassword } from "./reregister.ts";
import { synchronise } from "./sync.ts";
import { type VaultBox, withVault } from "./vaultbox.ts";

/**
 * Changes the password of account and vault: a fresh login with the old one, then record, wrapped key and signed
 * settings in one transaction; other sessions are closed (docs/protocol.md §5.1).
 *
 * @throws Fault login_failed, rate_limited, unreachable
 */
export async function changePassword(
  home: Home,
  profile: Profile,
  passwords: { readonly old: Uint8Array; readonly next: Uint8Array },
  around: Surroundings,
): Promise<{ requestId: RequestId }> {
  if (!profile.server) throw new Fault("bad_input", "this profile has no account", { hint: "keyhold vault rekey" });
  const fresh = await logInFreshly(home, profile, passwords.old, around);
  const { open, done } = fresh;
  const { box } = open;
  const exchange = await startOpaque("register", passwords.next);
  try {
    const requestId = await online(open, true, async (at) => {
      const { record, exportKey } = await registerPassword(
        profile,
        { session: fresh.open.session, link: fresh.link },
        exchange,
      );
      try {
        return await withVault(box, around, async (held) => {
          // the settings that are sent must hold what other devices added since
          if (at?.moved()) await synchronise(box.model, done.session, around);
          const build = (before: Settings, revision: number) => ({
            record,
            settings: {
              ...before,
              ...wrapAccountKey(exportKey, done.userId, revision, box.model.accountKey, around.random),
            },
          });
          const changed = await commitSettings(box.model, held, done.session, around, "account.password", build);
          if (box.model.bound) box.model.bound.keyedRevision = box.model.bound.settings.credentialRevision;
          await held.rekey(passwords.next, vaultCost(profile.kdf));
          return changed;
        });
      } finally {
        wipe(exportKey);
      }
    });
    await closeQuietly(done);
    return { requestId };
  } finally {
    exchange.end();
    wipe(done.accountKey);
  }
}

/** Gives a vault without a server a new password. @throws Fault wrong_password, bad_input */
export async function rekeyLocal(
  home: Home,
  profile: Profile,
  passwords: { readonly old: Uint8Array; readonly next: Uint8Array },
  around: Surroundings,
): Promise<void> {
  if (profile.server) {
    throw new Fault("bad_input", "account and vault share one password", { hint: "keyhold account password" });
  }
  const opened = await openVaultWithPassword(vaultBytes(home, profile), passwords.old, {
    allowTestKdf: profile.kdf === "test",
  });
  const box: VaultBox = { path: vaultPath(home, profile), vault: opened.vault, model: decodeModel(opened.body) };
  wipe(opened.body);
  await withVault(box, around, (held) => held.rekey(passwords.next, vaultCost(profile.kdf)));
}
