import { equalBytes, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { IncarnationId, KeyId } from "../ids.ts";
import { type SignedState, stateHash } from "../protocol/state.ts";
import type { Session } from "./session.ts";
import { collect, statesUpTo } from "./sync.ts";

/** How an account that a restore brought back goes on from what a device pinned (docs/protocol.md §6.5). */
export interface Lineage {
  /** Newest revision that the account holds of the pin's incarnation; 0 for none. */
  readonly shared: number;
  /** Secrets that were changed after it: serials of those changes are no later or earlier than the device's own. */
  readonly changed: ReadonlySet<KeyId>;
}

/** What an account is refused for after a restore. */
export const stray = (why: string): Fault =>
  new Fault("integrity", "the server does not show an earlier state of this account", {
    why,
    hint: "keyhold vault detach keeps what lies in this vault; then keyhold login --profile NEW --server URL --pin PIN --account NAME",
  });

/**
 * Reads all states of an account up to the newest one, each linked to the next. A backup may be older than the pin; one
 * that holds the pin's revision in the pin's incarnation must hold the pin. The incarnation that the account began in is
 * no new one: a server that goes back and forth shows what it had been restored from.
 *
 * @param now Incarnation that the server says to have begun.
 * @throws Fault integrity
 */
export async function lineageOf(
  session: Session,
  pin: SignedState,
  newest: SignedState,
  now: IncarnationId,
): Promise<Lineage> {
  const { revision } = newest.state;
  const { output } = await session.call("state.sync", { since: 0, after: null, what: "states" });
  const states = (await statesUpTo(session, output.states, revision)).slice(0, revision);
  if (states[0]?.state.incarnation === now)
    throw stray("the incarnation that it names is the one that the account began in");
  let [link, shared] = [ZERO_HASH_BYTES, 0];
  for (const [i, { state }] of states.entries()) {
    if (state.revision !== i + 1 || !equalBytes(state.previous, link)) throw stray("its states are not linked");
    link = stateHash(state);
    if (state.incarnation !== pin.state.incarnation) continue;
    shared = state.revision;
    const same = state.revision !== pin.state.revision || equalBytes(link, stateHash(pin.state));
    if (!same) throw stray("it is a fork of the one that is known here");
  }
  if (!equalBytes(link, stateHash(newest.state))) throw stray("its states do not lead to its newest one");
  const leaves = shared === revision ? [] : (await collect(session, "state.sync", shared)).leaves;
  return { shared, changed: new Set(leaves.map(({ keyId }) => keyId)) };
}
