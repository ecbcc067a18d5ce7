import type { Attack } from "./attack.ts";
import { ACCOUNT } from "./attacks/account.ts";
import { CHECKPOINTS } from "./attacks/checkpoints.ts";
import { FRAMES } from "./attacks/frames.ts";
import { LISTS } from "./attacks/lists.ts";
import { LOG } from "./attacks/log.ts";
import { LOGINS } from "./attacks/logins.ts";
import { PAST } from "./attacks/past.ts";
import { STATES } from "./attacks/states.ts";
import { VALUES } from "./attacks/values.ts";

/** Every way to lie that a server is tried with, by what it is about. A new one goes into the file of its group. */
export const GROUPS: Readonly<Record<string, readonly Attack[]>> = {
  values: VALUES,
  lists: LISTS,
  states: STATES,
  past: PAST,
  logins: LOGINS,
  log: LOG,
  frames: FRAMES,
  checkpoints: CHECKPOINTS,
  account: ACCOUNT,
};

/** All of them. */
export const CATALOGUE: readonly Attack[] = Object.values(GROUPS).flat();
