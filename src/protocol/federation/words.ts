import { wordlist } from "@scure/bip39/wordlists/english.js";

const WORD_BITS = 11;

/**
 * Words of a digest, to be compared aloud: 11 bits each, from its first bit on (docs/protocol.md §8.7).
 *
 * @param hash At least as many bits as the words take; 32 bytes give up to 23 words.
 * @throws RangeError for a digest that is too short: a caller's bug.
 */
export function digestWords(hash: Uint8Array, count = 6): readonly string[] {
  if (!Number.isInteger(count) || count < 1 || count * WORD_BITS > hash.length * 8) {
    throw new RangeError("words: the digest has too few bits");
  }
  return Array.from({ length: count }, (_, word) => {
    let index = 0;
    for (let bit = word * WORD_BITS; bit < (word + 1) * WORD_BITS; bit++) {
      index = (index << 1) | (((hash[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1);
    }
    return wordlist[index] ?? "";
  });
}
