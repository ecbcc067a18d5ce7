import { chmodSync, existsSync, lstatSync, readdirSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { readBackupNote } from "../../client/backupnote.ts";
import { vaultPath } from "../../client/home.ts";
import { checkVault } from "../../client/vaultcare.ts";
import { Fault } from "../../errors.ts";
import { homeOf } from "../session.ts";
import { type Finding, fail, ok, type Patient, quoted, warn } from "./finding.ts";

const ENTRIES_MAX = 5_000;
const DEPTH_MAX = 6;
const DAY_MS = 86_400_000;
const BACKUP_AFTER_MS = 30 * DAY_MS;

interface Entry {
  readonly path: string;
  readonly directory: boolean;
  readonly mode: number;
  readonly uid: number;
  readonly link: boolean;
}

/** A directory and everything below it, at most so many; links are named and not followed. */
function* entriesOf(path: string, depth = 0): Generator<Entry> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return;
  const directory = found.isDirectory();
  yield { path, directory, mode: found.mode & 0o777, uid: found.uid, link: found.isSymbolicLink() };
  if (!directory || depth >= DEPTH_MAX) return;
  for (const name of namesIn(path)) yield* entriesOf(join(path, name), depth + 1);
}

/** Nothing for a directory that cannot be read, or is gone meanwhile. */
function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path).sort();
  } catch {
    return [];
  }
}

/** Whether only the owner can read what lies there. */
export function checkPermissions({ ctx }: Patient): Finding[] {
  const check = "permissions";
  const { config, data, state, runtime } = ctx.dirs;
  const open: Entry[] = [];
  const foreign: Entry[] = [];
  const links: Entry[] = [];
  let count = 0;
  for (const top of new Set([config, data, state, runtime])) {
    for (const entry of entriesOf(top)) {
      if (++count > ENTRIES_MAX) break;
      if (entry.link) links.push(entry);
      else if (process.getuid && entry.uid !== process.getuid()) foreign.push(entry);
      else if ((entry.mode & 0o077) !== 0) open.push(entry);
    }
  }
  const [first] = open;
  const findings: Finding[] = [];
  if (first) {
    const more = open.length > 1 ? ` and ${open.length - 1} more` : "";
    const repair = () => {
      for (const { path, mode } of open) if (existsSync(path)) chmodSync(path, mode & 0o700);
    };
    findings.push(
      fail(check, `others can use ${first.path}${more}`, `chmod go= ${quoted(first.path)}   (or --fix)`, repair),
    );
  }
  if (foreign[0]) findings.push(fail(check, `${foreign[0].path} belongs to another user`, "give it back: chown"));
  if (links[0]) {
    findings.push(warn(check, `${links[0].path} is a link: keyhold does not follow it`, "put the file itself there"));
  }
  return findings.length > 0 ? findings : [ok(check, "only you can read keyhold's files")];
}

const CLOUDS =
  /(^|[/\\])(dropbox|onedrive[^/\\]*|google ?drive|googledrive|mobile documents|icloud ?drive|nextcloud|owncloud|pcloud ?drive|mega(sync)?|seafile|yandex\.disk|syncthing|insync)([/\\]|$)/i;
const MARKS = [".stfolder", ".dropbox", ".dropbox.cache", ".owncloudsync.log", ".nextcloudsync.log"];

/** Whether another program copies the vault between machines. */
export function checkCloudFolder({ ctx }: Patient): Finding[] {
  const check = "cloud folder";
  const path = existsSync(ctx.dirs.data) ? realpathSync(ctx.dirs.data) : ctx.dirs.data;
  const why = "a program that copies files puts old vaults back and mixes two devices";
  const fix = "keep it elsewhere, and use a server for several devices";
  if (CLOUDS.test(path)) return [warn(check, `${path} lies in a synchronised folder: ${why}`, fix)];
  for (let at = path; dirname(at) !== at; at = dirname(at)) {
    if (MARKS.some((mark) => existsSync(join(at, mark)))) {
      return [warn(check, `${at} is synchronised by another program: ${why}`, fix)];
    }
  }
  return [ok(check, "the vault is not in a synchronised folder")];
}

/** Whether the vault is there and reads as one. */
export function checkVaultFile({ ctx, profile }: Patient): Finding[] {
  const check = "vault";
  if (!profile) return [warn(check, "there is no vault yet", "keyhold init")];
  try {
    const { bytes, memoryKib } = checkVault(vaultPath(homeOf(ctx), profile));
    const findings = [ok(check, `${bytes} bytes; a guess of its password costs ${Math.round(memoryKib / 1_024)} MiB`)];
    if (profile.kdf === "test") {
      findings.push(warn(check, "its password is easy to guess: it was made with --kdf test", "make another vault"));
    }
    return findings;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return [fail(check, error.message, error.hint ?? "keyhold vault restore FILE")];
  }
}

/** How old the newest backup is that this device knows of. */
export function checkBackup({ ctx, profile, nowMs }: Patient): Finding[] {
  const check = "backup";
  if (!profile) return [];
  const atMs = readBackupNote(ctx.dirs.state, profile.name);
  const fix = "keyhold vault backup --out FILE   (or: keyhold export --all --out FILE.age)";
  if (atMs === null) {
    if (profile.server)
      return [ok(check, "none was made here; the server has what the vault has, but for local secrets")];
    return [warn(check, "there is no backup of this vault, and no server has a copy", fix)];
  }
  const days = Math.max(0, Math.floor((nowMs - atMs) / DAY_MS));
  const age = `the newest backup is ${days} day${days === 1 ? "" : "s"} old`;
  return [nowMs - atMs > BACKUP_AFTER_MS && !profile.server ? warn(check, age, fix) : ok(check, age)];
}

/** Whether there is a way back in without the password. */
export function checkRecoveryKit({ profile }: Patient): Finding[] {
  const check = "recovery kit";
  if (!profile) return [];
  const command = profile.server ? "keyhold account recovery-kit" : "keyhold vault recovery-kit";
  if (!profile.kit) return [warn(check, "none was made on this device: a lost password is a lost vault", command)];
  if (!profile.kit.confirmed) return [warn(check, "made, but nobody has confirmed that it was kept", "keyhold init")];
  return [ok(check, `kept since ${new Date(profile.kit.madeAtMs).toISOString().slice(0, 10)}`)];
}
