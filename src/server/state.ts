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

/** True when a state fits the request that carries it, apart from what it commits to. */
export function continuesAccount(ctx: ServerContext, caller: Caller, { state }: SignedState): boolean {
  const { account } = caller;
  return (
    state.userId === account.userId &&
    state.incarnation === ctx.incarnation &&
    state.revision === account.state.state.revision + 1 &&
    state.requestId === caller.requestId &&
    equalBytes(state.requestHash, caller.bodyHash) &&
    state.auditSeq <= account.audit.seq
  );
}

/**
 * Makes a signed state current: compare-and-swap on the previous one (docs/protocol.md §5.6).
 *
 * @param settings The new settings where the mutation changes them, else null.
 * @param identity Whether the settings name the same account identity, or another one that the caller has checked.
 * @throws Fault stale when another mutation came first, bad_input when the state does not fit the request.
 */
export async function advanceState(
  ctx: ServerContext,
  tx: Tx,
  caller: Caller,
  signed: SignedState,
  settings: Settings | null,
  identity: "kept" | "replaced" = "kept",
): Promise<{ revision: number; stateHash: Uint8Array }> {
  demandCurrent(caller, signed);
  const { state } = signed;
  const { account } = caller;
  const current = settings ?? account.settings;
  const sound =
    continuesAccount(ctx, caller, signed) &&
    equalBytes(state.settingsHash, settingsHash(current)) &&
    // every change of a secret moves the root, and nothing else does
    equalBytes(state.root, account.state.state.root) === (settings !== null) &&
    equalBytes(current.identity, account.settings.identity) === (identity === "kept") &&
    stateSignaturesHold(signed, current);
  if (!sound) throw misfit();
  const hash = stateHash(state);
  const next = settings === null ? { state: signed, stateHash: hash } : { state: signed, stateHash: hash, settings };
  if (!(await tx.swapState(account.userId, account.stateHash, next))) {
    throw new Fault("stale", "another device changed the account first");
  }
  await tx.appendState(account.userId, signed);
  return { revision: state.revision, stateHash: hash };
}

/** A state that does not belong to the request beside it. */
export function misfit(): Fault {
  return new Fault("bad_input", "the signed state does not fit the request");
}
