import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import type { UserId } from "../../src/ids.ts";
import {
  kitEntropy,
  kitKeys,
  kitWords,
  openWithKit,
  recoveryChallenge,
  resealToKit,
  wrapForKit,
} from "../../src/protocol/kit.ts";
import { handoverBytes, type Settings } from "../../src/protocol/state.ts";
import { bytesOf, settingsArbitrary } from "../support/arbitraries.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

const USER = "1".repeat(32) as UserId;

describe("words", () => {
  test("the published vectors of BIP-39", () => {
    expect(kitWords(new Uint8Array(32)).join(" ")).toBe(`${"abandon ".repeat(23)}art`);
    expect(kitWords(new Uint8Array(32).fill(0xff)).join(" ")).toBe(`${"zoo ".repeat(23)}vote`);
    expect(kitWords(new Uint8Array(32).fill(0x7f)).join(" ")).toBe(
      "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth title",
    );
  });

  test("come back as the bytes, however they are typed", () => {
    fc.assert(
      fc.property(bytesOf(32), (entropy) => {
        const words = kitWords(entropy);
        expect(words).toHaveLength(24);
        expect(kitEntropy(words.join(" "))).toEqual(entropy);
        expect(kitEntropy(words.map((word, i) => ` ${i + 1}. ${word.toUpperCase()}\n`).join(""))).toEqual(entropy);
      }),
    );
  });

  test("a word that is none is named by its place alone", () => {
    const words = kitWords(random(32)).with(6, "abandoned");
    const refusal = () => kitEntropy(words.join(" "));
    expect(refusal).toThrow(
      expect.objectContaining({ code: "bad_input", message: expect.stringContaining("word 7"), why: undefined }),
    );
    expect(refusal).not.toThrow(expect.objectContaining({ message: expect.stringContaining("abandon") }));
  });

  test("another number of words, or words that do not fit each other, are refused", () => {
    const words = kitWords(new Uint8Array(32));
    for (const wrong of [words.slice(1), [...words, "art"], [], words.with(0, "ability")]) {
      expect(() => kitEntropy(wrong.join(" "))).toThrow(expect.objectContaining({ code: "bad_input" }));
    }
  });
});

describe("the account key in a kit", async () => {
  const kit = await kitKeys(random(32));
  const identity = signerFromSeed(random(32));
  const accountKey = random(32);
  const base = fc.sample(settingsArbitrary, 1)[0] as Settings;
  const kitWrapped = await wrapForKit(kit, USER, identity.publicKey, accountKey, random);
  const settings: Settings = { ...base, identity: identity.publicKey, kit: kit.publicKeys, kitWrapped, rotations: [] };
  const refused = (changed: Partial<Settings>, userId = USER) =>
    expect(openWithKit(kit, userId, { ...settings, ...changed })).rejects.toMatchObject({ code: "integrity" });

  test("opens for its account and kit alone", async () => {
    expect(await openWithKit(kit, USER, settings)).toEqual(accountKey);
    await refused({}, "2".repeat(32) as UserId);
    await expect(openWithKit(await kitKeys(random(32)), USER, settings)).rejects.toMatchObject({ code: "integrity" });
    for (let at = 0; at < kitWrapped.length; at++) {
      const bent = kitWrapped.slice();
      bent[at] = (bent[at] ?? 0) ^ 1;
      await refused({ kitWrapped: bent });
    }
    await refused({ kitWrapped: null });
    await refused({ kit: null });
    await refused({ kitWrapped: kitWrapped.subarray(0, -1) });
  });

  test("a stranger who seals an account of his own to the kit's public key is found out", async () => {
    const stranger = signerFromSeed(random(32));
    const own = await resealToKit(settings, USER, random(32), random);
    // his account key under the owner's vouched identity, in settings of his own identity
    await refused({ kitWrapped: own, identity: stranger.publicKey });
    const forged = await wrapForKit({ ...kit, signer: stranger }, USER, stranger.publicKey, random(32), random);
    await refused({ kitWrapped: forged, identity: stranger.publicKey });
  });

  test("follows a rotation that the identity handed over, and no other", async () => {
    const next = signerFromSeed(random(32));
    const nextKey = random(32);
    const rotated = await resealToKit(settings, USER, nextKey, random);
    const handover = identity.sign(handoverBytes(USER, identity.publicKey, next.publicKey, 5));
    const rotation = { revision: 5, identity: identity.publicKey, wrapped: random(73), handover };
    const after = { identity: next.publicKey, kitWrapped: rotated, rotations: [rotation] };
    expect(await openWithKit(kit, USER, { ...settings, ...after })).toEqual(nextKey);
    await refused({ ...after, rotations: [] });
    await refused({ ...after, rotations: [{ ...rotation, handover: random(64) }] });
    await refused({ ...after, rotations: [{ ...rotation, revision: 6 }] });
    await refused({ ...after, identity: signerFromSeed(random(32)).publicKey });
  });
});

test("a challenge depends on server, exchange, name and challenge", () => {
  const session = "3".repeat(32) as Parameters<typeof recoveryChallenge>[1];
  const other = "4".repeat(32) as Parameters<typeof recoveryChallenge>[1];
  const [server, challenge] = [random(32), random(32)];
  const all = [
    recoveryChallenge(server, session, "ada", challenge),
    recoveryChallenge(random(32), session, "ada", challenge),
    recoveryChallenge(server, other, "ada", challenge),
    recoveryChallenge(server, session, "bob", challenge),
    recoveryChallenge(server, session, "ada", random(32)),
  ];
  expect(new Set(all.map((bytes) => bytes.toHex())).size).toBe(all.length);
});
