import { X509Certificate } from "node:crypto";
import { isIP, connect as tcpConnect } from "node:net";
import { type DetailedPeerCertificate, connect as tlsConnect } from "node:tls";
import { Fault } from "../errors.ts";
import { connectionFault } from "./failure.ts";
import type { ServerUrl } from "./http.ts";
import { pinOfSpki } from "./pin.ts";

const CHAIN_MAX = 10;

/**
 * First contact: takes the certificates that a server shows, leaf first, and closes without sending a byte of
 * application data (docs/protocol.md §3.1). Nothing is verified here, beyond TLS 1.3 and possession of the leaf's key.
 *
 * @throws Fault unreachable, tls_refused
 */
export function takeChain(server: ServerUrl, timeoutMs: number): Promise<readonly X509Certificate[]> {
  return new Promise((resolve, reject) => {
    const socket = tlsConnect({
      host: server.host,
      port: server.port,
      ...(isIP(server.host) === 0 ? { servername: server.host } : {}),
      minVersion: "TLSv1.3",
      rejectUnauthorized: false,
    });
    const timer = setTimeout(() => {
      reject(new Fault("unreachable", `cannot reach ${server.origin}`, { why: "it did not answer in time" }));
      socket.destroy();
    }, timeoutMs);
    socket.on("close", () => {
      clearTimeout(timer);
      reject(new Fault("unreachable", `cannot reach ${server.origin}`, { why: "it closed the connection" }));
    });
    socket.on("error", (error) => reject(connectionFault(error, server.origin)));
    socket.on("secureConnect", () => {
      try {
        resolve(certificates(socket.getPeerCertificate(true)));
      } catch {
        reject(new Fault("tls_refused", `${server.origin} shows no readable certificate`));
      }
      socket.destroy();
    });
  });
}

/**
 * True where a connection to the server can be made in time: TCP, and TLS where it speaks TLS. Whoever answers at all,
 * with a certificate that is refused too, is there.
 */
export async function canConnect(server: ServerUrl, timeoutMs: number): Promise<boolean> {
  if (!server.secure) return canOpen(server, timeoutMs);
  try {
    await takeChain(server, timeoutMs);
    return true;
  } catch (error) {
    return error instanceof Fault && error.code !== "unreachable";
  }
}

function canOpen({ host, port }: ServerUrl, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = tcpConnect({ host, port });
    const end = (open: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(open);
    };
    const timer = setTimeout(() => end(false), timeoutMs);
    socket.on("connect", () => end(true));
    socket.on("error", () => end(false));
  });
}

function certificates(leaf: DetailedPeerCertificate): readonly X509Certificate[] {
  const out: X509Certificate[] = [];
  let at: DetailedPeerCertificate | undefined = leaf;
  const seen = new Set<DetailedPeerCertificate>();
  while (at?.raw && !seen.has(at) && out.length < CHAIN_MAX) {
    seen.add(at);
    out.push(new X509Certificate(at.raw));
    at = at.issuerCertificate;
  }
  if (out.length === 0) throw new RangeError("no certificate");
  return out;
}

/** Pin of a certificate's key. */
export function pinOfCertificate(certificate: X509Certificate): string {
  return pinOfSpki(certificate.publicKey.export({ type: "spki", format: "der" }));
}

function refuse(origin: string, why: string): never {
  throw new Fault("tls_refused", `the certificate of ${origin} is refused`, { why });
}

/**
 * Finds the private CA with the pinned key in a chain and checks it and the leaf: a CA, signed by itself, leaf signed
 * by it, both valid now, leaf made for this host (docs/protocol.md §3.1).
 *
 * @returns The CA as PEM, or null when no certificate has the pinned key.
 * @throws Fault tls_refused with the reason.
 */
export function pinnedCa(
  chain: readonly X509Certificate[],
  server: ServerUrl,
  pin: string,
  nowMs: number,
): string | null {
  const leaf = chain[0];
  const ca = chain.find((certificate) => pinOfCertificate(certificate) === pin);
  if (!leaf || !ca) return null;
  if (!ca.ca) refuse(server.origin, "the certificate with the pinned key is not an authority");
  if (!ca.checkIssued(ca) || !ca.verify(ca.publicKey)) {
    refuse(server.origin, "the certificate with the pinned key is not signed by itself");
  }
  if (!leaf.checkIssued(ca) || !leaf.verify(ca.publicKey)) {
    refuse(server.origin, "it is not signed by the pinned identity");
  }
  for (const certificate of [leaf, ca]) {
    if (nowMs < Date.parse(certificate.validFrom)) refuse(server.origin, "it is not valid yet; check the clock");
    if (!(nowMs < Date.parse(certificate.validTo))) refuse(server.origin, "it has expired");
  }
  const named = isIP(server.host) === 0 ? leaf.checkHost(server.host) : leaf.checkIP(server.host);
  if (named === undefined) refuse(server.origin, `it is not made for the host ${server.host}`);
  return ca.toString();
}
