import { draftFactor, factorUri } from "../client/factor.ts";
import { ENROL_HINT, type NewFactor } from "../client/factorapi.ts";
import { openProfile } from "../client/home.ts";
import type { Profile } from "../client/profile.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Context } from "./command.ts";
import { codeFile } from "./factor.ts";
import { homeOf, surroundings } from "./session.ts";

/** How a new key is proved: by a code in a file, or by one that is asked for. */
export interface Proving {
  readonly codeFile: string | null;
  /** For a terminal with dark text on a light ground. */
  readonly invert: boolean;
}

/** Shows a new second factor's key and asks for a code of it, until one is right. */
export function factorDialog(
  ctx: Context,
  profile: Profile,
  made: Omit<NewFactor, "code">,
  proving: Proving,
): (refused: Fault | null) => Promise<NewFactor> {
  return async (refused) => {
    if (proving.codeFile !== null) {
      if (refused !== null) throw refused;
      return { ...made, code: codeFile(proving.codeFile) };
    }
    const otherwise = { needed: "a code of the new key", fix: "--key-file FILE and --code-file FILE" };
    if (refused !== null) ctx.out.warn(refused.message);
    else if (ctx.term.canPrompt) await show(ctx, profile, made.key, proving.invert);
    return { ...made, code: await ctx.term.text("Code that the authenticator shows", otherwise) };
  };
}

async function show(ctx: Context, profile: Profile, key: Uint8Array, invert: boolean): Promise<void> {
  const uri = factorUri(key, profile.account ?? "", new URL(profile.server?.url ?? "").host);
  const { columns } = ctx.term.steps;
  const { qrLines } = await import("./qrcode.ts");
  // beside the mark of the question
  const drawn = await qrLines(uri, { width: columns - 4, invert }).catch(() => "");
  const base32 = new URL(uri).searchParams.get("secret") ?? "";
  const typed = base32.replace(/(.{4})(?=.)/g, "$1 ");
  await ctx.term.steps.say(
    `Scan this with an authenticator program, or type the key there.\n\n${drawn}\n\nKey: ${typed}\n${uri}`,
  );
}

/** Recovery codes as they are kept. */
export const recoveryText = (codes: readonly string[]): string =>
  `Recovery codes of keyhold: each opens one login instead of a code of the authenticator.\n\n${codes.join("\n")}\n`;

/**
 * Logs in to a new account once, to see whether its server asks it for a second factor (docs/protocol.md §10.9), and
 * leads through making one where `ask` is set.
 *
 * @returns `needed` where it asks for one and none was made; null where it asks for none, or could not be asked.
 */
export async function firstLogin(
  ctx: Context,
  profile: Profile,
  password: Uint8Array,
  ask: boolean,
): Promise<"enabled" | "needed" | null> {
  const made = draftFactor((length) => crypto.getRandomValues(new Uint8Array(length)));
  const dialog = factorDialog(ctx, profile, made, { codeFile: null, invert: false });
  let enrolled = false;
  let enabled = false;
  const enrol = async (refused: Fault | null): Promise<NewFactor> => {
    if (!enrolled) {
      await ctx.term.steps.say(
        "This server asks every account for a second factor: beside the password a code of an authenticator program, on a telephone say.",
      );
    }
    enrolled = true;
    return dialog(refused);
  };
  const factor = { code: async () => null, ...(ask && { enrol }) };
  try {
    const opening = openProfile(homeOf(ctx), profile, password, { ...surroundings(ctx), factor }, { keep: false });
    const { client } = await (ask ? opening : ctx.term.step("Logging in", opening));
    await client.close();
    if (!enrolled) return null;
    enabled = true;
    const keep = "Keep them apart from the authenticator: each works once, and none is shown again.";
    await ctx.term.steps.reveal(`${recoveryText(made.recovery)}\n${keep}\n`, "Enter when they are on paper");
    await ctx.term.steps.say(
      "The second factor is set. A code is good once: for what follows, wait for the next one.",
      "good",
    );
    return "enabled";
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    if (enabled) {
      await ctx.term.steps.say("New recovery codes, if these were not kept: keyhold account factor codes", "warn");
      return "enabled";
    }
    if (enrolled || error.hint === ENROL_HINT) {
      if (ask) await ctx.term.steps.say(`The account can do nothing at this server before: ${ENROL_HINT}`, "warn");
      return "needed";
    }
    return null;
  } finally {
    wipe(made.key);
  }
}
