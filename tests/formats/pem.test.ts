import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { clearPem } from "../../src/formats/pem.ts";
import type { SecretType } from "../../src/protocol/secrettype.ts";
import { testNeeding } from "../support/skip.ts";
import { ascii, BAD_INPUT, sample } from "./samples.ts";

const TYPES = ["p256", "p384", "secp256k1", "ed25519", "x25519", "rsa"] as const;
const write = (type: SecretType) => new TextDecoder().decode(clearPem.write([sample(type)]));
const read = (text: string) => clearPem.read(ascii(text), { name: "a" });
const wrap = (der: Uint8Array, label = "PRIVATE KEY") =>
  `-----BEGIN ${label}-----\n${der.toBase64().replace(/.{64}/g, "$&\n").trimEnd()}\n-----END ${label}-----\n`;
const derOf = (text: string) => Uint8Array.fromBase64(text.replace(/-----[A-Z ]+-----|\n/g, ""));

function reason(text: string): string {
  try {
    read(text);
  } catch (error) {
    expect(error).toMatchObject(BAD_INPUT);
    return `${(error as { why?: string }).why}`;
  }
  throw new Error("accepted");
}

describe("published keys", () => {
  test("RFC 8410 §10.3: Ed25519, version 1; version 2 with attributes and public key", () => {
    const one =
      "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const two =
      "-----BEGIN PRIVATE KEY-----\nMHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n" +
      "oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\nZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PRIVATE KEY-----\n";
    const value = Uint8Array.fromHex("d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842");
    expect(read(one)).toEqual({ items: [{ name: "a", type: "ed25519", value, tags: [], createdAt: null }], lost: [] });
    expect(read(two).items[0]).toMatchObject({ type: "ed25519", value });
    expect(read(two).lost).toEqual([{ what: "attributes" }]);
    const bent = derOf(two);
    bent[bent.length - 1] = (bent.at(-1) ?? 0) ^ 1;
    expect(reason(wrap(bent))).toContain("contradict");
  });
});

describe("the platform", () => {
  test.each(["p256", "p384", "ed25519", "x25519", "rsa"] as const)("reads %s and writes it back alike", (type) => {
    const key = createPrivateKey(write(type));
    expect(key.export({ format: "pem", type: "pkcs8" }).toString()).toBe(write(type));
  });

  test("its files are read", () => {
    const made = [
      ["p256", generateKeyPairSync("ec", { namedCurve: "P-256" })],
      ["p384", generateKeyPairSync("ec", { namedCurve: "P-384" })],
      ["ed25519", generateKeyPairSync("ed25519")],
      ["x25519", generateKeyPairSync("x25519")],
    ] as const;
    for (const [type, { privateKey }] of made) {
      const text = privateKey.export({ format: "pem", type: "pkcs8" }).toString();
      const { items } = read(text);
      expect(items[0]?.type).toBe(type);
      expect(new TextDecoder().decode(clearPem.write(items))).toBe(text);
      expect(read(text.replaceAll("\n", "\r\n")).items).toEqual(items);
    }
  });
});

