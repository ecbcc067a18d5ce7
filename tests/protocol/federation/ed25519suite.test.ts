import { describe, expect, test } from "bun:test";
import type { FROST } from "@noble/curves/abstract/frost.js";
import { ED25519_TORSION_SUBGROUP, ed25519, ed25519_FROST } from "@noble/curves/ed25519.js";
import { ed25519Frost, parseEd25519 } from "../../../src/protocol/federation/ed25519suite.ts";
import { seeded } from "../../support/seeded.ts";

const MESSAGE = new TextEncoder().encode("message");

/** Everything that three parties of a suite say and come to: generation, then a signature by two of them. */
function everything(frost: FROST) {
  const stream = seeded(7);
  const rng = (length = 32) => new Uint8Array(stream.bytes(length));
  const parties = [1, 2, 3].map((n) => {
    const id = frost.Identifier.fromNumber(n);
    return { id, ...frost.DKG.round1(id, { min: 2, max: 3 }, undefined, rng) };
  });
  const others = (id: string) => parties.filter((one) => one.id !== id).map((one) => one.public);
  const second = parties.map(({ id, secret }) => ({ id, to: frost.DKG.round2(secret, others(id)) }));
  const keys = parties.map(({ id, secret }) => {
    const shares = second.flatMap((one) => (one.id === id ? [] : (one.to[id] ?? [])));
    return frost.DKG.round3(secret, others(id), shares);
  });
  const signing = keys.slice(0, 2).map((key) => ({ key, ...frost.commit(key.secret, rng) }));
  const list = signing.map((one) => one.commitments);
  const shares = signing.map(({ key, nonces }) => ({
    id: key.secret.identifier,
    share: frost.signShare(key.secret, key.public, nonces, list, MESSAGE),
  }));
  const [pub] = keys.map((key) => key.public);
  if (!pub) throw new Error("no key");
  const good = shares.map(({ id, share }) => frost.verifyShare(pub, list, MESSAGE, id, share));
  const signature = frost.aggregate(pub, list, MESSAGE, Object.fromEntries(shares.map((s) => [s.id, s.share])));
  return { said: parties.map((one) => one.public), second, keys, list, shares, good, signature };
}

/** What another party makes of these commitments and this proof. */
function heard(commitment: readonly Uint8Array[], proofOfKnowledge: Uint8Array): void {
  const { Identifier, DKG } = ed25519Frost;
  const { secret } = DKG.round1(Identifier.fromNumber(1), { min: 2, max: 2 });
  const own = commitment.map((point) => new Uint8Array(point));
  const said = { identifier: Identifier.fromNumber(2), commitment: own };
  DKG.round2(secret, [{ ...said, proofOfKnowledge: new Uint8Array(proofOfKnowledge) }]);
}

describe("FROST over Ed25519 with remembered points", () => {
  test("says, makes and signs what the library's own suite does, when points are new and when they are known", () => {
    const library = everything(ed25519_FROST);
    expect(everything(ed25519Frost)).toEqual(library);
    expect(everything(ed25519Frost)).toEqual(library);
    const publicKey = library.keys[0]?.public.commitments[0] ?? new Uint8Array(0);
    expect(ed25519.verify(library.signature, MESSAGE, publicKey)).toBe(true);
    expect(library.good).toEqual([true, true]);
  });

  test("refuses points of small or mixed order each time, also beside the good point that they come from", () => {
    const { Identifier, DKG } = ed25519Frost;
    const { public: said } = DKG.round1(Identifier.fromNumber(2), { min: 2, max: 2 });
    const [first, second] = said.commitment;
    if (!first || !second) throw new Error("no commitments");
    heard([first, second], said.proofOfKnowledge);
    for (const hex of ED25519_TORSION_SUBGROUP) {
      const torsion = ed25519.Point.fromHex(hex);
      const mixed = ed25519.Point.fromBytes(second).add(torsion).toBytes();
      for (const bad of torsion.is0() ? [torsion.toBytes()] : [torsion.toBytes(), mixed]) {
        for (let time = 0; time < 2; time++) {
          expect(() => heard([first, bad], said.proofOfKnowledge)).toThrow();
          expect(() => heard([bad, second], said.proofOfKnowledge)).toThrow();
          const proof = new Uint8Array([...bad, ...said.proofOfKnowledge.subarray(32)]);
          expect(() => heard([first, second], proof)).toThrow();
        }
      }
    }
    heard([first, second], said.proofOfKnowledge);
  });

  test("a remembered point is the same point, and what it is added to forgets that it was checked", () => {
    const torsion = ed25519.Point.fromHex(ED25519_TORSION_SUBGROUP[1] ?? "");
    const bytes = ed25519.Point.BASE.multiply(5n).toBytes();
    const point = parseEd25519(bytes);
    expect(parseEd25519(bytes)).toBe(point);
    expect(point.equals(ed25519.Point.BASE.multiply(5n))).toBe(true);
    expect(point.isTorsionFree()).toBe(true);
    expect(point.add(torsion).isTorsionFree()).toBe(false);
    expect(point.toBytes()).toEqual(bytes);
    expect(parseEd25519(torsion.toBytes()).isTorsionFree()).toBe(false);
  });
});
