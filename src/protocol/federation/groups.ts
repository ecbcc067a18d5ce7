import type { FROST } from "@noble/curves/abstract/frost.js";
import { type IField, mapHashToField } from "@noble/curves/abstract/modular.js";
import { ed25519, ristretto255, ristretto255_FROST } from "@noble/curves/ed25519.js";
import { p256, p256_FROST } from "@noble/curves/nist.js";
import { schnorr_FROST, secp256k1, secp256k1_FROST } from "@noble/curves/secp256k1.js";
import { equalBytes, type RandomSource } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { ed25519Frost, parseEd25519 } from "./ed25519suite.ts";
import type { FederatedType } from "./kinds.ts";

/** Bytes of a scalar of every group. */
export const SCALAR_BYTES = 32;
/** Bytes that {@link Group.reduceScalar} takes. */
export const WIDE_BYTES = 64;

/** Parsed points that are remembered: a ceremony asks for each several times, and the check of the order is slow. */
const PARSED_MAX = 2_048;

/** A point of one group; points of two groups never meet. */
export interface GroupPoint {
  add(other: GroupPoint): GroupPoint;
  subtract(other: GroupPoint): GroupPoint;
  negate(): GroupPoint;
  /** In constant time, for secret scalars from 1 up to the order. */
  multiply(scalar: bigint): GroupPoint;
  /** For public scalars from 0 up to the order. */
  multiplyUnsafe(scalar: bigint): GroupPoint;
  equals(other: GroupPoint): boolean;
  is0(): boolean;
  isTorsionFree(): boolean;
  assertValidity(): void;
  toBytes(): Uint8Array;
}

interface Curve {
  readonly base: GroupPoint;
  readonly field: IField<bigint>;
  readonly frost: FROST;
  readonly pointBytes: number;
  fromBytes(bytes: Uint8Array): GroupPoint;
}

/** The group in which keys of one type live (docs/protocol.md §8.5); scalars are bigints inside, 32 bytes outside. */
export interface Group {
  readonly type: FederatedType;
  readonly frost: FROST;
  /** 32 (Ed25519, ristretto255) or 33 (compressed points of secp256k1 and P-256). */
  readonly pointBytes: number;
  readonly base: GroupPoint;
  readonly order: bigint;
  /** Parses a canonical point of prime order that is not the identity. @throws Fault bad_input */
  parsePoint(bytes: Uint8Array): GroupPoint;
  /** @throws Fault bad_input for the identity */
  encodePoint(point: GroupPoint): Uint8Array;
  /** Parses 32 canonical bytes in the suite's byte order; zero is allowed. @throws Fault bad_input */
  parseScalar(bytes: Uint8Array): bigint;
  /** 32 bytes in the suite's byte order. */
  encodeScalar(scalar: bigint): Uint8Array;
  /** Wide reduction of 64 uniform bytes to 1 up to the order: the bias is below 2^-128. */
  reduceScalar(wide: Uint8Array): bigint;
  add(a: bigint, b: bigint): bigint;
  subtract(a: bigint, b: bigint): bigint;
  multiply(a: bigint, b: bigint): bigint;
  negate(a: bigint): bigint;
}

function curveOf(type: FederatedType): Curve {
  switch (type) {
    case "ed25519":
      return {
        base: ed25519.Point.BASE,
        field: ed25519.Point.Fn,
        frost: ed25519Frost,
        pointBytes: 32,
        fromBytes: parseEd25519,
      };
    case "bytes":
    case "ristretto255":
      return {
        base: ristretto255.Point.BASE,
        field: ristretto255.Point.Fn,
        frost: ristretto255_FROST,
        pointBytes: 32,
        fromBytes: (b) => ristretto255.Point.fromBytes(b),
      };
    case "secp256k1":
    case "schnorr":
      return {
        base: secp256k1.Point.BASE,
        field: secp256k1.Point.Fn,
        frost: type === "schnorr" ? schnorr_FROST : secp256k1_FROST,
        pointBytes: 33,
        fromBytes: (b) => secp256k1.Point.fromBytes(b),
      };
    case "p256":
      return {
        base: p256.Point.BASE,
        field: p256.Point.Fn,
        frost: p256_FROST,
        pointBytes: 33,
        fromBytes: (b) => p256.Point.fromBytes(b),
      };
  }
}

