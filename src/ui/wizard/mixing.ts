import type { MixedEntropy } from "../../client/ceremonyapi.ts";
import { wipe } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { DEFAULTS } from "../../protocol/defaults.ts";
import { diceDigits, diceEstimate, ENOUGH, type Estimate, fileEstimate, typedEstimate } from "../entropy.ts";
import { readSecretFile } from "../password.ts";
import { answeredPath } from "../paths.ts";
import { prepareStrength } from "../strength.ts";
import { BACK, type Back, type Steps } from "../terminal.ts";
import { plain } from "../text.ts";

export const MIX_KINDS = ["typed", "dice", "file"] as const;
export type MixKind = (typeof MIX_KINDS)[number];

/** Bytes of one addition at most: nobody gains by more. */
const MIX_MAX = DEFAULTS.secretBytes;

/** A file as an addition. @returns Bytes that are the caller's to wipe. @throws Fault not_found, denied, bad_input, too_large */
export function mixedFile(path: string): MixedEntropy {
  const bytes = readSecretFile(path, MIX_MAX + 1, "accept");
  if (bytes.length > 0 && bytes.length <= MIX_MAX) return { kind: "file", bytes };
  wipe(bytes);
  if (bytes.length === 0) throw new Fault("bad_input", `"${path}" is empty`, { hint: "choose another file" });
  throw new Fault("too_large", `a file that is mixed in has at most ${MIX_MAX / 1_024} KiB`, {
    hint: "its SHA-256 in a file of its own is as good",
  });
}

/**
 * Offers to mix something of one's own into what the system draws, as often as wished.
 *
 * @param wanted Kinds that the command line asks for: then nothing is offered beside them.
 * @param mixed Gets what was given, each the caller's to wipe.
 */
export async function askMixing(steps: Steps, wanted: readonly MixKind[], mixed: MixedEntropy[]): Promise<Back | null> {
  await steps.say(ENOUGH);
  if (wanted.length > 0) {
    for (const kind of wanted) if ((await ASK[kind](steps, mixed)) === BACK) return BACK;
    return null;
  }
  for (;;) {
    const first = mixed.length === 0;
    const answer = await steps.select<MixKind | "done">(first ? "Add something of your own?" : "Add something more?", [
      { value: "done", label: first ? "No, go on" : "No, that is all" },
      { value: "typed", label: "Words that I type", hint: "what comes to your mind, not shown while you type" },
      { value: "dice", label: "Dice that I throw", hint: "2.6 bits a throw: 50 throws are strong even alone" },
      { value: "file", label: "A file", hint: "noise, a photograph that nobody else has" },
    ]);
    if (answer === BACK) {
      const last = mixed.pop();
      if (last === undefined) return BACK;
      wipe(last.bytes);
      await steps.say("what you added last is taken back");
      continue;
    }
    if (answer === "done") return null;
    await ASK[answer](steps, mixed);
  }
}

type Asking = (steps: Steps, mixed: MixedEntropy[]) => Promise<Back | null>;

const tell = (steps: Steps, { text, doubtful }: Estimate) => steps.say(text, doubtful ? "warn" : "good");

/** Lines until an empty one; the estimate of all of them is said after each. */
async function askLines(
  steps: Steps,
  message: string,
  take: (all: string, line: string) => Promise<{ readonly all: string; readonly estimate: Estimate } | string>,
): Promise<string | Back> {
  for (let all = ""; ; ) {
    const line = await steps.password(all === "" ? message : "More of it (Enter alone: that is all; Esc: none of it)");
    if (line === BACK) return BACK;
    if (line === "") return all === "" ? BACK : all;
    const taken = await steps.unseen(take(all, line));
    if (typeof taken === "string") {
      await steps.say(taken, "warn");
      continue;
    }
    all = taken.all;
    await tell(steps, taken.estimate);
  }
}

function add(mixed: MixedEntropy[], kind: MixKind, text: string): null {
  mixed.push({ kind, bytes: new TextEncoder().encode(text) });
  return null;
}

const ASK: Readonly<Record<MixKind, Asking>> = {
  async typed(steps, mixed) {
    prepareStrength();
    const text = await askLines(steps, "Type words, as odd as you can (not shown; Esc: none)", async (before, line) => {
      const all = before === "" ? line : `${before}\n${line}`;
      if (new TextEncoder().encode(all).length > MIX_MAX) return `at most ${MIX_MAX} bytes are mixed in`;
      return { all, estimate: await typedEstimate(all) };
    });
    return text === BACK ? BACK : add(mixed, "typed", text);
  },
  async dice(steps, mixed) {
    const digits = await askLines(
      steps,
      "Throws of a die, as digits 1 to 6 (not shown; Esc: none)",
      async (before, line) => {
        const more = diceDigits(line);
        if (more === null) return "only digits from 1 to 6, with spaces where you like: that line is left out";
        return { all: before + more, estimate: diceEstimate(before + more) };
      },
    );
    return digits === BACK ? BACK : add(mixed, "dice", digits);
  },
  async file(steps, mixed) {
    for (;;) {
      const path = await steps.text("Which file? (Esc: none)", {
        check: (text) => (text.trim() === "" ? "an answer is needed; Esc goes back" : null),
      });
      if (path === BACK) return BACK;
      try {
        const file = mixedFile(answeredPath(path));
        mixed.push(file);
        await tell(steps, fileEstimate(file.bytes.length));
        return null;
      } catch (error) {
        if (!(error instanceof Fault) || error.code === "interrupted") throw error;
        await steps.say(plain(error.message), "warn");
      }
    }
  },
};
