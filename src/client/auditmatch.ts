import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { SaltedEntry } from "../protocol/audit.ts";
import { type SignedState, stateHash } from "../protocol/state.ts";
import { isOperation, operations } from "../wire/operations.ts";

/** A log that is not what it must be. */
export const broken = (why: string) =>
  new Fault("integrity", "the account's log was tampered with", {
    why,
    hint: "keep an export of it; trust this server no more",
  });

/** True for the entry of a change that the owner signed with this state. */
export function records({ entry }: SaltedEntry, { state }: SignedState): boolean {
  return (
    entry.status === "ok" &&
    entry.requestId === state.requestId &&
    entry.stateHash !== null &&
    equalBytes(entry.stateHash, stateHash(state)) &&
    equalBytes(entry.bodyHash, state.requestHash)
  );
}

/** Matches entries with the states that the owner signed, in order: none too many, none too few. */
export function matching(states: readonly SignedState[]) {
  let signed = 0;
  let keys = new Set<string | null>();
  let action = "";
  return {
    matched: () => signed,
    /** `unknown`: it names a state after the last known one. */
    take(item: SaltedEntry): "ok" | "unknown" {
      const { entry } = item;
      const { seq } = entry;
      if (entry.stateHash === null) {
        const claims = entry.status === "ok" && isOperation(entry.action) && operations[entry.action].mutation;
        if (claims) throw broken(`entry ${seq} claims a change without the owner's signature`);
        return "ok";
      }
      const before = states[signed - 1];
      // a batch writes an entry for each secret under the same state
      if (before && equalBytes(entry.stateHash, stateHash(before.state))) {
        if (!records(item, before) || entry.action !== action || keys.has(entry.keyId)) {
          throw broken(`entry ${seq} names a change that the owner did not sign`);
        }
        keys.add(entry.keyId);
        return "ok";
      }
      const expected = states[signed];
      if (!expected) return "unknown";
      if (!records(item, expected)) throw broken(`entry ${seq} names a change that the owner did not sign`);
      signed += 1;
      keys = new Set([entry.keyId]);
      ({ action } = entry);
      return "ok";
    },
  };
}
