import { equalBytes, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { CeremonyId } from "../ids.ts";
import { type CeremonyState, ceremonyState } from "../protocol/ceremony/life.ts";
import type { Transcript } from "../protocol/ceremony/model.ts";
import type { Journal } from "./journal.ts";
import type { EnclaveKeys } from "./keys.ts";

/**
 * State of a ceremony of this enclave. It signs no entry before it has checked it, each entry hashes the one before,
 * and the first one the manifest: so its own signature under the newest one stands for all of them.
 *
 * @throws Fault integrity for a transcript that this enclave has not signed in just this order
 */
export function ownState({ signer }: EnclaveKeys, transcript: Transcript, nowMs: number): CeremonyState {
  if (!equalBytes(transcript.manifest.manifest.draft.key.key.enclave, signer.publicKey)) {
    throw new Fault("integrity", "this ceremony is another enclave's");
  }
  return ceremonyState(transcript, nowMs, "head");
}

/**
 * What the journal knows of a ceremony, for which no parent can show a transcript that says otherwise: 1 with T1 once
 * it is frozen; 2 with T2 once it has a result, with zeros once it is aborted (docs/protocol.md §10.4).
 */
export interface CeremonyMarks {
  /** Before an entry that goes on. @throws Fault stale when it is frozen, or over */
  demandOpen(ceremonyId: CeremonyId): void;
  /** @throws Fault stale when it is over */
  demandRunning(ceremonyId: CeremonyId): void;
  /** Before the seed leaves; the same again is the same. @throws Fault conflict for another T1; stale when it is over */
  freeze(ceremonyId: CeremonyId, t1: Uint8Array): void;
  /** Before the result leaves; the same again is the same. @throws Fault conflict after an abort */
  result(ceremonyId: CeremonyId, t2: Uint8Array): void;
  /** Before an abort leaves; again is the same. @throws Fault conflict after a result */
  abort(ceremonyId: CeremonyId): void;
}

const FROZEN = 1;
const OVER = 2;

export function ceremonyMarks(journal: Journal): CeremonyMarks {
  const reached = (id: CeremonyId): number => journal.marked("ceremony", id)?.number ?? 0;
  const end = (id: CeremonyId, hash: Uint8Array): void => {
    const before = journal.marked("ceremony", id);
    if (before?.number === OVER && !equalBytes(before.hash, hash)) {
      throw new Fault("conflict", "this ceremony has ended otherwise");
    }
    journal.mark({ scope: "ceremony", id, number: OVER, hash });
  };
  return {
    demandOpen(id) {
      if (reached(id) >= FROZEN) throw new Fault("stale", "this ceremony takes no more commitments");
    },
    demandRunning(id) {
      if (reached(id) >= OVER) throw new Fault("stale", "this ceremony is over");
    },
    freeze: (id, t1) => journal.mark({ scope: "ceremony", id, number: FROZEN, hash: t1 }),
    result: end,
    abort: (id) => end(id, ZERO_HASH_BYTES),
  };
}
