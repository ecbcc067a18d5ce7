import "reflect-metadata";
import { createPrivateKey, X509Certificate as NodeCertificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import type { RandomSource } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { fileFault, readPrivateFile, replacePrivateFile, shown } from "../wire/keyfiles.ts";
import { directoryPaths, type ServerIdentity } from "./directory.ts";

const DAY_MS = 86_400_000;
/** As long as platforms accept from a private authority: the key that could revoke it lies beside it anyway. */
const LEAF_MS = 825 * DAY_MS;
const RENEW_MS = 30 * DAY_MS;
const BACKDATE_MS = DAY_MS;
const NAMES_MAX = 200;
const FILE_MAX = 256 * 1_024;
const CA_NAME = "CN=keyhold server identity";
const LEAF_NAME = "CN=keyhold server";
const ED25519 = { name: "Ed25519" } as const;
const P256 = { name: "ECDSA", namedCurve: "P-256" } as const;

/** What the listener shows: certificates leaf first, and the leaf's key, PEM. */
export interface TlsFiles {
  readonly certPem: string;
  readonly keyPem: string;
}

/**
 * The server identity as a private certificate authority (docs/protocol.md §3.1). The same identity gives the same
 * bytes, so that it need not be kept.
 */
export async function authorityOf(identity: ServerIdentity): Promise<x509.X509Certificate> {
  const keys = identity.certificateKeys;
  return x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(sha256(identity.publicKey)),
    name: CA_NAME,
    notBefore: new Date("2025-01-01T00:00:00Z"),
    notAfter: new Date("9999-12-31T23:59:59Z"),
    keys: { publicKey: keys.publicKey, privateKey: keys.privateKey },
    signingAlgorithm: ED25519,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
}

/** A positive serial number of 16 bytes (RFC 5280 §4.1.2.2). */
function serial(bytes: Uint8Array): string {
  const out = bytes.slice(0, 16);
  out[0] = ((out[0] ?? 0) & 0x3f) | 0x40;
  return out.toHex();
}

/** One spelling a name or address. */
function canonicalName(name: string): string | undefined {
  const bare = name.startsWith("[") && name.endsWith("]") ? name.slice(1, -1) : name;
  if (isIP(bare) === 4) return bare;
  if (isIP(bare) === 6) return bare.includes("%") ? undefined : URL.parse(`https://[${bare}]`)?.hostname.slice(1, -1);
  const lower = bare.toLowerCase();
  return /^(?!.*\.\.)[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?$/.test(lower) ? lower : undefined;
}

/**
 * The names under which this machine may be called: loopback, host name, addresses of all interfaces, the address
 * listened on, and `extra`; sorted.
 *
 * @throws Fault bad_input when one of `extra` is neither a host name nor an address.
 */
export function certificateNames(listenHost: string, extra: readonly string[]): readonly string[] {
  const names = new Set<string>();
  for (const name of extra) {
    const canonical = canonicalName(name);
    if (canonical === undefined) throw new Fault("bad_input", `${shown(name)} is neither a host name nor an address`);
    names.add(canonical);
  }
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list?.map(({ address }) => address) ?? []);
  for (const name of ["localhost", "127.0.0.1", "::1", listenHost, hostname(), ...addresses]) {
    const canonical = canonicalName(name);
    const linkLocal = canonical !== undefined && /^fe[89ab][0-9a-f]:/.test(canonical);
    const wildcard = canonical === "0.0.0.0" || canonical === "::";
    if (canonical !== undefined && !linkLocal && !wildcard && names.size < NAMES_MAX) names.add(canonical);
  }
  return [...names].sort();
}

export interface LeafInput {
  readonly identity: ServerIdentity;
  /** From {@link certificateNames}. */
  readonly names: readonly string[];
  readonly nowMs: number;
  readonly random: RandomSource;
}

/** Signs a new P-256 leaf, valid 825 days; its chain is leaf, then authority. */
export async function issueLeaf({ identity, names, nowMs, random }: LeafInput): Promise<TlsFiles> {
  const authority = await authorityOf(identity);
  const keys = await crypto.subtle.generateKey(P256, true, ["sign", "verify"]);
  const leaf = await x509.X509CertificateGenerator.create({
    serialNumber: serial(random(16)),
    subject: LEAF_NAME,
    issuer: authority.subject,
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + LEAF_MS),
    publicKey: keys.publicKey,
    signingKey: identity.certificateKeys.privateKey,
    signingAlgorithm: ED25519,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isIP(value) === 0 ? ("dns" as const) : ("ip" as const), value })),
      ),
      await x509.AuthorityKeyIdentifierExtension.create(identity.certificateKeys.publicKey),
    ],
  });
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    certPem: `${leaf.toString("pem")}\n${authority.toString("pem")}\n`,
    keyPem: `${x509.PemConverter.encode(pkcs8, "PRIVATE KEY")}\n`,
  };
}

