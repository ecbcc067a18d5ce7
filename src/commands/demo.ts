import { defineCommand } from "../ui/command.ts";
import { runDemo } from "../ui/demo.ts";
import { GO_ON, MAIN_JOB } from "./demosteps.ts";

export default defineCommand({
  args: { full: { type: "boolean", description: "the whole matrix instead of the essence" } },
  data: 'one line a step: `{"v":1,"step","ok","ms","detail"}`',
  details: "Starts a throwaway server and throwaway homes, shows each command with its result, and cleans up.",
  examples: [["keyhold demo", "see the main job work, in under a minute"]],
  run: async (_args, ctx) => {
    const code = await runDemo(MAIN_JOB, ctx);
    if (!ctx.flags.json)
      ctx.out.lines(["", "All of it held. To go on for real:", ...GO_ON.map((line) => `  ${line}`)].join("\n"));
    return code;
  },
});
