import type { Tx } from "../storage/store.ts";

/** Setting that lists the incarnations before this one, oldest first, with spaces between. */
export const EARLIER = "incarnations";

/** Incarnations before this one: accounts that were not adopted yet still stand in one of them. */
export async function earlierIncarnations(tx: Tx): Promise<readonly string[]> {
  return ((await tx.setting(EARLIER)) ?? "").split(" ").filter((id) => id !== "");
}
