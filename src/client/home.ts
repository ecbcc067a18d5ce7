import { randomBytes } from "node:crypto";
import { freemem, hostname } from "node:os";
import { join } from "node:path";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import type { Argon2Cost } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { newId, type RequestId, type SessionId, type UserId } from "../ids.ts";
import { KDF } from "../protocol/defaults.ts";
import { stateHash } from "../protocol/state.ts";
import {
  createVault,
  openVaultWithAccountKey,
  openVaultWithPassword,
  setAccountSlot,
  type Vault,
} from "../protocol/vault.ts";
import { parseServerUrl } from "../wire/http.ts";
import { parsePin } from "../wire/pin.ts";
import type { KeyholdClient } from "./api.ts";
import { createClient } from "./client.ts";
import { commitSettings } from "./commit.ts";
import { connect, type LoggedIn, logIn } from "./login.ts";
import { bind, decodeModel, type Model, newModel, type Surroundings } from "./model.ts";
import { accountNameOf } from "./names.ts";
import { type Open, online } from "./opened.ts";
import {
  asProfileName,
  defaultProfile,
  type Profile,
  type ProfileServer,
  readProfile,
  removeProfile,
  useProfile,
  writeProfile,
} from "./profile.ts";
import { deviceEntry, newDevice, prepareRegistration } from "./register.ts";
import { checkHead, synchroniseAll } from "./sync.ts";
import { createVaultFile, type VaultBox, withVault } from "./vaultbox.ts";
import { readPreviousVaultFile, readVaultFile, removeVaultFile } from "./vaultfile.ts";

/** Where a home keeps its files; directories are made 0700 when first written to. */
export interface Home {
  readonly profiles: string;
  readonly vaults: string;
}

/** Real clock and randomness; notices go where the caller says. */
export function realSurroundings(notice: (text: string) => void = () => undefined): Surroundings {
  return { now: Date.now, random: (length) => new Uint8Array(randomBytes(length)), notice };
}

export type Kdf = "default" | "test";

/** A server as a person names it. */
export interface ServerInput {
  readonly url: string;
  readonly pin: string;
  /** PEM of a private authority for TLS, or null. */
  readonly tlsCaPem: string | null;
}

/** What registering or logging in on a new device needs. */
export interface AccountInput {
  readonly profile: string;
  readonly server: ServerInput;
  readonly account: string;
  /** NFC-normalised UTF-8, 8 to 1,024 bytes; not retained, the caller wipes it. */
  readonly password: Uint8Array;
  readonly kdf: Kdf;
}

/** The vault file of a profile. */
export const vaultPath = (home: Home, profile: Pick<Profile, "vault">): string => join(home.vaults, profile.vault);

function profileServer(input: ServerInput): ProfileServer {
  return {
    url: parseServerUrl(input.url).origin,
    pin: parsePin(input.pin),
    caPem: null,
    tlsCaPem: input.tlsCaPem,
    statementNumber: 0,
  };
}

/**
 * Refuses to put a new profile and vault where one is: a profile, or a vault whose profile was lost. Only what an
 * unfinished set-up left may be replaced.
 *
 * @returns The unfinished set-up's profile, or null.
 */
function refuseExisting(home: Home, name: string): Profile | null {
  const before = readProfile(home.profiles, name);
  if (before !== null && before.server !== null && before.userId === null) return before;
  if (before) {
    throw new Fault("exists", `the profile "${name}" exists already`, { hint: "use --profile NAME for a second one" });
  }
  const path = vaultPath(home, { vault: `${name}.vault` });
  if (readVaultFile(path) === null && readPreviousVaultFile(path) === null) return null;
  throw new Fault("exists", `a vault lies at ${JSON.stringify(path)} already`, {
    why: "its profile is missing, and it may hold what no server has",
    hint: "move it (and its .previous) away, or use --profile NAME",
  });
}

/** Cost of the vault's key derivation: less where memory is short. */
export function vaultCost(kdf: Kdf): { cost: Argon2Cost; allowTestKdf?: boolean } {
  if (kdf === "test") return { cost: KDF.test, allowTestKdf: true };
  const spacious = freemem() >= 4 * KDF.vault.memoryKib * 1_024;
  return { cost: spacious ? KDF.vault : KDF.vaultSmall };
}

