import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { concat } from "../../../src/crypto/bytes.ts";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import type { CeremonyId } from "../../../src/ids.ts";
import { ceremonyKeyOf, keyHashOf, t1Of, t2Of } from "../../../src/protocol/ceremony/combine.ts";
import { commitmentOf, contributionOf, ownValue } from "../../../src/protocol/ceremony/contribution.ts";
import { CEREMONY_FUNCTIONS, type CeremonyFunction } from "../../../src/protocol/ceremony/model.ts";
import { signJoin } from "../../../src/protocol/ceremony/records.ts";
import { seeded } from "../../support/seeded.ts";

const ID = "ab".repeat(32) as CeremonyId;
const FAST = CEREMONY_FUNCTIONS.filter((fn) => fn !== "argon2id");
const text = (words: string) => new TextEncoder().encode(words);
const thirtyTwo = fc.uint8Array({ minLength: 32, maxLength: 32 });
const flip = (bytes: Uint8Array, bit: number) => {
  const out = bytes.slice();
  out[bit >> 3] = (out[bit >> 3] ?? 0) ^ (1 << (bit & 7));
  return out;
};

describe("a contribution", () => {
  const os = new Uint8Array(32).fill(7);

  test("depends on what the system drew and on every mixed input, its place and its length", () => {
    const all = [
      contributionOf(os, []),
      contributionOf(flip(os, 5), []),
      contributionOf(os, [text("")]),
      contributionOf(os, [text("ab"), text("c")]),
      contributionOf(os, [text("a"), text("bc")]),
      contributionOf(os, [text("c"), text("ab")]),
      contributionOf(os, [text("abc")]),
      contributionOf(os, [text("abc"), text("")]),
    ].map((one) => one.toHex());
    expect(new Set(all).size).toBe(all.length);
    expect(contributionOf(os, [text("ab"), text("c")]).toHex()).toBe(all[3] ?? "");
  });

  test("has no way around the system's 32 bytes", () => {
    for (const length of [0, 16, 31, 33]) {
      expect(() => contributionOf(new Uint8Array(length), [text("words")])).toThrow(
        expect.objectContaining({ code: "internal" }),
      );
    }
  });

  test("leaves what it was given as it was", () => {
    const mixed = text("words");
    contributionOf(os, [mixed]);
    expect([os, mixed]).toEqual([new Uint8Array(32).fill(7), text("words")]);
  });
});

describe("a commitment", () => {
  const join = { ceremonyId: ID, index: 1, key: new Uint8Array(32), function: "hkdf-sha256" as CeremonyFunction };

  test("is to ceremony, seat, key, function and opening", () => {
    const opening = new Uint8Array(32).fill(1);
    const all = [
      commitmentOf(join, opening),
      commitmentOf({ ...join, ceremonyId: "cd".repeat(32) as CeremonyId }, opening),
      commitmentOf({ ...join, index: 2 }, opening),
      commitmentOf({ ...join, key: new Uint8Array(32).fill(9) }, opening),
      commitmentOf({ ...join, function: "hmac-drbg" }, opening),
      commitmentOf(join, flip(opening, 200)),
    ].map((one) => one.toHex());
    expect(new Set(all).size).toBe(all.length);
  });

  test("is to 32 bytes alone", () => {
    expect(() => commitmentOf(join, new Uint8Array(31))).toThrow(expect.objectContaining({ code: "internal" }));
  });
});

describe("a participant's own function", () => {
  test("every one gives another value, and each depends on opening, seed, ceremony and seat", async () => {
    const [r, s0] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
    const other = "cd".repeat(32);
    const values: string[] = [];
    for (const fn of CEREMONY_FUNCTIONS) {
      values.push((await ownValue(fn, r, s0, ID, 1)).toHex());
      values.push((await ownValue(fn, flip(r, 0), s0, ID, 1)).toHex());
      values.push((await ownValue(fn, r, flip(s0, 0), ID, 1)).toHex());
      values.push((await ownValue(fn, r, s0, other, 1)).toHex());
      values.push((await ownValue(fn, r, s0, ID, 2)).toHex());
    }
    expect(new Set(values).size).toBe(5 * CEREMONY_FUNCTIONS.length);
    expect(values.every((hex) => hex.length === 64)).toBe(true);
  }, 60_000);

  test("refuses openings and seeds of other sizes", async () => {
    const right = new Uint8Array(32);
    for (const fn of FAST) {
      await expect(ownValue(fn, new Uint8Array(16), right, ID, 1)).rejects.toMatchObject({ code: "internal" });
      await expect(ownValue(fn, right, new Uint8Array(64), ID, 1)).rejects.toMatchObject({ code: "internal" });
    }
  });
});

const participants = (count: number) =>
  fc.array(fc.record({ function: fc.constantFrom(...FAST), opening: thirtyTwo }), {
    minLength: count,
    maxLength: 20,
  });
const of = (list: readonly { readonly function: CeremonyFunction; readonly opening: Uint8Array }[]) => ({
  ceremonyId: ID,
  purpose: "tests",
  seed: new Uint8Array(32).fill(3),
  t1: new Uint8Array(32).fill(4),
  participants: list.map((one, at) => ({ ...one, index: at + 1 })),
});

