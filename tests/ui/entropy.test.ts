import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { diceDigits, diceEstimate, fileEstimate, STRONG_BITS, typedEstimate } from "../../src/ui/entropy.ts";

describe("dice", () => {
  test("are read with what people put between throws, and nothing else", () => {
    expect(diceDigits(" 12 34-56,1\t2\n")).toBe("12345612");
    for (const text of ["", "  ", "1207", "12a", "７", "0", "1.2"]) expect(diceDigits(text)).toBeNull();
  });

  test("count log2(6) bits a throw, rounded down", () => {
    expect(diceEstimate("4").bits).toBe(2);
    expect(diceEstimate("42").bits).toBe(5);
    const fifty = "26351442161535624413521664251331465264153622451361";
    expect(fifty.length).toBe(50);
    const found = diceEstimate(fifty);
    expect([found.bits, found.doubtful]).toEqual([129, false]);
    expect(found.text).toContain("strong even alone");
    expect(diceEstimate(fifty.slice(0, 40)).text).not.toContain("strong");
  });

  test.each([
    ["1111111", "all are the same"],
    ["12121212", "the same few repeat"],
    ["123456123456", "the same few repeat"],
    ["111222333444555666", "they stand in order"],
    ["666555444333222111", "they stand in order"],
    ["3333333333333333332333333333331333", "one side comes far too often"],
  ])("%s is no chance: %s", (digits, why) => {
    const found = diceEstimate(digits);
    expect([found.bits, found.doubtful]).toEqual([0, true]);
    expect(found.text).toContain(why);
  });

  test("never count more than they can hold, and mostly count in full when thrown", () => {
    const throws = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 120 });
    fc.assert(
      fc.property(throws, (sides) => {
        const { bits } = diceEstimate(sides.join(""));
        expect(bits).toBeLessThanOrEqual(sides.length * Math.log2(6));
      }),
    );
    let doubted = 0;
    for (let round = 0; round < 200; round++) {
      const bytes = new Bun.CryptoHasher("sha512").update(`dice ${round}`).digest();
      const digits = [...bytes].filter((byte) => byte < 252).map((byte) => (byte % 6) + 1);
      if (diceEstimate(digits.join("")).doubtful) doubted++;
    }
    expect(doubted).toBe(0);
  });
});

test("typed words are estimated by how hard they are to guess", async () => {
  const weak = await typedEstimate("password");
  expect([weak.doubtful, (weak.bits ?? 99) < 20]).toEqual([true, true]);
  const more = await typedEstimate(
    "the heron ate 14 of my blue umbrellas near Ghent, twice; marmalade quarrels with tin",
  );
  expect([more.doubtful, (more.bits ?? 0) >= STRONG_BITS]).toEqual([false, true]);
  expect(more.text).toContain("rough estimate");
});

test("of a file only its size is told", () => {
  expect(fileEstimate(1)).toEqual({ bits: null, doubtful: false, text: expect.stringContaining("1 byte:") });
  expect(fileEstimate(4_096).text).not.toContain("bits");
});
