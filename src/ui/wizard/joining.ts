import type { CeremonyInfo, MixedEntropy } from "../../client/ceremonyapi.ts";
import { Fault } from "../../errors.ts";
import { CEREMONY_FUNCTIONS, type CeremonyFunction } from "../../protocol/ceremony/model.ts";
import { BACK, type Back, type Steps } from "../terminal.ts";
import { askMixing, type MixKind } from "./mixing.ts";

/** What the questions of a participant lead to. */
export interface JoinAnswers {
  function: CeremonyFunction;
  /** The caller's to wipe, also where the questions are left. */
  readonly mixed: MixedEntropy[];
}

export interface JoinQuestions {
  /** What is said before the first question, a paragraph each. */
  readonly introduction: readonly string[];
  /** Each function in one sentence. */
  readonly functions: Readonly<Record<CeremonyFunction, string>>;
  /** Said already, by the command line. */
  readonly given: { readonly function: CeremonyFunction | null; readonly mix: readonly MixKind[] | null };
}

type Question = "words" | "function" | "mix" | "commit";

/** The questions of a participant, one after another; Esc goes back. @throws Fault interrupted, denied where the words differ */
export async function askJoining(
  steps: Steps,
  info: CeremonyInfo,
  { introduction, functions, given }: JoinQuestions,
  answers: JoinAnswers,
): Promise<void> {
  await steps.say("Esc goes one step back, Ctrl-C leaves. Nothing is sent before the last question.");
  for (const paragraph of introduction) await steps.say(paragraph);
  const order: readonly Question[] = [
    "words",
    ...(given.function === null ? ["function" as const] : []),
    ...(given.mix?.length === 0 ? [] : ["mix" as const]),
    "commit",
  ];
  const ask: Readonly<Record<Question, () => Promise<Back | null>>> = {
    words: () => compareWords(steps, info),
    async function() {
      const chosen = await steps.select(
        "Your function: by it your part goes into the key. Each participant chooses; Enter takes the usual one.",
        CEREMONY_FUNCTIONS.map((value) => ({ value, label: value, hint: functions[value] })),
      );
      if (chosen === BACK) return BACK;
      answers.function = chosen;
      return null;
    },
    mix: () => askMixing(steps, given.mix ?? [], answers.mixed),
    async commit() {
      const sure = await steps.select(
        "Commit now? From then on the others count on you, and nothing of your part can be changed.",
        [
          { value: "yes", label: "Yes, commit" },
          { value: "no", label: "No, leave: nothing was sent" },
        ],
      );
      if (sure === "no") throw new Fault("interrupted", "cancelled");
      return sure === BACK ? BACK : null;
    },
  };
  for (let at = 0; at < order.length; ) {
    const question = order[at] ?? "commit";
    const answer = await ask[question]();
    if (answer !== BACK) at++;
    else if (at === 0) throw new Fault("interrupted", "cancelled");
    else at--;
  }
}

async function compareWords(steps: Steps, info: CeremonyInfo): Promise<Back | null> {
  await steps.say(`The server's key, as six words:\n\n    ${info.words.join(" ")}`);
  const answer = await steps.select<"same" | "trust" | "differ">(
    "Does the organiser see the same six words? Ask by telephone or in person.",
    [
      { value: "same", label: "Yes, the same" },
      {
        value: "trust",
        label: "I cannot ask now",
        hint: "the invite names this server; it is as good as the way it came",
      },
      { value: "differ", label: "No, they differ" },
    ],
  );
  if (answer === BACK) return BACK;
  if (answer !== "differ") return null;
  throw new Fault("denied", "the words of the server's key differ", {
    why: "somebody may stand between you and the server, or the invite is of another ceremony",
    hint: "nothing was sent; ask the organiser for a new invite by another way",
  });
}
