import { Fault } from "../../errors.ts";
import type { SessionHandler } from "../context.ts";
import { advanceState, demandCurrent } from "../state.ts";
import { demandFreshLogin } from "./account.ts";
import { keepsAllButKit } from "./settings.ts";

/** Sets, replaces or drops the recovery kit; nothing else changes (docs/protocol.md §5.8). */
export const setKit: SessionHandler<"account.kit"> = async (ctx, tx, caller, input) => {
  await demandFreshLogin(ctx, tx, caller, "a new recovery kit");
  demandCurrent(caller, input.state);
  const { settings } = input;
  const whole = (settings.kit === null) === (settings.kitWrapped === null);
  if (!whole || !keepsAllButKit(caller.account.settings, settings)) {
    throw new Fault("bad_input", "a new recovery kit changes nothing else");
  }
  const output = await advanceState(ctx, tx, caller, input.state, settings);
  return { output, stateHash: output.stateHash };
};
