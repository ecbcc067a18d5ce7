import { expect, test } from "bun:test";
import { pbkdf2Key, scryptKey } from "../../src/crypto/passwordkey.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

test("scrypt: RFC 7914 §12", async () => {
  const first = await scryptKey(bytes(""), bytes(""), { n: 16, r: 1, p: 1 }, 64);
  expect(first.toHex()).toBe(
    "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906",
  );
  const second = await scryptKey(bytes("password"), bytes("NaCl"), { n: 1_024, r: 8, p: 16 }, 64);
  expect(second.toHex()).toBe(
    "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640",
  );
});

test("PBKDF2-HMAC-SHA256: RFC 7914 §11; SHA-1: RFC 6070", async () => {
  expect((await pbkdf2Key(bytes("passwd"), bytes("salt"), 1, "sha256", 64)).toHex()).toBe(
    "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783",
  );
  expect((await pbkdf2Key(bytes("Password"), bytes("NaCl"), 80_000, "sha256", 64)).toHex()).toBe(
    "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d",
  );
  expect((await pbkdf2Key(bytes("password"), bytes("salt"), 4_096, "sha1", 20)).toHex()).toBe(
    "4b007901b765489abead49d926f721d065a429c1",
  );
});
