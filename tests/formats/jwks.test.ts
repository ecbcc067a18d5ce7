import { describe, expect, test } from "bun:test";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, jwtVerify, SignJWT } from "jose";
import { jwk } from "../../src/formats/jwk.ts";
import { jwks } from "../../src/formats/jwks.ts";
import type { SecretType } from "../../src/protocol/secrettype.ts";
import vectors from "../vectors/jwk.json" with { type: "json" };
import { ascii, BAD_INPUT, SAMPLES, sample } from "./samples.ts";

const KEYS = SAMPLES.filter(({ type }) => jwks.types.includes(type));
const read = (set: unknown) => jwks.read(ascii(typeof set === "string" ? set : JSON.stringify(set)), { name: null });
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

function reason(set: unknown): string {
  try {
    read(set);
  } catch (error) {
    expect(error).toMatchObject(BAD_INPUT);
    return `${(error as { why?: string }).why}`;
  }
  throw new Error("accepted");
}

test("a set of every type comes back, named by thumbprints", async () => {
  const file = jwks.write(KEYS);
  const { items, lost } = read(text(file));
  expect(lost).toEqual([]);
  expect(items.map(({ type, value }) => ({ type, value }))).toEqual(KEYS.map(({ type, value }) => ({ type, value })));
  for (const [i, key] of JSON.parse(text(file)).keys.entries()) {
    expect(items[i]?.name).toBe(key.kid);
    if (key.crv !== "secp256k1") expect(await calculateJwkThumbprint(key)).toBe(key.kid);
  }
  expect(read({ keys: [] }).items).toEqual([]);
});

test("published keys: RFC 7517 A.2 as a set, RFC 8037 A.1", () => {
  const { items, lost } = read({ keys: [vectors.ec, vectors.rsa, vectors.okp] });
  expect(items.map(({ name, type }) => [name, type])).toEqual([
    [`${vectors.ec.kid}`, "p256"],
    [`${vectors.rsa.kid}`, "rsa"],
    [vectors.okpThumbprint, "ed25519"],
  ]);
  expect(lost).toEqual([{ what: 'keys[0]: member "use"' }, { what: 'keys[1]: member "alg"' }]);
});

describe("jose", () => {
  const algorithms = [
    ["p256", "ES256"],
    ["p384", "ES384"],
    ["ed25519", "EdDSA"],
    ["rsa", "PS256"],
  ] as const;
  test.each(algorithms)("signs with %s as written, and its own keys are read", async (type, alg) => {
    const member = JSON.parse(text(jwk.write([sample(type)])));
    const { d: _, p: _p, q: _q, dp: _dp, dq: _dq, qi: _qi, ...publicMember } = member;
    const token = await new SignJWT({ sub: "me" }).setProtectedHeader({ alg }).sign(await importJWK(member, alg));
    const { payload } = await jwtVerify(token, await importJWK(publicMember, alg));
    expect(payload.sub).toBe("me");
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    const exported = await exportJWK(privateKey);
    const { items, lost } = read({ keys: [exported] });
    expect(lost).toEqual([]);
    expect(items[0]).toMatchObject({ type, name: await calculateJwkThumbprint(exported) });
  });
});

test("P-384: a key alone, too", () => {
  const file = jwk.write([sample("p384")]);
  expect(JSON.parse(text(file))).toMatchObject({ kty: "EC", crv: "P-384" });
  expect(jwk.read(file, { name: "a" }).items[0]).toMatchObject({ type: "p384", value: sample("p384").value });
});

test("what has no place is told: public keys, members, names that are none", () => {
  const own = JSON.parse(text(jwk.write([sample("ed25519")])));
  const { d: _, ...open } = own;
  const named = { ...JSON.parse(text(jwk.write([sample("p256")]))), kid: "../up", use: "sig" };
  const { items, lost } = read({ keys: [open, own, named], next: "page" });
  expect(items.map(({ type }) => type)).toEqual(["ed25519", "p256"]);
  expect(lost.map(({ what }) => what)).toEqual([
    'member "next"',
    "keys[0]: a public key",
    'keys[2]: member "use"',
    'keys[2]: member "kid"',
  ]);
});

test("the same key twice is refused on writing", () => {
  const twice = [sample("p256"), { ...sample("p256"), name: "other" }];
  expect(() => jwks.write(twice)).toThrow(expect.objectContaining(BAD_INPUT));
});

test("refuses malformed, hostile and truncated sets", () => {
  const good = text(jwks.write(KEYS));
  const key = JSON.parse(good).keys[0];
  const of = (...keys: unknown[]) => ({ keys });
  const p384 = JSON.parse(text(jwk.write([sample("p384")])));
  const bad: unknown[] = [
    "",
    "[]",
    "null",
    "{}",
    good.slice(0, -2),
    good.slice(1),
    `${good}x`,
    { keys: {} },
    { keys: null },
    { keys: "x" },
    of(null),
    of([]),
    of(3),
    of({}),
    of({ kty: "oct" }),
    of({ kty: "EC", crv: "P-521", d: "AA" }),
    of({ kty: "OKP", crv: "Ed448", d: "AA" }),
    of(key, key),
    of({ ...p384, kid: "a" }, { ...JSON.parse(text(jwk.write([sample("p256")]))), kid: "a" }),
    of({ ...p384, d: "AA" }),
    of({ ...p384, x: p384.y }),
    of({ ...p384, d: `${p384.d}==` }),
    of({ kty: "oct", k: "" }),
    of({ kty: "oct", k: Buffer.alloc(65_537).toString("base64url") }),
    of(...Array(10_001).fill({ kty: "oct", k: "AAAA" })),
    { keys: [JSON.parse(good).keys[1]], ["__proto__"]: 1, other: of(1) }.other,
    '{"keys":[{"__proto__":{"kty":"oct"},"k":"AAAA"}]}',
  ];
  for (const set of bad) expect([set, reason(set)]).not.toEqual([set, ""]);
  expect(() => jwks.read(Uint8Array.of(0x7b, 0xff, 0x7d), { name: null })).toThrow(expect.objectContaining(BAD_INPUT));
});

test("public keys alone, and encrypted keys, are refused by name", () => {
  const { d: _, ...open } = JSON.parse(text(jwk.write([sample("ed25519")])));
  expect(reason({ keys: [open] })).toContain("public keys alone");
  const jwe = { protected: "e30", iv: "AAAA", ciphertext: "AAAA", tag: "AAAA", encrypted_key: "AAAA" };
  expect(reason(jwe)).toContain("JWE");
  const compact = "eyJhbGciOiJkaXIifQ..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA";
  for (const file of [compact, JSON.stringify(jwe)]) {
    expect(jwk.sniff(ascii(file))).toBe(true);
    expect(() => jwk.read(ascii(file), { name: "a" })).toThrow(
      expect.objectContaining({ why: expect.stringContaining("JWE") }),
    );
  }
});

test("types that a set cannot hold", () => {
  for (const type of ["ssh", "note", "login", "bip39"] satisfies SecretType[]) {
    expect(() => jwks.write([sample(type)])).toThrow(expect.objectContaining(BAD_INPUT));
  }
});
