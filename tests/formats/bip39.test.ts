import { expect, test } from "bun:test";
import fc from "fast-check";
import { bip39 } from "../../src/formats/bip39.ts";
import { ascii, BAD_INPUT, sample } from "./samples.ts";

const item = (value: Uint8Array) => ({ ...sample("bytes"), value });
const write = (hex: string) => new TextDecoder().decode(bip39.write([item(Uint8Array.fromHex(hex))]));
const read = (text: string) => bip39.read(ascii(text), { name: "a" }).items[0];
const refused = (text: string) => expect(() => read(text)).toThrow(expect.objectContaining(BAD_INPUT));

/** Of the vectors that BIP-39 publishes (trezor/python-mnemonic vectors.json). */
const VECTORS = [
  [
    "00000000000000000000000000000000",
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
  ],
  ["7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f", "legal winner thank year wave sausage worth useful legal winner thank yellow"],
  [
    "80808080808080808080808080808080",
    "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
  ],
  ["ffffffffffffffffffffffffffffffff", "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong"],
  [
    "000000000000000000000000000000000000000000000000",
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon agent",
  ],
  [
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo vote",
  ],
  [
    "f585c11aec520db57dd353c69554b21a89b20fb0650966fa0a9d6f74fd989d8f",
    "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen patrol group space point ten exist slush involve unfold",
  ],
] as const;

test.each(VECTORS)("%s", (hex, words) => {
  expect(write(hex)).toBe(`${words}\n`);
  expect(read(words)).toMatchObject({ type: "bytes", value: Uint8Array.fromHex(hex) });
  expect(read(`  ${words.toUpperCase().replaceAll(" ", "\n ")} \r\n`)?.value.toHex()).toBe(hex);
});

test("any 16 to 32 bytes come back; other lengths are refused", () => {
  const size = fc.constantFrom(16, 20, 24, 28, 32);
  fc.assert(
    fc.property(
      size.chain((length) => fc.uint8Array({ minLength: length, maxLength: length })),
      (value) => {
        expect(read(write(value.toHex()))?.value).toEqual(value);
      },
    ),
  );
  for (const length of [1, 15, 17, 18, 31, 33, 64]) {
    expect(() => bip39.write([item(new Uint8Array(length))])).toThrow(expect.objectContaining(BAD_INPUT));
  }
});

test("a mnemonic is written as it is, once its checksum is right", () => {
  const words = { ...sample("bip39"), value: ascii(VECTORS[0][1]) };
  expect(new TextDecoder().decode(bip39.write([words]))).toBe(`${VECTORS[0][1]}\n`);
  const [last] = bip39.read(bip39.write([words]), { name: "a" }).items;
  expect(last && bip39.same?.(words, last)).toBe(true);
  const wrong = { ...words, value: ascii(VECTORS[0][1].replace("about", "above")) };
  expect(() => bip39.write([wrong])).toThrow(expect.objectContaining(BAD_INPUT));
});

test("refuses what is no mnemonic", () => {
  const [, words] = VECTORS[1];
  const list = words.split(" ");
  const bad = [
    "",
    " ",
    "abandon",
    list.slice(1).join(" "),
    list.slice(0, -1).join(" "),
    [...list, "legal"].join(" "),
    list.toReversed().join(" "),
    words.replace("legal", "legall"),
    words.replace("legal", "lega"),
    words.replace("legal", "légal"),
    words.replace("yellow", "yes"),
    words.replaceAll(" ", ","),
    words.replaceAll(" ", ""),
    `1. ${words}`,
    `${words}\u0000`,
    `${words} #`,
    "zoo ".repeat(24),
    "zoo ".repeat(12),
    "abandon ".repeat(11),
    "abandon ".repeat(100_000),
    "あいこくしん ".repeat(12),
    `${words} ${words}`,
  ];
  for (const text of bad) refused(text);
  expect(() => bip39.read(Uint8Array.of(0xff, 0xfe), { name: "a" })).toThrow(expect.objectContaining(BAD_INPUT));
});
