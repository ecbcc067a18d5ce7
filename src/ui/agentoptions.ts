import { confirmPatterns } from "../client/agentconfirm.ts";
import { Fault } from "../errors.ts";
import { bool, list, nullable, type Of, struct, text, uint } from "../wire/codec.ts";
import type { Args, Values } from "./args.ts";
import type { Context } from "./command.ts";
import { checkDisplay } from "./confirm.ts";

/** Longest that an agent may hold an open vault: 30 days. */
const LIFE_MAX_MS = 30 * 24 * 60 * 60 * 1_000;
const SECOND_MS = 1_000;

/** How an agent is to run (docs/agent.md §6, §7); part of its order. */
export const agentOptionsCodec = struct({
  idleMs: uint(LIFE_MAX_MS),
  absoluteMs: uint(LIFE_MAX_MS, SECOND_MS),
  lockOnSuspend: bool,
  confirm: list(text({ min: 1, max: 1_024 }), { max: 64 }),
  /** Program and arguments that ask the owner. */
  command: nullable(list(text({ max: 4_096 }), { min: 1, max: 64 })),
  /** Variables that such a program needs to reach the owner's screen. */
  display: list(struct({ name: text({ min: 1, max: 64 }), value: text({ max: 4_096 }) }), { max: 32 }),
});
export type AgentOptions = Of<typeof agentOptionsCodec>;

/** Flags of the commands that start an agent. */
export const AGENT_ARGS = {
  for: { type: "duration", description: "lock after this time at the latest (default: setting agentFor, 12h)" },
  idle: {
    type: "duration",
    description: "lock when unused for this long (default: setting agentIdle, 15m; 0: only --for counts)",
  },
  confirm: {
    type: "list",
    hint: "PATTERN",
    description: "ask before a value is given out: always, never, a name, or a beginning like prod/* (repeatable)",
  },
} as const satisfies Args;

/** The options that flags and settings ask for. @throws Fault bad_input */
export async function agentOptions(
  ctx: Pick<Context, "settings" | "env">,
  args: Values<typeof AGENT_ARGS>,
): Promise<AgentOptions> {
  const settings = await ctx.settings();
  const idleMs = bounded("the idle time", settings.get("agentIdle", args.idle), true);
  const absoluteMs = bounded("the time that the agent runs", settings.get("agentFor", args.for), false);
  const confirm = confirmPatterns(args.confirm.length > 0 ? args.confirm : words("confirm", settings.get("confirm")));
  return {
    idleMs,
    absoluteMs,
    lockOnSuspend: settings.get("lockOnSuspend") === "true",
    confirm,
    command: await confirmCommand(ctx),
    display: checkDisplay(ctx.env),
  };
}

/** Program and arguments that ask the owner: the setting confirmCommand; null where none is set. @throws Fault bad_input */
export async function confirmCommand(ctx: Pick<Context, "settings" | "env">): Promise<readonly string[] | null> {
  const command = (await ctx.settings()).get("confirmCommand");
  return command === null ? null : program(words("confirmCommand", command), ctx.env["PATH"]);
}

function bounded(what: string, ms: number, zero: boolean): number {
  if ((zero && ms === 0) || (ms >= SECOND_MS && ms <= LIFE_MAX_MS)) return ms;
  throw new Fault("bad_input", `${what} is 1s to 30d${zero ? ", or 0 for no limit" : ""}`);
}

/** A setting that holds one word, or several as a JSON list. @throws Fault bad_input */
export function words(setting: string, value: string): readonly string[] {
  if (!value.startsWith("[")) return [value];
  try {
    const parsed: unknown = JSON.parse(value);
    if (Array.isArray(parsed) && parsed.length > 0 && parsed.every((one) => typeof one === "string")) return parsed;
  } catch {
    // falls through to the one error
  }
  throw new Fault("bad_input", `the setting ${setting} must be one word or a JSON list of texts`);
}

/** The program with its whole path: the agent's own PATH may be another. @throws Fault bad_input */
function program([name = "", ...rest]: readonly string[], path: string | undefined): readonly string[] {
  const found = Bun.which(name, { PATH: path ?? "", cwd: "/" });
  if (found === null) throw new Fault("bad_input", "the setting confirmCommand names no program that can be run");
  return [found, ...rest];
}
