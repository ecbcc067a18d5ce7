import type { Group } from "../ui/command.ts";
import type { InternalEntries } from "../ui/start.ts";

/** Headings of the root help. */
const SECTION = { server: "Server", account: "Account and session", secrets: "Secrets", rest: "The rest" } as const;

/** The whole command line: names, summaries, and how to load each command. Help texts follow this order. */
export const root: Group = {
  summary: "keyhold keeps secrets end to end encrypted: client, local vault and key server in one program.",
  commands: {
    config: {
      section: SECTION.rest,
      summary: "show settings and where they come from",
      commands: {
        show: { summary: "show the settings in force", load: () => import("./config.ts").then((m) => m.show) },
        defaults: { summary: "print the table of defaults", load: () => import("./config.ts").then((m) => m.defaults) },
        path: { summary: "print the directories in use", load: () => import("./config.ts").then((m) => m.path) },
      },
    },
    completion: {
      section: SECTION.rest,
      summary: "print a completion script for a shell",
      load: () => import("./completion.ts").then((m) => m.default),
    },
    man: {
      section: SECTION.rest,
      summary: "print the manual page",
      load: () => import("./man.ts").then((m) => m.default),
    },
    help: {
      section: SECTION.rest,
      summary: "explain a command or the exit codes",
      load: () => import("./help.ts").then((m) => m.default),
    },
    version: {
      section: SECTION.rest,
      summary: "print the version",
      load: () => import("./version.ts").then((m) => m.default),
    },
  },
};

/** What this program starts itself with; no part of the command line. */
export const internal: InternalEntries = {
  "__clear-clipboard": () => import("../ui/clipboard.ts").then((m) => m.clearClipboardLater),
};
