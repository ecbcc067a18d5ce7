import { describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { signNote } from "../../src/crypto/note.ts";
import type { IncarnationId } from "../../src/ids.ts";
import {
  logOrigin,
  openCheckpoint,
  positionLeaf,
  promiseHolds,
  restartLeaf,
  signCheckpoint,
  signPromise,
} from "../../src/protocol/log.ts";
import { pinOf } from "../../src/wire/pin.ts";

const hash = (n: number): Uint8Array => new Uint8Array(32).fill(n);
const key = signerFromSeed(hash(1));
const other = signerFromSeed(hash(2));
const incarnation = "0123456789abcdef0123456789abcdef" as IncarnationId;
const origin = logOrigin(key.publicKey, incarnation);
const checkpoint = { origin, size: 12_345, root: hash(9) };

test("the origin is the pin and the incarnation", () => {
  const pin = Uint8Array.fromBase64(pinOf(key.publicKey).slice("sha256:".length), { alphabet: "base64url" });
  expect(origin).toBe(`keyhold/log/${pin.toHex()}/${incarnation}`);
});

describe("checkpoints", () => {
  test("are origin, size and root as a signed note", () => {
    const note = signCheckpoint(checkpoint, [key]);
    expect(note.startsWith(`${origin}\n12345\n${hash(9).toBase64()}\n\n— ${origin} `)).toBe(true);
    expect(openCheckpoint(note, origin, key.publicKey)).toEqual(checkpoint);
    expect(openCheckpoint(note, origin, other.publicKey)).toBeNull();
    expect(openCheckpoint(note, `${origin}0`, key.publicKey)).toBeNull();
    const none = { origin, size: 0, root: hash(0) };
    expect(openCheckpoint(signCheckpoint(none, [key]), origin, key.publicKey)).toEqual(none);
  });

  test("may have further lines, which other readers want", () => {
    const note = signNote(`${origin}\n1\n${hash(9).toBase64()}\nextension\n`, origin, [key]);
    expect(openCheckpoint(note, origin, key.publicKey)).toEqual({ origin, size: 1, root: hash(9) });
  });

  const root = hash(9).toBase64();
  const WRONG = [
    ["another origin in the text", `keyhold/log/other\n1\n${root}\n`],
    ["no root", `${origin}\n1\n`],
    ["a size with a zero before it", `${origin}\n01\n${root}\n`],
    ["a negative size", `${origin}\n-1\n${root}\n`],
    ["a size above 2^53", `${origin}\n9007199254740993\n${root}\n`],
    ["a short root", `${origin}\n1\n${hash(9).slice(1).toBase64()}\n`],
    ["a root with loose bits", `${origin}\n1\n${root.slice(0, -2)}l=\n`],
  ] as const;
  test.each(WRONG)("with %s are refused although they are signed", (_what, text) => {
    expect(openCheckpoint(signNote(text, origin, [key]), origin, key.publicKey)).toBeNull();
  });
});

describe("promises", () => {
  const promised = { origin, pseudonym: hash(3), seq: 7, link: hash(4), atMs: 1_000 };

  test("hold for exactly what was signed", () => {
    const signature = signPromise(key, promised);
    expect(signature).toHaveLength(64);
    expect(promiseHolds(key.publicKey, promised, signature)).toBe(true);
    for (const change of [{ origin: "x" }, { pseudonym: hash(5) }, { seq: 8 }, { link: hash(5) }, { atMs: 1_001 }]) {
      expect(promiseHolds(key.publicKey, { ...promised, ...change }, signature)).toBe(false);
    }
    expect(promiseHolds(other.publicKey, promised, signature)).toBe(false);
  });
});

test("leaves of positions and restarts differ in every part", () => {
  const position = { pseudonym: hash(3), seq: 7, link: hash(4) };
  const all = [
    positionLeaf(position),
    positionLeaf({ ...position, pseudonym: hash(5) }),
    positionLeaf({ ...position, seq: 8 }),
    positionLeaf({ ...position, link: hash(5) }),
    restartLeaf(checkpoint),
    restartLeaf({ ...checkpoint, size: 1 }),
    restartLeaf({ ...checkpoint, origin: "x" }),
    restartLeaf({ ...checkpoint, root: hash(5) }),
  ].map((leaf) => leaf.toHex());
  expect(new Set(all).size).toBe(all.length);
});
