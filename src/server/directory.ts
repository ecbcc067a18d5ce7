import { existsSync } from "node:fs";
import { chmod, link, mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { concat, type RandomSource, wipe } from "../crypto/bytes.ts";
import { ED25519, type Signer, signerFromSeed } from "../crypto/identity.ts";
import { Fault } from "../errors.ts";
import { decodeJson, encodeJson, nullable, struct, text } from "../wire/codec.ts";
import {
  createPrivateDirectory,
  createPrivateFile,
  errno,
  fileFault,
  readPrivateFile,
  replacePrivateFile,
  shown,
  syncDirectory,
} from "../wire/keyfiles.ts";
import { lockKey } from "../wire/lockedmemory.ts";
import type { HandlerKeys, OpaqueSetup } from "./context.ts";

/** The server's identity: signs statements, and as private CA its TLS leaves. */
export interface ServerIdentity extends Signer {
  /** The same key for certificates; not extractable. */
  readonly certificateKeys: { readonly publicKey: CryptoKey; readonly privateKey: CryptoKey };
}

/** Everything secret that lies outside the database (docs/operations.md). */
export interface ServerKeys {
  readonly identity: ServerIdentity;
  /** HMAC key from account names to credential ids, 32 bytes; never rotates. */
  readonly accountNameKey: Uint8Array;
  /** 32 bytes. */
  readonly sealingKey: Uint8Array;
  /** Makes the pseudo-accounts of unknown names, 32 bytes. */
  readonly shadowKey: Uint8Array;
  readonly opaque: { readonly current: OpaqueSetup; readonly previous: OpaqueSetup | null };
  readonly log: Signer;
  /** The key before, while a rotation is not complete: names may still be sealed under it. */
  readonly previousSealing: Uint8Array | null;
  /** The log key before, while a rotation is not complete. */
  readonly previousLog: Signer | null;
}

export interface DirectoryInput {
  readonly random: RandomSource;
  readonly createOpaqueSetup: () => Promise<string>;
  /** True when a database is there although not at its default path; the default path is looked at anyway. */
  readonly databaseExists?: boolean;
}

/** Where things lie in a server directory. */
export function directoryPaths(dir: string): {
  readonly keys: string;
  readonly database: string;
  readonly controlSocket: string;
} {
  return { keys: join(dir, "keys"), database: join(dir, "keyhold.db"), controlSocket: join(dir, "control.sock") };
}

const FILES = {
  identity: "identity.ed25519",
  accountName: "account-name.key",
  sealing: "sealing.key",
  shadow: "shadow.key",
  log: "log.ed25519",
  opaque: "opaque.json",
} as const;

/** Keys before, beside those of now, while a rotation is not complete. */
const PREVIOUS = { sealing: "sealing.previous.key", log: "log.previous.ed25519" } as const;

/** Of a server that is a registry: lies there from its first start as one. */
const REGISTRY = "registry.x25519";

/** A key's file as messages name it. */
export function shownKeyFile(dir: string, name: keyof typeof FILES | "registry"): string {
  return shown(join(directoryPaths(dir).keys, name === "registry" ? REGISTRY : FILES[name]));
}

/** Lies in a directory until a restore into it is complete. */
export const RESTORE_MARK = "restore-not-complete";

const TEMP = "keys-";
const OPAQUE_MAX = 16 * 1_024;
const setupCodec = struct({ id: text({ min: 1, max: 64 }), setup: text({ min: 1, max: 8_192 }) });
const opaqueCodec = struct({ current: setupCodec, previous: nullable(setupCodec) });

/** True once the directory has its keys. */
export function initialised(dir: string): boolean {
  return existsSync(directoryPaths(dir).keys);
}

/** Refuses a directory in which a restore was cut short, before anything is opened. @throws Fault corrupt */
export function demandRestored(dir: string): void {
  if (!existsSync(join(dir, RESTORE_MARK))) return;
  throw new Fault("corrupt", `cannot use the server directory ${shown(dir)}: a restore into it was cut short`, {
    hint: "run the same keyhold server restore again",
  });
}

/**
 * Opens a server directory; the first time makes it and its keys, all in one step. Sets the umask of the process to
 * 077, so that whatever the server writes later is private too. Never makes a new key beside an old database, and
 * never overwrites one.
 *
 * @throws Fault denied, corrupt, not_found, storage; each names the file and the way to mend it.
 */
export async function openServerDirectory(dir: string, input: DirectoryInput): Promise<ServerKeys> {
  process.umask(0o077);
  const paths = directoryPaths(dir);
  demandRestored(dir);
  if (!initialised(dir)) {
    if (input.databaseExists || existsSync(paths.database)) {
      throw new Fault("corrupt", `cannot use the server directory ${shown(dir)}: there is a database but no keys`, {
        why: `${shown(paths.keys)} is missing; new keys would open nothing in this database`,
        hint: "restore the keys directory from the backup of the keys",
      });
    }
    await makeDirectory(dir);
    await makeKeys(paths.keys, input);
  }
  await requirePrivate(dir);
  await requirePrivate(paths.keys);
  await sweep(dir);
  return readKeys(paths.keys);
}

/** Makes a server directory where there is none, 0700. @throws Fault denied, storage */
export async function makeDirectory(dir: string): Promise<void> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    // one made beforehand for us (a mount, a unit's StateDirectory) is closed while it holds nothing
    if ((await readdir(dir)).length === 0) await chmod(dir, 0o700);
  } catch (error) {
    throw fileFault(error, "make the server directory", dir);
  }
  await requirePrivate(dir);
}

