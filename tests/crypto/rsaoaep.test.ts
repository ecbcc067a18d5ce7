import { beforeAll, describe, expect, test } from "bun:test";
import { constants, createPublicKey, generateKeyPairSync, type KeyObject, publicEncrypt } from "node:crypto";
import { generateRsa } from "../../src/crypto/rsa.ts";
import { RSA_OAEP, rsaOaepKey, rsaOaepOpen, rsaOaepSeal } from "../../src/crypto/rsaoaep.ts";
import type { Fault } from "../../src/errors.ts";
import { bent } from "../support/arbitraries.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
const label = utf8("label");
const codeOf = (work: () => unknown): string => {
  try {
    work();
    return "ok";
  } catch (error) {
    const { code, message } = error as Fault;
    return `${code}: ${message}`;
  }
};
const OPENING = "integrity: this was not sealed to this key, or was changed";

let pair: { value: Uint8Array; publicKey: Uint8Array };
let key: KeyObject;
beforeAll(async () => {
  pair = await generateRsa(3_072);
  key = rsaOaepKey(pair.value);
});

describe("RSA-OAEP", () => {
  test("what is sealed opens; twice the same text is two ciphertexts of 384 bytes", () => {
    for (const text of [new Uint8Array(0), utf8("a"), new Uint8Array(RSA_OAEP.maxBytes).fill(7)]) {
      const [one, two] = [rsaOaepSeal(pair.publicKey, label, text), rsaOaepSeal(pair.publicKey, label, text)];
      expect([one.length, two.length]).toEqual([RSA_OAEP.sealedBytes, RSA_OAEP.sealedBytes]);
      expect(one).not.toEqual(two);
      expect(rsaOaepOpen(key, label, one)).toEqual(text);
      expect(rsaOaepOpen(key, label, two)).toEqual(text);
    }
  });

  test("another label, key, length or bit: one and the same error", async () => {
    const sealed = rsaOaepSeal(pair.publicKey, label, utf8("text"));
    const other = rsaOaepKey((await generateRsa(3_072)).value);
    expect(codeOf(() => rsaOaepOpen(other, label, sealed))).toBe(OPENING);
    for (const wrong of [utf8("labem"), utf8("labe"), new Uint8Array(0)]) {
      expect(codeOf(() => rsaOaepOpen(key, wrong, sealed))).toBe(OPENING);
    }
    for (const changed of bent(sealed))
      expect(codeOf(() => rsaOaepOpen(key, label, changed as Uint8Array))).toBe(OPENING);
    for (let at = 0; at < sealed.length; at += 37) {
      const bit = sealed.slice();
      bit[at] = (bit[at] ?? 0) ^ 1;
      expect(codeOf(() => rsaOaepOpen(key, label, bit))).toBe(OPENING);
    }
  });

  test("what was sealed with another hash or padding does not open", () => {
    const recipient = createPublicKey({ key: Buffer.from(pair.publicKey), format: "der", type: "spki" });
    for (const how of [
      { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha1", oaepLabel: label },
      { padding: constants.RSA_PKCS1_PADDING },
    ]) {
      const sealed = new Uint8Array(publicEncrypt({ key: recipient, ...how }, utf8("text")));
      expect(codeOf(() => rsaOaepOpen(key, label, sealed))).not.toBe("ok");
    }
  });

  test("only RSA keys of 3,072 bits serve", async () => {
    const small = await generateRsa(2_048);
    const curve = generateKeyPairSync("x25519");
    const spki = new Uint8Array(curve.publicKey.export({ format: "der", type: "spki" }));
    const pkcs8 = new Uint8Array(curve.privateKey.export({ format: "der", type: "pkcs8" }));
    for (const bad of [small.publicKey, spki, new Uint8Array(0), pair.publicKey.subarray(1)]) {
      expect(codeOf(() => rsaOaepSeal(bad, label, utf8("text")))).toBe("bad_input: cannot seal to this RSA key");
    }
    for (const bad of [small.value, pkcs8, new Uint8Array(0), pair.value.subarray(1)]) {
      expect(codeOf(() => rsaOaepKey(bad))).toBe("bad_input: this is no RSA key of 3,072 bits");
    }
  });

  test("a text too long is refused", () => {
    const long = new Uint8Array(RSA_OAEP.maxBytes + 1);
    expect(codeOf(() => rsaOaepSeal(pair.publicKey, label, long))).toBe("bad_input: cannot seal to this RSA key");
  });
});