async function makeVault(password: Uint8Array, kdf: Kdf, accountKey: Uint8Array, around: Surroundings): Promise<Vault> {
  return setAccountSlot(await createVault(password, vaultCost(kdf), around.random), accountKey, around.random);
}

/**
 * Registers an account and makes its vault and profile (docs/protocol.md §3.2). The vault is on disk before the server
 * commits: killed in between, the same call again completes it.
 *
 * @throws Fault exists, denied, rate_limited, bad_input, unreachable, pin_mismatch, tls_refused
 */
export async function registerAccount(
  home: Home,
  input: AccountInput & { invite: string | null },
  around: Surroundings,
): Promise<{ account: string; userId: UserId; profile: string; requestId: RequestId }> {
  const name = asProfileName(input.profile);
  const account = accountNameOf(input.account);
  const unfinished = refuseExisting(home, name)?.account === account;
  const { link, server } = await connect(profileServer(input.server), around);
  const device = newDevice(hostname(), around);
  const base: Profile = {
    v: 1,
    name,
    server,
    account,
    userId: null,
    deviceToken: device.token,
    loggedOut: false,
    kdf: input.kdf,
    vault: `${name}.vault`,
  };
  let prepared: Awaited<ReturnType<typeof prepareRegistration>>;
  try {
    prepared = await prepareRegistration(
      link,
      { url: server.url, kdf: input.kdf },
      { ...input, account, device },
      input.password,
      around,
    );
  } catch (error) {
    // the earlier try may have been committed without our knowing: then the password proves it
    if (!(error instanceof Fault) || error.code !== "exists") throw error;
    if (!unfinished)
      throw new Fault("exists", error.message, { hint: "choose another name; for a further device: keyhold login" });
    const done = await loginNewDevice(home, { ...input, profile: name }, around);
    await done.client.close();
    return { account, userId: done.userId, profile: name, requestId: done.requestId };
  }
  const { model } = prepared;
  const vault = await makeVault(input.password, input.kdf, model.accountKey, around);
  const box: VaultBox = { path: vaultPath(home, base), vault, model };
  await startOver(home, base, box, around);
  try {
    await prepared.finish();
  } catch (error) {
    await discardUnlessUnknown(home, base, error);
    throw error;
  }
  await withVault(box, around, async (held) => {
    box.model.bound = model.bound;
    await held.save();
  });
  await writeProfile(home.profiles, { ...base, userId: model.owner });
  if (defaultProfile(home.profiles) === null) await useProfile(home.profiles, name);
  return { account, userId: model.owner, profile: name, requestId: prepared.requestId };
}

/** Marks a set-up as begun, then puts its vault in place of the one that an unfinished set-up left. */
async function startOver(home: Home, profile: Profile, box: VaultBox, around: Surroundings): Promise<void> {
  refuseExisting(home, profile.name);
  // the mark first: a vault without it counts as somebody's
  await writeProfile(home.profiles, { ...profile, userId: null });
  await removeVaultFile(box.path);
  await createVaultFile(box, around);
}

/** A refused registration leaves nothing here; one of unknown outcome keeps its mark for the next try. */
async function discardUnlessUnknown(home: Home, profile: Profile, error: unknown): Promise<void> {
  const refused =
    error instanceof Fault && ["exists", "denied", "bad_input", "timed_out", "rate_limited"].includes(error.code);
  if (!refused) return;
  await removeVaultFile(vaultPath(home, profile));
  await removeProfile(home.profiles, profile.name);
}

/** A client with what login tells. */
export interface LoggedInClient {
  readonly client: KeyholdClient;
  readonly account: string;
  readonly userId: UserId;
  readonly session: { readonly id: SessionId; readonly expiresAt: string };
  readonly requestId: RequestId;
}

/**
 * Sets this home up as a further device of an account: logs in, adds the device, makes vault and profile.
 *
 * @throws Fault exists, login_failed, rate_limited, unreachable, pin_mismatch, tls_refused
 */
