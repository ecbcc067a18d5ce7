import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { concat, type RandomSource, wipe } from "../crypto/bytes.ts";
import { ED25519, type Signer, signerFromSeed } from "../crypto/identity.ts";
import { Fault } from "../errors.ts";
import { decodeJson, encodeJson, nullable, struct, text } from "../wire/codec.ts";
import { createPrivateDirectory, fileFault, readPrivateFile, shown } from "./keyfiles.ts";

/** The server's identity: signs statements, and as private CA its TLS leaves. */
export interface ServerIdentity extends Signer {
  /** The same key for certificates; not extractable. */
  readonly certificateKeys: { readonly publicKey: CryptoKey; readonly privateKey: CryptoKey };
}

/** One OPAQUE server set-up and the name under which records refer to it. */
export interface OpaqueSetup {
  readonly id: string;
  readonly setup: string;
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

const TEMP = "keys-";
const OPAQUE_MAX = 16 * 1_024;
const setupCodec = struct({ id: text({ min: 1, max: 64 }), setup: text({ min: 1, max: 8_192 }) });
const opaqueCodec = struct({ current: setupCodec, previous: nullable(setupCodec) });

/** True once the directory has its keys. */
export function initialised(dir: string): boolean {
  return existsSync(directoryPaths(dir).keys);
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

async function makeDirectory(dir: string): Promise<void> {
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

/** Removes what a killed first start left behind; such keys were never used. */
async function sweep(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    if (/^\.keys-[0-9a-f]{16}$/.test(name)) await rm(join(dir, name), { recursive: true, force: true });
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

async function readKeys(dir: string): Promise<ServerKeys> {
  const identitySeed = await readKey(dir, FILES.identity);
  let logSeed: Uint8Array | undefined;
  try {
    logSeed = await readKey(dir, FILES.log);
    return {
      identity: await identityFromSeed(identitySeed),
      accountNameKey: await readKey(dir, FILES.accountName),
      sealingKey: await readKey(dir, FILES.sealing),
      shadowKey: await readKey(dir, FILES.shadow),
      opaque: await readOpaque(dir),
      log: signerFromSeed(logSeed),
    };
  } finally {
    wipe(identitySeed, logSeed);
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
