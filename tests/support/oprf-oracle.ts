import { ristretto255, ristretto255_hasher } from "@noble/curves/ed25519.js";
import { sha512 } from "@noble/hashes/sha2.js";
import { randomBytes } from "@noble/hashes/utils.js";

/** The OPRF of RFC 9497 (mode 0, ristretto255-SHA512) for tests, written from the RFC. Not constant-time. */

export type Bytes = Uint8Array;

export interface KeyPair {
  readonly privateKey: Bytes;
  readonly publicKey: Bytes;
}

const Point = ristretto255.Point;
/** UTF-8 of a string. */
export const text = (value: string): Bytes => new TextEncoder().encode(value);

/** Joins byte strings. */
export function join(...parts: readonly Bytes[]): Bytes {
  return new Uint8Array(Buffer.concat(parts));
}

/** I2OSP of RFC 8017. */
export function number(value: number, length: number): Bytes {
  const out = new Uint8Array(length);
  for (let i = length - 1, rest = value; i >= 0; i--, rest = Math.floor(rest / 256)) out[i] = rest % 256;
  return out;
}

/** A byte string after its length in `size` bytes. */
export const prefixed = (value: Bytes, size = 2): Bytes => join(number(value.length, size), value);

/** A prime-order element that is not the identity (RFC 9497 §2.1). */
export function element(bytes: Bytes): InstanceType<typeof Point> {
  const point = Point.fromBytes(bytes);
  if (point.is0()) throw new RangeError("opaque oracle: the identity element");
  return point;
}

/** scalar · element, as bytes. */
export function multiply(scalar: Bytes, point: Bytes): Bytes {
  return element(point).multiply(Point.Fn.fromBytes(scalar)).toBytes();
}

/** 1 / scalar. */
export function invert(scalar: Bytes): Bytes {
  return Point.Fn.toBytes(Point.Fn.inv(Point.Fn.fromBytes(scalar)));
}

/** A uniform non-zero scalar of 32 bytes. */
export function randomScalar(): Bytes {
  return Point.Fn.toBytes(ristretto255_hasher.hashToScalar(randomBytes(64), { DST: "opaque-oracle" }));
}

const OPRF = join(text("OPRFV1-"), number(0, 1), text("-ristretto255-SHA512"));

/** HashToGroup of RFC 9497 §4.1. */
export function hashToGroup(input: Bytes): Bytes {
  return ristretto255_hasher.hashToCurve(input, { DST: join(text("HashToGroup-"), OPRF) }).toBytes();
}

/** DeriveKeyPair of RFC 9497 §3.2.1. */
export function deriveKeyPair(seed: Bytes, info: string): KeyPair {
  const input = join(seed, prefixed(text(info)));
  for (let counter = 0; counter < 256; counter++) {
    const DST = join(text("DeriveKeyPair"), OPRF);
    const scalar = ristretto255_hasher.hashToScalar(join(input, number(counter, 1)), { DST });
    if (scalar !== 0n) {
      return { privateKey: Point.Fn.toBytes(scalar), publicKey: Point.BASE.multiply(scalar).toBytes() };
    }
  }
  throw new RangeError("opaque oracle: no key from this seed");
}

/** Public key of a private scalar. */
export function publicKeyOf(privateKey: Bytes): Bytes {
  return Point.BASE.multiply(Point.Fn.fromBytes(privateKey)).toBytes();
}

/** Blind of RFC 9497 §3.3.1. */
export function oprfBlind(input: Bytes, blind: Bytes): Bytes {
  return multiply(blind, hashToGroup(input));
}

/** Finalize of RFC 9497 §3.3.1: 64 bytes. */
export function oprfFinalize(input: Bytes, blind: Bytes, evaluated: Bytes): Bytes {
  return sha512(join(prefixed(input), prefixed(multiply(invert(blind), evaluated)), text("Finalize")));
}
