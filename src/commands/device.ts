import { type Linked, takeLink } from "../client/accept.ts";
import { loginNewDevice } from "../client/enrol.ts";
import type { LoggedInClient } from "../client/home.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { askPassword, givenPassword } from "../ui/password.ts";
import { homeOf, kdfOf, surroundings, wantedProfile, withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { readAuthority } from "./register.ts";

export const deviceLink = defineCommand({
  args: {},
  data: "{code, expiresAt}",
  details:
    "Shows a code that works once, for ten minutes. It tells the new device the server, its pin, the account and the " +
    "newest position that this device knows, and hands over the secret of the federations that were joined; the password is asked for there.",
  examples: [["keyhold account device link", "on a device that has the account"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const { code, expiresAt, requestId } = await ctx.term.step("Making the code", client.linkDevice());
      return result(
        { code, expiresAt },
        () => `${code}\n\nOn the new machine:  keyhold account device accept CODE   (once, until ${expiresAt})`,
        { requestId },
      );
    }),
});

const NEW_CODE = "a new code: keyhold account device link, on a device that has the account";

/** Passwords asked for before the code is given up: it works only once. */
const TRIES = 3;

async function enrol(ctx: Context, profile: string, linked: Linked, given: Uint8Array | null): Promise<LoggedInClient> {
  const { server, account, known } = linked;
  for (let attempt = 1; ; attempt++) {
    const password = given ?? (await askPassword(ctx, `Password of ${plain(account)}`));
    try {
      const input = { profile, server, account, password, kdf: kdfOf(ctx, null) };
      return await ctx.term.step("Logging in", loginNewDevice(homeOf(ctx), input, surroundings(ctx), known));
    } catch (error) {
      const wrong = error instanceof Fault && error.code === "login_failed";
      if (wrong && (given !== null || attempt === TRIES)) {
        throw new Fault("login_failed", error.message, { why: "the code is used up now", hint: NEW_CODE });
      }
      if (!wrong) throw error;
      ctx.out.warn("the password is wrong: once more");
    } finally {
      wipe(password);
    }
  }
}

export const deviceAccept = defineCommand({
  args: {
    code: { type: "positional", description: "the code that the other device shows", ask: "Code of the other device" },
    tlsCa: { type: "string", hint: "FILE", description: "authority of the server's own TLS certificate, PEM" },
  },
  data: "{account, userId, profile}",
  details: "Makes this home a device of the account; the account must continue what the other device knew.",
  examples: [["keyhold account device accept keyhold-link-…", "on the new machine"]],
  run: async (args, ctx) => {
    const profile = (await wantedProfile(ctx)) ?? "default";
    const wanted = { code: args.code, tlsCaPem: readAuthority(args.tlsCa) };
    // the code works once: what is missing or unreadable shows before it is spent
    const given = await givenPassword(ctx);
    if (given === null && !ctx.term.canPrompt) await askPassword(ctx);
    const taking = takeLink(homeOf(ctx), profile, wanted, surroundings(ctx)).catch((error: unknown) => {
      wipe(given ?? undefined);
      if (!(error instanceof Fault) || error.code !== "not_found") throw error;
      const why = "it was used, or is older than ten minutes, or is another server's";
      throw new Fault("not_found", error.message, { why, hint: NEW_CODE });
    });
    const linked = await ctx.term.step("Asking", taking);
    const done = await enrol(ctx, profile, linked, given);
    await done.client.closeSession({ sessionId: null, all: false });
    await done.client.close();
    const data = { account: done.account, userId: done.userId, profile };
    return result(
      data,
      () => `this is now a device of ${plain(done.account)}   (profile ${profile})\nNext: keyhold login`,
      {
        requestId: done.requestId,
      },
    );
  },
});
