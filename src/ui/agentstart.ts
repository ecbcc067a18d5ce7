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
 * @param vaultAlone Opens the vault alone where no code is given: an empty answer is none.
 * @throws As {@link startAgent}
 */
export async function startAgentAsking(
  ctx: Pick<Context, "flags" | "stdin" | "term" | "out">,
  label: string,
  order: Omit<AgentOrder, "factor" | "vaultAlone">,
  { vaultAlone }: { readonly vaultAlone: boolean } = { vaultAlone: false },
): Promise<AgentReport["login"]> {
  const given = givenFactor(ctx);
  const start = (factor: string | null, alone: boolean) => {
    const starting = startAgent({ ...order, factor, vaultAlone: alone }, (text) => ctx.out.notice(plain(text)));
    return ctx.term.step(label, starting);
  };
  let factor = given;
  for (let tries = 0; ; tries++) {
    try {
      return await start(factor, vaultAlone && given === null && !ctx.term.canPrompt);
    } catch (error) {
      if (!(error instanceof Fault) || given !== null || !ctx.term.canPrompt) throw error;
      const needed = error.code === "factor_required";
      if (needed && error.hint === ENROL_HINT && vaultAlone) return start(null, true);
      const wrong = error.code === "factor_failed" && tries < TRIES;
      if (error.hint === ENROL_HINT || (!wrong && (!needed || factor !== null))) throw error;
      factor = await askFactor(ctx, wrong ? error : null, vaultAlone);
      if (factor === "") {
        if (vaultAlone) return start(null, true);
        throw error;
      }
    }
  }
}
