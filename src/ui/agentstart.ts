import { ENROL_HINT } from "../client/factorapi.ts";
import { Fault } from "../errors.ts";
import { type AgentOrder, type AgentReport, startAgent } from "./agentprocess.ts";
import type { Context } from "./command.ts";
import { askFactor, givenFactor } from "./factor.ts";
import { plain } from "./text.ts";

/** Wrong codes at one prompt; each is a login of its own. */
const TRIES = 3;

/**
 * Starts the agent, and asks for a code of the second factor where its login needs one.
 *
 * @param label What is shown meanwhile.
 * @throws As {@link startAgent}
 */
export async function startAgentAsking(
  ctx: Pick<Context, "flags" | "stdin" | "term" | "out">,
  label: string,
  order: Omit<AgentOrder, "factor">,
): Promise<AgentReport["login"]> {
  const given = givenFactor(ctx);
  let factor = given;
  for (let tries = 0; ; tries++) {
    try {
      const starting = startAgent({ ...order, factor }, (text) => ctx.out.notice(plain(text)));
      return await ctx.term.step(label, starting);
    } catch (error) {
      if (!(error instanceof Fault) || given !== null || !ctx.term.canPrompt || error.hint === ENROL_HINT) throw error;
      const wrong = error.code === "factor_failed" && tries < TRIES;
      if (!wrong && (error.code !== "factor_required" || factor !== null)) throw error;
      factor = await askFactor(ctx, wrong ? error : null);
    }
  }
}