async function requirePrivate(dir: string): Promise<void> {
  let mode: number;
  try {
    const found = await stat(dir);
    if (!found.isDirectory()) throw new Fault("denied", `cannot use ${shown(dir)}: it is not a directory`);
    mode = found.mode;
  } catch (error) {
    throw fileFault(error, "read", dir);
  }
  if (process.platform !== "win32" && (mode & 0o077) !== 0) {
    throw new Fault("denied", `cannot use ${shown(dir)}: others may enter it`, {
      why: `its mode is 0${(mode & 0o777).toString(8)}`,
      hint: `chmod 700 ${dir}`,
    });
  }
}

async function makeKeys(path: string, { random, createOpaqueSetup }: DirectoryInput): Promise<void> {
  const setup = { id: random(8).toHex(), setup: await createOpaqueSetup() };
  const files = new Map<string, Uint8Array>([
    [FILES.identity, random(ED25519.seedBytes)],
    [FILES.accountName, random(32)],
    [FILES.sealing, random(32)],
    [FILES.shadow, random(32)],
    [FILES.log, random(ED25519.seedBytes)],
    [FILES.opaque, new TextEncoder().encode(encodeJson(opaqueCodec, { current: setup, previous: null }))],
  ]);
  try {
    await createPrivateDirectory(path, files, TEMP + random(8).toHex());
  } catch (error) {
    // another start was faster (and may have swept ours): its keys are as good
    if (!existsSync(path)) throw error;
  } finally {
    wipe(...files.values());
  }
}

/** Removes what a killed first start or rotation left behind: keys that were never used, or lie there already. */
async function sweep(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    if (/^\.keys-[0-9a-f]{16}$/.test(name)) await rm(join(dir, name), { recursive: true, force: true });
  }
  const { keys } = directoryPaths(dir);
  for (const name of await readdir(keys)) {
    if (/\.[0-9a-f]{16}$/.test(name)) await rm(join(keys, name), { force: true });
  }
}

