import { LOOKED_AT, loadEstimator } from "../client/guesses.ts";

/** How hard a password is to guess for somebody who has the vault's file. */
export interface Strength {
  /** Decimal logarithm of the guesses that it takes. */
  readonly guessesLog10: number;
  readonly level: "very weak" | "weak" | "fair" | "good" | "strong";
  /** True where it must not be taken without being confirmed. */
  readonly weak: boolean;
  /** How long guessing takes: "about 3 hours". */
  readonly time: string;
  /** What makes it weak, in sentences; empty for a strong one. */
  readonly advice: readonly string[];
}

/** Guesses a second of an attacker who rents many machines against the vault's cost of stretching. */
const GUESSES_PER_SECOND_LOG10 = 4;

const LEVELS = [
  [6, "very weak"],
  [10, "weak"],
  [12, "fair"],
  [15, "good"],
  [Number.POSITIVE_INFINITY, "strong"],
] as const;

const SPANS = [
  [1, "second"],
  [60, "minute"],
  [3_600, "hour"],
  [86_400, "day"],
  [86_400 * 30.4, "month"],
  [86_400 * 365.25, "year"],
] as const;

function spanOf(seconds: number): string {
  if (seconds < 1) return "less than a second";
  if (seconds > 86_400 * 365.25 * 1_000) return "more than a thousand years";
  const [unit, name] = SPANS.findLast(([length]) => seconds >= length) ?? SPANS[0];
  const count = Math.round(seconds / unit);
  return `about ${count} ${name}${count === 1 ? "" : "s"}`;
}

/** After this a question is shown: unpacking the lists before it would keep it back. */
const SHOWN_MS = 150;

/** Begins to load the word lists once the question for a password is shown, so that they are there when it is typed. */
export function prepareStrength(): void {
  setTimeout(() => void loadEstimator().catch(() => undefined), SHOWN_MS).unref();
}

/**
 * Estimates a password by zxcvbn with its common and English word lists.
 *
 * @param known What an attacker knows of its owner: the account's name, the server's host.
 */
export async function strengthOf(password: string, known: readonly string[] = []): Promise<Strength> {
  const estimate = await loadEstimator();
  const words = [...new Set([...known, ...known.flatMap((one) => one.split(/[^\p{L}\p{N}]+/u))])];
  const { guessesLog10, feedback } = estimate(
    password.slice(0, LOOKED_AT),
    words.filter((word) => word.length > 2),
  );
  const level = LEVELS.find(([below]) => guessesLog10 < below)?.[1] ?? "strong";
  const weak = level === "weak" || level === "very weak";
  const advice = weak ? [feedback.warning ?? "", ...feedback.suggestions].filter((text) => text !== "") : [];
  return { guessesLog10, level, weak, time: spanOf(10 ** (guessesLog10 - GUESSES_PER_SECOND_LOG10)), advice };
}
