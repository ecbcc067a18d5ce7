import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { previousKeys } from "../protocol/account.ts";
import { rotationsSince } from "../protocol/rotation.ts";
import { openVaultWithAccountKey, openVaultWithPassword } from "../protocol/vault.ts";
import type { LoggedIn } from "./login.ts";
import { boundOf, decodeModel, type Model, type Surroundings } from "./model.ts";
import { renewModel } from "./renew.ts";
import { synchronise } from "./sync.ts";
import type { HeldVault, VaultBox } from "./vaultbox.ts";

/**
 * Opens a vault with the account key that a login gave, or with one of those before it that the login's settings wrap,
 * or with the password.
 *
 * @throws Fault wrong_password, corrupt
 */
export async function openVaultAfterLogin(
  path: string,
  bytes: Uint8Array,
  done: Pick<LoggedIn, "accountKey" | "userId" | "reply">,
  password: Uint8Array,
  allowTestKdf: boolean,
): Promise<VaultBox> {
  const older = previousKeys(done.accountKey, done.userId, done.reply.settings);
  try {
    const opened =
      openWithOne(bytes, [done.accountKey, ...older]) ??
      (await openVaultWithPassword(bytes, password, { allowTestKdf }));
    try {
      return { path, vault: opened.vault, model: decodeModel(opened.body) };
    } finally {
      wipe(opened.body);
    }
  } finally {
    wipe(...older);
  }
}

function openWithOne(bytes: Uint8Array, keys: readonly Uint8Array[]) {
  for (const key of keys) {
    try {
      return openVaultWithAccountKey(bytes, key);
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "wrong_password") throw error;
    }
  }
  return null;
}

const refused = (why: string) =>
  new Fault("integrity", "the server shows another key of the account than this device knows", {
    why,
    hint: "trust another device's copy; ask the operator whether a backup was put back",
  });

/**
 * The revision of the newest rotation between the pinned settings and those of a login; null when there was none. The
 * login's settings and the account key that they wrap are the work of somebody who has the password (docs/protocol.md
 * §5.1). An old identity alone hands over to nobody: each rotation must have replaced the account key, too.
 *
 * @throws Fault integrity
 */
function rotatedTo(model: Model, { accountKey, userId, reply }: LoggedIn): number | null {
  const bound = boundOf(model);
  const added = rotationsSince(userId, bound.settings, reply.settings);
  if (added === null) throw refused("its identity key was replaced");
  const [first, last] = [added[0], added.at(-1)];
  if (!first || !last) {
    if (equalBytes(accountKey, model.accountKey)) return null;
    throw refused("its account key was replaced, its identity was not");
  }
  const { revision } = bound.head.state;
  const newest = reply.head.state.revision;
  if (first.revision <= revision || last.revision > newest) throw refused("its keys were renewed at another time");
  const older = previousKeys(accountKey, userId, reply.settings);
  const chain = new Set([accountKey, ...older].map((key) => key.toHex()));
  const mine = older[added.length - 1];
  const continues = mine !== undefined && equalBytes(mine, model.accountKey) && chain.size === older.length + 1;
  wipe(...older);
  if (!continues) throw refused("its new account key does not continue the one of this device");
  return last.revision;
}

/** True when a login shows another password or account key than the vault was written under. */
export function lagsBehind(model: Model, { accountKey, reply }: Pick<LoggedIn, "accountKey" | "reply">): boolean {
  const { keyedRevision, settings } = boundOf(model);
  return (
    keyedRevision !== reply.settings.credentialRevision ||
    !equalBytes(accountKey, model.accountKey) ||
    !equalBytes(settings.identity, reply.settings.identity)
  );
}

/** Refuses a device that the account lists no more. @throws Fault denied */
export function demandListed(model: Model, { reply }: Pick<LoggedIn, "reply">): void {
  const { deviceId, settings, account } = boundOf(model);
  const lists = (devices: typeof settings.devices) => devices.some(({ id }) => id === deviceId);
  // a device that is being added is in neither
  if (lists(reply.settings.devices) || !lists(settings.devices)) return;
  throw new Fault("denied", `this device was taken off the account ${JSON.stringify(account)}`, {
    why: "its owner revoked it on another device",
    hint: "keyhold vault detach keeps what lies in this vault; then keyhold login --profile NEW --server URL --pin PIN --account NAME",
  });
}

/**
 * Takes in what a login shows of a password change or a rotation elsewhere, under the vault's lock: new slots, what the
 * vault keeps wrapped anew, and the states up to now. The generation before is forgotten.
 *
 * @param to The password of now with its cost.
 * @throws Fault integrity
 */
export async function followLogin(
  model: Model,
  held: HeldVault,
  done: LoggedIn,
  to: NonNullable<Parameters<HeldVault["renew"]>[0]>,
  around: Surroundings,
): Promise<void> {
  const bound = boundOf(model);
  const { settings } = done.reply;
  const rotated = rotatedTo(model, done);
  const keyed = bound.keyedRevision;
  // a login that is older than what its session shows now: it would give the vault the password of before
  if (settings.credentialRevision < keyed) throw refused("its password is older than the one that this vault takes");
  if (rotated !== null) {
    renewModel(model, new Uint8Array(done.accountKey), settings, rotated, around.random);
    await synchronise(model, done.session, around);
  } else if (keyed === settings.credentialRevision) return;
  bound.keyedRevision = settings.credentialRevision;
  const newest = settings.rotations.at(-1)?.revision ?? 0;
  if (newest > keyed) {
    await held.renew(to);
    around.notice("the account's keys were renewed: this vault follows, and takes the password of now");
    return;
  }
  await held.rekey(to.password, to.cost);
  around.notice("the account's password was changed on another device: this vault now takes the new one");
}
