import { createFROST, type FROST } from "@noble/curves/abstract/frost.js";
import { ed25519 } from "@noble/curves/ed25519.js";
import { sha512 } from "@noble/hashes/sha2.js";

/** Points that are remembered by their bytes; the oldest ones go first. */
const PROVEN_MAX = 4_096;

const proven = new Map<string, ProvenPoint>();

/**
 * A point of Ed25519 whose prime order was checked when its bytes were first parsed: the library checks it twice each
 * time that it parses, and a ceremony parses each point dozens of times.
 */
class ProvenPoint extends ed25519.Point {
  /** Parses 32 bytes. What is not of prime order comes back as the library's own point, for it to refuse. */
  static override fromBytes(bytes: Uint8Array, zip215 = false) {
    if (zip215) return ed25519.Point.fromBytes(bytes, zip215);
    const name = bytes.toHex();
    const known = proven.get(name);
    if (known) return known;
    const point = ed25519.Point.fromBytes(bytes);
    if (point.is0() || !point.isTorsionFree()) return point;
    const { X, Y, Z, T } = point;
    const made = new ProvenPoint(X, Y, Z, T);
    for (const oldest of proven.keys()) {
      if (proven.size < PROVEN_MAX) break;
      proven.delete(oldest);
    }
    proven.set(name, made);
    return made;
  }

  /** What the library computes with these points are points of its own class. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return value instanceof ed25519.Point;
  }

  override isTorsionFree(): boolean {
    return true;
  }
}

/** Parses a point of Ed25519; a known one is not checked again. @throws Error for bytes that are no point */
export const parseEd25519 = (bytes: Uint8Array) => ProvenPoint.fromBytes(bytes);

/** FROST(Ed25519, SHA-512) of RFC 9591 §6.1, with the library's parameters. */
export const ed25519Frost: FROST = createFROST({
  name: "FROST-ED25519-SHA512-v1",
  Point: ProvenPoint,
  validatePoint(point) {
    point.assertValidity();
    if (!point.isTorsionFree()) throw new Error("bad point: not torsion-free");
  },
  hash: sha512,
  // RFC 9591 §6.1: H2 is RFC 8032's, without any prefix
  H2: "",
});
