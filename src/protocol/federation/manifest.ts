import { equalBytes } from "../../crypto/bytes.ts";
import { type CanonValue, canon } from "../../crypto/canon.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { type FederationId, hashId, type PolicyId } from "../../ids.ts";
import { SERVERS_MAX } from "./kinds.ts";

/** One key server of a federation (docs/protocol.md §8.1). */
export interface FederationServer {
  /** Evaluation point of its shares: 1 to 255, never given to another server. */
  readonly index: number;
  /** Ed25519 key of its enclave, 32 bytes: signs every message. */
  readonly identity: Uint8Array;
  /** X25519 key of its enclave, 32 bytes: what clients seal to it. */
  readonly sealing: Uint8Array;
  readonly url: string;
  /** Pin of the server's own identity, `sha256:…`. */
  readonly pin: string;
  /** Its operator's policy, or null where the owner's word is enough. */
  readonly policy: PolicyId | null;
}

/** What all servers sign and every client pins. */
export interface Manifest {
  readonly federationId: FederationId;
  readonly name: string;
  /** From 1; each change counts up. */
  readonly epoch: number;
  /** Shares that make a key: more than half of the servers. */
  readonly threshold: number;
  /** Ascending by index. */
  readonly servers: readonly FederationServer[];
  readonly createdAtMs: number;
  /** 32 bytes, drawn by whoever drafts epoch 1; kept by later epochs. */
  readonly nonce: Uint8Array;
  /** {@link manifestHash} of the epoch before; zeros at epoch 1. */
  readonly previous: Uint8Array;
}

/** One member's signature over a manifest; `identity` may be a member of the epoch before. */
export interface ManifestSignature {
  readonly identity: Uint8Array;
  readonly signature: Uint8Array;
}

export interface SignedManifest {
  readonly manifest: Manifest;
  readonly signatures: readonly ManifestSignature[];
}

const serverParts = (s: FederationServer): CanonValue => [s.index, s.identity, s.sealing, s.url, s.pin, s.policy];

/** Hash of what makes a server this one, for people to compare: 32 bytes. */
export function serverFingerprint({ identity, sealing, pin }: FederationServer): Uint8Array {
  return hashCanon("keyhold/v1/federation-server", identity, sealing, pin);
}

/** The id of a federation: hash of its first manifest without the id itself. */
export function federationIdOf(first: Omit<Manifest, "federationId">): FederationId {
  const { name, threshold, servers, createdAtMs, nonce } = first;
  return hashId(hashCanon("keyhold/v1/federation-id", name, threshold, servers.map(serverParts), createdAtMs, nonce));
}

/** What the members' signatures cover. */
export function manifestBytes(m: Manifest): Uint8Array {
  return canon(
    "keyhold/v1/federation-manifest",
    m.federationId,
    m.name,
    m.epoch,
    m.threshold,
    m.servers.map(serverParts),
    m.createdAtMs,
    m.nonce,
    m.previous,
  );
}

/** Hash that the next epoch names: 32 bytes. */
export function manifestHash(m: Manifest): Uint8Array {
  return hashCanon("keyhold/v1/federation-manifest-hash", manifestBytes(m));
}

export function signManifest(signer: Signer, manifest: Manifest): ManifestSignature {
  return { identity: signer.publicKey, signature: signer.sign(manifestBytes(manifest)) };
}

const bad = (message: string) => new Fault("bad_input", `this manifest cannot be: ${message}`);

/**
 * Checks everything but signatures: threshold, order, no two alike, the id at epoch 1.
 *
 * @throws Fault bad_input
 */
export function checkManifest(m: Manifest): void {
  const { servers, threshold } = m;
  if (servers.length < 2 || servers.length > SERVERS_MAX) throw bad(`it needs 2 to ${SERVERS_MAX} servers`);
  if (threshold < 2 || threshold > servers.length || threshold * 2 <= servers.length) {
    throw bad("the threshold is more than half of the servers, at least 2, and at most all of them");
  }
  const distinct = (of: (s: FederationServer) => string) => new Set(servers.map(of)).size === servers.length;
  if (!servers.every((s, i) => s.index >= 1 && s.index <= 255 && s.index > (servers[i - 1]?.index ?? 0)))
    throw bad("indices ascend from 1 to 255");
  if (!distinct((s) => s.identity.toHex()) || !distinct((s) => s.sealing.toHex()) || !distinct((s) => s.pin))
    throw bad("two of its servers are one");
  const first = m.epoch === 1;
  if (first && (m.federationId !== federationIdOf(m) || m.previous.some((byte) => byte !== 0)))
    throw bad("its id is not its own");
  if (m.epoch < 1) throw bad("epochs count from 1");
}

/** True when this member's valid signature is among those of the manifest. */
export function isSignedBy({ manifest, signatures }: SignedManifest, identity: Uint8Array): boolean {
  const bytes = manifestBytes(manifest);
  return signatures.some((s) => equalBytes(s.identity, identity) && verifySignature(identity, bytes, s.signature));
}

/**
 * Verifies a manifest: form, and the signatures of all its members; a later epoch against the one before it, of which
 * `threshold` members must have signed, and of which no index goes to another server.
 *
 * @param before The manifest of the epoch before, verified; null for epoch 1.
 * @throws Fault bad_input, integrity
 */
export function verifyManifest(signed: SignedManifest, before: Manifest | null): Manifest {
  const { manifest } = signed;
  checkManifest(manifest);
  if (!manifest.servers.every((s) => isSignedBy(signed, s.identity)))
    throw new Fault("integrity", "not every server of this federation has signed its manifest");
  if (before === null && manifest.epoch === 1) return manifest;
  if (before === null) throw follows();
  checkSuccession(manifest, before);
  const agreed = before.servers.filter((s) => isSignedBy(signed, s.identity)).length;
  if (agreed < before.threshold)
    throw new Fault("integrity", "too few members of the epoch before have signed this manifest");
  return manifest;
}

const follows = () => new Fault("integrity", "this manifest does not follow the one that is pinned");

/** Checks that a manifest is the next one after `before`, signatures aside. @throws Fault integrity, bad_input */
export function checkSuccession(manifest: Manifest, before: Manifest): void {
  const next =
    before.federationId === manifest.federationId &&
    before.epoch + 1 === manifest.epoch &&
    equalBytes(before.nonce, manifest.nonce) &&
    equalBytes(manifestHash(before), manifest.previous);
  if (!next) throw follows();
  for (const s of manifest.servers) {
    const old = before.servers.find((one) => one.index === s.index);
    if (old && !equalBytes(old.identity, s.identity)) throw bad("an index goes to another server");
  }
}

/** The server with an index. @throws Fault bad_input */
export function memberOf(manifest: Manifest, index: number): FederationServer {
  const found = manifest.servers.find((s) => s.index === index);
  if (found) return found;
  throw new Fault("bad_input", "this federation has no server of that index");
}

/** How many servers a ceremony takes at least, and how many must agree on its result: min(n, t + 1). */
export function rosterMin(servers: number, threshold: number): number {
  return Math.min(servers, threshold + 1);
}
