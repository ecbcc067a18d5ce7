import { afterAll, describe, expect, test } from "bun:test";
import {
  checkPrimeSync,
  constants,
  createPrivateKey,
  createPublicKey,
  privateDecrypt,
  publicEncrypt,
  sign,
  verify,
} from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Drbg, hmacDrbg } from "../../src/crypto/drbg.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import { RSA_BITS, rsaPublicKey, rsaToJwk } from "../../src/crypto/rsa.ts";
import { findPrimes, rsaFromSeed } from "../../src/crypto/rsaprime.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { testNeeding } from "../support/skip.ts";

const NONE = new Uint8Array(0);
const seed = (n: number) => new Uint8Array(64).fill(n);
const bitLength = (n: bigint) => n.toString(2).length;
const number = (part: string) => BigInt(`0x${Buffer.from(part, "base64url").toString("hex")}`);

/** SHA-256 of the PKCS#8 DER of the key of 64 bytes of 1, personalization "test", from a program of its own in Python. */
const VECTORS = {
  2048: "2fd08fe22543ec785372465edcc98ab7522ebc60b0668295ff340e3ab6191fdf",
  3072: "3d4b11faa731d97bf0ad4a1cf969197b5d7716903f66bce3e75ee86bcc8d9353",
  4096: "baebfc4283c9733336fc01a8dd089119fe3e636dcf5242c0c830c3661f72a6cc",
} as const;

const directories: string[] = [];
afterAll(() => {
  for (const one of directories) rmSync(one, { recursive: true, force: true });
});

