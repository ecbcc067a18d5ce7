import type { Profile } from "../client/profile.ts";
import { noteKit } from "../client/profile.ts";
import { Fault } from "../errors.ts";
import type { Context } from "./command.ts";
import { reserveNewFile } from "./outfile.ts";
import { type Result, result } from "./output.ts";
import { homeOf, kdfOf, surroundings } from "./session.ts";
import { BACK, type Steps } from "./terminal.ts";
import { plain } from "./text.ts";

/** Room that the file of a kit needs, in bytes. */
export const KIT_FILE_MAX = 16 * 1_024;

/** A recovery kit that is in force, of an account or of a vault without a server. */
export interface MadeKit {
  /** Whose kit it is, for people. */
  readonly owner: string;
  readonly words: readonly string[];
  /** What stands in a file of it; holds the words. */
  readonly text: string;
  /** For `--json`, without the words. */
  readonly data: Readonly<Record<string, unknown>>;
  readonly requestId: string | null;
  readonly madeAtMs: number;
}

/**
 * Makes a new recovery kit for a profile's account, or for its vault if it has no server, and notes it as not confirmed.
 *
 * @throws Fault login_failed, wrong_password, rate_limited, unreachable, storage
 */
export async function makeKit(ctx: Context, profile: Profile, password: Uint8Array): Promise<MadeKit> {
  const home = homeOf(ctx);
  const of = { ...profile, kdf: kdfOf(ctx, profile) };
  const madeAtMs = Date.now();
  const [{ kitText, makeRecoveryKit, vaultKitText }, { makeVaultKit }] = await Promise.all([
    import("../client/kit.ts"),
    import("../client/vaultkit.ts"),
  ]);
  const make = async (): Promise<MadeKit> => {
    if (!profile.server) {
      const { kit, replaced } = await makeVaultKit(home, of, password, surroundings(ctx));
      const { vaultId, words } = kit;
      const data = { profile: profile.name, vaultId, replaced };
      return { owner: "the vault", words, text: vaultKitText(kit, madeAtMs), data, requestId: null, madeAtMs };
    }
    const { kit, replaced, requestId } = await makeRecoveryKit(home, of, password, surroundings(ctx));
    const { account, userId, server, pin, anchor, words } = kit;
    const data = { account, userId, server, pin, head: `${anchor.revision}:${anchor.stateHash.toHex()}`, replaced };
    return { owner: account, words, text: kitText(kit, madeAtMs), data, requestId, madeAtMs };
  };
  const made = await ctx.term.step("Making the recovery kit", make());
  await noteKit(home.profiles, profile.name, { madeAtMs, confirmed: false });
  return made;
}

/** Notes that the owner has shown to hold a kit. */
export function noteConfirmed(ctx: Context, profile: Profile, { madeAtMs }: MadeKit): Promise<void> {
  return noteKit(homeOf(ctx).profiles, profile.name, { madeAtMs, confirmed: true });
}

/**
 * Asks for two of a kit's words, so that nobody goes on with one that was not kept.
 *
 * @returns null when it is put off by an empty answer.
 */
export async function confirmWords(steps: Steps, words: readonly string[]): Promise<"confirmed" | typeof BACK | null> {
  const random = crypto.getRandomValues(new Uint8Array(2));
  const half = words.length / 2;
  for (const place of [(random[0] ?? 0) % half, half + ((random[1] ?? 0) % half)]) {
    const answer = await steps.text(`Word ${place + 1} of the kit (empty: later)`, {
      check: (text) => {
        const typed = text.trim().toLowerCase();
        return typed === "" || typed === words[place] ? null : `this is not word ${place + 1}: look at the kit again`;
      },
    });
    if (answer === BACK) return BACK;
    if (answer.trim() === "") return null;
  }
  return "confirmed";
}

/**
 * A command that makes a kit: into a file, or shown; two words confirm it at a terminal, --yes anywhere.
 *
 * @throws As {@link makeKit}; exists for the file
 */
export async function runKit(
  ctx: Context,
  profile: Profile,
  password: Uint8Array,
  out: string | null,
): Promise<Result> {
  // the kit before opens nothing once the new one is made: what hinders writing it shows first
  const file = out === null ? null : reserveNewFile(out, KIT_FILE_MAX);
  try {
    const kit = await makeKit(ctx, profile, password);
    file?.write(new TextEncoder().encode(kit.text));
    const asks = ctx.term.canPrompt && !ctx.flags.yes && !ctx.flags.json;
    if (asks) {
      if (out === null) ctx.out.lines(kit.text);
      else
        ctx.out.notice(`the recovery kit of ${plain(kit.owner)} is in ${plain(out)}: print it, then delete the file`);
    }
    const confirmed = asks ? await confirmOrSay(ctx, kit) : ctx.flags.yes;
    if (confirmed) await noteConfirmed(ctx, profile, kit);
    const extra = { requestId: kit.requestId };
    const where = out === null ? { words: kit.words } : { out };
    return result({ ...kit.data, confirmed, ...where }, () => told(kit, out, asks, confirmed), extra);
  } finally {
    file?.end();
  }
}

function told(kit: MadeKit, out: string | null, asked: boolean, confirmed: boolean): string {
  if (confirmed && asked) return "the recovery kit is complete";
  if (asked) return "the recovery kit is in force, but not confirmed: keyhold status reminds of it";
  if (out === null) return kit.text;
  return `the recovery kit of ${plain(kit.owner)} is in ${out}: print it, then delete the file`;
}

async function confirmOrSay(ctx: Context, kit: MadeKit): Promise<boolean> {
  const inForce = () => {
    const hint = "write it down, or make another one";
    return new Fault("interrupted", "not confirmed: the kit above is in force all the same", { hint });
  };
  try {
    const answer = await confirmWords(ctx.term.steps, kit.words);
    if (answer === BACK) throw inForce();
    return answer !== null;
  } catch (error) {
    throw error instanceof Fault && error.code === "interrupted" ? inForce() : error;
  }
}