/**
 * The server's own certificate: the kept one, or a new one when the names changed, less than 30 days are left or it
 * does not fit the identity. It is not a key that must never change, so that replacing it loses nothing.
 *
 * @throws Fault denied for a kept key that others may read, storage
 */
export async function serverCertificate(dir: string, input: LeafInput): Promise<TlsFiles & { readonly caPem: string }> {
  const keys = directoryPaths(dir).keys;
  const [certPath, keyPath] = [join(keys, "tls.crt"), join(keys, "tls.key")];
  const caPem = (await authorityOf(input.identity)).toString("pem");
  const kept = { certPem: await readKept(certPath), keyPem: await readKept(keyPath) };
  if (fits(kept, caPem, input)) return { ...kept, caPem };
  const made = await issueLeaf(input);
  const suffix = input.random(8).toHex();
  await replacePrivateFile(keyPath, new TextEncoder().encode(made.keyPem), suffix);
  await replacePrivateFile(certPath, new TextEncoder().encode(made.certPem), suffix);
  return { ...made, caPem };
}

async function readKept(path: string): Promise<string> {
  try {
    return new TextDecoder().decode(await readPrivateFile(path, { min: 0, max: FILE_MAX }));
  } catch (error) {
    if (error instanceof Fault && error.code === "not_found") return "";
    throw error;
  }
}

function fits(kept: TlsFiles, caPem: string, { names, nowMs }: LeafInput): boolean {
  try {
    const leaf = new NodeCertificate(kept.certPem);
    const ca = new NodeCertificate(caPem);
    if (!leaf.checkIssued(ca) || !leaf.verify(ca.publicKey) || !kept.certPem.includes(caPem)) return false;
    if (!leaf.checkPrivateKey(createPrivateKey(kept.keyPem))) return false;
    if (Date.parse(leaf.validFrom) > nowMs || Date.parse(leaf.validTo) - nowMs < RENEW_MS) return false;
    const extension = new x509.X509Certificate(kept.certPem.slice(0, kept.certPem.indexOf(caPem))).getExtension(
      x509.SubjectAlternativeNameExtension,
    );
    const has = extension?.names.items.map(({ value }) => canonicalName(value)).sort() ?? [];
    return has.length === names.length && has.every((name, i) => name === names[i]);
  } catch {
    return false;
  }
}

/**
 * Reads an operator's own certificate chain and key, PEM; symbolic links are followed, as certificate clients make
 * them.
 *
 * @throws Fault bad_input when they do not belong together or have expired, denied for a key that everybody may read.
 */
export async function operatorCertificate(certPath: string, keyPath: string, nowMs: number): Promise<TlsFiles> {
  const certPem = await readText(certPath);
  const keyPem = await readText(keyPath);
  const { mode } = await stat(keyPath);
  if (process.platform !== "win32" && (mode & 0o007) !== 0) {
    throw new Fault("denied", `cannot use ${shown(keyPath)}: everybody may read or write it`, {
      hint: `chmod 600 ${keyPath}`,
    });
  }
  let leaf: NodeCertificate;
  let paired: boolean;
  try {
    leaf = new NodeCertificate(certPem);
    paired = leaf.checkPrivateKey(createPrivateKey(keyPem));
  } catch {
    throw new Fault("bad_input", `cannot use ${shown(certPath)} and ${shown(keyPath)}: not PEM as TLS needs it`, {
      hint: "give the certificate chain, leaf first, and its key without a passphrase",
    });
  }
  if (!paired) throw new Fault("bad_input", `${shown(keyPath)} is not the key of ${shown(certPath)}`);
  if (!(nowMs < Date.parse(leaf.validTo))) throw new Fault("bad_input", `${shown(certPath)} has expired`);
  return { certPem, keyPem };
}

async function readText(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > FILE_MAX) throw new Fault("bad_input", `${shown(path)} is too long for a certificate`);
    return await readFile(path, "utf8");
  } catch (error) {
    throw fileFault(error, "read", path);
  }
}