async function readKey(dir: string, name: string): Promise<Uint8Array> {
  const path = join(dir, name);
  const bounds = name === FILES.opaque ? { min: 2, max: OPAQUE_MAX } : { min: 32, max: 32 };
  try {
    return await readPrivateFile(path, bounds);
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "not_found") throw error;
    throw new Fault("corrupt", `cannot start: the key ${shown(path)} is missing`, {
      why: "a new one would open nothing that the server holds",
      hint: "restore it from the backup of the keys",
    });
  }
}

/** Reads a directory of key files. @throws Fault corrupt, denied, storage */
export async function readKeys(dir: string): Promise<ServerKeys> {
  const identitySeed = await readKey(dir, FILES.identity);
  let logSeed: Uint8Array | undefined;
  try {
    logSeed = await readKey(dir, FILES.log);
    return {
      identity: await identityFromSeed(identitySeed),
      accountNameKey: lockKey(await readKey(dir, FILES.accountName)),
      sealingKey: lockKey(await readKey(dir, FILES.sealing)),
      shadowKey: lockKey(await readKey(dir, FILES.shadow)),
      opaque: await readOpaque(dir),
      log: signerFromSeed(logSeed),
      ...(await readPrevious(dir)),
    };
  } finally {
    wipe(identitySeed, logSeed);
  }
}

async function readPrevious(dir: string): Promise<Pick<ServerKeys, "previousSealing" | "previousLog">> {
  const sealing = existsSync(join(dir, PREVIOUS.sealing)) ? await readKey(dir, PREVIOUS.sealing) : null;
  const log = existsSync(join(dir, PREVIOUS.log)) ? await readKey(dir, PREVIOUS.log) : null;
  try {
    return { previousSealing: sealing && lockKey(sealing), previousLog: log && signerFromSeed(log) };
  } finally {
    wipe(log ?? undefined);
  }
}

/**
 * The seed of a registry's X25519 key, 32 bytes; made on the first start as a registry.
 *
 * @param used True when the database knows such a key: then none is made.
 * @throws Fault corrupt, denied, storage
 */
export async function openRegistrySeed(dir: string, random: RandomSource, used: boolean): Promise<Uint8Array> {
  const at = directoryPaths(dir).keys;
  const path = join(at, REGISTRY);
  if (!used && !existsSync(path)) {
    const seed = random(32);
    const draft = `${path}.${random(8).toHex()}`;
    try {
      await createPrivateFile(draft, seed);
      await link(draft, path);
      await rm(draft);
      await syncDirectory(at);
    } catch (error) {
      // another process was faster: its seed is as good, and what is left of this one is swept
      if (errno(error) !== "EEXIST") throw fileFault(error, "write", path);
    } finally {
      wipe(seed);
    }
  }
  return lockKey(await readKey(at, REGISTRY));
}

/** The keys as handlers see them. */
export function handlerKeys(keys: ServerKeys): HandlerKeys {
  return {
    identity: keys.identity.publicKey,
    accountName: keys.accountNameKey,
    sealing: keys.sealingKey,
    previousSealing: keys.previousSealing,
    shadow: keys.shadowKey,
    opaque: keys.opaque.current,
    previousOpaque: keys.opaque.previous,
  };
}

/** Which key a rotation replaces. */
export type RotatedKey = "sealing" | "log" | "opaque";

/** The files of a rotation, ready to be put in their places. */
export interface KeyRotation {
  /** The keys as they will be. */
  readonly next: ServerKeys;
  /** Puts the new key in its place, beside the one before: durable on return. Cut short, either is whole. */
  write(): Promise<void>;
}

/**
 * Prepares a new key.
 *
 * @throws Fault conflict while an earlier rotation of the same key is not complete
 */
