import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../errors.ts";
import type { AnyHashId } from "../ids.ts";
import type { Journal } from "./journal.ts";
import type { EnclaveKeys } from "./keys.ts";
import { enclavePaths } from "./sealingkey.ts";

/** Lies in the enclave's directory from a restore to the first start after it. */
export const RESTORED_FILE = "restored";

const idOf = ({ signer }: Pick<EnclaveKeys, "signer">): AnyHashId => signer.publicKey.toHex() as AnyHashId;

/**
 * Notes in a journal that came from a backup when that was: what it may have forgotten is older (docs/protocol.md §8.8).
 * Durable before anything is answered; once.
 *
 * @throws Fault storage
 */
export function noteRestore(dir: string, keys: Pick<EnclaveKeys, "signer">, journal: Journal, nowMs: number): void {
  const path = join(enclavePaths(dir).directory, RESTORED_FILE);
  if (!existsSync(path)) return;
  const number = Math.max(nowMs, restoredAtMs(keys, journal));
  journal.mark({ scope: "restore", id: idOf(keys), number, hash: keys.signer.publicKey });
  rmSync(path);
}

/** When the journal was put back from a backup last, in milliseconds; 0 for never. */
function restoredAtMs(keys: Pick<EnclaveKeys, "signer">, journal: Journal): number {
  return journal.marked("restore", idOf(keys))?.number ?? 0;
}

/**
 * Refuses to go on with what began before the journal was put back from a backup: how far it had come is forgotten, and
 * going on could mean doing it twice.
 *
 * @param sinceMs When it began.
 * @throws Fault stale
 */
export function demandSince(
  keys: Pick<EnclaveKeys, "signer">,
  journal: Journal,
  what: "ceremony" | "request",
  sinceMs: number,
): void {
  if (sinceMs > restoredAtMs(keys, journal)) return;
  throw new Fault("stale", `this ${what} is from before the server came back from a backup`, {
    why: "how far it had come is not known any more",
    hint: what === "ceremony" ? "open a new one" : "make a new one",
  });
}
