import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import { accountName } from "../wire/accountname.ts";
import {
  bool,
  bytes,
  type Codec,
  decodeJson,
  encodeJson,
  id,
  nullable,
  oneOf,
  struct,
  text,
  u53,
  uint,
} from "../wire/codec.ts";
import { takeFileLock } from "../wire/filelock.ts";
import {
  makePrivateDirectory,
  readPrivateFile,
  removePrivateFile,
  replacePrivateFile,
  storageFault,
  sweepTemps,
} from "./privatefile.ts";

/** A server as a profile remembers it: needed before the vault opens. */
export interface ProfileServer {
  readonly url: string;
  /** `sha256:` and the base64url of the server identity's hash. */
  readonly pin: string;
  /** PEM of the server identity as certificate authority; null before first contact. */
  readonly caPem: string | null;
  /** PEM of the operator's own certificate authority for TLS; null for the built-in ones. */
  readonly tlsCaPem: string | null;
  /** Number of the newest server statement that was verified. */
  readonly statementNumber: number;
}

/** The recovery kit that was made last on this device. */
export interface KitNote {
  readonly madeAtMs: number;
  /** True once two of its words were given, or its maker said that it is kept. */
  readonly confirmed: boolean;
}

/** A server (or none) with its account and vault, under a name (docs/cli.md §2). */
export interface Profile {
  readonly v: 1;
  readonly name: string;
  readonly server: ProfileServer | null;
  readonly account: string | null;
  readonly userId: UserId | null;
  /** Secret of 32 bytes that gives this device its own login limit. */
  readonly deviceToken: Uint8Array | null;
  readonly loggedOut: boolean;
  /** Password-hashing cost for new vaults; `test` is insecure. */
  readonly kdf: "default" | "test";
  /** Name of the vault file, relative to the vault directory. */
  readonly vault: string;
  /** Absent where no recovery kit was made on this device. */
  readonly kit?: KitNote;
}

const PROFILE_MAX_BYTES = 256 * 1_024;
const LOCK_WAIT_MS = 10_000;
const NAME = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$/;
const PEM = /^-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+\n-----END CERTIFICATE-----\n?$/;

const profileName = text({ min: 1, max: 64, pattern: NAME });
const pem = text({ min: 1, max: 65_536, pattern: PEM });

const fields = {
  v: version1(),
  name: profileName,
  server: nullable(
    struct({
      url: text({ min: 1, max: 2_048, pattern: /^https?:\/\/[!-~]+$/ }),
      pin: text({ max: 50, pattern: /^sha256:[A-Za-z0-9_-]{43}$/ }),
      caPem: nullable(pem),
      tlsCaPem: nullable(text({ min: 1, max: 65_536, pattern: /^[\t\n\r -~]+$/ })),
      statementNumber: u53,
    }),
  ),
  account: nullable(accountName),
  userId: nullable(id<UserId>()),
  deviceToken: nullable(bytes({ length: 32 })),
  loggedOut: bool,
  kdf: oneOf(["default", "test"]),
  vault: text({ min: 1, max: 100, pattern: /^(?!\.{1,2}$)[A-Za-z0-9._-]+$/ }),
};
const bare: Codec<Omit<Profile, "kit">> = struct(fields);
const noted: Codec<Profile> = struct({ ...fields, kit: struct({ madeAtMs: u53, confirmed: bool }) });

/** The field `kit` is there only where a kit was made: a profile without one is written as it always was. */
const profile: Codec<Profile> = {
  decode: (value, path) =>
    typeof value === "object" && value !== null && "kit" in value
      ? noted.decode(value, path)
      : bare.decode(value, path),
  encode: (value) => (value.kit === undefined ? bare : noted).encode(value),
};

/**
 * Checks a profile name: 1 to 64 of A–Z, a–z, 0–9, dot, underscore, hyphen; not `.` or `..`.
 *
 * @throws Fault bad_input
 */
export function asProfileName(name: string): string {
  return profileName.decode(name, "the profile name");
}

/** Names of the profiles in a configuration directory, sorted. @throws Fault storage */
export function listProfiles(directory: string): readonly string[] {
  let entries: string[];
  try {
    entries = readdirSync(join(directory, "profiles"));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw storageFault("cannot list the profiles", error);
  }
  return entries
    .filter((entry) => entry.endsWith(".json"))
    .map((entry) => entry.slice(0, -".json".length))
    .filter((name) => NAME.test(name))
    .sort();
}

/**
 * Reads one profile.
 *
 * @returns null when there is none of this name.
 * @throws Fault denied when others may read the file or a link is in the way; corrupt; bad_input for the name.
 */
