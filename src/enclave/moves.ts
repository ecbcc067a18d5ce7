import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { StoredKeyId } from "../ids.ts";
import type { Journal } from "./journal.ts";

/**
 * What the journal knows of keys that went to another server's store (docs/protocol.md §10.8): a parent that has
 * forgotten it, as after a restore, gets nothing of them any more.
 */
export interface MovedMarks {
  /** Before anything is made of a value. @throws Fault denied, or the given one, once its key has left */
  demandHere(keyId: StoredKeyId, refused?: () => Fault): void;
  /**
   * Before a parcel leaves: durable on return.
   *
   * @param server Identity of the server that gets the key, 32 bytes.
   * @returns the counter that the parcel has: never below that of an earlier parcel of this key.
   * @throws Fault conflict once the key has left for another server; storage
   */
  leave(keyId: StoredKeyId, server: Uint8Array, counter: number): number;
}

/** To whoever wants a code, or the value. */
const gone = () => new Fault("denied", "this key has left for another server, for good");

/** To whoever issues it. */
export const leftAlready = () =>
  new Fault("conflict", "this key has left for another server, for good: ask that one", {
    hint: "send it there again, should the parcel be lost",
  });

/** Marks of the scope `moved`: number = the parcel's counter, hash = identity of the server that has the key. */
export function movedMarks(journal: Journal): MovedMarks {
  return {
    demandHere(keyId, refused = gone) {
      if (journal.marked("moved", keyId)) throw refused();
    },
    leave(keyId, server, counter) {
      const before = journal.marked("moved", keyId);
      if (before && !equalBytes(before.hash, server)) throw leftAlready();
      const number = Math.max(counter, before?.number ?? 0);
      journal.mark({ scope: "moved", id: keyId, number, hash: server });
      return number;
    },
  };
}

/**
 * Before a key that came in a parcel is sealed here: durable on return. Whoever has the parcel later, when the account
 * that it came to and everything of it are gone, gets nothing (docs/protocol.md §10.8).
 *
 * @param keyId Its id here, which is of what its sender signed.
 * @param receiver Hash of the account, 32 bytes.
 * @throws Fault conflict for another account; storage
 */
export function markArrived(journal: Journal, keyId: StoredKeyId, receiver: Uint8Array): void {
  const before = journal.marked("arrived", keyId);
  if (before && !equalBytes(before.hash, receiver)) throw new Fault("conflict", "this key was received here before");
  journal.mark({ scope: "arrived", id: keyId, number: 1, hash: receiver });
}
