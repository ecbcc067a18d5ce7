import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { RandomSource } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { createPrivateDirectory, fileFault, readPrivateFile, shown } from "../wire/keyfiles.ts";

/** Bytes of a sealing key: everything else that an enclave holds is derived from it. */
export const SEALING_KEY_BYTES = 32;

/**
 * Where an enclave's sealing key comes from. A back end whose key never leaves its hardware as such (a TPM that unseals
 * under a policy, a hardware enclave) implements the same two calls (docs/operations.md).
 */
export interface SealingKeySource {
  /** For messages and the log: one word. */
  readonly name: string;
  /**
   * Called once, before the enclave's directory appears.
   *
   * @returns Files, by name, to put into the new directory in the same step: the key itself, a blob that only the
   * hardware opens, or none. The caller wipes them.
   */
  provision(random: RandomSource): Promise<ReadonlyMap<string, Uint8Array>>;
  /**
   * Called at each start.
   *
   * @param directory The enclave's own.
   * @returns 32 bytes, always the same ones; owned by the caller, who wipes them.
   * @throws Fault not_found, denied, corrupt naming what is wrong
   */
  load(directory: string): Promise<Uint8Array>;
}

export const KEY_FILE = "sealing.key";
const BOUNDS = { min: SEALING_KEY_BYTES, max: SEALING_KEY_BYTES };
/** Name of the credential that a unit loads (systemd.exec(5), LoadCredentialEncrypted=). */
export const CREDENTIAL_NAME = "keyhold-enclave-key";

/** The key in a file of the directory, 0600: drawn on first start. */
export const fileSource: SealingKeySource = {
  name: "file",
  provision: async (random) => new Map([[KEY_FILE, random(SEALING_KEY_BYTES)]]),
  load: (directory) => readPrivateFile(join(directory, KEY_FILE), BOUNDS),
};

/** The key as a credential of the service: the system manager decrypts it into memory for this service alone. */
export function credentialSource(credentials: string): SealingKeySource {
  const path = join(credentials, CREDENTIAL_NAME);
  return {
    name: "credential",
    provision: async () => new Map(),
    async load(directory) {
      if (existsSync(join(directory, KEY_FILE))) {
        throw new Fault("conflict", "the enclave has two sealing keys", {
          why: `${shown(join(directory, KEY_FILE))} stands beside the credential`,
          hint: "keep the one under which this server is known; move the other away",
        });
      }
      return readCredential(path);
    },
  };
}

/** The manager may give a mode of 0440 to the service's own group: the directory is what protects it. */
async function readCredential(path: string): Promise<Uint8Array> {
  try {
    const file = Bun.file(path);
    const { size } = await file.stat();
    if (size === SEALING_KEY_BYTES) return await file.bytes();
  } catch (error) {
    throw fileFault(error, "read", path);
  }
  throw new Fault("corrupt", `cannot use the credential ${CREDENTIAL_NAME}`, {
    why: `it has not ${SEALING_KEY_BYTES} bytes`,
  });
}

/** The source that the environment names: `$CREDENTIALS_DIRECTORY/keyhold-enclave-key` where it exists, else a file. */
export function sourceOf(env: Readonly<Record<string, string | undefined>>): SealingKeySource {
  const credentials = env["CREDENTIALS_DIRECTORY"];
  return credentials && existsSync(join(credentials, CREDENTIAL_NAME)) ? credentialSource(credentials) : fileSource;
}

/** Where an enclave keeps its own files, beside those of its server. */
export function enclavePaths(dir: string): {
  readonly directory: string;
  readonly journal: string;
  /** Of the back end `file` alone. */
  readonly sealingKey: string;
} {
  const directory = join(dir, "enclave");
  return { directory, journal: join(directory, JOURNAL_FILE), sealingKey: join(directory, KEY_FILE) };
}

export const JOURNAL_FILE = "journal";

/**
 * Loads the sealing key; the first time makes the enclave's directory (0700) with the key and an empty journal, all in
 * one durable step. Never makes a key in a directory that is there.
 *
 * @param dir The server's directory.
 * @returns 32 bytes, the caller's to wipe.
 * @throws Fault denied, corrupt, not_found, conflict, storage
 */
export async function openSealingKey(dir: string, source: SealingKeySource, random: RandomSource): Promise<Uint8Array> {
  const { directory } = enclavePaths(dir);
  if (!existsSync(directory)) {
    const files = new Map([...(await source.provision(random)), [JOURNAL_FILE, new Uint8Array(0)] as const]);
    try {
      await createPrivateDirectory(directory, files, `enclave-${random(8).toHex()}`);
    } finally {
      for (const content of files.values()) content.fill(0);
    }
  }
  await demandPrivate(directory);
  return source.load(directory);
}

async function demandPrivate(directory: string): Promise<void> {
  const found = await stat(directory).catch((error: unknown) => {
    throw fileFault(error, "use", directory);
  });
  if (!found.isDirectory()) throw new Fault("denied", `cannot use ${shown(directory)}: it is not a directory`);
  if (process.platform !== "win32" && (found.mode & 0o077) !== 0) {
    throw new Fault("denied", `cannot use ${shown(directory)}: others may enter it`, {
      why: `its mode is 0${(found.mode & 0o777).toString(8)}`,
      hint: `chmod 700 ${directory}   (and consider the key known to whoever could read it)`,
    });
  }
}
