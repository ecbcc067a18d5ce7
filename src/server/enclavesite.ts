import { existsSync } from "node:fs";
import { enclavePaths } from "../enclave/sealingkey.ts";
import { Fault } from "../errors.ts";
import type { Store } from "../storage/store.ts";
import { countSealed, type SealedAsk, type SealedCounts, sealedAsk } from "./ceremony/sealed.ts";
import type { EnclaveClient } from "./enclave.ts";

/** What a server knows of its enclave's directory. */
export interface EnclaveSite {
  /** What an enclave has sealed for this server, whose directory is missing; otherwise null. */
  missing(): Promise<SealedCounts | null>;
  /** The same where somebody would miss it: more than key pairs that nothing was sealed to. */
  lost(): Promise<SealedCounts | null>;
  /** Before a start of the process. @throws Fault not_found where it would begin anew beside what another one sealed */
  demand(): Promise<void>;
  /** The operator has said so: the next start makes a new enclave. */
  beginAnew(): void;
}

/** Watches over the enclave's part of a server's directory. */
export function createEnclaveSite(store: Store, dir: string): EnclaveSite {
  let anew = false;
  async function missing(): Promise<SealedCounts | null> {
    if (existsSync(enclavePaths(dir).directory)) return null;
    return countSealed({ store });
  }
  return {
    missing,
    async lost() {
      const counts = await missing();
      return counts && counts.storedKeys + counts.openCeremonies > 0 ? counts : null;
    },
    async demand() {
      const counts = anew ? null : await missing();
      if (counts) throw lostEnclave(counts, "put it back, or give it up: keyhold server rotate --ceremony");
    },
    beginAnew() {
      anew = true;
    },
  };
}

/** How many of what is lost with an enclave, in words. */
export const lostWith = ({ storedKeys, openCeremonies }: SealedCounts): string =>
  `stored keys: ${storedKeys}, open ceremonies: ${openCeremonies}`;

/** For everything that only the enclave of before could do. */
export function lostEnclave(counts: SealedCounts, hint: string): Fault {
  return new Fault("not_found", "the enclave's directory is missing: what it sealed opens nowhere else", {
    why: lostWith(counts),
    hint,
  });
}

/** The enclave, to be asked what it can open; otherwise why not, in words. */
export async function enclaveToAsk(
  site: EnclaveSite,
  enclave: Pick<EnclaveClient, "call"> | null,
): Promise<SealedAsk | string> {
  if (!enclave) return "another process has the enclave";
  const counts = await site.missing();
  if (counts) return `the enclave's directory is missing (${lostWith(counts)})`;
  return sealedAsk((operation, input) => enclave.call(operation, input));
}

/**
 * Lets a rotation begin with a new enclave where the one of before is lost.
 *
 * @throws Fault conflict unless `force`: what it sealed is then given up
 */
export async function giveUpEnclave(site: EnclaveSite, force: boolean): Promise<void> {
  const counts = await site.missing();
  if (!counts) return;
  if (!force)
    throw new Fault("conflict", "the enclave's directory is missing: a new enclave opens nothing of the one before", {
      why: `given up would be ${lostWith(counts)}`,
      hint: "put the directory back; or give it up: keyhold server rotate --ceremony --yes",
    });
  site.beginAnew();
}
