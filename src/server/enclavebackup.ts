import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { equalBytes, type RandomSource } from "../crypto/bytes.ts";
import { createEnclave } from "../enclave/enclave.ts";
import { openJournal } from "../enclave/journal.ts";
import { enclaveKeys } from "../enclave/keys.ts";
import { RESTORED_FILE } from "../enclave/restoring.ts";
import { enclavePaths, JOURNAL_FILE, KEY_FILE, SEALING_KEY_BYTES } from "../enclave/sealingkey.ts";
import { Fault } from "../errors.ts";
import type { Store } from "../storage/store.ts";
import { fileFault, readPrivateFile } from "../wire/keyfiles.ts";
import { type SealedAsk, sealedAsk, sealedKeys } from "./ceremony/sealed.ts";
import { enclaveArchive } from "./keyarchive.ts";

const NEWLINE = 10;

/**
 * Reads what an enclave keeps beside the database: its journal and, of the back end `file`, its sealing key. The journal
 * is read while it grows: what is not a whole record yet is left out.
 *
 * @returns By name; the caller wipes them. Null of a server that has had no enclave so far.
 * @throws Fault denied, corrupt, not_found, storage; too_large for a journal above 64 MiB
 */
export async function readEnclaveFiles(dir: string): Promise<ReadonlyMap<string, Uint8Array> | null> {
  const { directory, journal, sealingKey } = enclavePaths(dir);
  if (!existsSync(directory)) return null;
  const files = new Map<string, Uint8Array>();
  const size = { min: SEALING_KEY_BYTES, max: SEALING_KEY_BYTES };
  if (existsSync(sealingKey)) files.set(KEY_FILE, await readPrivateFile(sealingKey, size));
  const { size: length } = await stat(journal).catch((error: unknown) => {
    throw fileFault(error, "read", journal);
  });
  if (length > enclaveArchive.max)
    throw new Fault("too_large", "the enclave's journal is too long for a backup", {
      hint: "leave --enclave out, and copy the directory enclave/ by itself",
    });
  const lines = await readPrivateFile(journal, { min: 0, max: enclaveArchive.max });
  return files.set(JOURNAL_FILE, lines.subarray(0, lines.lastIndexOf(NEWLINE) + 1));
}

/**
 * The files of a restored enclave's directory: those of the backup, and a note by which its first start knows that its
 * journal is an older one (docs/protocol.md §8.8).
 *
 * @throws Fault bad_input
 */
export function restoredFiles(files: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, Uint8Array> {
  const known = [KEY_FILE, JOURNAL_FILE];
  if (!files.has(JOURNAL_FILE) || [...files.keys()].some((name) => !known.includes(name)))
    throw new Fault("bad_input", "this age file holds other files than an enclave's");
  return new Map([...files, [RESTORED_FILE, new TextEncoder().encode("from a backup\n")] as const]);
}

/** An enclave over files that no process serves, for the time of a check. */
export interface EnclaveCopy {
  readonly ask: SealedAsk;
  close(): void;
}

/**
 * Opens an enclave's files for a check; changes nothing of them.
 *
 * @param directory With the enclave's files.
 * @returns null where the sealing key is not among them: the system manager has it.
 * @throws Fault corrupt for a journal that was changed or is another enclave's
 */
export async function openEnclaveCopy(
  directory: string,
  files: ReadonlyMap<string, Uint8Array>,
  { now, random }: { readonly now: () => number; readonly random: RandomSource },
): Promise<EnclaveCopy | null> {
  const sealingKey = files.get(KEY_FILE);
  if (sealingKey === undefined) return null;
  if (sealingKey.length !== SEALING_KEY_BYTES) throw new Fault("corrupt", "the enclave's sealing key has not 32 bytes");
  const keys = await enclaveKeys(sealingKey);
  const enclave = createEnclave({
    keys,
    journal: openJournal(join(directory, JOURNAL_FILE), keys.journalKey),
    now,
    random,
  });
  return { ask: await sealedAsk((operation, input) => enclave.handle(operation, input)), close: enclave.close };
}

/** Holds an enclave against the key for ceremonies that it made last. @throws Fault corrupt */
export async function demandOwnEnclave(store: Store, { identity }: Pick<SealedAsk, "identity">): Promise<void> {
  const [newest] = await store.transaction(sealedKeys);
  if (!newest || equalBytes(newest.enclave, identity)) return;
  throw new Fault("corrupt", "cannot restore: the enclave of this file is not that of the data", {
    hint: "name the files of one backup",
  });
}
