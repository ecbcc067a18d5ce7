import { equalBytes } from "../../crypto/bytes.ts";
import { type CanonValue, canon } from "../../crypto/canon.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { type CeremonyId, hashId, type StoredKeyId } from "../../ids.ts";
import type {
  CeremonyDraft,
  CeremonyJoin,
  CeremonyKey,
  CeremonyManifest,
  CeremonyReveal,
  EntryBody,
  OutputSpec,
  PublicOutput,
  Release,
  ReleaseApproval,
  SignedCeremonyJoin,
  SignedCeremonyKey,
  SignedCeremonyManifest,
  SignedCeremonyReveal,
  SignedEntry,
  SignedRelease,
  StoredKeyRecord,
  TranscriptEntry,
} from "./model.ts";

/** What is signed and hashed in ceremonies (docs/protocol.md §10). Sizes: hashes 32 bytes, signatures 64. */

const broken = (what: string) => new Fault("integrity", `the signature under ${what} does not hold`);

function outputParts(o: OutputSpec): CanonValue[] {
  switch (o.kind) {
    case "totp":
      return [o.kind, o.algorithm, o.digits, o.period, o.issuer, o.label];
    case "hotp":
      return [o.kind, o.algorithm, o.digits, o.issuer, o.label];
    case "bytes":
      return [o.kind, o.length];
    case "rsa":
      return [o.kind, o.bits];
    case "bip39":
      return [o.kind, o.words];
    case "multisig":
      return [o.kind, o.threshold, o.network];
    default:
      return [o.kind];
  }
}

function keyParts(k: CeremonyKey): CanonValue[] {
  return [k.server, k.enclave, k.number, k.sealing, k.rsa, k.createdAtMs];
}

/** What server and enclave sign of a key pair for ceremonies. */
export function ceremonyKeyBytes(key: CeremonyKey): Uint8Array {
  return canon("keyhold/v1/ceremony-key-statement", ...keyParts(key));
}

/** Fingerprint of a key pair for ceremonies: what is compared and pinned. */
export function ceremonyKeyHash(key: CeremonyKey): Uint8Array {
  return hashCanon("keyhold/v1/ceremony-key-fingerprint", ...keyParts(key));
}

/** @throws Fault integrity */
export function verifyCeremonyKey({ key, signature, enclaveSignature }: SignedCeremonyKey): CeremonyKey {
  const bytes = ceremonyKeyBytes(key);
  if (!verifySignature(key.server, bytes, signature)) throw broken("the server's key");
  if (!verifySignature(key.enclave, bytes, enclaveSignature)) throw broken("the server's key");
  return key;
}

function draftParts(d: CeremonyDraft): CanonValue[] {
  return [
    [...keyParts(d.key.key), d.key.signature, d.key.enclaveSignature],
    d.organiser,
    d.name,
    d.purpose,
    outputParts(d.output),
    [d.policy.collect, d.policy.quorum],
    d.slots.map(({ index, name, invite, account }) => [index, name, invite, account]),
    d.minimum,
    d.commitMs,
    d.revealMs,
    d.previous && [d.previous.ceremonyId, d.previous.transcriptHash],
    d.replaces,
    d.nonce,
  ];
}

/** What an organiser signs. */
export function draftBytes(draft: CeremonyDraft): Uint8Array {
  return canon("keyhold/v1/ceremony-draft", ...draftParts(draft));
}

function manifestParts(m: CeremonyManifest): CanonValue[] {
  return [draftParts(m.draft), m.organiserSignature, m.seedHash, m.openedAtMs];
}

/** What the enclave signs to open a ceremony. */
export function ceremonyManifestBytes(manifest: CeremonyManifest): Uint8Array {
  return canon("keyhold/v1/ceremony-manifest", ...manifestParts(manifest));
}

/** The id of a ceremony: hash of its manifest. */
export function ceremonyIdOf(manifest: CeremonyManifest): CeremonyId {
  return hashId(hashCanon("keyhold/v1/ceremony-id", ...manifestParts(manifest)));
}

