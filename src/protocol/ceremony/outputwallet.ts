import { secp256k1 } from "@noble/curves/secp256k1.js";
import { wipe } from "../../crypto/bytes.ts";
import { deriveKey } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId } from "../../ids.ts";
import type { CeremonyJoin, OutputSpec, PublicOutput } from "./model.ts";

const { Point, utils } = secp256k1;
const NO_SALT = new Uint8Array(0);
/** Half as many bytes again as the order has: a bias below 2^-128 (FIPS 186-5 A.2.1). */
const WIDE_BYTES = 48;

/** Participants of one wallet: as many keys as every wallet program takes (BIP-383 has no more than 20). */
export const WALLET_PARTICIPANTS = 15;

/** What a participant of a wallet gets, and nobody else. */
export interface WalletPart {
  readonly index: number;
  /** Scalar that is added to the participant's own, 32 bytes big-endian; the caller's to wipe. */
  readonly secret: Uint8Array;
}

/** Inputs of a wallet that every participant has signed. */
export type WalletJoin = Pick<CeremonyJoin, "index" | "share">;

/**
 * The keys of a multisig wallet: to each participant's own point, a scalar times G of the ceremony is added
 * (docs/protocol.md §10.6).
 *
 * @param key The ceremony's key K, 64 bytes. Not retained.
 * @throws Fault bad_input where a share is no point, or their number does not fit
 */
export function makeWallet(
  spec: Extract<OutputSpec, { kind: "multisig" }>,
  key: Uint8Array,
  ceremonyId: CeremonyId,
  joins: readonly WalletJoin[],
): { public: PublicOutput; parts: readonly WalletPart[] } {
  const parts: WalletPart[] = [];
  try {
    const keys = [...joins]
      .sort((a, b) => a.index - b.index)
      .map(({ index, share }) => {
        const secret = partOf(key, ceremonyId, index);
        parts.push({ index, secret });
        return { index, publicKey: addToShare(share, secret) };
      });
    const descriptor = walletDescriptor(
      spec.threshold,
      keys.map((one) => one.publicKey),
    );
    return { public: { publicKey: null, descriptor, keys }, parts };
  } catch (error) {
    wipe(...parts.map((part) => part.secret));
    throw error;
  }
}

/**
 * The private key of a participant of a wallet: its own scalar and the ceremony's, added modulo the order.
 *
 * @param ownScalar @param part 32 bytes each, big-endian, 1 to n-1. Not retained.
 * @returns 32 bytes, the caller's to wipe. @throws Fault bad_input
 */
export function walletKeyOf(ownScalar: Uint8Array, part: Uint8Array): Uint8Array {
  if (!utils.isValidSecretKey(ownScalar) || !utils.isValidSecretKey(part)) {
    throw new Fault("bad_input", "a part of a wallet's key is a number of 32 bytes below the group order");
  }
  const sum = Point.Fn.add(Point.Fn.fromBytes(ownScalar), Point.Fn.fromBytes(part));
  if (Point.Fn.is0(sum)) throw new Fault("bad_input", "the two parts of this wallet's key cancel each other");
  return Point.Fn.toBytes(sum);
}

/**
 * Output descriptor of a wallet: `wsh(sortedmulti(m,key,…))` with its checksum (BIP-380, BIP-383), keys as given.
 *
 * @param threshold m, 1 to as many as there are keys. @param keys 1 to 15 different compressed points.
 * @throws Fault bad_input
 */
export function walletDescriptor(threshold: number, keys: readonly Uint8Array[]): string {
  if (keys.length < 1 || keys.length > WALLET_PARTICIPANTS) {
    throw new Fault("bad_input", `a multisig wallet has 1 to ${WALLET_PARTICIPANTS} keys`);
  }
  if (!Number.isInteger(threshold) || threshold < 1 || threshold > keys.length) {
    throw new Fault("bad_input", "a multisig wallet needs no more signatures than it has keys");
  }
  const texts = keys.map((key) => key.toHex());
  if (new Set(texts).size !== texts.length || keys.some((key) => key.length !== 33 || !isPoint(key))) {
    throw new Fault("bad_input", "the keys of a multisig wallet are different compressed points");
  }
  const descriptor = `wsh(sortedmulti(${[threshold, ...texts].join(",")}))`;
  return `${descriptor}#${descriptorChecksum(descriptor)}`;
}

/** Scalar of the ceremony for one participant; never zero. */
function partOf(key: Uint8Array, ceremonyId: CeremonyId, index: number): Uint8Array {
  const wide = deriveKey(key, WIDE_BYTES, NO_SALT, "keyhold/v1/ceremony-wallet-scalar", ceremonyId, index);
  try {
    return utils.randomSecretKey(wide);
  } finally {
    wipe(wide);
  }
}

function addToShare(share: Uint8Array | null, part: Uint8Array): Uint8Array {
  if (share === null || share.length !== 33 || !isPoint(share)) {
    throw new Fault("bad_input", "a participant of a multisig wallet brings a compressed point of its own");
  }
  const sum = Point.fromBytes(share).add(Point.BASE.multiply(Point.Fn.fromBytes(part)));
  if (sum.is0()) throw new Fault("bad_input", "a participant's point and the ceremony's cancel each other");
  return sum.toBytes(true);
}

const isPoint = (bytes: Uint8Array): boolean => utils.isValidPublicKey(bytes, true);

/** Characters of a descriptor, in the groups of BIP-380; position and group enter its checksum. */
const INPUT_CHARACTERS =
  "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ";
const CHECKSUM_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR = [0xf5_dee5_1989n, 0xa9_fdca_3312n, 0x1b_ab10_e32dn, 0x37_06b1_677an, 0x64_4d62_6ffdn];

/**
 * Checksum of an output descriptor (BIP-380): eight characters.
 *
 * @param text Without `#` and checksum. @throws Fault bad_input for characters that no descriptor has
 */
export function descriptorChecksum(text: string): string {
  const symbols: number[] = [];
  let groups: number[] = [];
  for (const character of text) {
    const at = INPUT_CHARACTERS.indexOf(character);
    if (at < 0) throw new Fault("bad_input", "an output descriptor does not have this character");
    symbols.push(at & 31);
    groups.push(at >> 5);
    if (groups.length === 3) {
      symbols.push(groups.reduce((sum, group) => sum * 3 + group, 0));
      groups = [];
    }
  }
  if (groups.length > 0) symbols.push(groups.reduce((sum, group) => sum * 3 + group, 0));
  const rest = polymod([...symbols, 0, 0, 0, 0, 0, 0, 0, 0]) ^ 1n;
  return Array.from({ length: 8 }, (_, i) => CHECKSUM_CHARACTERS[Number((rest >> BigInt(5 * (7 - i))) & 31n)]).join("");
}

function polymod(symbols: readonly number[]): bigint {
  let rest = 1n;
  for (const symbol of symbols) {
    const top = rest >> 35n;
    rest = ((rest & 0x7_ffff_ffffn) << 5n) ^ BigInt(symbol);
    for (const [i, value] of GENERATOR.entries()) if ((top >> BigInt(i)) & 1n) rest ^= value;
  }
  return rest;
}
