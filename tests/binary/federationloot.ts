import { Database } from "bun:sqlite";
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { enclaveKeys } from "../../src/enclave/keys.ts";
import { openLive } from "../../src/enclave/sealedshare.ts";
import type { Certificate } from "../../src/protocol/federation/certificate.ts";
import {
  evaluateCommitments,
  type Group,
  groupOf,
  interpolate,
  SCALAR_BYTES,
} from "../../src/protocol/federation/groups.ts";
import { pointOf } from "../../src/protocol/federation/owner.ts";
import { type DocumentKind, KEY, SHARE } from "../../src/server/federation/documents.ts";
import { decodeJson } from "../../src/wire/codec.ts";
import { filesBelow } from "./traces.ts";

/** What a thief does with the directories of servers, and with whatever else fell into his hands. */

/** A server's directory as it was taken from the running server. */
export interface Loot {
  readonly dir: string;
  /** Every file, and every cell of the database as it is put together from its pages. */
  readonly pieces: readonly Uint8Array[];
  cells(sql: string): Record<string, unknown>[];
}

/** Copies a directory, its database's journal with it. */
export function steal(from: string, to: string): Loot {
  // sockets cannot be copied, nor would they help
  cpSync(from, to, { recursive: true, filter: (path) => !path.endsWith(".sock") });
  const db = new Database(join(to, "keyhold.db"));
  const cells = (sql: string) => db.query(sql).all() as Record<string, unknown>[];
  const tables = cells("SELECT name FROM sqlite_schema WHERE type = 'table'").map(({ name }) => String(name));
  const rows = tables.flatMap((name) => cells(`SELECT * FROM ${name}`)).flatMap(Object.values);
  const texts = rows.flatMap((cell) => (typeof cell === "string" ? [new TextEncoder().encode(cell)] : []));
  const blobs = rows.flatMap((cell) => (cell instanceof Uint8Array ? [cell] : []));
  const files = filesBelow(to).map(({ bytes }) => new Uint8Array(bytes));
  return { dir: to, pieces: [...files, ...texts, ...blobs], cells };
}

const documentsOf = <T>({ cells }: Loot, { kind, codec }: DocumentKind<T>): { id: string; value: T }[] =>
  cells(`SELECT id, body FROM document WHERE kind = '${kind}'`).map(({ id, body }) => ({
    id: String(id),
    value: decodeJson(codec, body as Uint8Array),
  }));

export interface OpenedShare {
  readonly certificate: Certificate;
  readonly index: number;
  readonly share: Uint8Array;
}

/** Opens every share of a stolen directory by its stolen sealing key. */
export async function openShares(loot: Loot): Promise<OpenedShare[]> {
  const keys = await enclaveKeys(new Uint8Array(readFileSync(join(loot.dir, "enclave", "sealing.key"))));
  const certificates = documentsOf(loot, KEY).map(({ value }) => value.certificate.certificate);
  return documentsOf(loot, SHARE).map(({ id, value }) => {
    const certificate = certificates.find(({ keyId, generation }) => id === `${keyId}:${generation}`);
    if (!certificate) throw new Error(`no certificate for the share ${id}`);
    const share = openLive(keys, certificate, value.sealed);
    const group = groupOf(certificate.type);
    const point = pointOf(certificate.type, share).toHex();
    const index = certificate.holders.find(
      (one) => evaluateCommitments(group, certificate.commitments, one).toHex() === point,
    );
    if (index === undefined) throw new Error(`nobody's share: ${id}`);
    return { certificate, index, share };
  });
}

/** Bytes as they are, and what stands in them as base64url or hexadecimal. */
export function readings(pieces: readonly Uint8Array[]): Uint8Array[] {
  return pieces.flatMap((piece) => {
    const text = Buffer.from(piece).toString("latin1");
    const base64 = text.match(/[A-Za-z0-9_-]{43,}/g) ?? [];
    const hex = text.match(/[0-9a-f]{64,}/g) ?? [];
    return [
      piece,
      ...base64.map((run) => new Uint8Array(Buffer.from(run, "base64url"))),
      ...hex.map((run) => new Uint8Array(Buffer.from(run, "hex"))),
    ];
  });
}

