import { strengthOf } from "./strength.ts";

/** What a person's own addition to a contribution is worth, told honestly. */
export interface Estimate {
  /** Bits, rounded down; null where nobody can tell. */
  readonly bits: number | null;
  /** One sentence for people. */
  readonly text: string;
  /** True for what looks like no chance at all. */
  readonly doubtful: boolean;
}

/** Said wherever an addition is offered: nobody needs one. */
export const ENOUGH =
  "The 32 bytes that this computer's system draws are enough alone. What you add is on top, and can make nothing worse.";

/** Bits that make an addition strong by itself. */
export const STRONG_BITS = 128;

const BITS_A_THROW = Math.log2(6);
/** Throws that repeat what went before: chance does so once in 46,656 series. */
const REPEATED = 6;
/** Longest series of throws that is looked for again and again: 123456123456. */
const PERIOD_MAX = 6;
/** From so many throws on, order and a favourite side are no chance. */
const MANY = 12;

/**
 * Throws of a die with six sides as digits 1 to 6; spaces, commas and hyphens between them are left out.
 *
 * @returns Null where anything else stands in it, or nothing.
 */
export function diceDigits(text: string): string | null {
  const digits = text.replaceAll(/[\s,;-]/g, "");
  return /^[1-6]+$/.test(digits) ? digits : null;
}

/** What throws are worth: log2(6) bits each, where they look thrown. @param digits As from {@link diceDigits}. */
export function diceEstimate(digits: string): Estimate {
  const count = `${digits.length} ${digits.length === 1 ? "throw" : "throws"}`;
  const pattern = patternIn(digits);
  if (pattern !== null) {
    return {
      bits: 0,
      doubtful: true,
      text: `${count}, but ${pattern}: counted as nothing. Throw the dice, do not invent.`,
    };
  }
  const bits = Math.floor(digits.length * BITS_A_THROW);
  return { bits, doubtful: false, text: `${count}: ${bits} bits${enough(bits)}` };
}

/** What gives away that digits were not thrown. */
function patternIn(digits: string): string | null {
  for (let period = 1; period <= PERIOD_MAX && digits.length >= period + REPEATED; period++) {
    if (![...digits].every((digit, i) => digit === digits[i % period])) continue;
    return period === 1 ? "all are the same" : "the same few repeat";
  }
  if (digits.length < MANY) return null;
  const sorted = [...digits].sort();
  if (digits === sorted.join("") || digits === sorted.reverse().join("")) return "they stand in order";
  const most = Math.max(...[..."123456"].map((side) => digits.split(side).length - 1));
  // four standard deviations
  if (most > digits.length / 6 + 4 * Math.sqrt((digits.length * 5) / 36)) return "one side comes far too often";
  return null;
}

/** What typed words are worth by the guesses that they take (zxcvbn): a rough measure, and never an over-estimate of chance. */
export async function typedEstimate(text: string): Promise<Estimate> {
  const { guessesLog10, weak } = await strengthOf(text);
  const bits = Math.floor(guessesLog10 / Math.log10(2));
  const rough = `about ${bits} bits, by a rough estimate`;
  if (weak)
    return { bits, doubtful: true, text: `${rough}: easy to guess. More words, or odder ones, count for more.` };
  return { bits, doubtful: false, text: `${rough}${enough(bits)}` };
}

/** A file's size says nothing of how well others can guess it. */
export function fileEstimate(bytes: number): Estimate {
  const size = `${bytes} ${bytes === 1 ? "byte" : "bytes"}`;
  return { bits: null, doubtful: false, text: `${size}: as good as the file is unknown to others` };
}

const enough = (bits: number): string => (bits >= STRONG_BITS ? ": strong even alone" : "");