describe("a ceremony's key", () => {
  test("is another one after one changed bit of any opening, of the seed, of T1, of the purpose", async () => {
    await fc.assert(
      fc.asyncProperty(participants(2), fc.nat(255), fc.nat(19), async (list, bit, which) => {
        const input = of(list);
        const { key, t2, keyHash } = await ceremonyKeyOf(input);
        expect([key.length, t2.length]).toEqual([64, 32]);
        expect(keyHash).toEqual(keyHashOf(ID, key));
        const at = which % list.length;
        const changed = await ceremonyKeyOf({
          ...input,
          participants: input.participants.map((p, i) => (i === at ? { ...p, opening: flip(p.opening, bit) } : p)),
        });
        const others = [
          changed,
          await ceremonyKeyOf({ ...input, seed: flip(input.seed, bit) }),
          await ceremonyKeyOf({ ...input, t1: flip(input.t1, bit) }),
          await ceremonyKeyOf({ ...input, purpose: "test" }),
          await ceremonyKeyOf({ ...input, ceremonyId: "cd".repeat(32) }),
        ];
        expect(new Set([key, ...others.map((one) => one.key)].map((one) => one.toHex())).size).toBe(6);
        // T2 is of T1 and openings; the rest enters K alone
        expect(changed.t2).not.toEqual(t2);
        expect(others.map((one) => one.t2.toHex() === t2.toHex())).toEqual([false, true, false, true, true]);
      }),
      { numRuns: 60 },
    );
  });

  test("is another one by another function of one participant, and without one", async () => {
    const list = FAST.map((fn, at) => ({ function: fn, opening: new Uint8Array(32).fill(at) }));
    const input = of(list);
    const keys = [
      await ceremonyKeyOf(input),
      await ceremonyKeyOf({ ...input, participants: input.participants.slice(1) }),
      await ceremonyKeyOf({
        ...input,
        participants: input.participants.map((p) => ({ ...p, function: "hkdf-sha256" as const })),
      }),
    ];
    expect(new Set(keys.map((one) => one.key.toHex())).size).toBe(3);
  });

  test("does not depend on the order in which anything came", async () => {
    await fc.assert(
      fc.asyncProperty(participants(2), fc.integer(), async (list, seed) => {
        const random = seeded(seed);
        const input = of(list);
        const mixed = input.participants.toSorted(() => random.next() - 0.5);
        expect(await ceremonyKeyOf({ ...input, participants: mixed })).toEqual(await ceremonyKeyOf(input));
        expect(t2Of(input.t1, mixed)).toEqual(t2Of(input.t1, input.participants));
      }),
      { numRuns: 60 },
    );
  });

  test("nobody counts twice, and nobody makes one alone", async () => {
    const one = { index: 1, function: "hkdf-sha256" as const, opening: new Uint8Array(32) };
    const input = of([]);
    for (const list of [[], [one], [one, one], [one, { ...one, opening: new Uint8Array(32).fill(1) }]]) {
      await expect(ceremonyKeyOf({ ...input, participants: list })).rejects.toMatchObject({ code: "internal" });
    }
  });

  test("wipes nothing that it was given", async () => {
    const input = of(FAST.map((fn) => ({ function: fn, opening: new Uint8Array(32).fill(8) })));
    const before = concat(input.seed, ...input.participants.map(({ opening }) => opening)).toHex();
    await ceremonyKeyOf(input);
    expect(concat(input.seed, ...input.participants.map(({ opening }) => opening)).toHex()).toBe(before);
  });
});

describe("T1", () => {
  const joins = [1, 2, 3, 4].map((index) => {
    const signer = signerFromSeed(new Uint8Array(32).fill(index));
    const bytes = new Uint8Array(32).fill(index);
    const join = { ceremonyId: ID, index, key: signer.publicKey, sealing: bytes, share: null, commitment: bytes };
    return signJoin(signer, signer, { ...join, function: "hkdf-sha256" });
  });
  const [first, ...rest] = joins;
  if (!first) throw new Error("no joins");

  test("is over the joins by index, whatever the order", () => {
    expect(t1Of(ID, joins.toReversed())).toEqual(t1Of(ID, joins));
    expect(() => t1Of(ID, [first, ...joins])).toThrow(expect.objectContaining({ code: "internal" }));
  });

  test("changes with every field, with signatures, with one join less", () => {
    const bytes = new Uint8Array(32).fill(77);
    const changes = [
      { index: 9 },
      { key: bytes },
      { sealing: bytes },
      { share: new Uint8Array(33) },
      { function: "argon2id" as const },
      { commitment: bytes },
    ].map((change) => ({ ...first, join: { ...first.join, ...change } }));
    const variants = [
      t1Of(ID, joins),
      t1Of("cd".repeat(32), joins),
      t1Of(ID, rest),
      ...changes.map((one) => t1Of(ID, [one, ...rest])),
      t1Of(ID, [{ ...first, signature: flip(first.signature, 1) }, ...rest]),
      t1Of(ID, [{ ...first, invitation: flip(first.invitation, 1) }, ...rest]),
    ].map((one) => one.toHex());
    expect(new Set(variants).size).toBe(variants.length);
  });
});
