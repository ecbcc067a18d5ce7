import { concat, equalBytes } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { FederatedRequestId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type Certificate, certificateHash, verifyCertificate } from "../protocol/federation/certificate.ts";
import {
  checkManifest,
  type FederationServer,
  isSignedBy,
  type Manifest,
  manifestHash,
  type SignedManifest,
} from "../protocol/federation/manifest.ts";
import { verifyOwnerPart } from "../protocol/federation/owner.ts";
import {
  type AttemptOrder,
  coordinatorOf,
  type FederatedRequest,
  type RequestBody,
  type SignedOrder,
  verifyOrder,
  verifyRequest,
} from "../protocol/federation/request.ts";
import { USE_ATTEMPTS_MAX } from "../protocol/federation/signing.ts";
import type { Of } from "../wire/codec.ts";
import type { evidence as evidenceCodec } from "./api.ts";
import type { Journal } from "./journal.ts";

export type Evidence = Of<typeof evidenceCodec>;

/** A request whose signatures this enclave has verified by itself. */
export interface Verified {
  readonly requestId: FederatedRequestId;
  readonly request: FederatedRequest;
  /** Of the request's epoch. */
  readonly manifest: Manifest;
  /** This server's own line in it. */
  readonly own: FederationServer;
  /** Of uses and resharings. */
  readonly key: { readonly certificate: Certificate; readonly manifest: Manifest } | null;
}

const integrity = (message: string) => new Fault("integrity", message);
const refused = (message: string) => new Fault("bad_input", message);

/**
 * Takes a manifest that all its members have signed, this enclave among them: it signs only what its operator accepted
 * and what follows the epoch before.
 *
 * @throws Fault integrity, bad_input
 */
export function ownManifest(
  signed: SignedManifest,
  identity: Uint8Array,
): { manifest: Manifest; own: FederationServer } {
  const { manifest } = signed;
  checkSigned(signed);
  const own = manifest.servers.find((s) => equalBytes(s.identity, identity));
  if (!own || !isSignedBy(signed, identity)) throw integrity("this enclave has not signed that manifest");
  return { manifest, own };
}

/** Manifests whose signatures held, by all their bytes: each request brings the same ones again. */
const whole = new Set<string>();
const WHOLE_MAX = 64;

function checkSigned(signed: SignedManifest): void {
  const { manifest, signatures } = signed;
  checkManifest(manifest);
  const parts = signatures.flatMap(({ identity, signature }) => [identity, signature]);
  const name = sha256(concat(manifestHash(manifest), ...parts)).toHex();
  if (whole.has(name)) return;
  if (!manifest.servers.every((s) => isSignedBy(signed, s.identity))) {
    throw integrity("not every server of this federation has signed its manifest");
  }
  if (whole.size >= WHOLE_MAX) whole.clear();
  whole.add(name);
}

/**
 * The manifest under which a key was made. A server that came later has not signed it: then enough of its members must
 * stand, as they were, in the manifest that this enclave did sign.
 */
function keyManifest(signed: SignedManifest, identity: Uint8Array, current: Manifest): Manifest {
  const { manifest } = signed;
  checkSigned(signed);
  if (manifest.federationId !== current.federationId || manifest.epoch > current.epoch) {
    throw integrity("this key belongs to another federation or epoch");
  }
  if (isSignedBy(signed, identity)) return manifest;
  const still = manifest.servers.filter((s) => {
    const now = current.servers.find((one) => one.index === s.index);
    return now !== undefined && equalBytes(now.identity, s.identity);
  });
  if (still.length < manifest.threshold) throw integrity("this enclave has not signed the key's manifest");
  return manifest;
}

/** True for the kinds of request that are about a key that exists. */
function isAboutKey(body: RequestBody): body is Extract<RequestBody, { keyId: unknown }> {
  return "keyId" in body;
}

/**
 * Verifies everything in the evidence but policies: manifest, requester's signature, clock, certificate, owner, and
 * that the key has not moved on since.
 *
 * @throws Fault integrity, denied, stale, conflict, bad_input
 */
export function verifyEvidence(e: Evidence, identity: Uint8Array, journal: Journal, nowMs: number): Verified {
  const { manifest, own } = ownManifest(e.manifest, identity);
  const requestId = verifyRequest(e.request);
  const { request } = e.request;
  if (request.federationId !== manifest.federationId || request.epoch !== manifest.epoch) {
    throw integrity("this request belongs to another federation or epoch");
  }
  if (request.createdAtMs > nowMs + DEFAULTS.clockSkewMs) {
    throw new Fault("denied", "this request comes from the future", { hint: "compare the clocks" });
  }
  return { requestId, request, manifest, own, key: verifyKey(e, request, manifest, identity, journal) };
}

