import { readFileSync } from "node:fs";
import { registerAccount } from "../client/home.ts";
import { accountNameOf } from "../client/names.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { choosePassword } from "../ui/password.ts";
import { homeOf, kdfOf, surroundings, wantedProfile } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

const SERVER_ARGS = {
  server: { type: "string", hint: "URL", description: "the server's URL", required: true, ask: "URL of the server" },
  pin: {
    type: "string",
    hint: "PIN",
    description: "the server's pin, as `keyhold serve` prints it",
    required: true,
    ask: "Pin of the server",
  },
  account: { type: "string", hint: "NAME", description: "name of the account", required: true, ask: "Account name" },
} as const;

/** PEM of a private authority for TLS. @throws Fault bad_input */
export function readAuthority(path: string | null): string | null {
  if (path === null) return null;
  try {
    return readFileSync(path, "utf8");
  } catch {
    throw new Fault("bad_input", `cannot read ${JSON.stringify(path)}`, { hint: "give a PEM file that you may read" });
  }
}

export default defineCommand({
  args: {
    ...SERVER_ARGS,
    invite: { type: "string", hint: "CODE", description: "one-time registration code, where the server asks for one" },
    tlsCa: { type: "string", hint: "FILE", description: "authority of the server's own TLS certificate, PEM" },
  },
  examples: [
    [
      "keyhold register --server https://127.0.0.1:7443 --pin sha256:… --account ada",
      "the line that `keyhold serve` prints",
    ],
  ],
  run: async (args, ctx) => {
    const account = accountNameOf(args.account);
    const password = await choosePassword(ctx);
    try {
      const registering = registerAccount(
        homeOf(ctx),
        {
          profile: (await wantedProfile(ctx)) ?? "default",
          server: { url: args.server, pin: args.pin, tlsCaPem: readAuthority(args.tlsCa) },
          account,
          invite: args.invite === null ? null : args.invite.toUpperCase(),
          password,
          kdf: kdfOf(ctx, null),
        },
        surroundings(ctx),
      );
      const made = await ctx.term.step("Registering", registering);
      const { requestId, ...data } = made;
      return result(data, () => `registered ${plain(made.account)}   (profile ${made.profile})\nNext: keyhold login`, {
        requestId,
      });
    } finally {
      wipe(password);
    }
  },
});