/** The server's commitment to its seed s0 of 32 bytes. */
export function seedHashOf(seed: Uint8Array, nonce: Uint8Array): Uint8Array {
  return hashCanon("keyhold/v1/ceremony-seed", nonce, seed);
}

/** All signatures of a manifest. @throws Fault integrity */
export function verifyCeremonyManifest({ manifest, signature }: SignedCeremonyManifest): CeremonyManifest {
  const { draft } = manifest;
  const { enclave } = verifyCeremonyKey(draft.key);
  if (!verifySignature(draft.organiser, draftBytes(draft), manifest.organiserSignature)) throw broken("the draft");
  if (!verifySignature(enclave, ceremonyManifestBytes(manifest), signature)) throw broken("the manifest");
  return manifest;
}

function joinParts(j: CeremonyJoin): CanonValue[] {
  return [j.ceremonyId, j.index, j.key, j.sealing, j.share, j.function, j.commitment];
}

/** What a participant's own key and its invite's key sign, under two labels. */
export function joinBytes(join: CeremonyJoin): { readonly own: Uint8Array; readonly invitation: Uint8Array } {
  return {
    own: canon("keyhold/v1/ceremony-join", ...joinParts(join)),
    invitation: canon("keyhold/v1/ceremony-invitation", ...joinParts(join)),
  };
}

export function signJoin(participant: Signer, invite: Signer, join: CeremonyJoin): SignedCeremonyJoin {
  const bytes = joinBytes(join);
  return { join, invitation: invite.sign(bytes.invitation), signature: participant.sign(bytes.own) };
}

function revealParts(r: CeremonyReveal): CanonValue[] {
  return [r.ceremonyId, r.index, r.t1, r.keyNumber, r.suite, r.sealedHash];
}

/** What a participant signs of its sealed opening. */
export function revealBytes(reveal: CeremonyReveal): Uint8Array {
  return canon("keyhold/v1/ceremony-reveal", ...revealParts(reveal));
}

/** @param key Of the participant's join. @throws Fault integrity */
export function verifyReveal({ reveal, signature }: SignedCeremonyReveal, key: Uint8Array): CeremonyReveal {
  if (!verifySignature(key, revealBytes(reveal), signature)) throw broken("the reveal");
  return reveal;
}

/** Binds a sealed opening to its place: HPKE info, and the label of RSA-OAEP. */
export function openingInfo(ceremonyId: CeremonyId, index: number, t1: Uint8Array): Uint8Array {
  return canon("keyhold/v1/ceremony-opening", ceremonyId, index, t1);
}

function publicParts({ publicKey, descriptor, keys }: PublicOutput): CanonValue {
  return [publicKey, descriptor, keys.map((one) => [one.index, one.publicKey])];
}

function bodyParts(b: EntryBody): CanonValue[] {
  switch (b.kind) {
    case "seat":
      return [b.kind, b.index, b.invite];
    case "join":
      return [b.kind, joinParts(b.join.join), b.join.invitation, b.join.signature];
    case "freeze":
      return [b.kind, b.t1, b.seed];
    case "reveal":
      return [b.kind, revealParts(b.reveal.reveal), b.reveal.signature];
    case "result":
      return [
        b.kind,
        b.t2,
        b.keyHash,
        publicParts(b.output),
        b.stored && [b.stored.keyId, b.stored.version],
        b.custody,
      ];
    case "abort":
      return [b.kind, b.reason, [...b.culprits], b.reveal && [revealParts(b.reveal.reveal), b.reveal.signature]];
  }
}

function entryParts(ceremonyId: CeremonyId, e: TranscriptEntry): CanonValue[] {
  return [ceremonyId, e.seq, e.previous, e.atMs, bodyParts(e.body)];
}

/** What the enclave signs of what happened. */
export function entryBytes(ceremonyId: CeremonyId, entry: TranscriptEntry): Uint8Array {
  return canon("keyhold/v1/ceremony-entry", ...entryParts(ceremonyId, entry));
}

/** What the next entry names; after the last one it is the hash of the whole transcript. */
export function entryHash(ceremonyId: CeremonyId, entry: TranscriptEntry): Uint8Array {
  return hashCanon("keyhold/v1/ceremony-entry-hash", ...entryParts(ceremonyId, entry));
}

