import { type RandomSource, wipe } from "../crypto/bytes.ts";
import { EFF_WORDS } from "../crypto/wordlist.ts";

/** Words of a suggested passphrase: 77 bits. */
const SUGGESTED_WORDS = 6;

/** A passphrase of words of the EFF Long Wordlist, each drawn evenly, joined by hyphens. */
export function dicewarePassphrase(random: RandomSource, count: number = SUGGESTED_WORDS): string {
  const limit = 65_536 - (65_536 % EFF_WORDS.length);
  const words: string[] = [];
  while (words.length < count) {
    const pair = random(2);
    const number = ((pair[0] ?? 0) << 8) | (pair[1] ?? 0);
    wipe(pair);
    if (number < limit) words.push(EFF_WORDS[number % EFF_WORDS.length] ?? "");
  }
  return words.join("-");
}
