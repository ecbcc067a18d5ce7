import { type AgentFacts, agentClient, agentFacts, agentSocket, lockAgent } from "../client/agent.ts";
import { agentSocketPath } from "../client/agentsocket.ts";
import type { Status } from "../client/api.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { AGENT_ARGS, agentOptions } from "../ui/agentoptions.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { needPassword } from "../ui/password.ts";
import { homeOf, kdfOf, profileOf } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

async function openAgent(args: Values<typeof AGENT_ARGS>, ctx: Context) {
  const home = homeOf(ctx);
  const profile = await profileOf(ctx);
  const options = await agentOptions(ctx, args);
  const password = await needPassword(ctx);
  try {
    // not for `lock` and `agent status`
    const [{ startAgentAsking }, { markLoggedOut }] = await Promise.all([
      import("../ui/agentstart.ts"),
      import("../client/home.ts"),
    ]);
    const order = { ...home, runtime: ctx.dirs.runtime, profile: profile.name, kdf: kdfOf(ctx, profile), options };
    const login = await startAgentAsking(ctx, "Unlocking", { ...order, password, device: null }, { vaultAlone: true });
    await markLoggedOut(home, profile, false);
    const facts = await agentFacts(agentSocket(ctx.dirs.runtime, profile.name));
    const data = {
      profile: profile.name,
      online: login !== null,
      locksAt: facts?.locksAt ?? null,
      endsAt: facts?.endsAt ?? null,
    };
    return result(data, () => (facts ? `unlocked: ${limits(facts)}` : "unlocked, and locked again"), {
      requestId: login?.requestId ?? null,
    });
  } finally {
    wipe(password);
  }
}

function limits({ locksAt, endsAt }: AgentFacts): string {
  return locksAt === endsAt ? `locks at ${endsAt}` : `locks at ${locksAt} if unused, at ${endsAt} at the latest`;
}

async function lock(ctx: Context) {
  const profile = await profileOf(ctx);
  const was = await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
  return result({ profile: profile.name, locked: true, was }, () => (was ? "locked" : "was locked already"));
}

const START = {
  args: AGENT_ARGS,
  data: "{profile, online, locksAt, endsAt}",
} as const;

export const unlockCommand = defineCommand({
  ...START,
  details:
    "The agent locks when unused for --idle, after --for at the latest, when the system slept, and by `keyhold lock`. " +
    "With --confirm it asks you, through the program of the setting confirmCommand, before it gives out a value of " +
    "such a name; without such a program it refuses. Where the server asks for a second factor and no code is given, the " +
    "vault of this device alone is open. Programs in other languages can use it: docs/agent.md.",
  examples: [
    ["keyhold unlock", "open the vault for the commands that follow"],
    ["keyhold unlock --for 2h --idle 0", "for two hours, used or not"],
    ["keyhold unlock --confirm 'prod/*'", "ask before a value below prod/ is given out"],
  ],
  run: openAgent,
});

export const lockCommand = defineCommand({
  args: {},
  data: "{profile, locked, was}",
  examples: [["keyhold lock", "forget the keys now"]],
  run: async (_args, ctx) => lock(ctx),
});

export const agentStart = defineCommand({
  ...START,
  examples: [["keyhold agent start", "the same as `keyhold unlock`"]],
  run: openAgent,
});
export const agentStop = defineCommand({
  args: {},
  data: "{profile, locked, was}",
  examples: [["keyhold agent stop", "the same as `keyhold lock`"]],
  run: async (_args, ctx) => lock(ctx),
});

const STATUS_MS = 10_000;

/** What the agent's client says of server and session; null where it is busy for too long or too old to say. */
async function place(socket: string): Promise<Pick<Status, "server" | "session"> | null> {
  try {
    const { server, session } = await agentClient(socket, () => undefined, { timeoutMs: STATUS_MS }).status();
    return { server, session };
  } catch (error) {
    if (error instanceof Fault && error.code !== "integrity") return null;
    throw error;
  }
}

function confirmation({ confirm }: AgentFacts): string {
  if (confirm === undefined || confirm.patterns.length === 0) return "never";
  const what = confirm.patterns.includes("*") ? "always" : confirm.patterns.map(plain).join(", ");
  return confirm.program ? what : `${what} (refused: no confirmCommand is set)`;
}

function described(facts: AgentFacts, at: Awaited<ReturnType<typeof place>>): string {
  const session = at?.session;
  const server = at?.server;
  return [
    `running    pid ${facts.pid}, keyhold ${facts.version ?? "of an older version"}, API ${facts.api ?? "-"}`,
    `profile    ${plain(facts.profile)}`,
    `started    ${facts.startedAt}`,
    `limits     ${limits(facts)}${facts.lockOnSuspend ? ", when the system slept" : ""}`,
    `server     ${server ? `${plain(server.url)} (${server.reachable ? "reachable" : "away"})` : "-"}`,
    `session    ${session ? `${session.valid ? "valid" : "not valid"} until ${session.expiresAt}` : "-"}`,
    `confirms   ${confirmation(facts)}`,
    `calls      ${facts.calls ?? "-"}`,
  ].join("\n");
}

export const agentStatus = defineCommand({
  args: {},
  data:
    "{profile, running, socket?, pid?, version?, api?, startedAt?, locksAt?, endsAt?, idleMs?, lockOnSuspend?, " +
    "confirm?:{patterns, program}, calls?, server?, session?}",
  examples: [["keyhold agent status", "whether an agent runs, when it locks, and whether its session is valid"]],
  run: async (_args, ctx) => {
    const profile = await profileOf(ctx);
    const socket = agentSocket(ctx.dirs.runtime, profile.name);
    const facts = await agentFacts(socket);
    if (!facts) return result({ profile: profile.name, running: false }, () => "no agent runs: keyhold unlock");
    const at = await place(socket);
    const data = {
      running: true,
      ...facts,
      socket: agentSocketPath(socket),
      server: at?.server ?? null,
      session: at?.session ?? null,
    };
    return result(data, () => described(facts, at));
  },
});
