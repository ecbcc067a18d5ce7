import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { runDemo, type Walk } from "../ui/demo.ts";
import { GO_ON, MAIN_JOB } from "./demosteps.ts";

/** Capabilities that have a walk of their own. */
const TOURS = ["federation", "keyring", "ceremony"] as const;

async function walkOf(tour: (typeof TOURS)[number] | null, full: boolean): Promise<Walk> {
  if (tour === null) return { servers: 1, steps: MAIN_JOB };
  if (tour === "keyring") {
    if (full) return (await import("./demokeyringfull.ts")).KEYRING_FULL;
    return (await import("./demokeyring.ts")).KEYRING;
  }
  if (tour === "ceremony") {
    if (full) return (await import("./democeremonyfull.ts")).CEREMONY_FULL;
    return (await import("./democeremony.ts")).CEREMONY;
  }
  if (full) return (await import("./demofederationfull.ts")).FEDERATION_FULL;
  return (await import("./demofederation.ts")).FEDERATION;
}

/** @throws Fault usage */
function tourOf(text: string | null): (typeof TOURS)[number] | null {
  if (text === null) return null;
  const tour = TOURS.find((one) => one === text);
  if (tour) return tour;
  throw new Fault("usage", `there is no demo "${text}"`, { hint: `keyhold demo [${TOURS.join("|")}]` });
}

export default defineCommand({
  args: {
    tour: {
      type: "positional",
      required: false,
      hint: TOURS.join("|"),
      description: "a capability instead of the main job",
    },
    full: { type: "boolean", description: "the whole matrix instead of the essence" },
  },
  data: 'one line a step: `{"v":1,"step","ok","ms","detail"}`',
  details: "Starts throwaway servers and throwaway homes, shows each command with its result, and cleans up.",
  examples: [
    ["keyhold demo", "see the main job work, in under a minute"],
    ["keyhold demo federation", "three servers that hold keys together"],
    ["keyhold demo keyring", "a workspace that requests keys from three parties"],
    ["keyhold demo ceremony", "people who make one key together, and one-time codes of it"],
  ],
  run: async (args, ctx) => {
    const tour = tourOf(args.tour);
    const code = await runDemo(await walkOf(tour, args.full), ctx);
    if (!ctx.flags.json && tour === null)
      ctx.out.lines(["", "All of it held. To go on for real:", ...GO_ON.map((line) => `  ${line}`)].join("\n"));
    return code;
  },
});
