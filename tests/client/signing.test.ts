import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createPublicKey, generateKeyPairSync, type KeyObject, verify } from "node:crypto";
import { p256, p384 } from "@noble/curves/nist.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { SIGN_MAX_BYTES, schemeOf } from "../../src/client/signing.ts";
import { spkiOf } from "../../src/crypto/identity.ts";
import type { SignatureScheme } from "../../src/crypto/schemes.ts";
import { writeSshPrivate } from "../../src/formats/sshkey.ts";
import { SECRET_TYPES, type SecretType } from "../../src/protocol/secrettype.ts";
import { registerDevice, startTestServer, type TestDevice, type TestServer } from "../support/harness.ts";
import { rejected } from "../support/hostile.ts";

let server: TestServer;
let ada: TestDevice;
beforeAll(async () => {
  server = await startTestServer();
  ada = await registerDevice(server.link(), "ada", "a password of ada");
});
afterAll(async () => {
  await ada.end();
  await server.close();
});

const message = new TextEncoder().encode("a message");
const other = new TextEncoder().encode("another");
const sign = (name: string, scheme: SignatureScheme | null = null, version: number | null = null) =>
  ada.client.sign({ name, version, message, scheme });
const generate = (name: string, type: SecretType, length: number | null = null) =>
  ada.client.generate({ name, type, length, tags: [], replace: false, where: null });

const spki = (der: Uint8Array): KeyObject => createPublicKey({ key: Buffer.from(der), format: "der", type: "spki" });

/** Verifiers that share no code with the signer, or as little as can be. */
const HOLDS: {
  readonly [S in SignatureScheme]: (key: Uint8Array, text: Uint8Array, signature: Uint8Array) => boolean;
} = {
  ed25519: (key, text, signature) => verify(null, text, spki(spkiOf(key)), signature),
  "ecdsa-p256-sha256": (key, text, signature) => ec("P-256", p256, "sha256", key, text, signature),
  "ecdsa-p384-sha384": (key, text, signature) => ec("P-384", p384, "sha384", key, text, signature),
  "ecdsa-secp256k1-sha256": (key, text, signature) => secp256k1.verify(signature, text, key, { prehash: true }),
  "rsa-pss-sha256": (key, text, signature) =>
    verify("sha256", text, { key: spki(key), padding: 6, saltLength: 32 }, signature),
  "rsa-pkcs1-sha256": (key, text, signature) => verify("sha256", text, spki(key), signature),
  "rsa-pkcs1-sha512": (key, text, signature) => verify("sha512", text, spki(key), signature),
};

function ec(
  crv: string,
  curve: typeof p256,
  hash: string,
  compressed: Uint8Array,
  text: Uint8Array,
  signature: Uint8Array,
) {
  const point = curve.Point.fromBytes(compressed).toBytes(false);
  const half = (point.length - 1) / 2;
  const part = (from: number) => Buffer.from(point.subarray(from, from + half)).toString("base64url");
  const key = createPublicKey({ key: { kty: "EC", crv, x: part(1), y: part(1 + half) }, format: "jwk" });
  return verify(hash, text, { key, dsaEncoding: "ieee-p1363" }, signature);
}

