import { checkPrime } from "node:crypto";
import { Fault } from "../errors.ts";
import { toBase64url, wipe } from "./bytes.ts";
import { type Drbg, hmacDrbg } from "./drbg.ts";
import { type RsaBits, rsaFromJwk, rsaPublicKey } from "./rsa.ts";

/** Public exponent. */
const E = 65_537n;

/** Rounds of Miller-Rabin: wrong at most once in 2^128 for any number, chosen with intent or not. */
const ROUNDS = 64;

/** Candidates for one prime, for each bit of the modulus, before the search gives up: once in 2^80 seeds. */
const TRIES_PER_BIT = 10;

/** Odd primes below 2,000: who is divisible by one of them, three of four candidates, needs no longer test. */
const SMALL_PRIMES = oddPrimesBelow(2_000);

/**
 * Makes an RSA key from a seed alone: the same seed gives the same key (random probable primes as FIPS 186-5 A.1.3).
 *
 * Candidates are read from HMAC_DRBG with SHA-512, their top two bits and the lowest one set; the first that passes is
 * p, the next one far enough from it is q; docs/protocol.md §10.6 says each step. The primality test runs beside the
 * event loop.
 *
 * @param seed At least 32 secret, uniform bytes. Not retained.
 * @param personalization Says what the key is for, in an injective encoding.
 * @returns PKCS#8 DER, the caller's to wipe, and SubjectPublicKeyInfo DER.
 * @throws Fault internal where the search ends without primes
 */
export async function rsaFromSeed(
  seed: Uint8Array,
  personalization: Uint8Array,
  bits: RsaBits,
): Promise<{ value: Uint8Array; publicKey: Uint8Array }> {
  const drbg = hmacDrbg("sha512", seed, new Uint8Array(0), personalization);
  try {
    const { p, q, d } = await findPrimes(drbg, bits);
    const value = encode(p, q, d);
    return { value, publicKey: rsaPublicKey(value) };
  } finally {
    drbg.wipe();
  }
}

/**
 * Finds the two primes and the private exponent of a modulus of `bits` bits; p is the greater one.
 *
 * @throws Fault internal
 */
export async function findPrimes(drbg: Drbg, bits: RsaBits): Promise<{ p: bigint; q: bigint; d: bigint }> {
  const half = bits / 2;
  for (;;) {
    const first = await findPrime(drbg, half, () => true);
    const second = await findPrime(drbg, half, (one) => difference(one, first) > 1n << BigInt(half - 100));
    const [p, q] = first > second ? [first, second] : [second, first];
    const d = inverse(E, ((p - 1n) * (q - 1n)) / gcd(p - 1n, q - 1n));
    // FIPS 186-5 A.1.1 2(c): a private exponent this short does not happen, and is thrown away if it does
    if (d > 1n << BigInt(half)) return { p, q, d };
  }
}

async function findPrime(drbg: Drbg, bits: number, fits: (candidate: bigint) => boolean): Promise<bigint> {
  for (let tries = 0; tries < TRIES_PER_BIT * bits * 2; tries++) {
    const bytes = drbg.read(bits / 8);
    try {
      bytes[0] = (bytes[0] ?? 0) | 0xc0;
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) | 1;
      const candidate = BigInt(`0x${bytes.toHex()}`);
      if (!fits(candidate) || (candidate - 1n) % E === 0n || hasSmallFactor(candidate)) continue;
      if (await isPrime(bytes)) return candidate;
    } finally {
      wipe(bytes);
    }
  }
  throw new Fault("internal", "no prime was found");
}

function isPrime(bytes: Uint8Array): Promise<boolean> {
  return new Promise((resolve, reject) => {
    checkPrime(bytes, { checks: ROUNDS }, (error, prime) => {
      if (error) reject(new Fault("internal", "the test for primes failed"));
      else resolve(prime);
    });
  });
}

/** Product of the small primes, in blocks that divide a candidate once each. */
const BLOCKS: readonly { readonly product: bigint; readonly primes: readonly number[] }[] = blocksOf(SMALL_PRIMES);

function hasSmallFactor(candidate: bigint): boolean {
  return BLOCKS.some(({ product, primes }) => {
    const rest = Number(candidate % product);
    return primes.some((prime) => rest % prime === 0);
  });
}

/** As many primes a block as their product stays an exact number. */
function blocksOf(primes: readonly number[]): { product: bigint; primes: number[] }[] {
  const blocks: { product: bigint; primes: number[] }[] = [];
  for (const prime of primes) {
    const last = blocks.at(-1);
    if (last && last.product * BigInt(prime) <= BigInt(Number.MAX_SAFE_INTEGER)) {
      last.product *= BigInt(prime);
      last.primes.push(prime);
    } else {
      blocks.push({ product: BigInt(prime), primes: [prime] });
    }
  }
  return blocks;
}

function oddPrimesBelow(limit: number): number[] {
  const primes: number[] = [];
  for (let n = 3; n < limit; n += 2) if (primes.every((prime) => n % prime !== 0)) primes.push(n);
  return primes;
}

const difference = (a: bigint, b: bigint): bigint => (a > b ? a - b : b - a);

function gcd(a: bigint, b: bigint): bigint {
  let [x, y] = [a, b];
  while (y > 0n) [x, y] = [y, x % y];
  return x;
}

/** The inverse of `a` modulo `m`; both have no factor in common. */
function inverse(a: bigint, m: bigint): bigint {
  let [r, next, s, nextS] = [m, a % m, 0n, 1n];
  while (next > 0n) {
    const quotient = r / next;
    [r, next] = [next, r - quotient * next];
    [s, nextS] = [nextS, s - quotient * nextS];
  }
  return s < 0n ? s + m : s;
}

function encode(p: bigint, q: bigint, d: bigint): Uint8Array {
  const part = (number: bigint): string => {
    const digits = number.toString(16);
    return toBase64url(Uint8Array.fromHex(digits.length % 2 === 0 ? digits : `0${digits}`));
  };
  return rsaFromJwk({
    n: part(p * q),
    e: part(E),
    d: part(d),
    p: part(p),
    q: part(q),
    dp: part(d % (p - 1n)),
    dq: part(d % (q - 1n)),
    qi: part(inverse(q, p)),
  });
}
