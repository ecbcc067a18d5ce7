import { expect, test } from "bun:test";
import { vaultKills } from "./vaultkills.ts";

test("a vault's writer killed fifty times: never corrupt, nothing acknowledged lost, no stray files", async () => {
  const { lost, corrupt, wrong, counts } = await vaultKills({ kills: 50, seed: 3, withinMs: 25 });
  expect({ lost, corrupt, wrong }).toEqual({ lost: 0, corrupt: 0, wrong: [] });
  expect(counts[0]).toBe("50 kills");
}, 120_000);
