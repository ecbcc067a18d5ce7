import { randomBytes } from "node:crypto";
import { freemem } from "node:os";
import { join } from "node:path";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import type { Argon2Cost } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { RequestId, SessionId, UserId } from "../ids.ts";
import { KDF } from "../protocol/defaults.ts";
import { stateHash } from "../protocol/state.ts";
import { openVaultWithPassword } from "../protocol/vault.ts";
import type { KeyholdClient } from "./api.ts";
import { createClient } from "./client.ts";
import { explainClosed } from "./detach.ts";
import { ENROL_HINT } from "./factorapi.ts";
import { demandListed, followLogin, lagsBehind, openVaultAfterLogin } from "./follow.ts";
import { connect, type LoggedIn, logIn } from "./login.ts";
import { adoptReceipts, boundOf, decodeModel, type Model, type Surroundings } from "./model.ts";
import { type Open, online } from "./opened.ts";
import { type Profile, readProfile, writeProfile } from "./profile.ts";
import { moveToNewestSetup } from "./reregister.ts";
import type { HeadSummary, Link, Session } from "./session.ts";
import { checkHead } from "./sync.ts";
import { withVault } from "./vaultbox.ts";
import { readVaultFile } from "./vaultfile.ts";

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

/** Cost of the vault's key derivation: less where memory is short. */
export function vaultCost(kdf: Kdf): { cost: Argon2Cost; allowTestKdf?: boolean } {
  if (kdf === "test") return { cost: KDF.test, allowTestKdf: true };
  const spacious = freemem() >= 4 * KDF.vault.memoryKib * 1_024;
  return { cost: spacious ? KDF.vault : KDF.vaultSmall };
}

/** A client with what login tells. */
export interface LoggedInClient {
  readonly client: KeyholdClient;
  readonly account: string;
  readonly userId: UserId;
  readonly session: { readonly id: SessionId; readonly expiresAt: string };
  readonly requestId: RequestId;
}

