import { markLoggedOut } from "../client/home.ts";
import { accountNameOf } from "../client/names.ts";
import { readProfile } from "../client/profile.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { AGENT_ARGS, agentOptions } from "../ui/agentoptions.ts";
import { startAgentAsking } from "../ui/agentstart.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { needPassword } from "../ui/password.ts";
import { homeOf, kdfOf, profileOf, type SessionContext, wantedProfile } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { readAuthority } from "./register.ts";

interface Device {
  readonly server: string | null;
  readonly pin: string | null;
  readonly account: string | null;
  readonly tlsCa: string | null;
}

/** The further device that the flags describe, or null for the profile that is here. */
async function newDevice(
  args: Device,
  ctx: SessionContext,
): Promise<{ profile: string; device: { url: string; pin: string; tlsCaPem: string | null; account: string } } | null> {
  const { server: url, pin, account } = args;
  if (url === null && pin === null && account === null) return null;
  const profile = (await wantedProfile(ctx)) ?? "default";
  const known = readProfile(homeOf(ctx).profiles, profile);
  if (
    known?.userId &&
    (account === null || known.account === accountNameOf(account)) &&
    (pin === null || known.server?.pin === pin)
  ) {
    return null;
  }
  if (known?.userId)
    throw new Fault("exists", `the profile "${profile}" belongs to another account or server`, {
      hint: "use --profile NAME",
    });
  if (url === null || pin === null || account === null) {
    throw new Fault("input_needed", "a new device needs --server, --pin and --account");
  }
  return { profile, device: { url, pin, tlsCaPem: readAuthority(args.tlsCa), account: accountNameOf(account) } };
}

export default defineCommand({
  args: {
    server: { type: "string", hint: "URL", description: "set this home up as a further device: the server's URL" },
    pin: { type: "string", hint: "PIN", description: "the server's pin" },
    account: { type: "string", hint: "NAME", description: "name of the account" },
    tlsCa: { type: "string", hint: "FILE", description: "authority of the server's own TLS certificate, PEM" },
    ...AGENT_ARGS,
  },
  details:
    "With --server, --pin and --account it makes this home a further device of the account, with a vault of its own.",
  data: "{account, userId, session:{id, expiresAt}}",
  examples: [
    ["keyhold login", "open a session that the agent holds for the commands that follow"],
    ["keyhold login --for 2h --idle 0", "locked in two hours, used or not"],
    ["keyhold login --server URL --pin PIN --account ada", "a further device of an account"],
  ],
  run: async (args, ctx) => {
    const home = homeOf(ctx);
    const fresh = await newDevice(args, ctx);
    const profile = fresh ? null : await profileOf(ctx);
    if (profile && !profile.server)
      throw new Fault("bad_input", "this profile has no server to log in to", { hint: "keyhold unlock" });
    const options = await agentOptions(ctx, args);
    const password = await needPassword(ctx);
    try {
      const name = fresh?.profile ?? profile?.name ?? "default";
      const login = await startAgentAsking(ctx, "Logging in", {
        ...home,
        runtime: ctx.dirs.runtime,
        profile: name,
        kdf: kdfOf(ctx, profile),
        options,
        password,
        device: fresh?.device ?? null,
      });
      if (!login) throw new Fault("unreachable", "the server is away: only the local vault was unlocked");
      const now = readProfile(home.profiles, name);
      if (now) await markLoggedOut(home, now, false);
      const { account, userId, sessionId, expiresAt, requestId } = login;
      const data = { account, userId, session: { id: sessionId, expiresAt } };
      return result(data, () => `logged in as ${plain(account)} until ${expiresAt}`, { requestId });
    } finally {
      wipe(password);
    }
  },
});
