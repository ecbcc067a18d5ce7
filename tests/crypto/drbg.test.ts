import { describe, expect, test } from "bun:test";
import { createHmacDrbg } from "@noble/curves/utils.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { concat } from "../../src/crypto/bytes.ts";
import { DRBG_READ_MAX_BYTES, type DrbgHash, hmacDrbg } from "../../src/crypto/drbg.ts";

const NONE = new Uint8Array(0);
const hex = (text: string) => Uint8Array.fromHex(text);

/** NIST CAVP, CAVS 14.3, HMAC_DRBG.rsp without reseeding: of two reads the second one. */
const CAVP: readonly (readonly [DrbgHash, string, string, string, string])[] = [
  [
    "sha256",
    "ca851911349384bffe89de1cbdc46e6831e44d34a4fb935ee285dd14b71a7488",
    "659ba96c601dc69fc902940805ec0ca8",
    "",
    "e528e9abf2dece54d47c7e75e5fe302149f817ea9fb4bee6f4199697d04d5b89d54fbb978a15b5c443c9ec21036d2460b6f73ebad0dc2aba6e624abf07745bc107694bb7547bb0995f70de25d6b29e2d3011bb19d27676c07162c8b5ccde0668961df86803482cb37ed6d5c0bb8d50cf1f50d476aa0458bdaba806f48be9dcb8",
  ],
  [
    "sha256",
    "79737479ba4e7642a221fcfd1b820b134e9e3540a35bb48ffae29c20f5418ea3",
    "3593259c092bef4129bc2c6c9e19f343",
    "",
    "cf5ad5984f9e43917aa9087380dac46e410ddc8a7731859c84e9d0f31bd43655b924159413e2293b17610f211e09f770f172b8fb693a35b85d3b9e5e63b1dc252ac0e115002e9bedfb4b5b6fd43f33b8e0eafb2d072e1a6fee1f159df9b51e6c8da737e60d5032dd30544ec51558c6f080bdbdab1de8a939e961e06b5f1aca37",
  ],
  [
    "sha256",
    "b340907445b97a8b589264de4a17c0bea11bb53ad72f9f33297f05d2879d898d",
    "65cb27735d83c0708f72684ea58f7ee5",
    "",
    "75183aaaf3574bc68003352ad655d0e9ce9dd17552723b47fab0e84ef903694a32987eeddbdc48efd24195dbdac8a46ba2d972f5808f23a869e71343140361f58b243e62722088fe10a98e43372d252b144e00c89c215a76a121734bdc485486f65c0b16b8963524a3a70e6f38f169c12f6cbdd169dd48fe4421a235847a23ff",
  ],
  [
    "sha512",
    "35049f389a33c0ecb1293238fd951f8ffd517dfde06041d32945b3e26914ba15",
    "f7328760be6168e6aa9fb54784989a11",
    "",
    "e76491b0260aacfded01ad39fbf1a66a88284caa5123368a2ad9330ee48335e3c9c9ba90e6cbc9429962d60c1a6661edcfaa31d972b8264b9d4562cf18494128a092c17a8da6f3113e8a7edfcd4427082bd390675e9662408144971717303d8dc352c9e8b95e7f35fa2ac9f549b292bc7c4bc7f01ee0a577859ef6e82d79ef23892d167c140d22aac32b64ccdfeee2730528a38763b24227f91ac3ffe47fb11538e435307e77481802b0f613f370ffb0dbeab774fe1efbb1a80d01154a9459e73ad361108bbc86b0914f095136cbe634555ce0bb263618dc5c367291ce0825518987154fe9ecb052b3f0a256fcc30cc14572531c9628973639beda456f2bddf6",
  ],
  [
    "sha512",
    "73529bba71a3d4b4fcf9a7edeed269dbdc3748b90df68c0d00e245de54698c77",
    "22e2d6e24501212b6f058e7c54138007",
    "e2cc19e31595d0e4de9e8bd3b236dec2d4b032c3dd5bf9891c284cd1bac67bdb",
    "1a73d58b7342c3c933e3ba15eedd8270988691c3794b45aa358570391571881c0d9c4289e5b198db5534c3cb8466ab48250fa67f24cb19b7038e46af56687bab7e5de3c82fa7312f54dc0f1dc93f5b03fcaa6003cae28d3d4707368c144a7aa46091822da292f97f32caf90ae3dd3e48e808ae12e633aa0410106e1ab56bc0a0d80f438e9b3492e4a3bc88d73a3904f7dd060c48ae8d7b12bf89a19551b53b3f55a511d2820e941640c845a8a0466432c5850c5b61bec5272602521125addf677e949b96782bc01a904491df08089bed004ad56e12f8ea1a200883ad72b3b9fae12b4eb65d5c2bacb3ce46c7c48464c9c29142fb35e7bc267ce852296ac042f9",
  ],
];

