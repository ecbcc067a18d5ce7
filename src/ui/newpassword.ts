import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { dicewarePassphrase } from "./diceware.ts";
import { normalizePassword } from "./passwordtext.ts";
import { prepareStrength, type Strength, strengthOf } from "./strength.ts";
import { BACK, type Back, type Otherwise, type Terminal } from "./terminal.ts";

/** How a new password is asked for. */
export interface NewPassword {
  readonly message: string;
  readonly otherwise: Otherwise;
  /** What an attacker knows of the owner: names that must not carry the password. */
  readonly known: readonly string[];
}

const bytesOf = (text: string) => normalizePassword(new TextEncoder().encode(text));

/**
 * Asks for a new password at the terminal: twice, with its strength shown, a weak one only when it is confirmed, and a
 * passphrase suggested for an empty answer. One that is too short or too long, or mistyped, is asked for anew: a command
 * that ended there would leave what is typed next to the shell.
 *
 * @returns NFC, 8 to 1,024 bytes, owned by the caller; or one step back.
 * @throws Fault password_needed, interrupted
 */
export async function chooseAtTerminal(term: Terminal, how: NewPassword): Promise<Uint8Array | Back> {
  const { steps } = term;
  for (;;) {
    if (term.canPrompt) prepareStrength();
    const typed = await steps.password(`${how.message} (empty: suggest a passphrase)`, how.otherwise);
    if (typed === BACK) return BACK;
    if (typed === "") {
      const suggested = await suggest(steps);
      if (suggested !== BACK) return suggested;
      continue;
    }
    const password = await taken(steps, typed);
    if (password === null) continue;
    const chosen = await accept(term, password, typed, how).catch((error: unknown) => {
      wipe(password);
      throw error;
    });
    if (chosen) return password;
    wipe(password);
  }
}

/** Null, and said why, for what is no password. */
async function taken(steps: Terminal["steps"], typed: string): Promise<Uint8Array | null> {
  try {
    return bytesOf(typed);
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "bad_input") throw error;
    await steps.say(`${error.message}: choose another one`, "warn");
    return null;
  }
}

/** False: another one is asked for. */
async function accept(term: Terminal, password: Uint8Array, typed: string, how: NewPassword): Promise<boolean> {
  const { steps } = term;
  if (password.length < DEFAULTS.passwordMinBytes) {
    await steps.say(`a password has at least ${DEFAULTS.passwordMinBytes} bytes: choose a longer one`, "warn");
    return false;
  }
  const strength = await steps.unseen(strengthOf(typed, how.known));
  if (strength.weak) {
    await steps.say(warningOf(strength), "warn");
    const answer = await steps.select("Take it all the same?", [
      { value: "another", label: "No, choose another one" },
      { value: "keep", label: "Yes, take this one" },
    ]);
    if (answer !== "keep") return false;
  } else await steps.say(`Strength: ${strength.level}`, "good");
  const again = await steps.password("Again", how.otherwise);
  if (again === BACK) return false;
  const second = again === "" ? new Uint8Array(0) : await taken(steps, again);
  if (second === null) return false;
  try {
    if (equalBytes(password, second)) return true;
  } finally {
    wipe(second);
  }
  await steps.say("the two differ: try again", "warn");
  return false;
}

function warningOf({ level, time, advice }: Strength): string {
  const found = `Strength: ${level}. Who has the vault's file and rents machines finds it in ${time}.`;
  const words = advice.join(" ").replaceAll("personal or page related data", "names of yours");
  return [found, ...(words === "" ? [] : [words]), "An empty answer suggests a passphrase."].join("\n");
}

/** Shows a passphrase once and has it typed; Esc leads back to the question before. */
async function suggest(steps: Terminal["steps"]): Promise<Uint8Array | Back> {
  const phrase = dicewarePassphrase((length) => crypto.getRandomValues(new Uint8Array(length)));
  for (;;) {
    const seen = await steps.reveal(
      `A passphrase, drawn by chance for you:\n\n    ${phrase}\n\n` +
        "Write it down and keep the paper until you know it by heart. It is shown this once, and you type it next.",
      "Enter when you have noted it, Esc for a password of your own",
    );
    if (seen === BACK) return BACK;
    const typed = await steps.password("The passphrase, as you noted it (Esc: show it again)");
    if (typed === phrase) return bytesOf(phrase);
    if (typed !== BACK) await steps.say("that is not what was shown: look again", "warn");
  }
}
