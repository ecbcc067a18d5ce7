import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type Settings, type SignedState, settingsHash, stateHash, stateSignaturesHold } from "../protocol/state.ts";
import type { Tx } from "../storage/store.ts";
import type { Caller, ServerContext } from "./context.ts";

/** Whether a state continues the current one is asked before anything else of it. @throws Fault stale */
export function demandCurrent({ account }: Caller, { state }: SignedState): void {
  if (equalBytes(state.previous, account.stateHash)) return;
  throw new Fault("stale", "another device changed the account first");
}

/**
 * Makes a signed state current: compare-and-swap on the previous one (docs/protocol.md §5.6).
 *
 * @param settings The new settings where the mutation changes them, else null.
 * @throws Fault stale when another mutation came first, bad_input when the state does not fit the request.
 */
export async function advanceState(
  ctx: ServerContext,
  tx: Tx,
  caller: Caller,
  signed: SignedState,
  settings: Settings | null,
): Promise<{ revision: number; stateHash: Uint8Array }> {
  demandCurrent(caller, signed);
  const { state } = signed;
  const { account } = caller;
  const current = settings ?? account.settings;
  const sound =
    state.userId === account.userId &&
    state.incarnation === ctx.incarnation &&
    state.revision === account.state.state.revision + 1 &&
    state.requestId === caller.requestId &&
    equalBytes(state.requestHash, caller.bodyHash) &&
    equalBytes(state.settingsHash, settingsHash(current)) &&
    state.auditSeq <= account.audit.seq &&
    // every change of a secret moves the root, and nothing else does
    equalBytes(state.root, account.state.state.root) === (settings !== null) &&
    (settings === null || equalBytes(settings.identity, account.settings.identity)) &&
    stateSignaturesHold(signed, current);
  if (!sound) throw new Fault("bad_input", "the signed state does not fit the request");
  const hash = stateHash(state);
  const next = settings === null ? { state: signed, stateHash: hash } : { state: signed, stateHash: hash, settings };
  if (!(await tx.swapState(account.userId, account.stateHash, next))) {
    throw new Fault("stale", "another device changed the account first");
  }
  await tx.appendState(account.userId, signed);
  return { revision: state.revision, stateHash: hash };
}