/** A client over an open vault and a fresh login. */
export function loggedIn(profile: Profile, open: Open, done: LoggedIn, end: () => Promise<void>): LoggedInClient {
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

/** The server says that it began anew from a backup: believed when the owner says so, and not before. */
function restored(): Fault {
  return new Fault("integrity", "the server says that it was restored from a backup", {
    why: "a backup lacks what was written after it; a server that lies would say the same",
    hint: "ask its operator; then: keyhold sync --accept-restore",
  });
}

/** A vault opened by a login of this moment. */
export interface FreshLogin {
  readonly open: Open & { readonly session: Session };
  readonly done: LoggedIn;
  readonly link: Link;
}

/**
 * Logs in on a device that has a vault: one key stretching, since the account key opens the vault. The vault follows
 * what another device changed of password and keys.
 *
 * @param options.exportKey Leaves the login's export key to the caller; otherwise it is wiped.
 * @param options.restored Leaves it to the caller to hold the account against the vault.
 * @throws Fault login_failed, rate_limited, unreachable, integrity; denied for a device that was revoked
 */
export async function logInFreshly(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
  options: { readonly exportKey?: boolean; readonly restored?: boolean } = {},
): Promise<FreshLogin> {
  const { server, account } = profile;
  if (!server || !account)
    throw new Fault("bad_input", "this profile has no server to log in to", { hint: "keyhold unlock" });
  const found = await connect(server, around);
  if (found.server.caPem !== server.caPem || found.server.statementNumber !== server.statementNumber) {
    await writeProfile(home.profiles, { ...profile, server: found.server });
  }
  const how = { url: server.url, kdf: profile.kdf, deviceToken: profile.deviceToken };
  const done = await logIn(found.link, how, account, password, around).catch((error: unknown) =>
    explainClosed(
      { profiles: home.profiles, profile, vault: vaultPath(home, profile) },
      found.link,
      password,
      around,
      error,
    ),
  );
  if (!options.exportKey) wipe(done.exportKey);
  const allowTestKdf = profile.kdf === "test";
  const open = () =>
    openVaultAfterLogin(vaultPath(home, profile), vaultBytes(home, profile), done, password, allowTestKdf);
  let box = await open();
  const { bound } = box.model;
  if (!bound || bound.userId !== done.userId || !equalBytes(bound.serverIdentity, found.link.identity)) {
    throw new Fault("integrity", "the server shows another account or identity than this vault is bound to");
  }
  if (!options.restored && found.link.statement.incarnation !== bound.incarnation) throw restored();
  if (options.restored) return { open: { box, session: done.session, around }, done, link: found.link };
  const { head, auditSeq, auditLink } = done.reply;
  // an older account would bring its older password with it
  const shown = { revision: head.state.revision, stateHash: stateHash(head.state), auditSeq, auditLink };
  await checkLogin(box.model, done, shown);
  demandListed(box.model, done);
  if (lagsBehind(box.model, done)) {
    const to = { password, cost: vaultCost(profile.kdf) };
    const follow = () => withVault(box, around, (held) => followLogin(box.model, held, done, to, around));
    try {
      await follow();
    } catch (error) {
      // another process followed meanwhile and gave the vault a new key
      if (!(error instanceof Fault) || error.code !== "locked") throw error;
      box = await open();
      if (lagsBehind(box.model, done)) await follow();
    }
  }
  const fresh = { open: { box, session: done.session, around }, done, link: found.link };
  // the export key that is left to the caller belongs to the record that there is
  if (!options.exportKey) await moveToNewestSetup(profile, fresh, password, around);
  return fresh;
}

/**
 * Holds a login's position against the vault, which was opened after it. Another process of this device may have gone
 * on in between: what looks older then is asked for once more.
 */
async function checkLogin(model: Model, { session }: LoggedIn, shown: HeadSummary): Promise<void> {
  const bound = boundOf(model);
  const older = shown.revision < bound.head.state.revision || shown.auditSeq < bound.witnessed.seq;
  if (!older) {
    checkHead(model, shown);
    return;
  }
  const { head } = await session.call("session.check", {});
  checkHead(model, head);
  // the log must pass through it all the same
  const seen = { seq: shown.auditSeq, link: shown.auditLink };
  adoptReceipts(bound, { ...bound, receipts: [seen] });
}

/**
 * A client over {@link logInFreshly}.
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
  const { open, done } = await logInFreshly(home, profile, password, around);
  const end = options.keep ? async () => undefined : () => closeQuietly(done);
  if (options.keep) await sendWaiting(open);
  return loggedIn(profile, open, done, end);
}

/** Whoever logs in to stay sends what waited; a command of its own does so with its first request. */
async function sendWaiting(open: Open): Promise<void> {
  if (open.box.model.queue.length === 0) return;
  await online(open, false, async () => undefined);
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

/** Opens a profile's vault with the password alone, without the server. @throws Fault wrong_password, corrupt */
export async function openOffline(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
  since?: "unlocked" | "withheld",
): Promise<KeyholdClient> {
  const opened = await openVaultWithPassword(vaultBytes(home, profile), password, {
    allowTestKdf: profile.kdf === "test",
  });
  try {
    const box = { path: vaultPath(home, profile), vault: opened.vault, model: decodeModel(opened.body) };
    const open = { box, session: null, around, ...(since && { since }) };
    return createClient(open, placeOf(profile), async () => undefined);
  } finally {
    wipe(opened.body);
  }
}

const AWAY: ReadonlySet<string> = new Set(["unreachable", "timed_out", "unavailable"]);

/** A profile that was opened with its password. */
export interface OpenedProfile {
  readonly client: KeyholdClient;
  /** Null where the vault alone is open. */
  readonly login: LoggedInClient | null;
  /** Why the server, which is there, lets nobody in: it asks for a second factor. */
  readonly withheld: Fault | null;
}

/**
 * Opens a profile with its password: on the server where there is one and it answers, else the vault alone.
 *
 * @param options.vaultAlone Opens the vault alone, too, where the server asks for a code and none is given (docs/protocol.md §10.9).
 */
export async function openProfile(
  home: Home,
  profile: Profile,
  password: Uint8Array,
  around: Surroundings,
  options: { readonly keep: boolean; readonly vaultAlone?: boolean },
): Promise<OpenedProfile> {
  let withheld: Fault | null = null;
  if (profile.server) {
    try {
      const login = await loginProfile(home, profile, password, around, options);
      return { client: login.client, login, withheld };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      if (options.vaultAlone && error.code === "factor_required") withheld = error;
      else if (!AWAY.has(error.code)) throw error;
      if (withheld) {
        const mend = error.hint === ENROL_HINT ? ENROL_HINT : "keyhold login";
        around.notice(`${error.message}: only the vault of this device is open (${mend})`);
      } else if (options.keep) around.notice(`the server is away (${error.message}): only the local vault is open`);
    }
  }
  const since = withheld ? "withheld" : options.keep && profile.server ? "unlocked" : undefined;
  return { client: await openOffline(home, profile, password, around, since), login: null, withheld };
}

/** Marks a profile as logged out (or in): without a login its commands are refused. */
export async function markLoggedOut(home: Home, profile: Profile, loggedOut: boolean): Promise<void> {
  const now = readProfile(home.profiles, profile.name) ?? profile;
  if (now.loggedOut !== loggedOut) await writeProfile(home.profiles, { ...now, loggedOut });
}
