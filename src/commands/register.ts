import { readFileSync } from "node:fs";
import { registerAccount } from "../client/enrol.ts";
import { accountNameOf } from "../client/names.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { type Result, result } from "../ui/output.ts";
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

/** What a registration needs beside the password. */
export interface Registration {
  readonly server: string;
  readonly pin: string;
  readonly account: string;
  readonly invite: string | null;
  readonly tlsCa: string | null;
}

/** Says where the way in is; the server's refusal names the reason alone. @throws Fault always */
export function refused(error: unknown): never {
  if (!(error instanceof Fault) || error.code !== "denied" || error.hint !== undefined) throw error;
  throw new Fault("denied", error.message, {
    hint: "ask the server's operator for a code, and give it by --invite CODE",
    ...(error.requestId !== undefined && { requestId: error.requestId }),
  });
}

/** Registers with a password that is given or asked for twice, and says what comes next. */
export async function registerWith(ctx: Context, wanted: Registration): Promise<Result> {
  const account = accountNameOf(wanted.account);
  const password = await choosePassword(ctx, "Password", [account]);
  try {
    const registering = registerAccount(
      homeOf(ctx),
      {
        profile: (await wantedProfile(ctx)) ?? "default",
        server: { url: wanted.server, pin: wanted.pin, tlsCaPem: readAuthority(wanted.tlsCa) },
        account,
        invite: wanted.invite === null ? null : wanted.invite.toUpperCase(),
        password,
        kdf: kdfOf(ctx, null),
      },
      surroundings(ctx),
    );
    const { requestId, ...data } = await ctx.term.step("Registering", registering.catch(refused));
    const human = () => `registered ${plain(data.account)}   (profile ${data.profile})\nNext: keyhold login`;
    return result(data, human, { requestId });
  } finally {
    wipe(password);
  }
}

export default defineCommand({
  args: {
    ...SERVER_ARGS,
    invite: { type: "string", hint: "CODE", description: "one-time registration code, where the server asks for one" },
    tlsCa: { type: "string", hint: "FILE", description: "authority of the server's own TLS certificate, PEM" },
  },
  details: "Makes the account, this device's profile and its vault.",
  data: "{account, userId, profile}",
  examples: [
    [
      "keyhold register --server https://127.0.0.1:7443 --pin sha256:… --account ada",
      "the line that `keyhold serve` prints",
    ],
  ],
  run: async (args, ctx) => registerWith(ctx, args),
});
