import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { EFF_WORDS } from "../../src/crypto/wordlist.ts";
import { dicewarePassphrase } from "../../src/ui/diceware.ts";
import { strengthOf } from "../../src/ui/strength.ts";
import { wrapped } from "../../src/ui/wrap.ts";

const drawn = (length: number) => crypto.getRandomValues(new Uint8Array(length));

describe("the strength of a password", () => {
  test("common, repeated, keyboard and date passwords are weak, each with a reason", async () => {
    for (const password of ["password1", "aaaaaaaaaaaa", "qwertyuiop", "01.02.1990", "iloveyou!", "Passwort123!"]) {
      const { weak, level, guessesLog10 } = await strengthOf(password);
      expect([password, weak, guessesLog10 < 10]).toEqual([password, true, true]);
      expect(level).toMatch(/weak/);
    }
    expect((await strengthOf("password1")).advice.length).toBeGreaterThan(0);
    expect((await strengthOf("password1")).time).toBe("less than a second");
  });

  test("what an attacker knows of the owner makes it weaker, in parts too", async () => {
    const blind = await strengthOf("zarathustra-of-keyholdia");
    const told = await strengthOf("zarathustra-of-keyholdia", ["zarathustra", "keys.keyholdia.example"]);
    expect(told.guessesLog10).toBeLessThan(blind.guessesLog10 - 3);
    expect((await strengthOf("ada.lovelace", ["ada.lovelace"])).level).toBe("very weak");
  });

  test("the suggestion is strong, whatever was drawn", async () => {
    for (let i = 0; i < 10; i++) {
      const { level, weak, advice, time } = await strengthOf(dicewarePassphrase(drawn));
      expect([level, weak, advice, time]).toEqual(["strong", false, [], "more than a thousand years"]);
    }
  });

  test("any text gets an answer, also one of full length", async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: "binary", maxLength: 300 }), async (password) => {
        expect((await strengthOf(password)).guessesLog10).toBeGreaterThanOrEqual(0);
      }),
      { numRuns: 60 },
    );
    expect((await strengthOf("x".repeat(1_024))).weak).toBe(true);
  });

  test("more guesses are never a lower level", async () => {
    const order = ["very weak", "weak", "fair", "good", "strong"];
    const samples = ["abc12345", "first password", "the first password", "a password typed twice", "correct horse"];
    const all = await Promise.all(samples.map((text) => strengthOf(text)));
    const sorted = all.toSorted((a, b) => a.guessesLog10 - b.guessesLog10).map(({ level }) => order.indexOf(level));
    expect(sorted).toEqual(sorted.toSorted((a, b) => a - b));
  });
});

describe("a suggested passphrase", () => {
  test("is six words of the list, evenly drawn", () => {
    const list = new Set(EFF_WORDS);
    // four words of the list have a hyphen of their own
    const words = Array.from({ length: 300 }, () => dicewarePassphrase(drawn).split("-")).filter(
      (one) => one.length === 6,
    );
    expect(words.length).toBeGreaterThan(290);
    for (const word of words.flat()) expect([word, list.has(word)]).toEqual([word, true]);
    expect(new Set(words.flat()).size).toBeGreaterThan(1_000);
  });

  test("draws again above the last whole multiple of the list, so that no word is likelier", () => {
    const pairs = [
      [0xff, 0xff],
      [0xf2, 0xff],
      [0x00, 0x00],
      [0x1e, 0x5f],
    ];
    const given = pairs.map((pair) => Uint8Array.from(pair));
    expect(65_536 % 7_776).toBe(3_328);
    // 0xffff is above 62,208, 0xf2ff is the last number below it
    expect(dicewarePassphrase(() => given.shift() ?? new Uint8Array(2), 3)).toBe(
      [EFF_WORDS.at(-1), EFF_WORDS[0], EFF_WORDS[0x1e5f % 7_776]].join("-"),
    );
  });
});

test("text is broken at spaces, keeps indents and ends, and leaves what is to be copied whole", () => {
  fc.assert(
    fc.property(
      fc.array(fc.stringMatching(/^[a-z/.-]{1,30}$/), { maxLength: 40 }),
      fc.integer({ min: 0, max: 100 }),
      (words, width) => {
        const lines = wrapped(words.join(" "), width);
        expect(lines.join(" ").split(" ")).toEqual(words.join(" ").split(" "));
        for (const line of lines) expect(line.length <= Math.max(20, width) || !line.includes(" ")).toBe(true);
      },
    ),
  );
  expect(wrapped("one\n    two three four five six\n", 20)).toEqual(["one", "    two three four", "    five six", ""]);
});
