import "reflect-metadata";
import { createPrivateKey } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import { seedOf } from "./policies.ts";

/** Certificates of a small authority, and policy engines as processes of their own behind real TLS. */

const DAY_MS = 86_400_000;
const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const PROJECT = join(import.meta.dir, "..", "..");

export interface Pair {
  readonly certPem: string;
  readonly keyPem: string;
}

export interface TestAuthority {
  readonly caPem: string;
  /** A certificate for 127.0.0.1, good for servers and clients. */
  issue(name: string, options?: { readonly host?: string; readonly expired?: boolean }): Promise<Pair>;
}

const pem = (der: ArrayBuffer, label: string) =>
  `-----BEGIN ${label}-----\n${Buffer.from(der).toString("base64")}\n-----END ${label}-----\n`;

export async function authority(): Promise<TestAuthority> {
  const keys = await crypto.subtle.generateKey(P256, true, ["sign", "verify"]);
  const now = Date.now();
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: "01",
    name: `CN=test authority ${crypto.randomUUID()}`,
    notBefore: new Date(now - DAY_MS),
    notAfter: new Date(now + DAY_MS),
    keys,
    signingAlgorithm: P256,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  let serial = 1;
  return {
    caPem: `${root.toString("pem")}\n`,
    async issue(name, { host = "127.0.0.1", expired = false } = {}) {
      const own = await crypto.subtle.generateKey(P256, true, ["sign", "verify"]);
      serial += 1;
      const leaf = await x509.X509CertificateGenerator.create({
        serialNumber: `0${serial}`,
        subject: `CN=${name}`,
        issuer: root.subject,
        notBefore: new Date(now - DAY_MS),
        notAfter: new Date(expired ? now - DAY_MS / 2 : now + DAY_MS),
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: P256,
        extensions: [
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
          new x509.SubjectAlternativeNameExtension([{ type: /^[\d.]+$/.test(host) ? "ip" : "dns", value: host }]),
        ],
      });
      const pkcs8 = await crypto.subtle.exportKey("pkcs8", own.privateKey);
      return { certPem: `${leaf.toString("pem")}\n`, keyPem: pem(pkcs8, "PRIVATE KEY") };
    },
  };
}

/** PKCS#8 PEM of a test signer's key. */
export function signingKeyPem(name: string): string {
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seedOf(name)]);
  return createPrivateKey({ key: der, format: "der", type: "pkcs8" })
    .export({ format: "pem", type: "pkcs8" })
    .toString();
}

export interface EngineProcess {
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts a program as an engine; it prints one line of JSON with its port. */
export async function startEngine(
  program: string,
  server: Pair,
  clientCaPem: string,
  env: Readonly<Record<string, string>> = {},
): Promise<EngineProcess> {
  const dir = mkdtempSync(join(tmpdir(), "keyhold-engine-"));
  const files = { CERT: server.certPem, KEY: server.keyPem, CA: clientCaPem, SIGNING_KEY: signingKeyPem("risk") };
  const paths = Object.entries(files).map(([name, content]): [string, string] => {
    const path = join(dir, `${name}.pem`);
    writeFileSync(path, content, { mode: 0o600 });
    return [name, path];
  });
  const child = Bun.spawn([process.execPath, join(PROJECT, program)], {
    env: { PATH: process.env["PATH"] ?? "", PORT: "0", ...Object.fromEntries(paths), ...env },
    cwd: dir,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const stop = async () => {
    child.kill("SIGKILL");
    await child.exited;
    rmSync(dir, { recursive: true, force: true });
  };
  let line = "";
  for await (const part of child.stdout) {
    line += new TextDecoder().decode(part);
    if (line.includes("\n")) break;
  }
  if (!line.includes("\n")) {
    await stop();
    throw new Error("the engine did not start");
  }
  const { port } = JSON.parse(line) as { port: number };
  return { url: `https://127.0.0.1:${port}/v1/data/keyhold`, stop };
}
