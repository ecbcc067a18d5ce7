import { createFinishing } from "./finishing.ts";
import type { RegistryRest } from "./index.ts";
import { createKeys } from "./keys.ts";
import { createReports } from "./reports.ts";
import { createRequests } from "./requests.ts";
import { createDesk, type Desk, PATIENCE } from "./scene.ts";
import type { RegistrySite } from "./service.ts";
import { hasOpenRequest, reruleOpen, sweepRequests } from "./sweeping.ts";
import { backlogOf, createTasks } from "./tasks.ts";
import { createVoting } from "./voting.ts";

/** Requests through keyrings, their coordination and their keys, in one process (docs/protocol.md §9.6). */
export function createRest(site: RegistrySite, patience: Desk["patience"] = PATIENCE): RegistryRest {
  const desk = createDesk(site, patience);
  return {
    ...createRequests(desk),
    ...createVoting(desk),
    ...createFinishing(desk),
    ...createKeys(site),
    ...createTasks(desk),
    ...createReports(desk),
    hasOpenRequest,
    policyChanged: (workspaceId) => reruleOpen(desk, workspaceId),
    backlogOf,
    sweep: () => sweepRequests(desk),
    close: async () => desk.waiting.close(),
  };
}
