import { rmSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { agentClient, agentSocket, agentUsable } from "../client/agent.ts";
import { type AskOwner, confirmer, confirmPatterns } from "../client/agentconfirm.ts";
import { agentSocketPath } from "../client/agentsocket.ts";
import { Fault } from "../errors.ts";
import { confirmCommand } from "../ui/agentoptions.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { askByProgram, checkDisplay } from "../ui/confirm.ts";
import { result } from "../ui/output.ts";
import { hideProcess, selfCommand } from "../ui/process.ts";
import { cannotSpawn, childEnvironment, exitOf, locate } from "../ui/run.ts";
import { profileOf } from "../ui/session.ts";
import { type SshKeys, sshKeys } from "../ui/sshagent/keys.ts";
import { type RunningSshAgent, serveSsh, sshAgentAt } from "../ui/sshagent/serve.ts";
import { plain } from "../ui/text.ts";

const ARGS = {
  key: { type: "list", hint: "NAME", description: "offer this key (repeatable)" },
  tag: { type: "list", hint: "TAG", description: "offer keys with this tag (repeatable)" },
  socket: {
    type: "string",
    hint: "FILE",
    description: "where to listen (default: ssh-agent-PROFILE.sock beside the agent's socket)",
  },
  confirm: {
    type: "list",
    hint: "PATTERN",
    description: "ask before each use: always, a name, or a beginning like prod/* (repeatable)",
  },
  refuseForwarded: { type: "boolean", description: "do not sign for other machines that ssh -A leads to" },
  background: { type: "boolean", description: "go on in the background; print the variables for the shell" },
} as const;

/** Servers give up after so many keys that they do not know (MaxAuthTries of sshd). */
const KEYS_FEW = 5;
/** How long a background process has to start. */
const START_MS = 10_000;

/** The real path of the socket, in a directory that is this user's alone. @throws Fault denied */
function socketOf(given: string | null, runtime: string, name: string): string {
  if (process.platform === "win32") {
    throw new Fault("unsupported", "ssh on Windows asks its agent by another way, which keyhold does not serve");
  }
  if (given === null) return agentSocketPath(join(runtime, `${name}.sock`));
  const path = resolve(given);
  const folder = statSync(dirname(path), { throwIfNoEntry: false });
  if (folder && (folder.mode & 0o077) !== 0) {
    throw new Fault("denied", `cannot listen in "${dirname(path)}": others may enter this directory`, {
      hint: "choose a directory of mode 0700",
    });
  }
  return agentSocketPath(path);
}

/** A question before each use of keys of these names. */
async function confirmerOf(ctx: Context, profile: string, given: readonly string[], keys: SshKeys) {
  const patterns = confirmPatterns(given);
  const command = patterns.length === 0 ? null : await confirmCommand(ctx);
  const ask: AskOwner | null = command && askByProgram(command, profile, checkDisplay(ctx.env));
  if (patterns.length > 0 && ask === null) {
    throw new Fault("bad_input", "--confirm needs a program that asks", {
      hint: 'put "confirmCommand": "PROGRAM" into the file that keyhold config path names',
    });
  }
  return confirmer({ patterns, ask }, keys.list);
}

const quoted = (path: string): string => (/^[\w/.,:@+-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

function shellLines(path: string, pid: number | null): string {
  const lines = [`SSH_AUTH_SOCK=${quoted(path)}; export SSH_AUTH_SOCK;`];
  if (pid !== null) lines.push(`SSH_AGENT_PID=${pid}; export SSH_AGENT_PID;`);
  return lines.join("\n");
}

/** Says what will not work, as far as it can be told now. */
async function tellKeys(ctx: Context, keys: SshKeys, names: readonly string[], socket: string): Promise<void> {
  if (!(await agentUsable(socket))) {
    ctx.out.notice("the vault is locked: keys are offered after `keyhold unlock`");
    return;
  }
  const offered = await keys.list();
  for (const name of names) {
    if (!offered.some((key) => key.name === name)) ctx.out.warn(`there is no key of ssh with the name ${plain(name)}`);
  }
  if (offered.length > KEYS_FEW) {
    ctx.out.notice(`${offered.length} keys are offered, and servers refuse after a few: choose by --key or --tag`);
  }
}

/** Runs the command with the agent beside it. */
async function beside(ctx: Context, agent: RunningSshAgent): Promise<number> {
  const added = { SSH_AUTH_SOCK: agent.path, SSH_AGENT_PID: String(process.pid) };
  // unlike `run`, it leaves the command this user's own keyhold: it is often a shell
  const own = Object.entries(ctx.inherited).filter(([variable]) => variable.startsWith("KEYHOLD_"));
  const env = childEnvironment(ctx.inherited, { ...(Object.fromEntries(own) as Record<string, string>), ...added });
  const [name = "", ...args] = ctx.rest;
  const file = locate(ctx.rest, env);
  if (typeof file !== "string") return ctx.out.fail(file.fault, file.exit);
  let child: Bun.Subprocess;
  try {
    child = Bun.spawn([file, ...args], { argv0: name, env, stdin: "inherit", stdout: "inherit", stderr: "inherit" });
  } catch (error) {
    const { fault, exit } = cannotSpawn(name, error);
    return ctx.out.fail(fault, exit);
  }
  // the terminal sends SIGINT to both; what is sent to this process alone goes on to the command
  const forward = (signal: NodeJS.Signals) => {
    if (signal !== "SIGINT") child.kill(signal);
    ctx.onTerminate(forward);
  };
  ctx.onTerminate(forward);
  await child.exited;
  return exitOf(child);
}

/** Starts this command once more, on its own, and waits until it listens. */
async function inBackground(ctx: Context, args: Values<typeof ARGS>, socket: string) {
  const there = await sshAgentAt(socket);
  if (there !== null) {
    ctx.out.notice("it runs already");
    return shown(socket, there.pid);
  }
  const flags = [
    ...args.key.flatMap((name) => ["--key", name]),
    ...args.tag.flatMap((tag) => ["--tag", tag]),
    ...args.confirm.flatMap((pattern) => ["--confirm", pattern]),
    ...(args.refuseForwarded ? ["--refuse-forwarded"] : []),
    ...(ctx.flags.profile === null ? [] : ["--profile", ctx.flags.profile]),
    ...(ctx.flags.config === null ? [] : ["--config", resolve(ctx.flags.config)]),
  ];
  const home = ctx.env["KEYHOLD_HOME"];
  const child = Bun.spawn(selfCommand("ssh-agent", "--json", "--quiet", "--socket", socket, ...flags), {
    env: home ? { ...ctx.env, KEYHOLD_HOME: resolve(home) } : { ...ctx.env },
    cwd: "/",
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
    detached: true,
  });
  const giveUpAt = performance.now() + START_MS;
  while ((await sshAgentAt(socket)) === null) {
    if (child.exitCode !== null || performance.now() >= giveUpAt) {
      child.kill();
      throw new Fault("internal", "the process in the background did not start", {
        hint: "run it without --background to see why",
      });
    }
    await Bun.sleep(20);
  }
  child.unref();
  return shown(socket, child.pid);
}

const shown = (socket: string, pid: number | null) => result({ socket, pid }, () => shellLines(socket, pid));

export default defineCommand({
  args: ARGS,
  data: '`{"v":1,"ready":{"socket","pid"}}`, one line when it is ready; with --background {socket, pid}',
  rest: { hint: "CMD [ARG…]", description: "run this command with the agent, and end with it", required: false },
  details: `Serves keys to ssh, git and every program that knows SSH_AUTH_SOCK. Private keys stay in keyhold's agent: this process
asks it for each signature, holds none itself, and writes none to disk. While the vault is locked no key is offered;
after \`keyhold unlock\` they are there again.

Offered are secrets of type ssh, and keys of type ed25519, p256, p384 and rsa that have the tag ssh; with --key or --tag
those that are named instead. A key past its expiry date is not offered. RSA signs with SHA-256 and SHA-512 only.
Keys are not taken in: \`ssh-add FILE\` is refused, \`keyhold import FILE\` keeps them.

With --confirm the program of the setting confirmCommand asks you before each use.`,
  examples: [
    ["keyhold ssh-agent -- ssh server.example", "log in with keys of the vault"],
    ['eval "$(keyhold ssh-agent --background)"', "for this shell, until `ssh-agent -k`"],
    ["keyhold ssh-agent --tag work --confirm 'work/prod/*'", "in the foreground: some keys, some with a question"],
  ],
  run: async (args, ctx) => {
    hideProcess();
    const profile = await profileOf(ctx);
    const running = ctx.rest.length > 0;
    if (ctx.flags.passwordFd !== null || ctx.flags.passwordFile !== null || ctx.flags.passwordStdin) {
      throw new Fault("usage", "ssh-agent takes no password: it asks the agent that runs", { hint: "keyhold unlock" });
    }
    if (running && args.background) throw new Fault("usage", "--background and a command do not go together");
    const name = `ssh-agent-${profile.name}${running ? `-${process.pid}` : ""}`;
    const socket = socketOf(args.socket, ctx.dirs.runtime, name);
    const owner = agentSocket(ctx.dirs.runtime, profile.name);
    const client = agentClient(owner, (text) => ctx.out.detail(plain(text)));
    const keys = sshKeys(client, {
      names: args.key.map((key) => key.normalize("NFC")),
      tags: args.tag.map((tag) => tag.normalize("NFC")),
    });
    const confirmed = await confirmerOf(ctx, profile.name, args.confirm, keys);
    await tellKeys(ctx, keys, args.key, owner);
    if (args.background) return inBackground(ctx, args, socket);
    const stopped = Promise.withResolvers<void>();
    if (!running) ctx.onTerminate(() => stopped.resolve());
    const agent = await serveSsh({
      socket,
      keys,
      confirmed,
      refuseForwarded: args.refuseForwarded,
      notice: (text) => ctx.out.notice(plain(text)),
    });
    try {
      if (running) return await beside(ctx, agent);
      const { pid } = process;
      if (ctx.out.json) ctx.out.jsonLine({ v: 1, ready: { socket: agent.path, pid } });
      else ctx.out.lines(shellLines(agent.path, pid));
      await Promise.race([stopped.promise, agent.gone]);
      return undefined;
    } finally {
      await agent.stop();
      // that socket's name is never used again
      if (running) rmSync(`${agent.path}.lock`, { force: true });
    }
  },
});
