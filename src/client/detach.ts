import { equalBytes, type RandomSource, wipe, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { openDeviceName } from "../protocol/account.ts";
import { closedHash, type SignedState, stateSignaturesHold } from "../protocol/state.ts";
import { openVaultWithPassword } from "../protocol/vault.ts";
import { metaChange, plainChange } from "./changes.ts";
import { callClear } from "./login.ts";
import {
  decodeModel,
  type Model,
  pinnedHash,
  putLocalLeaf,
  type QueuedSecret,
  recordKeys,
  type Secret,
  type Surroundings,
} from "./model.ts";
import { viewOf } from "./overlay.ts";
import { type Profile, readProfile, writeProfile } from "./profile.ts";
import { openEntry } from "./queue.ts";
import type { Link } from "./session.ts";
import { type VaultBox, withVault } from "./vaultbox.ts";
import { readVaultFile } from "./vaultfile.ts";

/** A profile with the places of its files. */
export interface ProfileFiles {
  readonly profiles: string;
  readonly profile: Profile;
  /** Path of the vault. */
  readonly vault: string;
}

/** What became of the secrets of a vault that is tied to no account any more. */
export interface Detached {
  /** Secrets that lie in the vault, older ones and those of which it had a copy. */
  readonly kept: number;
  /** Secrets of the server of which it had none. */
  readonly dropped: number;
}

/** A secret as it stays in a vault without a server; null where the vault has nothing of it. */
function staying(secret: Secret): Secret | null {
  if (secret.place !== "server") return secret;
  const { leaf, meta, sealed } = secret;
  if (sealed === null || leaf.status === "purged") return null;
  return { place: "local", leaf, meta, leaves: [leaf], values: [{ version: leaf.version, sealed }] };
}

/** True where the vault has a value of a secret that has changes waiting. */
const hasValue = ({ waiting, under }: QueuedSecret): boolean =>
  waiting.some(({ entry }) => entry.sealed !== null) || (under?.sealed ?? null) !== null;

/** What waited for a server that there is no more becomes part of the vault's own secrets, version by version. */
function keepWaiting(model: Model, random: RandomSource): void {
  for (const entry of model.queue) {
    const before = model.secrets.get(entry.keyId);
    if (entry.sealed === null) {
      if (before?.meta) putLocalLeaf(model, metaChange(model, before, entry.meta, entry.status, random).leaf, null);
      continue;
    }
    const plain = openEntry(recordKeys(model), model.owner, entry);
    try {
      const { leaf, sealed } = plainChange(model, entry.keyId, before, entry.meta, plain, true, random);
      putLocalLeaf(model, leaf, sealed);
    } finally {
      wipe(plain);
    }
  }
  model.queue = [];
  model.conflicts = [];
}

/** How many secrets a vault would keep, and how many it has no copy of, if it were tied to no account. */
export function wouldStay(model: Model): Detached {
  const { secrets } = viewOf(model);
  const live = [...secrets.values()].filter(({ leaf, meta }) => leaf.status === "live" && meta?.type !== "part");
  const kept = live.filter((secret) =>
    secret.place === "queued" ? hasValue(secret) : staying(secret) !== null,
  ).length;
  return { kept, dropped: live.length - kept };
}

/**
 * Makes a vault one without a server: its own secrets and the copies that it keeps stay readable with its password, and
 * the profile forgets the account. Cut short, the same call again completes it.
 */
export async function detachVault(
  box: VaultBox,
  { profiles, profile }: Pick<ProfileFiles, "profiles" | "profile">,
  around: Pick<Surroundings, "random">,
): Promise<Detached> {
  const done = await withVault(box, around, async (held) => {
    const { model } = box;
    const counts = wouldStay(model);
    for (const [keyId, secret] of model.secrets) {
      const stays = staying(secret);
      if (stays) model.secrets.set(keyId, stays);
      else model.secrets.delete(keyId);
    }
    keepWaiting(model, around.random);
    model.bound = null;
    await held.save();
    await held.dropPending();
    return counts;
  });
  // the recovery kit was the account's
  const { kit: _, ...now } = readProfile(profiles, profile.name) ?? profile;
  const gone = { server: null, account: null, userId: null, deviceToken: null, loggedOut: false };
  await writeProfile(profiles, { ...now, ...gone });
  return done;
}

/** Opens a profile's vault by its password and detaches it. @throws Fault wrong_password, not_found, corrupt, bad_input */
export async function detachProfile(
  files: ProfileFiles,
  password: Uint8Array,
  around: Pick<Surroundings, "random">,
): Promise<Detached> {
  const { profile } = files;
  if (!profile.server) throw new Fault("bad_input", "this vault is tied to no account");
  return detachVault(await openByPassword(files, password), files, around);
}

async function openByPassword({ profile, vault: path }: ProfileFiles, password: Uint8Array): Promise<VaultBox> {
  const bytes = readVaultFile(path);
  if (!bytes)
    throw new Fault("not_found", `the vault of profile "${profile.name}" is gone`, {
      hint: "keyhold vault restore FILE, from a backup",
    });
  const opened = await openVaultWithPassword(bytes, password, { allowTestKdf: profile.kdf === "test" });
  try {
    return { path, vault: opened.vault, model: decodeModel(opened.body) };
  } finally {
    wipe(opened.body);
  }
}

/** The last state of the account, if its owner deleted it; null for any other answer. */
export async function askClosed(
  link: Link,
  { userId, deviceToken }: Pick<Profile, "userId" | "deviceToken">,
): Promise<{ state: SignedState; closedAtMs: number } | null> {
  if (userId === null || deviceToken === null) return null;
  try {
    return await callClear(link, "account.closed", { userId, deviceToken });
  } catch (error) {
    if (error instanceof Fault) return null;
    throw error;
  }
}

/** True for a last state that the pinned owner signed, with a device that this one knows, after the pinned state. */
function closes({ bound }: Model, closed: SignedState): boolean {
  if (!bound) return false;
  const { state } = closed;
  const { revision } = bound.head.state;
  return (
    state.userId === bound.userId &&
    state.incarnation === bound.incarnation &&
    state.revision > revision &&
    (state.revision !== revision + 1 || equalBytes(state.previous, pinnedHash(bound))) &&
    equalBytes(state.settingsHash, closedHash(bound.userId)) &&
    equalBytes(state.root, ZERO_HASH_BYTES) &&
    stateSignaturesHold(closed, bound.settings)
  );
}

const refusal = (text: string, why: string, hint: string) =>
  new Fault("login_failed", `cannot log in: ${text}`, { why, hint });

/**
 * Tells a login that failed since the owner deleted the account from any other: by the last state, which the owner and
 * a known device signed. The vault then becomes one without a server. The administrator's removal looks like a wrong
 * password: nobody signed it.
 *
 * @throws Fault always: the login's own, or one that says what happened.
 */
export async function explainClosed(
  files: ProfileFiles,
  link: Link,
  password: Uint8Array,
  around: Surroundings,
  error: unknown,
): Promise<never> {
  if (!(error instanceof Fault) || error.code !== "login_failed") throw error;
  const closed = await askClosed(link, files.profile);
  if (closed === null) throw error;
  let box: VaultBox;
  try {
    box = await openByPassword(files, password);
  } catch {
    throw error;
  }
  const { bound, keys, owner } = box.model;
  if (bound === null || closes(box.model, closed.state)) {
    const by = bound?.settings.devices.find(({ id }) => id === closed.state.state.deviceId);
    const device = by ? openDeviceName(keys, owner, by.id, by.name) : "this one";
    const { kept, dropped } = await detachVault(box, files, around);
    throw refusal(
      `the account was deleted by its owner on ${new Date(closed.closedAtMs).toISOString()}`,
      `signed on the device ${JSON.stringify(device)}; this vault keeps ${kept} secrets, of ${dropped} it had no copy`,
      "keyhold list shows what is left; keyhold profile remove erases it",
    );
  }
  throw refusal(
    "the server says that the account was deleted",
    "what it shows for that is not signed by keys that this device knows",
    "ask on another device of yours; keyhold vault detach keeps what lies in this vault",
  );
}
