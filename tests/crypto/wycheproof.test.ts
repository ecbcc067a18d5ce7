import { describe, expect, test } from "bun:test";
import {
  constants,
  createHash,
  createHmac,
  createPublicKey,
  hkdfSync,
  verify as nodeVerify,
  timingSafeEqual,
} from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { p256 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { concat } from "../../src/crypto/bytes.ts";
import { verifySignature } from "../../src/crypto/identity.ts";
import { cmacOfBlocks, gcmOpen, gcmSeal } from "../../src/crypto/xaes.ts";
import { compare, WYCHEPROOF, wycheproof } from "../support/wycheproof.ts";

const hex = (text: string | undefined): Uint8Array<ArrayBuffer> => Uint8Array.fromHex(text ?? "missing");

/** Keyhold's calls answer every vector as it asks; `run` vectors were put to them. */
const ALL = (run: number) => ({ run, disagreed: [] });

const gcmVectors = () =>
  wycheproof("aes_gcm").filter(
    (group) => group["keySize"] === 256 && group["ivSize"] === 96 && group["tagSize"] === 128,
  );

describe("Wycheproof", () => {
  test("AES-256-GCM, the core of XAES, both ways", async () => {
    const found = await compare(gcmVectors(), (vector) => {
      const [key, iv, aad, message] = [hex(vector["key"]), hex(vector["iv"]), hex(vector["aad"]), hex(vector["msg"])];
      const sealed = concat(hex(vector["ct"]), hex(vector["tag"]));
      const opened = gcmOpen(key, iv, aad, sealed);
      if (opened === undefined) return false;
      expect(opened).toEqual(message);
      expect(gcmSeal(key, iv, aad, message)).toEqual(sealed);
      return true;
    });
    expect(found).toEqual(ALL(66));
  });

  test("AES-256-CMAC of one block, the derivation of XAES", async () => {
    const groups = wycheproof("aes_cmac")
      .filter((group) => group["keySize"] === 256)
      .map((group) => ({ ...group, tests: group.tests.filter(({ msg }) => msg?.length === 32) }));
    const found = await compare(
      groups,
      (vector) => cmacOfBlocks(hex(vector["key"]), hex(vector["msg"])).toHex() === vector["tag"],
    );
    expect(found).toEqual(ALL(28));
  });

  for (const [name, algorithm] of [
    ["hmac_sha256", "sha256"],
    ["hmac_sha512", "sha512"],
  ] as const) {
    test(`HMAC with ${algorithm}`, async () => {
      const found = await compare(wycheproof(name), (vector, group) => {
        const mac = createHmac(algorithm, hex(vector["key"])).update(hex(vector["msg"])).digest();
        return timingSafeEqual(mac.subarray(0, group["tagSize"] / 8), hex(vector["tag"]));
      });
      expect(found).toEqual(ALL(174));
    });
  }

  for (const [name, algorithm, count] of [
    ["hkdf_sha256", "sha256", 86],
    ["hkdf_sha512", "sha512", 83],
  ] as const) {
    test(`HKDF with ${algorithm}, too long an output refused`, async () => {
      const found = await compare(wycheproof(name), (vector) => {
        try {
          const key = hkdfSync(
            algorithm,
            hex(vector["ikm"]),
            hex(vector["salt"]),
            hex(vector["info"]),
            Number(vector["size"]),
          );
          return Buffer.from(key).toString("hex") === vector["okm"];
        } catch {
          return false;
        }
      });
      expect(found).toEqual(ALL(count));
    });
  }

  test("Ed25519 verification", async () => {
    const found = await compare(wycheproof("ed25519"), (vector, group) =>
      verifySignature(hex(group["publicKey"].pk), hex(vector["msg"]), hex(vector["sig"])),
    );
    expect(found).toEqual(ALL(151));
  });

  test("X25519; an all-zero secret, which the vectors leave open, is refused", async () => {
    const found = await compare(
      wycheproof("x25519"),
      (vector) => {
        try {
          return x25519.getSharedSecret(hex(vector["private"]), hex(vector["public"])).toHex() === vector["shared"];
        } catch {
          return false;
        }
      },
      ({ flags }) => !flags.includes("ZeroSharedSecret"),
    );
    expect(found).toEqual(ALL(518));
  });

  describe("noble's library, on which age rests", () => {
    test("ChaCha20-Poly1305", async () => {
      const found = await compare(wycheproof("chacha20_poly1305"), (vector) => {
        try {
          const cipher = chacha20poly1305(hex(vector["key"]), hex(vector["iv"]), hex(vector["aad"]));
          return cipher.decrypt(concat(hex(vector["ct"]), hex(vector["tag"]))).toHex() === vector["msg"];
        } catch {
          return false;
        }
      });
      expect(found).toEqual(ALL(325));
    });

    test("HKDF and HMAC with SHA-256", async () => {
      const derived = await compare(wycheproof("hkdf_sha256"), (vector) => {
        try {
          const [ikm, salt, info] = [hex(vector["ikm"]), hex(vector["salt"]), hex(vector["info"])];
          return hkdf(sha256, ikm, salt, info, Number(vector["size"])).toHex() === vector["okm"];
        } catch {
          return false;
        }
      });
      expect(derived).toEqual(ALL(86));
      const macs = await compare(wycheproof("hmac_sha256"), (vector, group) => {
        const mac = hmac(sha256, hex(vector["key"]), hex(vector["msg"]));
        return mac.subarray(0, group["tagSize"] / 8).toHex() === vector["tag"];
      });
      expect(macs).toEqual(ALL(174));
    });
  });

  describe("WebCrypto, on which HPKE rests", () => {
    const pkcs8 = (key: Uint8Array) => concat(hex("302e020100300506032b656e04220420"), key).slice();

    test("X25519; an all-zero secret is refused", async () => {
      const found = await compare(
        wycheproof("x25519"),
        async (vector) => {
          try {
            const own = await crypto.subtle.importKey("pkcs8", pkcs8(hex(vector["private"])), "X25519", false, [
              "deriveBits",
            ]);
            const other = await crypto.subtle.importKey("raw", hex(vector["public"]), "X25519", true, []);
            const secret = await crypto.subtle.deriveBits({ name: "X25519", public: other }, own, 256);
            return new Uint8Array(secret).toHex() === vector["shared"];
          } catch {
            return false;
          }
        },
        ({ flags }) => !flags.includes("ZeroSharedSecret"),
      );
      expect(found).toEqual(ALL(518));
    });

    test("HMAC with SHA-256", async () => {
      const found = await compare(wycheproof("hmac_sha256"), async (vector, group) => {
        const algorithm = { name: "HMAC", hash: "SHA-256" };
        const key = await crypto.subtle.importKey("raw", hex(vector["key"]), algorithm, false, ["sign"]);
        const mac = new Uint8Array(await crypto.subtle.sign(algorithm, key, hex(vector["msg"])));
        return mac.subarray(0, group["tagSize"] / 8).toHex() === vector["tag"];
      });
      expect(found).toEqual(ALL(174));
    });

    test("AES-256-GCM", async () => {
      const found = await compare(gcmVectors(), async (vector) => {
        const key = await crypto.subtle.importKey("raw", hex(vector["key"]), "AES-GCM", false, ["decrypt"]);
        const algorithm = { name: "AES-GCM", iv: hex(vector["iv"]), additionalData: hex(vector["aad"]) };
        try {
          const sealed = concat(hex(vector["ct"]), hex(vector["tag"])).slice();
          const opened = await crypto.subtle.decrypt(algorithm, key, sealed);
          return new Uint8Array(opened).toHex() === vector["msg"];
        } catch {
          return false;
        }
      });
      expect(found).toEqual(ALL(66));
    });
  });

  for (const [name, curve, options, count] of [
    ["ecdsa_secp256r1_sha256", p256, { format: "der", lowS: false }, 484],
    ["ecdsa_secp256r1_sha256_p1363", p256, { format: "compact", lowS: false }, 262],
    ["ecdsa_secp256k1_sha256", secp256k1, { format: "der", lowS: false }, 476],
    ["ecdsa_secp256k1_sha256_p1363", secp256k1, { format: "compact", lowS: false }, 252],
    ["ecdsa_secp256k1_sha256_bitcoin", secp256k1, { format: "der", lowS: true }, 463],
  ] as const) {
    test(`${name} with the library that makes the keys`, async () => {
      const found = await compare(wycheproof(name), (vector, group) => {
        const digest = createHash("sha256").update(hex(vector["msg"])).digest();
        try {
          const key = hex(group["publicKey"].uncompressed);
          return curve.verify(hex(vector["sig"]), digest, key, { ...options, prehash: false });
        } catch {
          return false;
        }
      });
      expect(found).toEqual(ALL(count));
    });
  }

  test("ECDSA on P-256 with WebCrypto, which signs with the TLS leaf's key", async () => {
    const found = await compare(wycheproof("ecdsa_secp256r1_sha256_p1363"), async (vector, group) => {
      const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
      const key = await crypto.subtle.importKey("spki", hex(group["publicKeyDer"]), algorithm, false, ["verify"]);
      return crypto.subtle.verify(algorithm, key, hex(vector["sig"]), hex(vector["msg"]));
    });
    expect(found).toEqual(ALL(262));
  });

  // certificates of private authorities may be signed with any of these
  for (const [name, hash, count] of [
    ["ecdsa_secp256r1_sha256", "sha256", 484],
    ["ecdsa_secp384r1_sha384", "sha384", 504],
    ["rsa_signature_2048_sha256", "sha256", 259],
    ["rsa_signature_3072_sha256", "sha256", 259],
  ] as const) {
    test(`${name} with the platform, a missing NULL refused`, async () => {
      const found = await compare(wycheproof(name), (vector, group) => {
        const key = createPublicKey(group["publicKeyPem"]);
        return nodeVerify(hash, hex(vector["msg"]), key, hex(vector["sig"]));
      });
      expect(found).toEqual(ALL(count));
    });
  }

  for (const name of ["rsa_pss_2048_sha256_mgf1_32", "rsa_pss_4096_sha256_mgf1_32"]) {
    test(`${name} with the platform`, async () => {
      const found = await compare(wycheproof(name), (vector, group) => {
        const key = createPublicKey(group["publicKeyPem"]);
        const options = { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
        return nodeVerify("sha256", hex(vector["msg"]), options, hex(vector["sig"]));
      });
      expect(found).toEqual(ALL(108));
    });
  }

  test("parameters of the curves on which keys are made", () => {
    const vectors = wycheproof("ec_prime_order_curves").flatMap(({ tests }) => tests);
    const compared = [
      ["secp256r1", p256],
      ["secp256k1", secp256k1],
    ] as const;
    for (const [name, curve] of compared) {
      const vector = vectors.find((one) => one["name"] === name);
      const { p, n, a, b, Gx, Gy, h } = curve.Point.CURVE();
      const number = (member: string) => BigInt(`0x${vector?.[member]}`);
      expect({ p, n, a, b, Gx, Gy, h }).toEqual({
        p: number("p"),
        n: number("n"),
        a: number("a"),
        b: number("b"),
        Gx: number("gx"),
        Gy: number("gy"),
        h: BigInt(Number(vector?.["h"])),
      });
    }
  });
});

test("the vectors are the published files", async () => {
  const stated = [...readFileSync(join(WYCHEPROOF, "SOURCE.md"), "utf8").matchAll(/^([0-9a-f]{64}) {2}(\S+)$/gm)];
  const files = [...new Bun.Glob("*").scanSync({ cwd: WYCHEPROOF })].filter((name) => name !== "SOURCE.md").sort();
  const sums = files.map((name) => {
    const sum = createHash("sha256")
      .update(readFileSync(join(WYCHEPROOF, name)))
      .digest("hex");
    return `${sum}  ${name}`;
  });
  expect(sums).toEqual(stated.map(([line]) => line));
});

/**
 * Every cryptographic call and import under src/, as {@link primitivesUsed} spells them, and the files of vectors that
 * cover it; or why there is none, and what tests it instead.
 */
const COVERED: Readonly<Record<string, readonly string[] | string>> = {
  "aes-256-gcm": ["aes_gcm"],
  "aes-256-ecb": ["aes_cmac"],
  "hmac sha256": ["hmac_sha256"],
  "hkdf sha256": ["hkdf_sha256", "hmac_sha256"],
  "hkdf sha512": ["hkdf_sha512", "hmac_sha512"],
  "sign null": ["ed25519"],
  "verify null": ["ed25519"],
  "sign hash": "no set for signing a digest: openssl and ssh-keygen verify in tests/binary/key.test.ts",
  "sign sha256": ["rsa_signature_2048_sha256", "rsa_signature_3072_sha256"],
  "verify sha256": ["rsa_signature_2048_sha256", "rsa_signature_3072_sha256"],
  "webcrypto ECDSA": ["ecdsa_secp256r1_sha256_p1363"],
  "webcrypto Ed25519": ["ed25519"],
  "@noble/curves/ed25519.js ed25519": ["ed25519"],
  "@noble/curves/ed25519.js x25519": ["x25519"],
  "@noble/curves/nist.js p256": ["ecdsa_secp256r1_sha256", "ec_prime_order_curves"],
  "@noble/curves/nist.js p384": ["ecdsa_secp384r1_sha384"],
  "@noble/curves/secp256k1.js secp256k1": ["ecdsa_secp256k1_sha256", "ec_prime_order_curves"],
  "hash sha256": "no set of its own: part of those of HMAC, ECDSA and RSA",
  diffieHellman:
    "no set of its own: asks only whether a key can be sealed to, as noble says in tests/crypto/hpke.test.ts",
  argon2id: "no set: RFC 9106 in tests/crypto/kdf.test.ts",
  pbkdf2: "no set: RFC 7914 and 6070 in tests/crypto/passwordkey.test.ts",
  scrypt: "no set: RFC 7914 in tests/crypto/passwordkey.test.ts",
  "aes-128-cbc": "no set: openssl's files in tests/formats/pbes2.test.ts",
  "aes-192-cbc": "no set: openssl's files in tests/formats/pbes2.test.ts",
  "aes-256-cbc": "no set: openssl both ways in tests/formats/pbes2.test.ts",
  "hash sha512": "no set of its own: part of that of Ed25519; age both ways in tests/formats/agearchive.test.ts",
  publicEncrypt: "no set: age opens what it seals to ssh-rsa in tests/formats/agearchive.test.ts",
  privateDecrypt: "no set: age's files to ssh-rsa in tests/formats/agearchive.test.ts",
  "@noble/curves/abstract/modular.js mapHashToField": "no set: scalars in tests/protocol/federation/groups.test.ts",
  "@noble/curves/abstract/modular.js type IField": "a type",
  "@noble/curves/abstract/frost.js createFROST":
    "no set: node:crypto verifies in tests/protocol/federation/signing.test.ts",
  "@noble/curves/abstract/frost.js type FROST": "a type",
  "@noble/curves/ed25519.js ristretto255":
    "no set: the library's own RFC 9496, and tests/protocol/federation/groups.test.ts",
  "@noble/curves/ed25519.js ristretto255_FROST": "no set: tests/protocol/federation/release.test.ts",
  "@noble/curves/nist.js p256_FROST":
    "no set: node:crypto and openssl verify in tests/protocol/federation/release.test.ts",
  "@noble/curves/secp256k1.js schnorr": "no set: BIP-340 by the library, in tests/protocol/federation/signing.test.ts",
  "@noble/hashes/sha3.js keccak_256":
    "no set: hashes and senders of published transactions in tests/protocol/transaction/evm.test.ts",
  "@noble/curves/secp256k1.js schnorr_FROST": "no set: BIP-340 verifies in tests/protocol/federation/signing.test.ts",
  "@noble/curves/secp256k1.js secp256k1_FROST": "no set: openssl verifies in tests/protocol/federation/release.test.ts",
  "@noble/hashes/legacy.js ripemd160": "no set: published addresses in tests/formats/address.test.ts",
  "@noble/hashes/sha2.js sha512": "no set of its own: part of that of Ed25519",
  "@noble/hashes/sha2.js sha256": "no set of its own: part of those of HMAC, ECDSA and RSA",
  "@scure/base": "no set: published addresses in tests/formats/address.test.ts",
  "@scure/btc-signer": "no set: BIP-86, BIP-173, BIP-341 and BIP-350 in tests/formats/address.test.ts",
  "@noble/hashes/sha3.js shake256": "no set: the library's own, and tests/vectors/keygen.json",
  "@hpke/core": ["x25519", "hkdf_sha256", "hmac_sha256", "aes_gcm"],
  "@noble/ciphers/chacha.js chacha20": "no set of its own: part of chacha20_poly1305; tests/formats/kdbx.test.ts",
  "@noble/ciphers/chacha.js chacha20poly1305": ["chacha20_poly1305"],
  "age-encryption": ["chacha20_poly1305", "x25519", "hkdf_sha256", "hmac_sha256"],
  "@scure/bip39": "no set: words for bytes, without PBKDF2",
  "@serenity-kit/opaque": "no set: RFC 9807 in tests/crypto/opaque-interop.test.ts",
};

const CALLS: readonly (readonly [prefix: string, RegExp])[] = [
  ["", /create(?:C|Dec)ipheriv\(\s*"([^"]+)"/g],
  ["hash ", /createHash\(\s*"([^"]+)"/g],
  ["hmac ", /createHmac\(\s*"([^"]+)"/g],
  ["hkdf ", /hkdf(?:Sync)?\(\s*"([^"]+)"/g],
  ["sign ", /nodeSign\(\s*"?([a-z0-9]+)/g],
  ["verify ", /nodeVerify\(\s*"?([a-z0-9]+)/g],
  ["", /nodeArgon2\(\s*"([^"]+)"/g],
  ["", /\b(pbkdf2|scrypt|createECDH|createDiffieHellman|diffieHellman|publicEncrypt|privateDecrypt)(?:Sync)?\(/g],
  [
    "webcrypto ",
    /(?:name: |importKey\([^)]*, )"(AES-\w+|ECDSA|ECDH|Ed25519|HKDF|HMAC|PBKDF2|RSA-\w+|RSASSA-\S+|X25519)"/g,
  ],
  ["", /from "(@serenity-kit\/[^"]+|@hpke\/[^"]+|@scure\/[^"/]+|jose|age-encryption)[/"]/g],
];

function primitivesUsed(): readonly string[] {
  const root = join(import.meta.dir, "..", "..", "src");
  const found = new Set<string>();
  for (const file of new Bun.Glob("**/*.ts").scanSync({ cwd: root, absolute: true })) {
    const text = readFileSync(file, "utf8");
    for (const [prefix, call] of CALLS) for (const [, name] of text.matchAll(call)) found.add(`${prefix}${name}`);
    for (const [, names = "", from] of text.matchAll(/^import \{([^}]+)\} from "(@noble\/[^"]+)";$/gm)) {
      for (const name of names.split(",")) found.add(`${from} ${name.replace(/^type /, "").trim()}`);
    }
  }
  return [...found].sort();
}

test("every primitive that src/ calls has its vectors, or a reason", () => {
  expect(primitivesUsed()).toEqual(Object.keys(COVERED).sort());
  const files = Object.values(COVERED).flatMap((by) => (typeof by === "string" ? [] : by));
  for (const name of files) expect(wycheproof(name).length).toBeGreaterThan(0);
});