describe("HMAC_DRBG", () => {
  for (const [hash, entropy, nonce, personalization, expected] of CAVP) {
    test(`NIST's vector ${hash} ${entropy.slice(0, 8)}`, () => {
      const drbg = hmacDrbg(hash, hex(entropy), hex(nonce), hex(personalization));
      drbg.read(expected.length / 2);
      expect(drbg.read(expected.length / 2).toHex()).toBe(expected);
    });
  }

  test("agrees with noble's over several reads of whole blocks, also with a personalization string", () => {
    const bytes = (minLength: number) => fc.uint8Array({ minLength, maxLength: 80 });
    fc.assert(
      fc.property(
        fc.constantFrom<DrbgHash>("sha256", "sha512"),
        bytes(32),
        bytes(0),
        bytes(0),
        fc.integer({ min: 1, max: 5 }),
        (name, entropy, nonce, personalization, reads) => {
          const hash = name === "sha256" ? sha256 : sha512;
          const noble = createHmacDrbg(hash.outputLen, 128, (key: Uint8Array, message: Uint8Array) =>
            hmac(hash, key, message),
          );
          const drbg = hmacDrbg(name, entropy, nonce, personalization);
          const expected: Uint8Array[] = [];
          noble(concat(entropy, nonce, personalization), (block) => {
            expected.push(block.slice());
            return expected.length === reads ? block : undefined;
          });
          expect(expected.map(() => drbg.read(128))).toEqual(expected);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("every length that is no whole number of blocks is the beginning of the next one", () => {
    const make = () => hmacDrbg("sha256", new Uint8Array(32).fill(7), NONE, NONE);
    const whole = make().read(128);
    for (const length of [0, 1, 31, 32, 33, 64, 127]) expect(make().read(length)).toEqual(whole.slice(0, length));
    expect(make().read(DRBG_READ_MAX_BYTES)).toHaveLength(DRBG_READ_MAX_BYTES);
  });

  test("each input and each read matters", () => {
    const read = (hash: DrbgHash, entropy: number, nonce: Uint8Array, personalization: Uint8Array) => {
      const drbg = hmacDrbg(hash, new Uint8Array(32).fill(entropy), nonce, personalization);
      return [drbg.read(32).toHex(), drbg.read(32).toHex()];
    };
    const all = [
      read("sha256", 1, NONE, NONE),
      read("sha512", 1, NONE, NONE),
      read("sha256", 2, NONE, NONE),
      read("sha256", 1, Uint8Array.of(1), NONE),
      read("sha256", 1, NONE, Uint8Array.of(2)),
    ].flat();
    expect(new Set(all).size).toBe(10);
  });

  test("does not keep its inputs: they may be wiped", () => {
    const entropy = new Uint8Array(32).fill(3);
    const expected = hmacDrbg("sha512", entropy, NONE, NONE).read(16);
    const drbg = hmacDrbg("sha512", entropy, NONE, NONE);
    entropy.fill(0);
    expect(drbg.read(16)).toEqual(expected);
  });

  test("refuses too little entropy, lengths that it does not give, and reads once it is wiped", () => {
    expect(() => hmacDrbg("sha256", new Uint8Array(31), NONE, NONE)).toThrow("32 bytes");
    const drbg = hmacDrbg("sha256", new Uint8Array(32), NONE, NONE);
    for (const length of [-1, 1.5, Number.NaN, DRBG_READ_MAX_BYTES + 1]) expect(() => drbg.read(length)).toThrow();
    drbg.wipe();
    expect(() => drbg.read(1)).toThrow();
  });
});