function makeGroup(type: FederatedType): Group {
  const { base, field, frost, pointBytes, fromBytes } = curveOf(type);
  const parsed = new Map<string, GroupPoint>();
  return {
    type,
    frost,
    pointBytes,
    base,
    order: field.ORDER,
    parsePoint(bytes) {
      const name = bytes.toHex();
      const known = parsed.get(name);
      if (known) return known;
      try {
        const point = fromBytes(bytes);
        point.assertValidity();
        const canonical = bytes.length === pointBytes && equalBytes(point.toBytes(), bytes);
        if (canonical && !point.is0() && point.isTorsionFree()) {
          if (parsed.size >= PARSED_MAX) parsed.clear();
          parsed.set(name, point);
          return point;
        }
      } catch {
        // the library's reasons are untyped: one answer for all of them
      }
      throw new Fault("bad_input", "this is no point of the key's group");
    },
    encodePoint(point) {
      if (point.is0()) throw new Fault("bad_input", "this point is the identity");
      return new Uint8Array(point.toBytes());
    },
    parseScalar(bytes) {
      try {
        return field.fromBytes(bytes);
      } catch {
        throw new Fault("bad_input", "this is no scalar of the key's group");
      }
    },
    encodeScalar: (scalar) => new Uint8Array(field.toBytes(scalar)),
    reduceScalar(wide) {
      if (wide.length !== WIDE_BYTES) throw new RangeError("a scalar is reduced from 64 bytes");
      return field.fromBytes(mapHashToField(wide, field.ORDER, field.isLE ?? false));
    },
    add: (a, b) => field.add(a, b),
    subtract: (a, b) => field.sub(a, b),
    multiply: (a, b) => field.mul(a, b),
    negate: (a) => field.neg(a),
  };
}

const groups = new Map<FederatedType, Group>();

/** The group of a type; `ristretto255` and `bytes` share a curve, `secp256k1` and `schnorr` too. */
export function groupOf(type: FederatedType): Group {
  const known = groups.get(type);
  if (known) return known;
  const made = makeGroup(type);
  groups.set(type, made);
  return made;
}

/** A source of random bytes as the library takes it. */
export const frostRandom =
  (random: RandomSource) =>
  (length = 32): Uint8Array<ArrayBuffer> =>
    new Uint8Array(random(length));

/** FROST's name of the server with an index: never of 0. @throws Fault bad_input */
export function identifier(group: Group, index: number): string {
  if (!Number.isInteger(index) || index < 1 || index > 255)
    throw new Fault("bad_input", "indices of servers are 1 to 255");
  return group.frost.Identifier.fromNumber(index);
}

/**
 * The committed polynomial at an index: Σ index^j · commitments[j], the public counterpart of that server's share.
 * Points and index are public; may be the identity where a dealer is a liar.
 */
export function evaluatePoints(commitments: readonly GroupPoint[], index: number): GroupPoint {
  const last = commitments.at(-1);
  if (!last) throw new RangeError("a polynomial has coefficients");
  const x = BigInt(index);
  // Horner's scheme multiplies by the small index alone
  return commitments.slice(0, -1).reduceRight((value, c) => value.multiplyUnsafe(x).add(c), last);
}

/** The verifying share of a server: {@link evaluatePoints} over encoded points. @throws Fault bad_input */
export function evaluateCommitments(group: Group, commitments: readonly Uint8Array[], index: number): Uint8Array {
  identifier(group, index);
  const points = commitments.map((c) => group.parsePoint(c));
  return group.encodePoint(evaluatePoints(points, index));
}

/** The Lagrange coefficient at 0 of `index` among `indices`. @throws Fault bad_input */
export function lagrangeAtZero(group: Group, indices: readonly number[], index: number): bigint {
  for (const one of indices) identifier(group, one);
  if (!indices.includes(index) || new Set(indices).size !== indices.length)
    throw new Fault("bad_input", "interpolation needs different indices");
  const others = indices.filter((one) => one !== index).map(BigInt);
  const { field } = curveOf(group.type);
  const over = others.reduce((product, x) => field.mul(product, field.create(x)), field.ONE);
  const under = others.reduce((product, x) => field.mul(product, field.create(x - BigInt(index))), field.ONE);
  return field.div(over, under);
}

/** The secret of `threshold` or more shares: Σ λ·share; shares are 32 bytes each. @throws Fault bad_input */
export function interpolate(group: Group, shares: readonly { readonly index: number; readonly share: Uint8Array }[]) {
  const indices = shares.map((s) => s.index);
  return shares.reduce(
    (sum, s) => group.add(sum, group.multiply(lagrangeAtZero(group, indices, s.index), group.parseScalar(s.share))),
    0n,
  );
}
