import { expect, setDefaultTimeout, test } from "bun:test";
import { ed25519 } from "@noble/curves/ed25519.js";
import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { generateKey } from "../../../src/client/federation/generate.ts";
import type { HeldKey } from "../../../src/client/federation/held.ts";
import { releaseKey, signWithKey } from "../../../src/client/federation/use.ts";
import { CUSTODIES } from "../../../src/protocol/federation/kinds.ts";
import { type ClientWorld, clientWorld, WISH } from "./clientworld.ts";

setDefaultTimeout(60_000);

const onlyKey = ({ disk }: ClientWorld): HeldKey => {
  const [key] = disk.keys;
  if (!key) throw new Error("no key");
  return key;
};

const wide = (scalar: Uint8Array) => BigInt(`0x${scalar.toHex()}`);

/** The public point of an exported scalar, as noble makes it; of schnorr its x alone. Ed25519 is little-endian. */
const POINTS = {
  ed25519: (scalar: Uint8Array) => ed25519.Point.BASE.multiply(wide(scalar.toReversed())).toHex(),
  schnorr: (scalar: Uint8Array) => secp256k1.Point.BASE.multiply(wide(scalar)).toHex(true).slice(2),
  secp256k1: (scalar: Uint8Array) => secp256k1.Point.BASE.multiply(wide(scalar)).toHex(true),
  p256: (scalar: Uint8Array) => p256.Point.BASE.multiply(wide(scalar)).toHex(true),
} as const;

const SCHEMES = {
  ed25519: "ed25519",
  schnorr: "bip340",
  secp256k1: "ecdsa-secp256k1-sha256",
  p256: "ecdsa-p256-sha256",
} as const;

for (const type of Object.keys(POINTS) as (keyof typeof POINTS)[]) {
  for (const custody of CUSTODIES) {
    test(`${type}, ${custody}: what is exported is the private key of the public one, and marks the key`, async () => {
      const world = await clientWorld(3, 2);
      const made = await generateKey(world.ground, { ...WISH, type, custody });
      const signed = await signWithKey(world.ground, onlyKey(world), new TextEncoder().encode("first"), null);
      expect(signed.scheme).toBe(SCHEMES[type]);
      const { status, value } = await releaseKey(world.ground, onlyKey(world), "export");
      expect(status).toBe("fulfilled");
      const point = POINTS[type](value ?? new Uint8Array(32));
      expect(point).toBe(type === "schnorr" ? (made.publicKeyHex ?? "").slice(-64) : (made.publicKeyHex ?? ""));
      expect(onlyKey(world).released).toBe(true);
      expect(world.disk.requests).toEqual([]);
    });
  }
}
