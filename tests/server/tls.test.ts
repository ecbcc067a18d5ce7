import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ServerIdentity } from "../../src/server/directory.ts";
import {
  authorityOf,
  certificateNames,
  issueLeaf,
  operatorCertificate,
  serverCertificate,
} from "../../src/server/tls.ts";
import { pinOfCertificate } from "../../src/wire/chain.ts";
import { pinOf } from "../../src/wire/pin.ts";
import { loopbackLeaf, newIdentity, random, tempDir } from "../support/listener.ts";

const DAY = 86_400_000;
const nowMs = Date.UTC(2026, 0, 1);
const names = ["127.0.0.1", "::1", "localhost"];

let temp: ReturnType<typeof tempDir>;
let identity: ServerIdentity;
beforeEach(async () => {
  temp = tempDir();
  mkdirSync(join(temp.path, "keys"), { mode: 0o700 });
  identity = await newIdentity();
});
afterEach(() => temp.remove());

describe("authority", () => {
  test("has the identity's key, signs itself, and is the same each time", async () => {
    const pem = (await authorityOf(identity)).toString("pem");
    expect((await authorityOf(identity)).toString("pem")).toBe(pem);
    const ca = new X509Certificate(pem);
    expect(pinOfCertificate(ca)).toBe(pinOf(identity.publicKey));
    expect(ca.ca).toBe(true);
    expect(ca.verify(ca.publicKey)).toBe(true);
    expect(Date.parse(ca.validTo)).toBe(Date.UTC(9999, 11, 31, 23, 59, 59));
  });

  test("signs leaves that are no authority, with their names and a lifetime", async () => {
    const made = await issueLeaf({ identity, names: [...names, "keys.example"], nowMs, random });
    const leaf = new X509Certificate(made.certPem);
    const ca = new X509Certificate((await authorityOf(identity)).toString("pem"));
    expect(leaf.ca).toBe(false);
    expect(leaf.verify(ca.publicKey)).toBe(true);
    expect(leaf.checkIssued(ca)).toBe(true);
    expect(leaf.checkPrivateKey(createPrivateKey(made.keyPem))).toBe(true);
    expect(leaf.checkHost("keys.example")).toBe("keys.example");
    expect(leaf.checkHost("other.example")).toBeUndefined();
    expect(leaf.checkIP("::1")).toBe("::1");
    expect(leaf.checkIP("127.0.0.2")).toBeUndefined();
    expect(leaf.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
    expect(Date.parse(leaf.validTo)).toBe(nowMs + 825 * DAY);
    const second = await issueLeaf({ identity, names, nowMs, random });
    expect(new X509Certificate(second.certPem).serialNumber).not.toBe(leaf.serialNumber);
  });
});

describe("names", () => {
  test("hold loopback, the address listened on and the given ones, each once", () => {
    const all = certificateNames("10.1.2.3", ["Keys.Example", "keys.example", "[2001:DB8::1]"]);
    for (const name of ["localhost", "127.0.0.1", "::1", "10.1.2.3", "keys.example", "2001:db8::1"]) {
      expect(all.filter((other) => other === name)).toEqual([name]);
    }
    expect([...all].sort()).toEqual([...all]);
  });

  test("hold no wildcard address", () => {
    for (const wildcard of ["0.0.0.0", "::", "[::]"]) {
      expect(certificateNames(wildcard, [])).toEqual(certificateNames("127.0.0.1", []));
    }
  });

  test.each(["", "a b", "*.example", "x..y", "-", "a/b", "fe80::1%eth0", "é.example"])("%p is refused", (name) => {
    expect(() => certificateNames("127.0.0.1", [name])).toThrow(expect.objectContaining({ code: "bad_input" }));
  });
});

describe("kept certificate", () => {
  const certificate = (more: { names?: string[]; nowMs?: number; identity?: ServerIdentity } = {}) =>
    serverCertificate(temp.path, { identity, names, nowMs, random, ...more });
  const file = (name: string) => join(temp.path, "keys", name);

  test("is made once, 0600, and kept", async () => {
    const first = await certificate();
    expect(await certificate({ nowMs: nowMs + 700 * DAY })).toEqual(first);
    expect(readdirSync(join(temp.path, "keys")).sort()).toEqual(["tls.crt", "tls.key"]);
    for (const name of ["tls.crt", "tls.key"]) expect(statSync(file(name)).mode & 0o077).toBe(0);
  });

  test("is made anew for other names, for another identity, and near its end", async () => {
    const first = await certificate();
    expect((await certificate({ nowMs: nowMs + 796 * DAY })).certPem).not.toBe(first.certPem);
    const renamed = await certificate({ names: [...names, "new.example"] });
    expect(new X509Certificate(renamed.certPem).checkHost("new.example")).toBe("new.example");
    expect((await certificate()).certPem).not.toBe(renamed.certPem);
    const other = await newIdentity();
    const moved = await certificate({ identity: other });
    expect(moved.caPem).toBe((await authorityOf(other)).toString("pem"));
    expect(moved.certPem).toContain(moved.caPem);
  });

  test("is made anew when a crash left a key and a certificate that do not belong together", async () => {
    const first = await certificate();
    const stranger = await issueLeaf({ identity, names, nowMs, random });
    writeFileSync(file("tls.key"), stranger.keyPem);
    const second = await certificate();
    expect(second.certPem).not.toBe(first.certPem);
    const paired = new X509Certificate(second.certPem).checkPrivateKey(createPrivateKey(second.keyPem));
    expect(paired).toBe(true);
    writeFileSync(file("tls.crt"), "garbage");
    expect((await certificate()).certPem).toContain("BEGIN CERTIFICATE");
    expect(existsSync(file("tls.crt"))).toBe(true);
  });

  test.skipIf(process.platform === "win32")("with a key that others may read is refused", async () => {
    await certificate();
    chmodSync(file("tls.key"), 0o644);
    await expect(certificate()).rejects.toMatchObject({ code: "denied", message: expect.stringContaining("tls.key") });
  });
});

describe("operator's certificate", () => {
  async function write(): Promise<{ cert: string; key: string }> {
    const made = await loopbackLeaf(identity, { nowMs });
    const [cert, key] = [join(temp.path, "cert.pem"), join(temp.path, "key.pem")];
    writeFileSync(cert, made.certPem);
    writeFileSync(key, made.keyPem, { mode: 0o600 });
    return { cert, key };
  }

  test("is read, also through a symbolic link", async () => {
    const { cert, key } = await write();
    symlinkSync(key, join(temp.path, "link.pem"));
    const read = await operatorCertificate(cert, join(temp.path, "link.pem"), nowMs);
    expect(new X509Certificate(read.certPem).checkPrivateKey(createPrivateKey(read.keyPem))).toBe(true);
  });

  test("is refused when it does not fit, has expired, is missing or no PEM", async () => {
    const { cert, key } = await write();
    const other = join(temp.path, "other.pem");
    writeFileSync(other, (await loopbackLeaf(identity)).keyPem, { mode: 0o600 });
    await expect(operatorCertificate(cert, other, nowMs)).rejects.toMatchObject({ code: "bad_input" });
    await expect(operatorCertificate(cert, key, nowMs + 900 * DAY)).rejects.toMatchObject({
      code: "bad_input",
      message: expect.stringContaining("expired"),
    });
    await expect(operatorCertificate(join(temp.path, "none"), key, nowMs)).rejects.toMatchObject({ code: "not_found" });
    writeFileSync(cert, "not PEM");
    await expect(operatorCertificate(cert, key, nowMs)).rejects.toMatchObject({ code: "bad_input" });
  });

  test.skipIf(process.platform === "win32")("with a key that everybody may read is refused", async () => {
    const { cert, key } = await write();
    chmodSync(key, 0o644);
    await expect(operatorCertificate(cert, key, nowMs)).rejects.toMatchObject({ code: "denied" });
  });
});