/** Every way to write a scalar, or a number that is one modulo the order, in 32 bytes. */
function writings(group: Group, scalar: Uint8Array): Buffer[] {
  const all: Buffer[] = [];
  for (let n = group.parseScalar(scalar); n < 1n << 256n; n += group.order) {
    const big = Buffer.from(n.toString(16).padStart(2 * SCALAR_BYTES, "0"), "hex");
    all.push(big, Buffer.from(big.toReversed()));
  }
  return all;
}

/**
 * Whether some window of 32 bytes, at whatever offset, is this scalar. A thief finds it by multiplying the base point
 * with each window and looking for the point that the certificate shows: scalars with the same point are these alone.
 */
export const occurs = (haystack: readonly Uint8Array[], type: Certificate["type"], scalar: Uint8Array): boolean =>
  occursBytes(haystack, ...writings(groupOf(type), scalar));

export const occursBytes = (haystack: readonly Uint8Array[], ...needles: readonly Uint8Array[]): boolean =>
  haystack.some((hay) =>
    needles.some((needle) => Buffer.from(hay.buffer, hay.byteOffset, hay.length).includes(needle)),
  );

/** Different pieces of exactly 32 bytes: what keys and shares look like. */
export function candidates(haystack: readonly Uint8Array[]): Uint8Array[] {
  const found = new Map<string, Uint8Array>();
  for (const one of haystack) if (one.length === SCALAR_BYTES) found.set(one.toHex(), one);
  return [...found.values()];
}

/** The value of the servers' polynomial at any index, from as many shares as it takes. */
export function shareAt(type: Certificate["type"], shares: readonly OpenedShare[], index: number): Uint8Array {
  const group = groupOf(type);
  // f(index) = g(0) for g(x) = f(x + index): the others' places move, and those below zero wrap
  const at = (own: number) =>
    shares
      .filter((one) => one.index !== own)
      .reduce((product, one) => {
        const over = modular(BigInt(index - one.index), group.order);
        const under = inverse(modular(BigInt(own - one.index), group.order), group.order);
        return group.multiply(product, group.multiply(over, under));
      }, 1n);
  const sum = shares.reduce(
    (total, one) => group.add(total, group.multiply(at(one.index), group.parseScalar(one.share))),
    0n,
  );
  return group.encodeScalar(sum);
}

const modular = (n: bigint, order: bigint): bigint => ((n % order) + order) % order;

function inverse(n: bigint, order: bigint): bigint {
  let [result, base] = [1n, n];
  for (let e = order - 2n; e > 0n; e >>= 1n) {
    if (e & 1n) result = (result * base) % order;
    base = (base * base) % order;
  }
  return result;
}

/**
 * The private key of a certificate, as a thief looks for it: each candidate is tried as the key itself, and together
 * with the shares that he has as the share of each other index. null where nothing fits.
 */
export function crack(
  certificate: Certificate,
  own: readonly OpenedShare[],
  tried: readonly Uint8Array[],
): Uint8Array | null {
  const group = groupOf(certificate.type);
  const { publicKey, type, holders } = certificate;
  const goal = publicKey.toHex();
  const fits = (scalar: bigint) => scalar !== 0n && pointOf(type, group.encodeScalar(scalar)).toHex() === goal;
  const shares = own.map(({ index, share }) => ({ index, share }));
  if (shares.length >= certificate.threshold) {
    const whole = interpolate(group, shares);
    if (fits(whole)) return group.encodeScalar(whole);
  }
  for (const bytes of tried) {
    for (const form of [bytes, bytes.toReversed()]) {
      const number = modular(BigInt(`0x${form.toHex()}`), group.order);
      if (fits(number)) return group.encodeScalar(number);
      const share = group.encodeScalar(number);
      for (const index of holders.filter((one) => shares.every((had) => had.index !== one))) {
        const whole = interpolate(group, [...shares, { index, share }]);
        if (fits(whole)) return group.encodeScalar(whole);
      }
    }
  }
  return null;
}
