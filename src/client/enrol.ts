import { hostname } from "node:os";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { newId, type RequestId, type UserId } from "../ids.ts";
import type { AuditHead } from "../protocol/audit.ts";
import type { KitKeys } from "../protocol/kit.ts";
import { createVault, setAccountSlot, type Vault } from "../protocol/vault.ts";
import { parseServerUrl } from "../wire/http.ts";
import { parsePin } from "../wire/pin.ts";
import { commitSettings } from "./commit.ts";
import type { FederationParcel } from "./federation/parcel.ts";
import {
  type AccountInput,
  type Home,
  type Kdf,
  type LoggedInClient,
  loggedIn,
  type ServerInput,
  vaultCost,
  vaultPath,
} from "./home.ts";
import { connect, logIn } from "./login.ts";
import { bind, boundOf, type Model, newModel, type Surroundings } from "./model.ts";
import { accountNameOf } from "./names.ts";
import { online } from "./opened.ts";
import {
  addProfile,
  asProfileName,
  localProfile,
  type Profile,
  type ProfileServer,
  readProfile,
  removeProfile,
  writeProfile,
} from "./profile.ts";
import { deviceEntry, type NewDevice, newDevice, prepareRegistration } from "./register.ts";
import { moveToNewestSetup } from "./reregister.ts";
import type { Session } from "./session.ts";
import { type Anchor, synchroniseAll } from "./sync.ts";
import { createVaultFile, type VaultBox, withVault } from "./vaultbox.ts";
import { readPreviousVaultFile, readVaultFile, removeVaultFile } from "./vaultfile.ts";

/** A server as a new profile names it. @throws Fault bad_input */
export function profileServer(input: ServerInput): ProfileServer {
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
export function refuseExisting(home: Home, name: string): Profile | null {
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
  await addProfile(home.profiles, { ...base, userId: model.owner });
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

/** What a new device knows before it logs in. */
export interface KnownBefore {
  /** A device that stands in the account already. */
  readonly device?: NewDevice;
  /** The account that it must be. */
  readonly userId?: UserId;
  readonly anchor?: Anchor | null;
  /** A position that the account's log must pass through. */
  readonly audit?: AuditHead;
  /** What another device hands over of federations. */
  readonly federation?: FederationParcel;
  /** The recovery kit, which opens what the server keeps of federations for it. */
  readonly kit?: KitKeys;
}

/**
 * Sets this home up as a further device of an account: logs in, adds the device, makes vault and profile.
 *
 * @throws Fault exists, login_failed, rate_limited, unreachable, pin_mismatch, tls_refused
 */
export async function loginNewDevice(
  home: Home,
  input: AccountInput,
  around: Surroundings,
  known: KnownBefore = {},
): Promise<LoggedInClient> {
  const name = asProfileName(input.profile);
  const account = accountNameOf(input.account);
  refuseExisting(home, name);
  const { link, server } = await connect(profileServer(input.server), around);
  const device = known.device ?? newDevice(hostname(), around);
  const done = await logIn(
    link,
    { url: server.url, kdf: input.kdf, deviceToken: null },
    account,
    input.password,
    around,
  );
  wipe(done.exportKey);
  const { reply, userId, accountKey, session } = done;
  if (known.userId !== undefined && known.userId !== userId) {
    throw new Fault("integrity", "the server shows another account under this name");
  }
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
  await synchroniseAll(model, session, around, known.anchor ?? null, link.statement.incarnation);
  if (known.device && !bound.settings.devices.some(({ id }) => id === device.id)) {
    throw new Fault("integrity", "the server does not show this device, which was just added to the account");
  }
  // after a restore the account may still stand in the incarnation before
  bound.incarnation = link.statement.incarnation;
  if (known.audit) bound.receipts = [known.audit, ...bound.receipts.filter(({ seq }) => seq !== known.audit?.seq)];
  await takeFederation(model, session, known, around);
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
  const open = { box, session, around };
  if (!known.device) {
    await online(open, true, () =>
      withVault(box, around, (held) =>
        commitSettings(box.model, held, session, around, "account.device.add", (before) => ({
          settings: { ...before, devices: [...before.devices, deviceEntry(box.model, device, around)] },
        })),
      ),
    );
  }
  await addProfile(home.profiles, profile);
  await moveToNewestSetup(profile, { open, link, done }, input.password, around);
  return loggedIn(profile, open, done, async () => undefined);
}

/** Federations of the account: handed over by a device or kept for the kit; a login by password alone brings none. */
async function takeFederation(
  model: Model,
  session: Session,
  { federation, kit }: KnownBefore,
  around: Surroundings,
): Promise<void> {
  if (!federation && !kit) return;
  const { takeParcel, withParcel } = await import("./federation/parcel.ts");
  let parcel = federation ?? null;
  try {
    if (kit) parcel ??= await takeParcel(session, kit, model.owner, boundOf(model).settings.identity);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    around.notice(`the federation secret could not be taken over: ${error.message}`);
  }
  if (parcel) model.held = withParcel(model.held, parcel);
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
  const profile = localProfile(name, input.kdf, `${name}.vault`);
  const path = vaultPath(home, profile);
  await createVaultFile({ path, vault, model }, around);
  await addProfile(home.profiles, profile);
  return { profile: name, vault: path };
}
