import type { Context } from "../ui/command.ts";
import { installFor, type ScriptOf, toldOf, wantedShell } from "../ui/completionfiles.ts";
import { type Result, result } from "../ui/output.ts";
import { plain } from "../ui/text.ts";

/** The command `completion install`. */
export async function runInstall(ctx: Context, given: string | null, rc: boolean, scriptOf: ScriptOf): Promise<Result> {
  const done = await installFor(ctx.env, wantedShell(given, ctx.env), scriptOf, async ({ file, line }) => {
    if (rc) return true;
    if (!ctx.term.canPrompt || ctx.flags.json || ctx.flags.yes) return false;
    const answer = await ctx.term.steps.select(`Add this line to ${plain(file)}?  ${plain(line)}`, [
      { value: "no", label: "No, I do it myself" },
      { value: "yes", label: "Yes, add it" },
    ]);
    return answer === "yes";
  });
  return result(done, () => toldOf(done));
}
