import { agentClient, agentFacts, agentSocket, lockAgent } from "../client/agent.ts";
import { markLoggedOut, openProfile } from "../client/home.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { needPassword } from "../ui/password.ts";
import { homeOf, kdfOf, profileOf, surroundings } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

/** Failures that leave nothing to close. */
const OVER: ReadonlySet<string> = new Set(["session_invalid", "bad_input", "locked"]);

export default defineCommand({
  args: { all: { type: "boolean", description: "close every session of the account, on all devices" } },
  data: "{profile, closed}",
  examples: [["keyhold logout", "close the session on the server too, and lock the vault"]],
  run: async (args, ctx) => {
    const home = homeOf(ctx);
    const profile = await profileOf(ctx);
    const socket = agentSocket(ctx.dirs.runtime, profile.name);
    let closed = 0;
    let requestId: string | null = null;
    const close = async (client: ReturnType<typeof agentClient>) => {
      try {
        const done = await client.closeSession({ sessionId: null, all: args.all });
        closed = done.closed;
        requestId = done.requestId;
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        if (error.exit === 7) ctx.out.warn("the server is away: it forgets the session after its idle time");
        else if (!OVER.has(error.code)) throw error;
      }
    };
    if ((await agentFacts(socket)) !== undefined)
      await close(agentClient(socket, (text) => ctx.out.notice(plain(text))));
    else if (args.all && profile.server) {
      const password = await needPassword(ctx);
      try {
        const { client } = await openProfile(
          home,
          { ...profile, kdf: kdfOf(ctx, profile) },
          password,
          surroundings(ctx),
          { keep: true },
        );
        await close(client);
        await client.close();
      } finally {
        wipe(password);
      }
    }
    await lockAgent(socket);
    await markLoggedOut(home, profile, true);
    return result({ profile: profile.name, closed }, () => "logged out", { requestId });
  },
});