describe("sign", () => {
  const TYPES = ["ed25519", "p256", "p384", "secp256k1", "rsa"] as const;
  test.each(TYPES)("a stored %s key, by each of its schemes", async (type) => {
    const { info } = await generate(`k/${type}`, type, type === "rsa" ? 2_048 : null);
    const own = (await sign(`k/${type}`)).scheme;
    expect(own).toBe(schemeOf(type, null));
    const schemes = (Object.keys(HOLDS) as SignatureScheme[]).filter((scheme) =>
      scheme.startsWith(type === "rsa" ? "rsa-" : own),
    );
    expect(schemes).toContain(own);
    for (const wanted of schemes) {
      const { signature, scheme, publicKey } = await sign(`k/${type}`, wanted);
      expect(scheme).toBe(wanted);
      expect(publicKey).toEqual(info.publicKey ?? new Uint8Array(0));
      expect([HOLDS[scheme](publicKey, message, signature), HOLDS[scheme](publicKey, other, signature)]).toEqual([
        true,
        false,
      ]);
    }
    const wrong = type === "rsa" ? "ed25519" : "rsa-pss-sha256";
    await rejected(sign(`k/${type}`, wrong), "bad_input");
  });

  test("by key id, by version, and the empty message", async () => {
    const first = await generate("versions", "ed25519");
    const second = await ada.client.generate({
      name: "versions",
      type: "ed25519",
      length: null,
      tags: [],
      replace: true,
      where: null,
    });
    const keyOf = async (version: number | null) => (await sign("versions", null, version)).publicKey;
    expect([await keyOf(1), await keyOf(2), await keyOf(null)]).toEqual(
      [first, second, second].map(({ info }) => info.publicKey ?? new Uint8Array(0)),
    );
    expect((await sign(second.info.keyId)).publicKey).toEqual(second.info.publicKey ?? new Uint8Array(0));
    const empty = await ada.client.sign({ name: "versions", version: null, message: new Uint8Array(0), scheme: null });
    expect(HOLDS.ed25519(empty.publicKey, new Uint8Array(0), empty.signature)).toBe(true);
    await rejected(sign("versions", null, 9), "not_found");
    await rejected(sign("no such key"), "not_found");
  });

  test("the key in an OpenSSH file, its public key as ssh sends it", async () => {
    await generate("ssh/ed", "ssh");
    const made = await sign("ssh/ed");
    expect(made.scheme).toBe("ed25519");
    expect(HOLDS.ed25519(made.publicKey.subarray(-32), message, made.signature)).toBe(true);
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2_048 });
    const pkcs8 = new Uint8Array(rsa.privateKey.export({ format: "der", type: "pkcs8" }));
    const value = writeSshPrivate("rsa", pkcs8, "me");
    await ada.client.store({ name: "ssh/rsa", type: "ssh", value, tags: [], where: null });
    const { signature } = await sign("ssh/rsa", "rsa-pkcs1-sha512");
    expect(verify("sha512", message, rsa.publicKey, signature)).toBe(true);
    await rejected(sign("ssh/ed", "rsa-pkcs1-sha512"), "bad_input");
  });

  test("a hedge of the vault is mixed into ECDSA signatures, and into no others", async () => {
    const hedged = (name: string, hedge: string, prehashed = false) => {
      const text = prehashed ? new Uint8Array(32).fill(9) : message;
      return ada.client.sign({ name, version: null, message: text, scheme: null, prehashed, hedge });
    };
    await generate("hedges/good", "bytes", 32);
    await generate("hedges/short", "bytes", 31);
    await generate("hedges/words", "passphrase");
    for (const type of ["p256", "p384", "secp256k1"] as const) {
      await generate(`hedged/${type}`, type);
      const { signature: plain } = await sign(`hedged/${type}`);
      expect((await sign(`hedged/${type}`)).signature).toEqual(plain);
      const [first, second] = [
        await hedged(`hedged/${type}`, "hedges/good"),
        await hedged(`hedged/${type}`, "hedges/good"),
      ];
      for (const { scheme, publicKey, signature } of [first, second]) {
        expect([HOLDS[scheme](publicKey, message, signature), signature.toHex() === plain.toHex()]).toEqual([
          true,
          false,
        ]);
      }
      expect(first.signature).not.toEqual(second.signature);
      for (const hedge of ["hedges/short", "hedges/words"]) {
        await rejected(hedged(`hedged/${type}`, hedge), "bad_input");
      }
      await rejected(hedged(`hedged/${type}`, "hedges/none"), "not_found");
    }
    const digests = [
      await hedged("hedged/p256", "hedges/good", true),
      await hedged("hedged/p256", "hedges/good", true),
    ];
    expect(digests[0]?.signature).not.toEqual(digests[1]?.signature ?? new Uint8Array(0));
    await generate("hedged/ed25519", "ed25519");
    expect((await rejected(hedged("hedged/ed25519", "hedges/good"), "bad_input")).message).toContain("ECDSA");
  });

  test("other types do not sign, and say which do", async () => {
    await generate("pw", "password");
    expect((await rejected(sign("pw"), "bad_input")).hint).toContain("ed25519");
    await generate("dh", "x25519");
    await rejected(sign("dh"), "bad_input");
    const signing = SECRET_TYPES.filter((type) => {
      try {
        return schemeOf(type, null);
      } catch {
        return false;
      }
    });
    expect(signing).toEqual(["secp256k1", "p256", "p384", "ed25519", "rsa"]);
  });

  test("a message longer than a call to the agent holds is refused; the message is not changed", async () => {
    await generate("long", "ed25519");
    const big = new Uint8Array(SIGN_MAX_BYTES).fill(3);
    const before = big.slice();
    const { signature, publicKey } = await ada.client.sign({ name: "long", version: null, message: big, scheme: null });
    expect(big).toEqual(before);
    expect(HOLDS.ed25519(publicKey, big, signature)).toBe(true);
    const larger = new Uint8Array(SIGN_MAX_BYTES + 1);
    await rejected(ada.client.sign({ name: "long", version: null, message: larger, scheme: null }), "too_large");
  });

  test("stands in the audit log as a retrieval of the key", async () => {
    const { info } = await generate("audited", "ed25519");
    await sign("audited");
    const page = { fromMs: null, untilMs: null, requestId: null, limit: null, cursor: null, purpose: "list" as const };
    const { items } = await ada.client.auditList({ ...page, name: "audited", action: null });
    expect(items.map(({ action, keyId }) => [action, keyId])).toContainEqual(["secret.get", info.keyId]);
  });
});
