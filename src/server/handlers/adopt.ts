import { Fault } from "../../errors.ts";
import type { SessionHandler } from "../context.ts";
import { advanceState, demandCurrent } from "../state.ts";

/**
 * Takes an account into this incarnation of the server after a restore: a state that changes nothing and names, by the
 * hash of its request, the newest state that the device knows (docs/protocol.md §6.5).
 */
export const adoptAccount: SessionHandler<"account.adopt"> = async (ctx, tx, caller, input) => {
  demandCurrent(caller, input.state);
  const { account } = caller;
  const { state } = input.pin;
  if (state.userId !== account.userId || state.incarnation === ctx.incarnation) {
    throw new Fault("bad_input", "this is no state of the account from before the restore");
  }
  const output = await advanceState(ctx, tx, caller, input.state, account.settings);
  return { output, stateHash: output.stateHash };
};