/** @throws Fault conflict */
export function demandUnexpired({ expiresAtMs }: FederatedRequest, nowMs: number): void {
  if (nowMs >= expiresAtMs) throw new Fault("conflict", "this request has expired", { hint: "make a new one" });
}

function verifyKey(
  e: Evidence,
  request: FederatedRequest,
  current: Manifest,
  identity: Uint8Array,
  journal: Journal,
): Verified["key"] {
  const { body } = request;
  if (!isAboutKey(body)) {
    if (e.certificate !== null || e.certificateManifest !== null) throw refused("this request is about no key");
    verifyOwnerPart(body, request);
    return null;
  }
  if (e.certificate === null || e.certificateManifest === null) throw refused("the key's certificate is missing");
  const manifest = keyManifest(e.certificateManifest, identity, current);
  const certificate = verifyCertificate(e.certificate, manifest);
  if (certificate.keyId !== body.keyId) throw integrity("this certificate is another key's");
  if (!equalBytes(certificate.owner, coordinatorOf(request))) {
    throw new Fault("denied", "only the owner of a key asks for it");
  }
  if (certificate.generation !== body.generation) throw new Fault("stale", "this key has newer shares");
  demandNewestShares(certificate, journal);
  return { certificate, manifest };
}

/** @throws Fault stale, conflict */
function demandNewestShares(certificate: Certificate, journal: Journal): void {
  const newest = journal.marked("key", certificate.keyId);
  if (newest && newest.number > certificate.generation) throw new Fault("stale", "this key has newer shares");
  if (newest && newest.number === certificate.generation && !equalBytes(newest.hash, certificateHash(certificate))) {
    throw new Fault("conflict", "two certificates of one generation");
  }
}

/**
 * Demands of an attempt that runs what was true when it began: not expired, of the newest epoch, and of the newest
 * shares that this enclave knows.
 *
 * @throws Fault conflict, stale
 */
export function demandCurrent({ request, manifest, key }: Verified, journal: Journal, nowMs: number): void {
  demandUnexpired(request, nowMs);
  const newest = journal.marked("federation", manifest.federationId);
  if (newest && newest.number > manifest.epoch) throw new Fault("stale", "this federation has moved on");
  if (key !== null) demandNewestShares(key.certificate, journal);
}

const ascending = (indices: readonly number[]): boolean => indices.every((n, i) => n > (indices[i - 1] ?? 0));

/**
 * Verifies who takes part in an attempt, and that this server does.
 *
 * @throws Fault integrity, bad_input, replayed
 */
export function verifyRoster(v: Verified, signed: SignedOrder): AttemptOrder {
  const { order } = signed;
  verifyOrder(coordinatorOf(v.request), signed);
  if (order.requestId !== v.requestId) throw integrity("this attempt is another request's");
  const { roster } = order;
  const members = v.manifest.servers;
  if (!ascending(roster) || !roster.every((index) => members.some((s) => s.index === index))) {
    throw refused("a roster names members, each once, in order");
  }
  if (!roster.includes(v.own.index)) throw refused("this server is not in the roster");
  const contributors = order.contributions.map(({ index }) => index);
  if (!ascending(contributors) || !contributors.every((index) => roster.includes(index))) {
    throw refused("contributions are for members of the roster, one each");
  }
  if ((v.request.body.kind === "sign" || v.request.body.kind === "release") && order.attempt > USE_ATTEMPTS_MAX) {
    throw new Fault("replayed", "this request is spent", { hint: "make a new one" });
  }
  if (v.key !== null) demandSameHolders(v.key, v.manifest, roster);
  return order;
}

/** An index names the server that it named when the key was made. What else a roster must be the ceremony checks. */
function demandSameHolders(key: NonNullable<Verified["key"]>, manifest: Manifest, roster: readonly number[]): void {
  for (const index of roster.filter((one) => key.certificate.holders.includes(one))) {
    const then = key.manifest.servers.find((s) => s.index === index);
    const now = manifest.servers.find((s) => s.index === index);
    if (!then || !now || !equalBytes(then.identity, now.identity)) throw integrity("a holder is another server now");
  }
}
