import { closeSync, readFileSync } from "node:fs";
import { parseAnchor, readKit } from "../client/kit.ts";
import { recoverAccount } from "../client/recover.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { KIT_FILE_MAX, runKit } from "../ui/kits.ts";
import { result } from "../ui/output.ts";
import { choosePassword, needPassword, readSecretFile } from "../ui/password.ts";
import { activeProfile, homeOf, kdfOf, surroundings, wantedProfile } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { readAuthority } from "./register.ts";

export const recoveryKit = defineCommand({
  args: { out: { type: "string", hint: "FILE", description: "write the kit to a new file, 0600, and do not show it" } },
  data: "{account, userId, server, pin, head, replaced, confirmed, words?|out?}",
  details:
    "Shows 24 words that open the account on a new machine when the password or all devices are lost. A kit made " +
    "before opens nothing any more.",
  examples: [
    ["keyhold account recovery-kit", "show the kit, to write it down"],
    ["keyhold account recovery-kit --out kit.txt", "as a file, to print it"],
  ],
  run: async (args, ctx) => {
    const profile = await activeProfile(ctx);
    if (!profile.server) {
      throw new Fault("bad_input", "this profile has no account", { hint: "keyhold vault recovery-kit" });
    }
    const password = await needPassword(ctx);
    try {
      return await runKit(ctx, profile, password, args.out);
    } finally {
      wipe(password);
    }
  },
});

/** Where the commands that recover get the kit from. */
export const KIT_SOURCE_ARGS = {
  kitFile: { type: "string", hint: "FILE", description: "read the kit, or its 24 words, from FILE" },
  kitFd: { type: "integer", hint: "N", max: 65_535, description: "read the kit from file descriptor N" },
} as const;

/** The kit's text, given or asked for. @throws Fault not_found, denied, bad_input, input_needed */
export async function kitTextOf(ctx: Context, args: Values<typeof KIT_SOURCE_ARGS>): Promise<string> {
  const file = givenKit(ctx, args);
  const otherwise = { needed: "the recovery kit", fix: "--kit-file FILE or --kit-fd N" };
  const text = file
    ? new TextDecoder().decode(file)
    : await ctx.term.text("The 24 words of the recovery kit, in order", otherwise);
  wipe(file ?? undefined);
  return text;
}

/** The kit's text, from where it was said to be; null: it is asked for. */
function givenKit(ctx: Context, args: Values<typeof KIT_SOURCE_ARGS>): Uint8Array | null {
  if (args.kitFile !== null) return readSecretFile(args.kitFile, KIT_FILE_MAX, "refuse");
  if (args.kitFd === null) return null;
  if (args.kitFd === 0) ctx.stdin.claim("the recovery kit");
  try {
    return new Uint8Array(readFileSync(args.kitFd)).subarray(0, KIT_FILE_MAX);
  } catch {
    throw new Fault("bad_input", "cannot read from --kit-fd");
  } finally {
    if (args.kitFd > 2) closeSync(args.kitFd);
  }
}

/** A refusal names what may be wrong here: the words, not a password. */
function refusedKit(error: unknown): never {
  if (!(error instanceof Fault) || error.code !== "login_failed") throw error;
  const hint = "check the account name and the words; a kit made later replaces the ones before";
  throw new Fault("login_failed", error.message, { hint });
}

export const accountRecover = defineCommand({
  args: {
    server: { type: "string", hint: "URL", description: "the server's URL (default: as the kit says)" },
    pin: { type: "string", hint: "PIN", description: "the server's pin (default: as the kit says)" },
    account: { type: "string", hint: "NAME", description: "name of the account (default: as the kit says)" },
    head: { type: "string", hint: "REV:HASH", description: "the head that the kit prints: older is refused" },
    ...KIT_SOURCE_ARGS,
    tlsCa: { type: "string", hint: "FILE", description: "authority of the server's own TLS certificate, PEM" },
  },
  data: "{account, userId, profile}",
  details:
    "Gives the account a new password (--password-file and so on, or asked for) and makes this home a device of it. " +
    "All sessions are closed. Lost devices stay listed: revoke them afterwards.",
  examples: [
    ["keyhold account recover --kit-file kit.txt", "with the kit's file"],
    ["keyhold account recover --server URL --pin PIN --account ada", "asks for the 24 words"],
  ],
  run: async (args, ctx) => {
    const kit = readKit(await kitTextOf(ctx, args));
    if (kit.vaultId !== null) {
      throw new Fault("bad_input", "this is the recovery kit of a vault without a server", {
        hint: "keyhold vault recover --kit-file FILE",
      });
    }
    const url = args.server ?? kit.server;
    const pin = args.pin ?? kit.pin;
    const account = args.account ?? kit.account;
    if (url === null || pin === null || account === null) {
      throw new Fault("input_needed", "a recovery needs --server, --pin and --account, or a whole kit by --kit-file");
    }
    const password = await choosePassword(ctx, "New password", [account]);
    try {
      const input = {
        profile: (await wantedProfile(ctx)) ?? "default",
        server: { url, pin, tlsCaPem: readAuthority(args.tlsCa) },
        account,
        password,
        kdf: kdfOf(ctx, null),
        words: kit.words,
        known: {
          anchor: args.head === null ? kit.anchor : parseAnchor(args.head),
          ...(kit.userId !== null && { userId: kit.userId }),
        },
      };
      const recovering = recoverAccount(homeOf(ctx), input, surroundings(ctx));
      const done = await ctx.term.step("Recovering", recovering.catch(refusedKit));
      await done.client.closeSession({ sessionId: null, all: false });
      await done.client.close();
      const data = { account: done.account, userId: done.userId, profile: input.profile };
      return result(
        data,
        () =>
          `recovered ${plain(done.account)}: the new password is set, all other sessions are closed\n` +
          "Next: keyhold account device list, and revoke those that are lost; then make a new recovery kit",
        { requestId: done.recovered },
      );
    } finally {
      wipe(password);
    }
  },
});
