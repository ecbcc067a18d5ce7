import text from "./eff_large_wordlist.txt" with { type: "text" };

/**
 * The EFF Long Wordlist for passphrases: 7,776 lower-case words of 3 to 9 letters, four of them with a hyphen.
 * The text file beside this one is the published list, byte for byte
 * (SHA-256 addd35536511597a02fa0a9ff1e5284677b8883b83e986e43f15a3db996b903e).
 *
 * "EFF's Long Wordlist", Joseph Bonneau, Electronic Frontier Foundation, https://www.eff.org/dice,
 * licensed under Creative Commons Attribution 3.0 United States (CC-BY 3.0 US); unchanged.
 */
export const EFF_WORDS: readonly string[] = text
  .trimEnd()
  .replace(/^[1-6]{5}\t/gm, "")
  .split("\n");