export async function loginNewDevice(home: Home, input: AccountInput, around: Surroundings): Promise<LoggedInClient> {
  const name = asProfileName(input.profile);
  const account = accountNameOf(input.account);
  refuseExisting(home, name);
  const { link, server } = await connect(profileServer(input.server), around);
  const device = newDevice(hostname(), around);
  const done = await logIn(
    link,
    { url: server.url, kdf: input.kdf, deviceToken: null },
    account,
    input.password,
    around,
  );
  wipe(done.exportKey);
  const { reply, userId, accountKey, session } = done;
  const bound = bind(
    {
      account,
      userId,
      deviceId: device.id,
      deviceSeed: device.seed,
      serverIdentity: link.identity,
      statementNumber: link.statementNumber,
      head: reply.head,
      settings: reply.settings,
      audit: { seq: reply.auditSeq, link: reply.auditLink },
    },
    around.now(),
  );
  const model: Model = newModel(userId, accountKey, bound);
  await synchroniseAll(model, session, around);
  const vault = await makeVault(input.password, input.kdf, accountKey, around);
  const profile: Profile = {
    v: 1,
    name,
    server,
    account,
    userId,
    deviceToken: device.token,
    loggedOut: false,
    kdf: input.kdf,
    vault: `${name}.vault`,
  };
  const box: VaultBox = { path: vaultPath(home, profile), vault, model };
  await startOver(home, profile, box, around);
  const open: Open = { box, session, around };
  await online(open, true, () =>
    withVault(box, around, (held) =>
      commitSettings(box.model, held, session, around, "account.device.add", (before) => ({
        settings: { ...before, devices: [...before.devices, deviceEntry(box.model, device, around)] },
      })),
    ),
  );
  await writeProfile(home.profiles, profile);
  if (defaultProfile(home.profiles) === null) await useProfile(home.profiles, name);
  return loggedIn(profile, open, done, async () => undefined);
}

function loggedIn(profile: Profile, open: Open, done: LoggedIn, end: () => Promise<void>): LoggedInClient {
  const client = createClient(open, placeOf(profile), end);
  const { sessionId, expiresAtMs } = done.session;
  return {
    client,
    account: profile.account ?? "",
    userId: done.userId,
    session: { id: sessionId, expiresAt: new Date(expiresAtMs).toISOString() },
    requestId: done.requestId,
  };
}

const placeOf = (profile: Profile) => ({
  profile: profile.name,
  server: profile.server ? { url: profile.server.url, pin: profile.server.pin } : null,
});

/**
 * Logs in on a device that has a vault: one key stretching, since the account key opens the vault.
 *
 * @param options.keep Leaves the session open at `close`; otherwise it is closed on the server too.
 */
export async function loginProfile(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
  options: { readonly keep: boolean },
): Promise<LoggedInClient> {
  const { server, account } = profile;
  if (!server || !account)
    throw new Fault("bad_input", "this profile has no server to log in to", { hint: "keyhold unlock" });
  const found = await connect(server, around);
  if (found.server.caPem !== server.caPem || found.server.statementNumber !== server.statementNumber) {
    await writeProfile(home.profiles, { ...profile, server: found.server });
  }
  const how = { url: server.url, kdf: profile.kdf, deviceToken: profile.deviceToken };
  const done = await logIn(found.link, how, account, password, around);
  wipe(done.exportKey);
  const box = openBox(home, profile, done.accountKey);
  const { bound } = box.model;
  if (!bound || bound.userId !== done.userId || !equalBytes(bound.serverIdentity, found.link.identity)) {
    throw new Fault("integrity", "the server shows another account or identity than this vault is bound to");
  }
  const { head, auditSeq, auditLink } = done.reply;
  // an older account would bring its older password with it
  checkHead(box.model, { revision: head.state.revision, stateHash: stateHash(head.state), auditSeq, auditLink });
  await followPassword(box, done, password, profile.kdf, around);
  const open: Open = { box, session: done.session, around };
  const end = options.keep ? async () => undefined : () => closeQuietly(done);
  return loggedIn(profile, open, done, end);
}

