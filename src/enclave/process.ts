import { randomBytes } from "node:crypto";
import { readdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { type RandomSource, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { takeFileLock } from "../wire/filelock.ts";
import { libc } from "../wire/libc.ts";
import { createEnclave, type Enclave } from "./enclave.ts";
import { faultFrame, frameReader, frameWriter, outputFrame, readRequest } from "./frames.ts";
import { openJournal } from "./journal.ts";
import { enclaveKeys } from "./keys.ts";
import { noteRestore } from "./restoring.ts";
import { enclavePaths, openSealingKey, type SealingKeySource, sourceOf } from "./sealingkey.ts";

/** An enclave of before may still be ending. */
const LOCK_MS = 3_000;
const TEMP = /^\.enclave-[0-9a-f]{16}$/;

/**
 * Opens the enclave of a server's directory: lock, sealing key, journal.
 *
 * @throws Fault conflict when another process has it; denied, corrupt, not_found, storage
 */
export async function openEnclave(dir: string, source: SealingKeySource): Promise<Enclave> {
  const random: RandomSource = (length) => new Uint8Array(randomBytes(length));
  const lock = await takeFileLock(join(dir, "enclave.lock"), { timeoutMs: LOCK_MS }).catch((error: unknown) => {
    if (!(error instanceof Fault) || error.code !== "timed_out") throw error;
    throw new Fault("conflict", "another process runs the enclave of this directory", {
      hint: "is another keyhold serve running on it?",
    });
  });
  try {
    // of a first start that was killed; nobody else makes one while we hold the lock
    for (const name of readdirSync(dir)) if (TEMP.test(name)) rmSync(join(dir, name), { recursive: true });
    const sealingKey = await openSealingKey(dir, source, random);
    try {
      const keys = await enclaveKeys(sealingKey);
      const journal = openJournal(enclavePaths(dir).journal, keys.journalKey);
      noteRestore(dir, keys, journal, Date.now());
      const enclave = createEnclave({ keys, journal, now: Date.now, random });
      return {
        handle: enclave.handle,
        close() {
          enclave.close();
          lock.release();
        },
      };
    } finally {
      wipe(sealingKey);
    }
  } catch (error) {
    lock.release();
    throw error;
  }
}

function directoryOf(args: readonly string[]): string {
  const [flag, dir] = args;
  if (flag === "--dir" && dir !== undefined && args.length === 2) return resolve(dir);
  throw new Fault("usage", "the enclave is started by keyhold serve");
}

/**
 * The enclave's own process: answers questions on standard input until that closes. The first frame, with id 0, says
 * that it is ready, or why not. Nothing is logged.
 */
export async function enclaveMain(args: readonly string[]): Promise<number> {
  libc()?.seal();
  process.umask(0o077);
  const source = sourceOf(process.env);
  for (const name of Object.keys(process.env)) delete process.env[name];
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    // they reach a whole group or unit: the server drains first, then closes our input
    process.removeAllListeners(signal);
    process.on(signal, () => undefined);
  }
  const say = frameWriter(Bun.stdout.writer());
  let enclave: Enclave;
  try {
    enclave = await openEnclave(directoryOf(args), source);
  } catch (error) {
    await say(faultFrame(0, error));
    return 1;
  }
  await say(outputFrame(0, "info", await enclave.handle("info", {})));
  const running = new Set<Promise<void>>();
  const reader = frameReader();
  for await (const chunk of Bun.stdin.stream()) {
    for (const body of reader.take(chunk)) {
      const answering: Promise<void> = answer(enclave, body)
        .then(say)
        .finally(() => running.delete(answering));
      running.add(answering);
    }
  }
  await Promise.allSettled(running);
  enclave.close();
  return 0;
}

async function answer(enclave: Enclave, body: Uint8Array): Promise<Uint8Array> {
  // a server that asks what is no question is not ours: the process ends
  const request = readRequest(body);
  const { id, operation } = request;
  try {
    return outputFrame(id, operation, await enclave.handle(operation, request.input() as never));
  } catch (error) {
    return faultFrame(id, error);
  }
}
