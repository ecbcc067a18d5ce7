import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { ed25519, ed25519_FROST } from "@noble/curves/ed25519.js";
import { schnorr_FROST, secp256k1 } from "@noble/curves/secp256k1.js";
import { type CeremonyVector, federationVectors } from "../../../scripts/vectors-federation.ts";

const PATH = join(import.meta.dir, "../../vectors/federation-transcript.json");
const vectors: readonly CeremonyVector[] = await Bun.file(PATH).json();

/** canon (docs/protocol.md §1.1) written a second time, for the values that a transcript needs. */
type Value = string | Buffer | readonly Value[];
function encode(value: Value): Buffer {
  const head = (tag: number, length: number) => {
    const out = Buffer.alloc(5);
    out[0] = tag;
    out.writeUInt32BE(length, 1);
    return out;
  };
  if (typeof value === "string") return Buffer.concat([head(4, Buffer.byteLength(value)), Buffer.from(value)]);
  if (Buffer.isBuffer(value)) return Buffer.concat([head(5, value.length), value]);
  const items = value as readonly Value[];
  return Buffer.concat([head(6, items.length), ...items.map(encode)]);
}
const hash = (...parts: readonly Value[]) => createHash("sha256").update(encode(parts)).digest();
const bytes = (hex: string) => Buffer.from(hex, "hex");

describe("vectors of ceremonies", () => {
  test("come out the same, byte for byte", async () => {
    expect(JSON.parse(JSON.stringify(await federationVectors()))).toEqual(vectors);
  });

  test("the transcript's hash is what the protocol's text says", () => {
    let checked = 0;
    for (const v of vectors) {
      if (!("transcriptHex" in v.expect)) continue;
      const hashes = (["commit", "echo", "complaint", "reveal"] as const)
        .flatMap((round) => v.messages.filter((m) => m.round === round))
        .map((m) => hash("keyhold/v1/federation-message-hash", bytes(m.bytesHex)));
      const order = hash("keyhold/v1/federation-order-hash", bytes(v.orderHex));
      const transcript = hash("keyhold/v1/federation-transcript", order, hashes);
      expect(transcript.toString("hex")).toBe(v.expect.transcriptHex);
      const certificate = hash("keyhold/v1/federation-certificate-hash", bytes(v.expect.certificateHex));
      expect(certificate.toString("hex")).toBe(v.expect.certificateHashHex);
      checked++;
    }
    expect(checked).toBe(4);
  });

  test("any two shares are the public key's, by the library's own interpolation", () => {
    for (const v of vectors) {
      if (!("sharesHex" in v.expect)) continue;
      const taproot = v.name.includes("schnorr");
      const frost = taproot ? schnorr_FROST : ed25519_FROST;
      const shares = Object.entries(v.expect.sharesHex).map(([index, hex]) => ({
        identifier: frost.Identifier.fromNumber(Number(index)),
        signingShare: Uint8Array.fromHex(hex),
      }));
      expect(shares.length).toBe(3);
      for (const two of [shares.slice(0, 2), shares.slice(1), [...shares.slice(0, 1), ...shares.slice(2)]]) {
        const secret = frost.combineSecret(two, { min: 2, max: 3 });
        const point = taproot
          ? secp256k1.Point.BASE.multiply(secp256k1.Point.Fn.fromBytes(secret)).toBytes()
          : ed25519.Point.BASE.multiply(ed25519.Point.Fn.fromBytes(secret)).toBytes();
        expect(point.toHex()).toBe(v.expect.publicKeyHex);
      }
    }
  });

  test("a refresh keeps key and id, and changes every share; a liar is named", () => {
    const of = (name: string) => vectors.find((v) => v.name === name)?.expect;
    for (const type of ["ed25519", "schnorr"]) {
      const [first, next] = [of(`generate ${type}`), of(`refresh ${type}`)];
      if (!first || !next || !("keyId" in first) || !("keyId" in next)) throw new Error("no such vectors");
      expect([next.keyId, next.publicKeyHex]).toEqual([first.keyId, first.publicKeyHex]);
      for (const [index, share] of Object.entries(first.sharesHex)) expect(next.sharesHex[index]).not.toBe(share);
    }
    expect(of("a wrong proof")).toEqual({ culprits: [{ index: 2, reason: "bad_proof" }] });
  });
});