export async function prepareRotation(
  dir: string,
  key: RotatedKey,
  keys: ServerKeys,
  { random, createOpaqueSetup }: Pick<DirectoryInput, "random" | "createOpaqueSetup">,
): Promise<KeyRotation> {
  const at = directoryPaths(dir).keys;
  const suffix = random(8).toHex();
  const busy = (why: string, hint: string) =>
    new Fault("conflict", "the rotation before is not complete", { why, hint });
  if (key === "opaque") {
    if (keys.opaque.previous) {
      throw busy("two OPAQUE set-ups are in use already", "keyhold server rotate --opaque --finish");
    }
    const current = { id: random(8).toHex(), setup: await createOpaqueSetup() };
    const opaque = { current, previous: keys.opaque.current };
    return { next: { ...keys, opaque }, write: () => writeOpaque(at, opaque, suffix) };
  }
  if (key === "sealing" ? keys.previousSealing : keys.previousLog) {
    throw busy("the key before is still in use", "start the server once, then try again");
  }
  const fresh = random(32);
  const replace = async () => {
    const name = FILES[key];
    const before = await readKey(at, name);
    try {
      await replacePrivateFile(join(at, PREVIOUS[key]), before, suffix);
      await replacePrivateFile(join(at, name), fresh, suffix);
    } finally {
      wipe(before, fresh);
    }
  };
  if (key === "sealing") {
    // what is locked is wiped where it lay, and `fresh` is yet to be written
    const sealingKey = lockKey(new Uint8Array(fresh));
    return { next: { ...keys, sealingKey, previousSealing: keys.sealingKey }, write: replace };
  }
  return { next: { ...keys, log: signerFromSeed(fresh), previousLog: keys.log }, write: replace };
}

/** Ends a rotation: the key before is forgotten. */
export async function finishRotation(
  dir: string,
  key: RotatedKey,
  keys: ServerKeys,
  random: RandomSource,
): Promise<void> {
  const at = directoryPaths(dir).keys;
  if (key === "opaque") {
    await writeOpaque(at, { current: keys.opaque.current, previous: null }, random(8).toHex());
    return;
  }
  await rm(join(at, PREVIOUS[key]), { force: true });
  await syncDirectory(at);
}

async function writeOpaque(at: string, opaque: ServerKeys["opaque"], suffix: string): Promise<void> {
  const content = new TextEncoder().encode(encodeJson(opaqueCodec, opaque));
  try {
    await replacePrivateFile(join(at, FILES.opaque), content, suffix);
  } finally {
    wipe(content);
  }
}

async function readOpaque(dir: string): Promise<ServerKeys["opaque"]> {
  const bytes = await readKey(dir, FILES.opaque);
  try {
    return decodeJson(opaqueCodec, bytes);
  } catch {
    throw new Fault("corrupt", `cannot use ${shown(join(dir, FILES.opaque))}: it is malformed`, {
      hint: "restore it from the backup of the keys",
    });
  } finally {
    wipe(bytes);
  }
}

/** The key files of a server as they are, by name. The caller wipes them. @throws Fault corrupt, denied, storage */
export async function readKeyFiles(dir: string): Promise<ReadonlyMap<string, Uint8Array>> {
  const path = directoryPaths(dir).keys;
  const files = new Map<string, Uint8Array>();
  for (const name of Object.values(FILES)) files.set(name, await readKey(path, name));
  for (const name of [...Object.values(PREVIOUS), REGISTRY]) {
    if (existsSync(join(path, name))) files.set(name, await readKey(path, name));
  }
  return files;
}

const PKCS8_PREFIX = Uint8Array.fromHex("302e020100300506032b657004220420");

/** The identity of a 32-byte seed, which stays the caller's to wipe. */
export async function identityFromSeed(seed: Uint8Array): Promise<ServerIdentity> {
  const signer = signerFromSeed(seed);
  const pkcs8 = new Uint8Array(concat(PKCS8_PREFIX, seed));
  try {
    const privateKey = await crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]);
    const raw = new Uint8Array(signer.publicKey);
    const publicKey = await crypto.subtle.importKey("raw", raw, "Ed25519", true, ["verify"]);
    return { ...signer, certificateKeys: { publicKey, privateKey } };
  } finally {
    wipe(pkcs8);
  }
}
