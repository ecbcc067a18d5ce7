import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { argon2id } from "@noble/hashes/argon2.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";
import { type CeremonyVector, ceremonyVectorText } from "../../../scripts/vectors-ceremony.ts";
import { verifyTranscript } from "../../../src/protocol/ceremony/verify.ts";
import { decodeTranscript } from "../../../src/wire/ceremony/transcript.ts";

const PATH = join(import.meta.dir, "../../vectors/ceremony.json");
const vectors: readonly CeremonyVector[] = await Bun.file(PATH).json();

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"));
const join32 = (...parts: readonly Uint8Array[]) => Uint8Array.from(Buffer.concat(parts));

/** canon (docs/protocol.md §1.1) written a second time. */
type Value = null | number | string | Uint8Array | readonly Value[];
function canon(value: Value): Uint8Array {
  const head = (tag: number, length: number) => {
    const out = Buffer.alloc(5);
    out[0] = tag;
    out.writeUInt32BE(length, 1);
    return out;
  };
  if (value === null) return Uint8Array.of(0);
  if (typeof value === "number") {
    const out = Buffer.alloc(9);
    out[0] = 3;
    out.writeBigUInt64BE(BigInt(value), 1);
    return Uint8Array.from(out);
  }
  if (typeof value === "string") return join32(head(4, Buffer.byteLength(value)), Buffer.from(value));
  if (value instanceof Uint8Array) return join32(head(5, value.length), value);
  return join32(head(6, value.length), ...value.map(canon));
}
const hash = (label: string, ...parts: readonly Value[]) => sha256(canon([`keyhold/v1/${label}`, ...parts]));

/** The parts of a transcript that the key depends on, as anyone's JSON parser reads them. */
interface Join {
  readonly join: {
    readonly ceremonyId: string;
    readonly index: number;
    readonly key: string;
    readonly sealing: string;
    readonly share: string | null;
    readonly function: string;
    readonly commitment: string;
  };
  readonly invitation: string;
  readonly signature: string;
}
const un64 = (text: string) => Uint8Array.from(Buffer.from(text, "base64url"));
const joinsOf = (v: CeremonyVector) =>
  v.transcript
    .map((line): { entry?: { body: { kind: string; join?: Join } } } => JSON.parse(line))
    .flatMap(({ entry }) => (entry?.body.join ? [entry.body.join] : []))
    .sort((a, b) => a.join.index - b.join.index);

/** Contribution, value and key from the protocol's text alone (docs/protocol.md §10.3). */
const contribution = (os: Uint8Array, mixed: readonly Uint8Array[]) =>
  hkdf(
    sha512,
    canon(["keyhold/v1/ceremony-mixed", os, [...mixed]]),
    os,
    canon(["keyhold/v1/ceremony-contribution"]),
    32,
  );

/** SP 800-90A Rev. 1 §10.1.2: instantiate, and the first 32 bytes. */
function hmacDrbgOnce(material: Uint8Array): Uint8Array {
  let key: Uint8Array = new Uint8Array(32);
  let v: Uint8Array = new Uint8Array(32).fill(1);
  for (const round of [0, 1]) {
    key = hmac(sha256, key, join32(v, Uint8Array.of(round), material));
    v = hmac(sha256, key, v);
  }
  return hmac(sha256, key, v);
}

function ownValueOf(fn: string, r: Uint8Array, s0: Uint8Array, id: string, index: number): Uint8Array {
  const info = canon([`keyhold/v1/ceremony-${fn}`, id, index]);
  if (fn === "hkdf-sha256") return hkdf(sha256, r, s0, info, 32);
  if (fn === "hkdf-sha512") return hkdf(sha512, r, s0, info, 32);
  if (fn === "hmac-drbg") return hmacDrbgOnce(join32(r, s0, info));
  const message = canon([`keyhold/v1/ceremony-${fn}`, id, index, r]);
  return argon2id(message, s0, { t: 3, m: 65_536, p: 4, dkLen: 32 });
}

describe("vectors of ceremonies", () => {
  test("come out the same, byte for byte", async () => {
    expect(await ceremonyVectorText()).toBe(await Bun.file(PATH).text());
  }, 60_000);

  test.each(vectors)(
    "$name: an implementation of the protocol's text gives the same",
    (v) => {
      const joins = joinsOf(v);
      const seed = bytes(v.seedHex);
      expect(joins.map(({ join: { index } }) => index)).toEqual(v.participants.map(({ index }) => index));
      const values: Uint8Array[] = [];
      for (const [at, p] of v.participants.entries()) {
        const opening = bytes(p.openingHex);
        expect(contribution(bytes(p.osHex), p.mixedHex.map(bytes)).toHex()).toBe(p.openingHex);
        const key = un64(joins[at]?.join.key ?? "");
        expect(hash("ceremony-commitment", v.ceremonyId, p.index, key, p.function, opening).toHex()).toBe(
          p.commitmentHex,
        );
        expect(un64(joins[at]?.join.commitment ?? "").toHex()).toBe(p.commitmentHex);
        const value = ownValueOf(p.function, opening, seed, v.ceremonyId, p.index);
        expect(value.toHex()).toBe(p.valueHex);
        values.push(value);
      }
      const hashes = joins.map(({ join: j, invitation, signature }) => {
        const own: Value[] = [j.ceremonyId, j.index, un64(j.key), un64(j.sealing)];
        own.push(j.share === null ? null : un64(j.share), j.function, un64(j.commitment));
        const signed = canon(["keyhold/v1/ceremony-join", ...own]);
        return hash("ceremony-join-hash", signed, un64(invitation), un64(signature));
      });
      const t1 = hash("ceremony-t1", v.ceremonyId, hashes);
      expect(t1.toHex()).toBe(v.t1Hex);
      const t2 = hash(
        "ceremony-t2",
        t1,
        v.participants.map(({ index, openingHex }) => [index, bytes(openingHex)]),
      );
      expect(t2.toHex()).toBe(v.t2Hex);
      const ikm = canon(["keyhold/v1/ceremony-combined", seed, values]);
      const k = hkdf(sha512, ikm, t2, canon(["keyhold/v1/ceremony-key", v.purpose, v.ceremonyId]), 64);
      expect(k.toHex()).toBe(v.keyHex);
      expect(hash("ceremony-key-hash", v.ceremonyId, k).toHex()).toBe(v.keyHashHex);
    },
    60_000,
  );

  test.each(vectors)(
    "$name: its transcript verifies, and its openings reproduce the result",
    async (v) => {
      const transcript = decodeTranscript(new TextEncoder().encode(`${v.transcript.join("\n")}\n`));
      const openings = new Map(v.participants.map(({ index, openingHex }) => [index, bytes(openingHex)]));
      const { result, participants } = await verifyTranscript(transcript, { openings });
      expect(result).toMatchObject({
        keyHashHex: v.keyHashHex,
        reproduced: true,
        descriptor: v.outputs[0]?.descriptor,
      });
      expect(participants.every(({ opened, revealed }) => opened && revealed)).toBe(true);
    },
    60_000,
  );

  test("have every function, and mixed inputs of every number", () => {
    const [totp] = vectors;
    expect(totp?.participants.map((p) => p.function)).toEqual(["hkdf-sha256", "hkdf-sha512", "hmac-drbg", "argon2id"]);
    expect(totp?.participants.map(({ mixedHex }) => mixedHex.length)).toEqual([0, 1, 2, 1]);
  });
});