export function readProfile(directory: string, name: string): Profile | null {
  const file = profilePath(directory, asProfileName(name));
  const json = readPrivateFile(file, { maxBytes: PROFILE_MAX_BYTES, loose: "refuse" });
  if (!json) return null;
  let found: Profile;
  try {
    found = decodeJson(profile, json);
  } catch (error) {
    throw damaged(name, error instanceof Fault ? error.message : "unreadable");
  }
  if (found.name !== name) throw damaged(name, "it names another profile");
  return found;
}

/** Writes a profile durably, 0600, replacing one of its name. @throws Fault bad_input, denied, storage, timed_out */
export async function writeProfile(directory: string, value: Profile): Promise<void> {
  const name = asProfileName(value.name);
  const json = encodeJson(profile, value);
  const bytes = new TextEncoder().encode(`${json}\n`);
  decodeJson(profile, bytes);
  await changing(directory, () => replacePrivateFile(profilePath(directory, name), bytes));
}

/** A profile of a vault without a server. */
export function localProfile(name: string, kdf: Profile["kdf"], vault: string): Profile {
  const nobody = { server: null, account: null, userId: null, deviceToken: null, loggedOut: false };
  return { v: 1, name, ...nobody, kdf, vault };
}

/** Writes a profile; the first one becomes the default. @throws As {@link writeProfile} */
export async function addProfile(directory: string, profile: Profile): Promise<void> {
  await writeProfile(directory, profile);
  if (defaultProfile(directory) === null) await useProfile(directory, profile.name);
}

/** Notes in its profile that a recovery kit was made or confirmed. @throws As {@link writeProfile}; not_found */
export async function noteKit(directory: string, name: string, kit: KitNote): Promise<void> {
  const before = readProfile(directory, name);
  if (!before) throw missing(name);
  await writeProfile(directory, { ...before, kit });
}

/**
 * Whether the owner has a recovery kit that counts, as far as this device knows: another device of an account may have
 * made one.
 */
export function kitState({ kit }: Pick<Profile, "kit">): "none" | "unconfirmed" | "confirmed" {
  if (kit === undefined) return "none";
  return kit.confirmed ? "confirmed" : "unconfirmed";
}

/**
 * Removes a profile, and the default marker if it names it; not the vault.
 *
 * @throws Fault not_found, bad_input, storage, timed_out
 */
export async function removeProfile(directory: string, name: string): Promise<void> {
  const file = profilePath(directory, asProfileName(name));
  await changing(directory, () => {
    if (!removePrivateFile(file)) throw missing(name);
    if (defaultProfile(directory) === name) removePrivateFile(defaultPath(directory));
  });
}

/** Makes a profile the default. @throws Fault not_found, bad_input, denied, storage, timed_out */
export async function useProfile(directory: string, name: string): Promise<void> {
  await changing(directory, () => {
    if (!readProfile(directory, name)) throw missing(name);
    replacePrivateFile(defaultPath(directory), new TextEncoder().encode(`${name}\n`));
  });
}

/** Name of the default profile, or null. @throws Fault denied, corrupt, storage */
export function defaultProfile(directory: string): string | null {
  const bytes = readPrivateFile(defaultPath(directory), { maxBytes: 128, loose: "refuse" });
  if (!bytes) return null;
  const name = new TextDecoder().decode(bytes).replace(/\n$/, "");
  if (!NAME.test(name)) {
    throw new Fault("corrupt", "the marker of the default profile is damaged", { hint: "keyhold profile use NAME" });
  }
  return name;
}

async function changing(directory: string, work: () => void): Promise<void> {
  const profiles = join(directory, "profiles");
  makePrivateDirectory(directory);
  makePrivateDirectory(profiles);
  const lock = await takeFileLock(join(directory, "profiles.lock"), { timeoutMs: LOCK_WAIT_MS });
  try {
    sweepTemps(profiles, () => true);
    sweepTemps(directory, (name) => name === "default-profile");
    work();
  } finally {
    lock.release();
  }
}

function version1(): Codec<1> {
  const number = uint(1, 1);
  return {
    decode: (value, path) => {
      number.decode(value, path);
      return 1;
    },
    encode: (value) => value,
  };
}

function profilePath(directory: string, name: string): string {
  return join(directory, "profiles", `${name}.json`);
}

function defaultPath(directory: string): string {
  return join(directory, "default-profile");
}

function missing(name: string): Fault {
  return new Fault("not_found", `there is no profile "${name}"`, { hint: "keyhold profile list" });
}

function damaged(name: string, why: string): Fault {
  return new Fault("corrupt", `cannot read the profile "${name}"`, { why, hint: "log in again, or mend the file" });
}
