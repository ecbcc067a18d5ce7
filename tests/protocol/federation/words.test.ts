import { expect, test } from "bun:test";
import { entropyToMnemonic } from "@scure/bip39";
import { wordlist } from "@scure/bip39/wordlists/english.js";
import fc from "fast-check";
import { digestWords } from "../../../src/protocol/federation/words.ts";
import { hash } from "../../support/arbitraries.ts";

test("the words are those that BIP-39 gives for the same bits", () => {
  fc.assert(
    fc.property(hash, (bytes) => {
      const mnemonic = entropyToMnemonic(bytes, wordlist).split(" ");
      // its last word holds the checksum
      expect(digestWords(bytes, 23)).toEqual(mnemonic.slice(0, 23));
      expect(digestWords(bytes)).toEqual(mnemonic.slice(0, 6));
    }),
  );
});

test("a digest that differs in one of the first 66 bits has other words", () => {
  const bytes = new Uint8Array(32);
  for (let bit = 0; bit < 66; bit++) {
    const other = bytes.slice();
    other[bit >> 3] = 0x80 >> (bit & 7);
    expect(digestWords(other)).not.toEqual(digestWords(bytes));
  }
});

test("no words are made of bits that are not there", () => {
  expect(() => digestWords(new Uint8Array(8))).toThrow(RangeError);
  expect(() => digestWords(new Uint8Array(32), 24)).toThrow(RangeError);
  expect(() => digestWords(new Uint8Array(32), 0)).toThrow(RangeError);
});
