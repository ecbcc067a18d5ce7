import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { wordRows } from "../../client/kit.ts";
import { kitState, type Profile } from "../../client/profile.ts";
import { Fault } from "../../errors.ts";
import type { Context } from "../command.ts";
import {
  completionInstalled,
  completionPlace,
  type InstalledCompletion,
  installFor,
  type ScriptOf,
  shellOf,
} from "../completionfiles.ts";
import { confirmWords, KIT_FILE_MAX, type MadeKit, makeKit, noteConfirmed } from "../kits.ts";
import { reserveNewFile } from "../outfile.ts";
import { normalizePassword } from "../passwordtext.ts";
import { BACK, type Back, type Steps } from "../terminal.ts";
import { plain } from "../text.ts";

/** What the last questions did. */
export interface Finish {
  readonly kitOut: string | null;
  readonly completion: InstalledCompletion | null;
}

/** Says in one line what went wrong and what helps. */
export function sayFault(steps: Steps, fault: Fault): Promise<void> {
  const lines = [fault.message, fault.why ?? "", fault.hint === undefined ? "" : `Fix: ${fault.hint}`];
  return steps.say(lines.filter((line) => line !== "").join("\n"), "warn");
}

/** The password of the open wizard: typed before, or asked for when it is needed. */
export interface KnownPassword {
  bytes: Uint8Array | null;
}

/** Whether {@link finish} would ask anything. */
export function lacksAnything({ env }: Pick<Context, "env">, profile: Profile, skipKit: boolean): boolean {
  const shell = shellOf(env);
  return lacksKit(profile, skipKit) || (shell !== null && !completionInstalled(completionPlace(shell, env)));
}

function lacksKit(profile: Profile, skipKit: boolean): boolean {
  return !skipKit && !profile.loggedOut && kitState(profile) !== "confirmed";
}

/** Offers what a home still lacks: a confirmed recovery kit and the shell's completion. */
export async function finish(
  ctx: Context,
  profile: Profile,
  password: KnownPassword,
  scriptOf: ScriptOf,
  skipKit: boolean,
): Promise<Finish> {
  for (let kitOut: string | null = null; ; ) {
    const lacks = lacksKit(profile, skipKit);
    if (lacks) kitOut = (await kitQuestions(ctx, profile, password)) ?? kitOut;
    const completion = await completionQuestion(ctx, scriptOf);
    if (completion !== BACK) return { kitOut, completion };
    // one step back is the kit; where there is none to ask about, Esc is no
    if (!lacks) return { kitOut, completion: null };
  }
}

type HowToKeep = "show" | "file" | "later";

async function kitQuestions(ctx: Context, profile: Profile, password: KnownPassword): Promise<string | null> {
  const { steps } = ctx.term;
  const again = kitState(profile) === "unconfirmed";
  await steps.say(
    again
      ? "A recovery kit was made, but nobody confirmed that it is kept. A new one takes its place."
      : "Without a recovery kit a forgotten password cannot be replaced by anyone. It is 24 words on paper.",
  );
  for (;;) {
    const how = await steps.select<HowToKeep>(again ? "Make a new recovery kit?" : "Make a recovery kit?", [
      { value: "show", label: "Yes, show it: I write it down" },
      { value: "file", label: "Yes, into a file that I print" },
      { value: "later", label: "Later" },
    ]);
    if (how === "later" || how === BACK) return null;
    const out = how === "file" ? await askFile(steps, ctx.env) : null;
    if (out === BACK) continue;
    try {
      const kept = await keepKit(ctx, profile, password, out);
      if (kept !== BACK) return out;
    } catch (error) {
      if (!(error instanceof Fault) || error.code === "interrupted") throw error;
      if (error.code === "wrong_password" || error.code === "login_failed") password.bytes = null;
      await sayFault(steps, error);
    }
  }
}

function askFile(steps: Steps, env: Context["env"]): Promise<string | Back> {
  const home = env["HOME"] || homedir();
  const full = (text: string) => resolve(text.trim().replace(/^~(?=\/|$)/, home));
  return steps
    .text("New file for the kit, 0600", {
      initial: free(join(home, "keyhold-recovery-kit")),
      check: (text) => {
        if (text.trim() === "") return "an answer is needed; Esc goes back";
        if (existsSync(full(text))) return "it exists already: another name";
        return existsSync(dirname(full(text))) ? null : "its directory does not exist";
      },
    })
    .then((answer) => (answer === BACK ? BACK : full(answer)));
}

/** A name that nothing has yet. */
function free(stem: string): string {
  for (let number = 1; ; number++) {
    const path = `${stem}${number === 1 ? "" : `-${number}`}.txt`;
    if (!existsSync(path)) return path;
  }
}

async function keepKit(
  ctx: Context,
  profile: Profile,
  password: KnownPassword,
  out: string | null,
): Promise<Back | null> {
  const { steps } = ctx.term;
  if (password.bytes === null) {
    const typed = await steps.password("Password");
    if (typed === BACK) return BACK;
    password.bytes = normalizePassword(new TextEncoder().encode(typed));
  }
  const file = out === null ? null : reserveNewFile(out, KIT_FILE_MAX);
  let kit: MadeKit;
  try {
    kit = await makeKit(ctx, profile, password.bytes);
    file?.write(new TextEncoder().encode(kit.text));
  } finally {
    file?.end();
  }
  const inForce = "The kit is in force, but not confirmed: keyhold init offers to make a new one.";
  for (;;) {
    if (out !== null) await steps.say(`The kit is in ${plain(out)}\nPrint it, then delete the file.`, "good");
    else if ((await steps.reveal(sheetOf(kit, steps.columns), "Enter when it is on paper")) === BACK) {
      await steps.say(inForce, "warn");
      return null;
    }
    const answer = await confirmWords(steps, kit.words);
    if (answer === BACK) continue;
    if (answer === null) await steps.say(inForce, "warn");
    else {
      await noteConfirmed(ctx, profile, kit);
      await steps.say("The recovery kit is confirmed.", "good");
    }
    return null;
  }
}

/** A kit's text with as many words in a row as the terminal takes. */
function sheetOf({ text, words }: MadeKit, columns: number): string {
  const [before = ""] = text.split("\nwords\n");
  const across = Math.max(1, Math.min(4, Math.floor((columns - 4) / 15)));
  return `${before}\n${wordRows(words, across).join("\n")}\n`;
}

async function completionQuestion(ctx: Context, scriptOf: ScriptOf): Promise<InstalledCompletion | Back | null> {
  const { steps } = ctx.term;
  const shell = shellOf(ctx.env);
  if (shell === null) return null;
  const place = completionPlace(shell, ctx.env);
  if (completionInstalled(place)) return null;
  const { start } = place;
  await steps.say(`Completion for ${shell} goes to\n${plain(place.file)}`);
  if (start) await steps.say(`and ${shell} needs one more line in ${plain(start.file)}:\n${plain(start.line)}`);
  const answer = await steps.select<"all" | "file" | "no">(`Complete commands with the Tab key in ${shell}?`, [
    { value: "all", label: start ? "Yes, both" : "Yes" },
    ...(start ? [{ value: "file" as const, label: "The file alone: I add the line myself" }] : []),
    { value: "no", label: "No" },
  ]);
  if (answer === BACK) return BACK;
  if (answer === "no") return null;
  try {
    return await installFor(ctx.env, shell, scriptOf, async () => answer === "all");
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    await sayFault(steps, error);
    return null;
  }
}