describe("RSA keys from a seed", () => {
  for (const bits of RSA_BITS) {
    test(`${bits} bits: the same seed gives the same key, on which all other programs agree`, async () => {
      const personalization = new TextEncoder().encode("test");
      const { value, publicKey } = await rsaFromSeed(seed(1), personalization, bits);
      expect(sha256(value).toHex()).toBe(VECTORS[bits]);
      expect(rsaPublicKey(value)).toEqual(publicKey);
      const key = createPrivateKey({ key: Buffer.from(value), format: "der", type: "pkcs8" });
      expect(key.asymmetricKeyDetails).toMatchObject({ modulusLength: bits, publicExponent: 65_537n });
      const jwk = rsaToJwk(value);
      const [n, p, q, d] = [number(jwk.n), number(jwk.p), number(jwk.q), number(jwk.d)];
      expect(p > q && p * q === n && bitLength(n) === bits).toBe(true);
      for (const prime of [p, q]) {
        expect(bitLength(prime)).toBe(bits / 2);
        expect(prime >> BigInt(bits / 2 - 2)).toBe(3n);
        expect((prime - 1n) % 65_537n).not.toBe(0n);
        expect(checkPrimeSync(prime, { checks: 10 })).toBe(true);
      }
      expect(p - q > 1n << BigInt(bits / 2 - 100)).toBe(true);
      expect(bitLength(d)).toBeGreaterThan(bits / 2);
    });
  }

  test("another seed and another purpose give other keys without a prime in common", async () => {
    const primes: string[] = [];
    for (const [from, purpose] of [
      [1, "a"],
      [2, "a"],
      [1, "b"],
    ] as const) {
      const { value } = await rsaFromSeed(seed(from), new TextEncoder().encode(purpose), 2_048);
      const { p, q } = rsaToJwk(value);
      primes.push(p, q);
    }
    expect(new Set(primes).size).toBe(6);
  });

  test("signs and decrypts with what node:crypto makes of the public half", async () => {
    const { value, publicKey } = await rsaFromSeed(seed(9), NONE, 2_048);
    const secret = createPrivateKey({ key: Buffer.from(value), format: "der", type: "pkcs8" });
    const open = createPublicKey({ key: Buffer.from(publicKey), format: "der", type: "spki" });
    const message = Buffer.from("a message");
    expect(verify("sha256", message, open, sign("sha256", message, secret))).toBe(true);
    const padding = constants.RSA_PKCS1_OAEP_PADDING;
    expect(privateDecrypt({ key: secret, padding }, publicEncrypt({ key: open, padding }, message))).toEqual(message);
  });

  test("over 12 seeds every prime is as it must be, and their low bytes are spread", async () => {
    const seen: bigint[] = [];
    for (let n = 0; n < 12; n++) {
      const drbg = hmacDrbg("sha512", sha256(Uint8Array.of(n)), NONE, NONE);
      const { p, q, d } = await findPrimes(drbg, 2_048);
      expect((d * 65_537n) % (p - 1n)).toBe(1n);
      expect((d * 65_537n) % (q - 1n)).toBe(1n);
      seen.push(p, q);
    }
    expect(new Set(seen).size).toBe(24);
    for (const prime of seen) {
      expect(bitLength(prime)).toBe(1_024);
      for (let small = 2n; small < 5_000n; small++) if (prime % small === 0n) throw new Error(`divided by ${small}`);
    }
    expect(new Set(seen.map((prime) => prime & 0xffn)).size).toBeGreaterThan(12);
    expect(new Set(seen.map((prime) => prime % 4n))).toEqual(new Set([1n, 3n]));
  }, 60_000);

  test("a generator that repeats itself does not end in equal primes, and one without primes ends", async () => {
    const real = hmacDrbg("sha512", seed(4), NONE, NONE);
    const { p } = await findPrimes(real, 2_048);
    const of = (next: (n: number) => Uint8Array): Drbg => {
      let n = 0;
      return { read: () => next(n++).slice(), wipe: () => undefined };
    };
    const bytes = Uint8Array.fromHex(p.toString(16));
    const other = hmacDrbg("sha512", seed(5), NONE, NONE);
    const found = await findPrimes(
      of((n) => (n < 3 ? bytes : other.read(128))),
      2_048,
    );
    expect(found.p === p || found.q === p).toBe(true);
    expect(found.p).not.toBe(found.q);
    const even = new Uint8Array(128).fill(0xff);
    const failed = await findPrimes(
      of(() => even),
      2_048,
    ).then(
      () => "found",
      (error: unknown) => (error as { code?: string }).code,
    );
    expect(failed).toBe("internal");
  });

  test("a prime p with p - 1 divisible by the public exponent is passed over", async () => {
    let p = (3n << 1_022n) / 65_537n;
    p = p * 65_537n + 1n;
    while (p % 2n === 0n || !checkPrimeSync(p, { checks: 5 })) p += 65_537n;
    const unfit = Uint8Array.fromHex(p.toString(16));
    const real = hmacDrbg("sha512", seed(6), NONE, NONE);
    let first = true;
    const drbg: Drbg = {
      read: (length) => {
        if (!first) return real.read(length);
        first = false;
        return unfit.slice();
      },
      wipe: () => undefined,
    };
    const found = await findPrimes(drbg, 2_048);
    expect(found.p === p || found.q === p).toBe(false);
  });

  testNeeding("openssl", "openssl finds the key sound and verifies what it signs", async () => {
    const { value, publicKey } = await rsaFromSeed(seed(11), NONE, 3_072);
    const at = scratchDirectory("keyhold-rsaprime-");
    directories.push(at);
    const [key, open, text, signature] = ["key.der", "pub.der", "text", "sig"].map((name) => join(at, name)) as [
      string,
      string,
      string,
      string,
    ];
    writeFileSync(key, value, { mode: 0o600 });
    writeFileSync(open, publicKey);
    writeFileSync(text, "a message\n");
    const openssl = (...args: string[]) => {
      const { exitCode, stdout, stderr } = Bun.spawnSync(["openssl", ...args], { stdout: "pipe", stderr: "pipe" });
      return { exitCode, out: `${stdout}${stderr}` };
    };
    expect(openssl("rsa", "-in", key, "-inform", "DER", "-check", "-noout")).toMatchObject({
      exitCode: 0,
      out: expect.stringContaining("RSA key ok"),
    });
    expect(openssl("dgst", "-sha256", "-sign", key, "-keyform", "DER", "-out", signature, text).exitCode).toBe(0);
    expect(openssl("dgst", "-sha256", "-verify", open, "-keyform", "DER", "-signature", signature, text)).toMatchObject(
      { exitCode: 0, out: expect.stringContaining("Verified OK") },
    );
  });
});