describe("openssl", () => {
  let dir = "";
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "keyhold-pem-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  function run(...args: string[]): string {
    const done = Bun.spawnSync(["openssl", ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    expect(done.exitCode).toBe(0);
    return done.stdout.toString();
  }

  for (const type of TYPES) {
    testNeeding("openssl", `checks ${type} and writes it back alike`, () => {
      const file = join(dir, `${type}.pem`);
      writeFileSync(file, write(type), { mode: 0o600 });
      run("pkey", "-in", file, "-noout", "-check");
      expect(run("pkey", "-in", file)).toBe(write(type));
    });
  }

  const made = {
    p256: ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    p384: ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    secp256k1: ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
    ed25519: ["-algorithm", "ED25519"],
    x25519: ["-algorithm", "X25519"],
    rsa: ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
  } as const;
  for (const type of TYPES) {
    testNeeding("openssl", `makes ${type}, which is read`, () => {
      const text = run("genpkey", ...made[type]);
      const { items, lost } = read(text);
      expect(items[0]?.type).toBe(type);
      expect(lost).toEqual([]);
      expect(new TextDecoder().decode(clearPem.write(items))).toBe(text);
    });
  }

  testNeeding("openssl", "makes SEC 1 and PKCS#1, which are read", () => {
    const file = join(dir, "traditional.pem");
    for (const type of ["p256", "p384", "secp256k1", "rsa"] as const) {
      writeFileSync(file, write(type), { mode: 0o600 });
      const text = run("pkey", "-in", file, "-traditional");
      expect(text).toContain(type === "rsa" ? "BEGIN RSA PRIVATE KEY" : "BEGIN EC PRIVATE KEY");
      expect(read(text).items[0]).toMatchObject({ type, value: sample(type).value });
      const der = derOf(text);
      const label = type === "rsa" ? "RSA PRIVATE KEY" : "EC PRIVATE KEY";
      reason(wrap(der.slice(0, -1), label));
      reason(wrap(Uint8Array.of(...der, 0), label));
      for (let i = 0; i < 12; i++)
        reason(
          wrap(
            der.map((byte, j) => (j === i ? byte ^ 0x80 : byte)),
            label,
          ),
        );
    }
    const both = run("ecparam", "-name", "prime256v1", "-genkey");
    expect(both).toContain("BEGIN EC PARAMETERS");
    expect(read(both).items[0]?.type).toBe("p256");
  });

  testNeeding("openssl", "other curves, old encryption, DSA, public keys: refused with the reason", () => {
    const file = join(dir, "other.pem");
    const ec = ["genpkey", "-algorithm", "EC", "-pkeyopt"];
    expect(reason(run(...ec, "ec_paramgen_curve:P-521"))).toContain("curve");
    expect(reason(run(...ec, "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"))).toContain("curve");
    expect(reason(run("genpkey", "-algorithm", "ED448"))).toContain("algorithm");
    expect(reason(run("genpkey", "-algorithm", "RSA-PSS"))).toContain("algorithm");
    expect(reason(run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"))).toContain("2048");
    writeFileSync(file, write("rsa"), { mode: 0o600 });
    expect(reason(run("pkey", "-in", file, "-pubout"))).toContain("public");
    expect(reason(run("rsa", "-in", file, "-aes256", "-traditional", "-passout", "pass:only-a-test"))).toContain("old");
  });
});

describe("refuses", () => {
  test("a file that is not one bare block", () => {
    const key = write("ed25519");
    for (const text of ["", "\n", "x", `x\n${key}`, `${key}x`, key.slice(0, -8), key.slice(1), `${key}${key}`])
      reason(text);
    expect(reason(`${key}${key}`)).toContain("several");
    for (const label of [
      "CERTIFICATE",
      "OPENSSH PRIVATE KEY",
      "PUBLIC KEY",
      "EC PARAMETERS",
      "EC PRIVATE KEY",
      "RSA PRIVATE KEY",
      "SOMETHING",
    ]) {
      reason(wrap(derOf(key), label));
    }
    reason(key.replace("END PRIVATE KEY", "END PUBLIC KEY"));
    reason(key.replace("\nMC4", "\nProc-Type: 4,ENCRYPTED\n\nMC4"));
    reason(key.replace("MC4C", "MC4C "));
    reason(key.replace("MC4C", "MC4-"));
    reason(`${key}${" ".repeat(20_000)}x`);
    expect(read(`${key}\n \n`).items.length).toBe(1);
  });

  test.each(TYPES)("%s with bytes behind, cut off, or with a bent outer structure", (type) => {
    const der = derOf(write(type));
    expect(read(wrap(der)).items[0]?.type).toBe(type);
    reason(wrap(Uint8Array.of(...der, 0)));
    reason(wrap(Uint8Array.of(...der, 5, 0)));
    reason(wrap(der.slice(0, -1)));
    for (let i = 0; i < 16; i++) reason(wrap(der.map((byte, j) => (j === i ? byte ^ 0x80 : byte))));
  });

  test.each(["p256", "p384", "secp256k1"] as const)(
    "%s whose scalar is out of range or does not fit its public key",
    (type) => {
      const der = derOf(write(type));
      const { value } = sample(type);
      const at = Buffer.from(der).indexOf(value);
      expect(at).toBeGreaterThan(0);
      for (const fill of [0, 255, 1]) {
        const bent = der.slice();
        bent.fill(fill, at, at + value.length);
        reason(wrap(bent));
      }
    },
  );

  test("rsa with any bent number", () => {
    const der = derOf(write("rsa"));
    for (let i = 30; i < der.length; i += 37) reason(wrap(der.map((byte, j) => (j === i ? byte ^ 4 : byte))));
  });
});
