import type { Group } from "../ui/command.ts";
import { SECTION } from "./sections.ts";

const commands = () => import("./connector.ts");

/** What a party of a keyring runs beside its own key server. */
export const connector: Group = {
  section: SECTION.keyrings,
  summary: "a party's connector between registry and own key server",
  commands: {
    init: { summary: "make one, with accounts at both", load: () => commands().then((m) => m.connectorInit) },
    run: { summary: "do the registry's tasks", load: () => commands().then((m) => m.connectorRun) },
    status: { summary: "what it has done, told offline", load: () => commands().then((m) => m.connectorStatus) },
    "dead-letters": {
      summary: "tasks that could not be done",
      load: () => commands().then((m) => m.connectorDeadLetters),
    },
    replay: { summary: "put dead letters back", load: () => commands().then((m) => m.connectorReplay) },
  },
};
