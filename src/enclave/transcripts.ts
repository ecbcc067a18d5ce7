import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { CeremonyId } from "../ids.ts";
import { type CeremonyState, ceremonyState } from "../protocol/ceremony/life.ts";
import type { Transcript, TranscriptEntry } from "../protocol/ceremony/model.ts";
import { entryHash } from "../protocol/ceremony/records.ts";
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

/** Entries in whose place no other one is signed: nothing before them can be exchanged either, for each names it. */
export type Stage = "freeze" | "end";

/**
 * What the journal knows of a ceremony, for which no parent can show a transcript that says otherwise: of the entries
 * that freeze and end it, hash and time (docs/protocol.md §10.1).
 */
export interface CeremonyMarks {
  /** Time of the entry that was signed for a stage: signed again it has the same; null while there is none. */
  signedAtMs(ceremonyId: CeremonyId, stage: Stage): number | null;
  /** Before an entry that goes on. @throws Fault stale when it is frozen, or over */
  demandOpen(ceremonyId: CeremonyId): void;
  /** @throws Fault stale when it is over */
  demandRunning(ceremonyId: CeremonyId): void;
  /** Before the seed leaves: durable on return. @throws Fault conflict for another freeze; stale when it is over */
  freeze(state: CeremonyState, entry: TranscriptEntry): void;
  /**
   * Before a result or an abort leaves: durable on return.
   *
   * @throws Fault conflict for another end, for one that leaves out the freeze, and for a version of a key that another
   * ceremony has made; stale for an older version
   */
  end(state: CeremonyState, entry: TranscriptEntry): void;
}

export function ceremonyMarks(journal: Journal): CeremonyMarks {
  const signed = (stage: Stage, id: CeremonyId) => journal.marked(stage, id);
  /** True for what was marked before. @throws Fault conflict */
  const isMarked = (stage: Stage, { ceremonyId }: CeremonyState, entry: TranscriptEntry): boolean => {
    const before = signed(stage, ceremonyId);
    if (before && !equalBytes(before.hash, entryHash(ceremonyId, entry))) throw otherwise(stage);
    return before !== undefined;
  };
  const mark = (stage: Stage, { ceremonyId: id }: CeremonyState, entry: TranscriptEntry): void =>
    journal.mark({ scope: stage, id, number: entry.atMs, hash: entryHash(id, entry) });
  const demandRunning = (id: CeremonyId): void => {
    if (signed("end", id)) throw new Fault("stale", "this ceremony is over");
  };
  return {
    signedAtMs: (id, stage) => signed(stage, id)?.number ?? null,
    demandRunning,
    demandOpen(id) {
      if (signed("freeze", id) || signed("end", id))
        throw new Fault("stale", "this ceremony takes no more commitments");
    },
    freeze(state, entry) {
      demandRunning(state.ceremonyId);
      if (!isMarked("freeze", state, entry)) mark("freeze", state, entry);
    },
    end(state, entry) {
      if (isMarked("end", state, entry)) return;
      if (state.frozen === null && signed("freeze", state.ceremonyId)) throw otherwise("freeze");
      const made = entry.body.kind === "result" ? entry.body.stored : null;
      // the first version's key id is of this ceremony alone
      if (made && made.version > 1) {
        const { keyId: id, version: number } = made;
        journal.mark({ scope: "version", id, number, hash: Uint8Array.fromHex(state.ceremonyId) });
      }
      mark("end", state, entry);
    },
  };
}

const otherwise = (stage: Stage) =>
  new Fault("conflict", `this ceremony ${stage === "freeze" ? "was frozen" : "has ended"} otherwise`);
