import { agentFacts, agentSocket, lockAgent } from "../client/agent.ts";
import { markLoggedOut } from "../client/home.ts";
import { wipe } from "../crypto/bytes.ts";
import { startAgent } from "../ui/agentprocess.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { needPassword } from "../ui/password.ts";
import { homeOf, kdfOf, profileOf } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

async function openAgent(ctx: Context) {
  const home = homeOf(ctx);
  const profile = await profileOf(ctx);
  const password = await needPassword(ctx);
  try {
    const idleMs = (await ctx.settings()).get("agentIdle");
    const starting = startAgent(
      {
        ...home,
        runtime: ctx.dirs.runtime,
        profile: profile.name,
        kdf: kdfOf(ctx, profile),
        idleMs,
        password,
        device: null,
      },
      (text) => ctx.out.notice(plain(text)),
    );
    const login = await ctx.term.step("Unlocking", starting);
    await markLoggedOut(home, profile, false);
    const facts = await agentFacts(agentSocket(ctx.dirs.runtime, profile.name));
    const data = { profile: profile.name, online: login !== null, locksAt: facts?.locksAt ?? null };
    return result(data, () => `unlocked until ${facts?.locksAt ?? "now"} (idle)`, {
      requestId: login?.requestId ?? null,
    });
  } finally {
    wipe(password);
  }
}

async function lock(ctx: Context) {
  const profile = await profileOf(ctx);
  const was = await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
  return result({ profile: profile.name, locked: true, was }, () => (was ? "locked" : "was locked already"));
}

export const unlockCommand = defineCommand({
  args: {},
  examples: [["keyhold unlock", "open the vault for the commands that follow"]],
  run: async (_args, ctx) => openAgent(ctx),
});

export const lockCommand = defineCommand({
  args: {},
  examples: [["keyhold lock", "forget the keys now"]],
  run: async (_args, ctx) => lock(ctx),
});

export const agentStart = defineCommand({
  args: {},
  examples: [["keyhold agent start", "the same as `keyhold unlock`"]],
  run: async (_args, ctx) => openAgent(ctx),
});
export const agentStop = defineCommand({
  args: {},
  examples: [["keyhold agent stop", "the same as `keyhold lock`"]],
  run: async (_args, ctx) => lock(ctx),
});

export const agentStatus = defineCommand({
  args: {},
  examples: [["keyhold agent status", "whether an agent runs, and when it locks"]],
  run: async (_args, ctx) => {
    const profile = await profileOf(ctx);
    const facts = await agentFacts(agentSocket(ctx.dirs.runtime, profile.name));
    return result({ profile: profile.name, running: facts !== undefined, ...facts }, () =>
      facts ? `running (pid ${facts.pid}), locks at ${facts.locksAt}` : "no agent runs: keyhold unlock",
    );
  },
});
