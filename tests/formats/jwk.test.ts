import { describe, expect, test } from "bun:test";
import { createPrivateKey, createPublicKey } from "node:crypto";
import { jwk, thumbprint } from "../../src/formats/jwk.ts";
import { publicKeyOf } from "../../src/protocol/keygen.ts";
import type { SecretType } from "../../src/protocol/secrettype.ts";
import vectors from "../vectors/jwk.json" with { type: "json" };
import { ascii, BAD_INPUT, sample } from "./samples.ts";

const read = (key: unknown) => jwk.read(ascii(typeof key === "string" ? key : JSON.stringify(key)), { name: "a" });
const refused = (key: unknown) => expect(() => read(key)).toThrow(expect.objectContaining(BAD_INPUT));
const written = (type: SecretType): Record<string, string> =>
  JSON.parse(new TextDecoder().decode(jwk.write([sample(type)])));
const without = (key: Record<string, unknown>, ...members: string[]) =>
  Object.fromEntries(Object.entries(key).filter(([name]) => !members.includes(name)));

describe("published keys", () => {
  test("thumbprints of RFC 7638 §3.1 and RFC 8037 A.3", () => {
    expect(thumbprint(vectors.rsa)).toBe(vectors.rsaThumbprint);
    expect(thumbprint(vectors.okp)).toBe(vectors.okpThumbprint);
  });

  test("RFC 8037 A.1: Ed25519", () => {
    const { items, lost } = read(vectors.okp);
    expect(items[0]).toMatchObject({ name: "a", type: "ed25519", tags: [], createdAt: null });
    expect(items[0]?.value.toHex()).toBe("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    expect(lost).toEqual([]);
    expect(JSON.parse(new TextDecoder().decode(jwk.write(items)))).toEqual({
      ...vectors.okp,
      kid: vectors.okpThumbprint,
    });
  });

  test("RFC 7517 A.2: P-256 and RSA, A.3: symmetric; what has no place is told", () => {
    const ec = read(vectors.ec);
    expect(ec.items[0]?.type).toBe("p256");
    expect(ec.items[0]?.value).toEqual(new Uint8Array(Buffer.from(vectors.ec.d, "base64url")));
    expect(ec.lost).toEqual([{ what: 'member "use"' }, { what: 'member "kid"' }]);
    const rsa = read(vectors.rsa);
    expect(rsa.items[0]?.type).toBe("rsa");
    expect(rsa.lost).toEqual([{ what: 'member "alg"' }, { what: 'member "kid"' }]);
    const again = JSON.parse(new TextDecoder().decode(jwk.write(rsa.items)));
    expect(again).toEqual({ ...without(vectors.rsa, "alg"), kid: vectors.rsaThumbprint });
    const oct = read(vectors.oct);
    expect(oct.items[0]?.type).toBe("bytes");
    expect(oct.items[0]?.value.length).toBe(64);
    expect(oct.lost).toEqual([{ what: 'member "kid"' }]);
  });
});

describe("foreign readers and writers", () => {
  test.each(["p256", "ed25519", "x25519", "rsa"] as const)(
    "the platform reads %s and finds the same public key",
    (type) => {
      const key = createPrivateKey({ key: written(type), format: "jwk" });
      const spki: Uint8Array = new Uint8Array(createPublicKey(key).export({ format: "der", type: "spki" }));
      const expected = publicKeyOf(type, sample(type).value) ?? new Uint8Array();
      if (type === "rsa") expect(spki).toEqual(expected);
      else if (type === "p256") expect(spki.slice(-64, -32)).toEqual(expected.slice(1));
      else expect(spki.slice(-32).toHex()).toBe(expected.toHex());
      const { items, lost } = read(key.export({ format: "jwk" }));
      expect(items[0]?.value).toEqual(sample(type).value);
      expect(lost).toEqual([]);
    },
  );

  test("secp256k1 is written as RFC 8812 says", () => {
    expect(written("secp256k1")).toMatchObject({ kty: "EC", crv: "secp256k1" });
    expect(Object.keys(written("secp256k1"))).toEqual(["kty", "crv", "x", "y", "d", "kid"]);
  });
});

describe("refuses", () => {
  test("what is no JWK", () => {
    for (const key of ["", "{", "[]", "null", '"x"', "{}", { kty: "else" }, { kty: 1 }, { kty: "toString" }])
      refused(key);
    refused({ keys: [vectors.okp] });
  });

  test.each(["p256", "secp256k1", "ed25519", "x25519", "rsa"] as const)(
    "%s: public, incomplete, contradictory",
    (type) => {
      const key = written(type);
      expect(read(key).items[0]?.type).toBe(type);
      const other = { p256: "secp256k1", secp256k1: "p256", ed25519: "x25519", x25519: "ed25519", rsa: "rsa" } as const;
      const private_ = type === "rsa" ? ["d", "p", "q", "dp", "dq", "qi"] : ["d"];
      refused(without(key, ...private_));
      for (const member of Object.keys(key).filter((name) => name !== "kid")) {
        refused(without(key, member));
        for (const wrong of [null, 7, "", "%", `${key[member]}=`, [], {}]) refused({ ...key, [member]: wrong });
        if (!["kty", "crv"].includes(member)) {
          const bytes = Buffer.from(key[member] ?? "", "base64url");
          bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
          refused({ ...key, [member]: bytes.toString("base64url") });
          refused({ ...key, [member]: bytes.subarray(1).toString("base64url") });
        }
      }
      if (type !== "rsa") refused({ ...key, crv: written(other[type])["crv"] });
      if (type !== "rsa") refused({ ...key, crv: "P-384" });
    },
  );

  test("scalars out of range", () => {
    for (const type of ["p256", "secp256k1"] as const) {
      for (const fill of [0, 255]) {
        refused({ ...written(type), d: Buffer.alloc(32, fill).toString("base64url") });
      }
    }
  });

  test("symmetric keys that are empty or too long, RSA of more primes or too few bits", () => {
    refused({ kty: "oct", k: "" });
    refused({ kty: "oct", k: Buffer.alloc(65_537).toString("base64url") });
    expect(read({ kty: "oct", k: Buffer.alloc(65_536).toString("base64url") }).items[0]?.value.length).toBe(65_536);
    refused({ ...written("rsa"), oth: [] });
    refused({ ...written("rsa"), n: "AQAB" });
  });
});