export function signEntry(enclave: Signer, ceremonyId: CeremonyId, entry: TranscriptEntry): SignedEntry {
  return { entry, signature: enclave.sign(entryBytes(ceremonyId, entry)) };
}

/** True if the enclave of the manifest signed it. */
export function entryHolds(enclave: Uint8Array, ceremonyId: CeremonyId, { entry, signature }: SignedEntry): boolean {
  return verifySignature(enclave, entryBytes(ceremonyId, entry), signature);
}

/** Of what the key store knows of a value: in the value's associated data. */
export function storedKeyHash(r: StoredKeyRecord): Uint8Array {
  return hashCanon(
    "keyhold/v1/stored-key",
    r.enclave,
    r.keyId,
    r.version,
    r.ceremonyId,
    r.name,
    outputParts(r.output),
    [r.policy.collect, r.policy.quorum],
    r.createdAtMs,
  );
}

const keyIdOf = (enclave: Uint8Array, ...origin: CanonValue[]): StoredKeyId =>
  hashId(hashCanon("keyhold/v1/stored-key-id", enclave, ...origin));

/** The id that a key has in the store of the enclave whose ceremony made it. @param ceremony Its id, 32 bytes. */
export function storedKeyIdOf(enclave: Uint8Array, ceremony: Uint8Array): StoredKeyId {
  return keyIdOf(enclave, ceremony);
}

/** The id of a key without a ceremony: no choice of a nonce gives that of another origin. @param nonce 32 bytes. */
export function createdKeyIdOf(enclave: Uint8Array, nonce: Uint8Array): StoredKeyId {
  return keyIdOf(enclave, "nonce", nonce);
}

/** The id of a key that came from another store: of its whole record there, which that store's enclave has signed. */
export function movedKeyIdOf(enclave: Uint8Array, record: StoredKeyRecord): StoredKeyId {
  return keyIdOf(enclave, "parcel", storedKeyHash(record));
}

/** HPKE info of a one-time password that its owner brings to the store (docs/protocol.md §10.7). @param nonce 32 bytes. */
export function broughtInfo(key: CeremonyKey, name: string, output: OutputSpec, nonce: Uint8Array): Uint8Array {
  return canon("keyhold/v1/stored-key-brought", ceremonyKeyHash(key), name, outputParts(output), nonce);
}

function releaseParts(r: Release): CanonValue[] {
  return [r.keyId, r.version, r.ceremonyId, r.index, r.recipient, r.nonce];
}

/** What who wants a value signs. */
export function releaseBytes(release: Release): Uint8Array {
  return canon("keyhold/v1/stored-key-release", ...releaseParts(release));
}

/** What approvals name. */
export function releaseHash(release: Release): Uint8Array {
  return hashCanon("keyhold/v1/stored-key-release-hash", ...releaseParts(release));
}

/** @param key Of the participant or organiser that asks. @throws Fault integrity */
export function verifyRelease({ release, signature }: SignedRelease, key: Uint8Array): Release {
  if (!verifySignature(key, releaseBytes(release), signature)) throw broken("the wish for this value");
  return release;
}

/** What an approving participant signs. */
export function approvalBytes(hash: Uint8Array, index: number): Uint8Array {
  return canon("keyhold/v1/stored-key-approval", hash, index);
}

/** True if the participant with this key approved that release. */
export function approves(approval: ReleaseApproval, hash: Uint8Array, key: Uint8Array): boolean {
  return (
    equalBytes(approval.releaseHash, hash) &&
    verifySignature(key, approvalBytes(hash, approval.index), approval.signature)
  );
}

/** HPKE info of a value that leaves the store. */
export function releaseInfo(record: StoredKeyRecord, hash: Uint8Array): Uint8Array {
  return canon("keyhold/v1/stored-key-value", record.enclave, record.keyId, record.version, hash);
}

/** HPKE info of a participant's secret part of a multisig wallet. */
export function walletPartInfo(ceremonyId: CeremonyId, index: number, recipient: Uint8Array): Uint8Array {
  return canon("keyhold/v1/ceremony-wallet-part", ceremonyId, index, recipient);
}
