import { Fault } from "../../errors.ts";
import { settle } from "./course.ts";
import type { Desk } from "./scene.ts";
import { dueCeremonies } from "./views.ts";

/** Ceremonies that one sweep looks at. */
const SWEEP = 256;

/**
 * Ends stages whose time is over, takes up what a crash or a failure has left, and deletes keys that nothing needs any
 * more (docs/protocol.md §10.4). What fails for a while does so quietly: the next sweep tries again.
 *
 * @throws the first failure that does not pass, after all of them were looked at
 */
export async function sweepCeremonies(desk: Desk): Promise<void> {
  const { ctx } = desk.site;
  // those that wait for their combination stand before all others, and have been looked at
  const due = await ctx.store.transaction((tx) => dueCeremonies(tx, ctx.now(), SWEEP + desk.combining.size));
  const failures: unknown[] = [];
  for (const id of due) {
    try {
      await settle(desk, id);
    } catch (error) {
      if (!(error instanceof Fault) || error.code === "corrupt" || error.code === "integrity") failures.push(error);
    }
  }
  await Promise.all(desk.combining.values());
  await desk.keys.sweep();
  if (failures.length > 0) throw failures[0];
}
