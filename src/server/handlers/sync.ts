import { Fault } from "../../errors.ts";
import type { SessionHandler } from "../context.ts";

const LEAVES = 256;
const STATES = 2_000;

/** What changed since a revision: newest leaves page by page; settings and the first states with the last page. */
export const syncState: SessionHandler<"state.sync" | "secret.list"> = async (_ctx, tx, caller, input) => {
  const { userId, state, settings } = caller.account;
  if (input.since > state.state.revision) throw new Fault("bad_input", "since is above the newest revision");
  if (input.what === "states") {
    const rows = await tx.statesSince(userId, input.since, STATES + 1);
    return { output: { leaves: [], more: rows.length > STATES, states: rows.slice(0, STATES), settings: null } };
  }
  const leaves = await tx.leavesSince(userId, input.since, input.after, LEAVES + 1);
  if (leaves.length > LEAVES) {
    return { output: { leaves: leaves.slice(0, LEAVES), more: true, states: [], settings: null } };
  }
  const states = input.since === 0 ? [state] : await tx.statesSince(userId, input.since, STATES);
  return { output: { leaves, more: false, states, settings } };
};
