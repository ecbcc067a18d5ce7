import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import type { UserId } from "../../src/ids.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { keptRotations, rotationsSince } from "../../src/protocol/rotation.ts";
import { handoverBytes, type Rotation, type Settings } from "../../src/protocol/state.ts";
import { settings as settingsRow } from "../storage/rows.ts";

const USER = "a".repeat(32) as UserId;
const signer = (n: number): Signer => signerFromSeed(sha256(new Uint8Array([n & 255, n >> 8])));

/** Settings after `count` rotations, each at three revisions after the one before. */
function rotatedBy(count: number, user = USER): Settings {
  const rotations = Array.from({ length: count }, (_, i): Rotation => {
    const [from, to] = [signer(i), signer(i + 1)];
    const revision = 2 + 3 * i;
    return {
      revision,
      identity: from.publicKey,
      wrapped: new Uint8Array(73).fill(i),
      handover: from.sign(handoverBytes(user, from.publicKey, to.publicKey, revision)),
    };
  });
  return { ...settingsRow(1), identity: signer(count).publicKey, rotations };
}

const dropping = (settings: Settings, count: number): Settings => ({
  ...settings,
  rotations: settings.rotations.slice(count),
});

describe("rotationsSince", () => {
  test("gives what was added, also where the oldest were dropped", () => {
    fc.assert(
      fc.property(fc.nat(5), fc.nat(5), fc.nat(5), fc.nat(5), (known, more, lost, forgotten) => {
        const [before, now] = [rotatedBy(known), rotatedBy(known + more)];
        const dropped = Math.min(lost, known);
        const mine = dropping(before, Math.min(forgotten, dropped));
        expect(rotationsSince(USER, mine, dropping(now, dropped))).toEqual(now.rotations.slice(known));
      }),
    );
  });

  test("refuses every other chain: nothing of it can be changed, left out, doubled or moved", () => {
    const [before, now] = [rotatedBy(2), rotatedBy(5)];
    const change = (at: number, edit: Partial<Rotation>): Settings => ({
      ...now,
      rotations: now.rotations.map((one, i) => (i === at ? { ...one, ...edit } : one)),
    });
    const wrong: Settings[] = [
      rotatedBy(5, "b".repeat(32) as UserId),
      { ...now, identity: signer(99).publicKey },
      { ...now, identity: before.identity },
      { ...now, rotations: now.rotations.toReversed() },
      { ...now, rotations: [...now.rotations, ...now.rotations.slice(-1)] },
      // the pinned identity is not in it: no way from here
      dropping(now, 3),
      rotatedBy(1),
      { ...before, rotations: [], identity: signer(7).publicKey },
      { ...before, rotations: [...now.rotations.slice(0, 1)] },
    ];
    for (let at = 0; at < now.rotations.length; at++) {
      wrong.push(
        { ...now, rotations: now.rotations.toSpliced(at, 1) },
        change(at, { revision: (now.rotations[at]?.revision ?? 0) + 1 }),
        change(at, { identity: signer(50 + at).publicKey }),
        change(at, { handover: new Uint8Array(64) }),
      );
    }
    // what both know must be the same, byte for byte
    wrong.push(change(0, { wrapped: new Uint8Array(73).fill(9) }), change(1, { wrapped: new Uint8Array(73).fill(9) }));
    for (const [i, settings] of wrong.entries()) {
      const dropOfFirst = settings.rotations.length === 4 && settings.rotations[0] === now.rotations[1];
      if (dropOfFirst) continue;
      expect([i, rotationsSince(USER, before, settings)]).toEqual([i, null]);
    }
    expect(rotationsSince(USER, before, now)).toEqual(now.rotations.slice(2));
  });

  test("refuses one that comes back to an identity of before, though each hands over", () => {
    const now = rotatedBy(2);
    const [from, to] = [signer(2), signer(0)];
    const back: Settings = {
      ...now,
      identity: to.publicKey,
      rotations: [
        ...now.rotations,
        {
          revision: 50,
          identity: from.publicKey,
          wrapped: new Uint8Array(73),
          handover: from.sign(handoverBytes(USER, from.publicKey, to.publicKey, 50)),
        },
      ],
    };
    expect(rotationsSince(USER, rotatedBy(2), back)).toBeNull();
    expect(rotationsSince(USER, rotatedBy(0), back)).toBeNull();
  });
});

test("the oldest rotation goes when there is no room for another", () => {
  expect(keptRotations(rotatedBy(0))).toEqual([]);
  expect(keptRotations(rotatedBy(DEFAULTS.rotations - 1)).length).toBe(DEFAULTS.rotations - 1);
  const full = rotatedBy(DEFAULTS.rotations);
  expect(keptRotations(full)).toEqual(full.rotations.slice(1));
});