/** After a password change elsewhere the vault's own slot follows, so that the old password opens nothing any more. */
async function followPassword(
  box: VaultBox,
  done: LoggedIn,
  password: Uint8Array,
  kdf: Kdf,
  around: Surroundings,
): Promise<void> {
  const { credentialRevision } = done.reply.settings;
  if (box.model.bound?.keyedRevision === credentialRevision) return;
  await withVault(box, around, async (held) => {
    if (box.model.bound) box.model.bound.keyedRevision = credentialRevision;
    await held.rekey(password, vaultCost(kdf));
  });
  around.notice("the account's password was changed on another device: this vault now takes the new one");
}

/** An ended command's own session; a server that is away by now forgets it after the idle time. */
export async function closeQuietly(done: LoggedIn): Promise<void> {
  try {
    await done.session.call("session.close", { sessionId: null, all: false });
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  }
}

/** The vault file of a profile. @throws Fault not_found */
export function vaultBytes(home: Home, profile: Profile): Uint8Array {
  const bytes = readVaultFile(vaultPath(home, profile));
  if (bytes) return bytes;
  throw new Fault("not_found", `the vault of profile "${profile.name}" is gone`, {
    hint: "restore it from a backup, or remove the profile and log in as a new device",
  });
}

/** Opens a profile's vault by its account key. @throws Fault wrong_password, corrupt */
export function openBox(home: Home, profile: Profile, accountKey: Uint8Array): VaultBox {
  const opened = openVaultWithAccountKey(vaultBytes(home, profile), accountKey);
  try {
    return { path: vaultPath(home, profile), vault: opened.vault, model: decodeModel(opened.body) };
  } finally {
    wipe(opened.body);
  }
}

/** Opens a profile's vault with the password alone, without the server. @throws Fault wrong_password, corrupt */
export async function openOffline(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
): Promise<KeyholdClient> {
  const opened = await openVaultWithPassword(vaultBytes(home, profile), password, {
    allowTestKdf: profile.kdf === "test",
  });
  try {
    const box = { path: vaultPath(home, profile), vault: opened.vault, model: decodeModel(opened.body) };
    return createClient({ box, session: null, around }, placeOf(profile), async () => undefined);
  } finally {
    wipe(opened.body);
  }
}

const AWAY: ReadonlySet<string> = new Set(["unreachable", "timed_out", "unavailable"]);

/** Opens a profile with its password: on the server where there is one and it answers, else the vault alone. */
export async function openProfile(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
  options: { readonly keep: boolean },
): Promise<{ client: KeyholdClient; login: LoggedInClient | null }> {
  if (profile.server) {
    try {
      const login = await loginProfile(home, profile, password, around, options);
      return { client: login.client, login };
    } catch (error) {
      if (!(error instanceof Fault) || !AWAY.has(error.code)) throw error;
      around.notice(`the server is away (${error.message}): only the local vault is open`);
    }
  }
  return { client: await openOffline(home, profile, password, around), login: null };
}

/** Makes a vault without any server, and its profile. @throws Fault exists */
export async function initLocal(
  home: Home,
  input: { profile: string; password: Uint8Array; kdf: Kdf },
  around: Surroundings,
): Promise<{ profile: string; vault: string }> {
  const name = asProfileName(input.profile);
  if (refuseExisting(home, name)) {
    throw new Fault("exists", `the profile "${name}" is being set up`, { hint: "use --profile NAME for a second one" });
  }
  const accountKey = around.random(32);
  const model = newModel(newId<UserId>(around.random), accountKey, null);
  const vault = await makeVault(input.password, input.kdf, accountKey, around);
  const profile: Profile = {
    v: 1,
    name,
    server: null,
    account: null,
    userId: null,
    deviceToken: null,
    loggedOut: false,
    kdf: input.kdf,
    vault: `${name}.vault`,
  };
  const path = vaultPath(home, profile);
  await createVaultFile({ path, vault, model }, around);
  await writeProfile(home.profiles, profile);
  if (defaultProfile(home.profiles) === null) await useProfile(home.profiles, name);
  return { profile: name, vault: path };
}

/** Marks a profile as logged out (or in): without a login its commands are refused. */
export async function markLoggedOut(home: Home, profile: Profile, loggedOut: boolean): Promise<void> {
  const now = readProfile(home.profiles, profile.name) ?? profile;
  if (now.loggedOut !== loggedOut) await writeProfile(home.profiles, { ...now, loggedOut });
}
