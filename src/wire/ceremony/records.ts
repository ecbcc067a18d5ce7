import type { CeremonyId, StoredKeyId } from "../../ids.ts";
import {
  ABORT_REASONS,
  CEREMONY_FUNCTIONS,
  type CeremonyDraft,
  type CeremonyKey,
  COLLECTORS,
  type EntryBody,
  type OutputSpec,
  PARTICIPANTS,
  type PublicOutput,
  type Release,
  type ReleaseApproval,
  type SignedCeremonyJoin,
  type SignedCeremonyKey,
  type SignedCeremonyManifest,
  type SignedCeremonyReveal,
  type SignedEntry,
  type SignedRelease,
  STAGE_MAX_MS,
  type StoredKeyRecord,
  type StorePolicy,
} from "../../protocol/ceremony/model.ts";
import { OTP_ALGORITHMS } from "../../protocol/otpalgorithm.ts";
import { accountName } from "../accountname.ts";
import { bytes, type Codec, hashIdOf, list, nullable, oneOf, struct, tagged, text, u53, uint } from "../codec.ts";
import { hash32, signature } from "../records.ts";

/** Codecs of ceremonies and of the key store (docs/protocol.md §10). Limits in bytes. */

export const ceremonyId = hashIdOf<CeremonyId>();
export const storedKeyId = hashIdOf<StoredKeyId>();
/** Names of keys in the store. */
export const storeName = text({ min: 1, max: 64, pattern: /^[a-z0-9][a-z0-9._-]{0,63}$/ });
/** Text for people: no control characters. */
const shown = (max: number) => text({ min: 1, max, pattern: /^[^\p{C}]+$/u });
/** What a key is for, as participants read it. */
export const ceremonyPurpose = shown(256);
/** What a participant is called. */
export const seatName = shown(64);
/** The same, or nothing. */
const shownOrEmpty = (max: number) => text({ max, pattern: /^[^\p{C}]*$/u });
const index = uint(PARTICIPANTS.max, 1);
const point = bytes({ length: 33 });

export const ceremonyKey: Codec<CeremonyKey> = struct({
  server: hash32,
  enclave: hash32,
  number: uint(0xffff_ffff, 1),
  sealing: hash32,
  rsa: bytes({ min: 400, max: 480 }),
  createdAtMs: u53,
});
export const signedCeremonyKey: Codec<SignedCeremonyKey> = struct({
  key: ceremonyKey,
  signature,
  enclaveSignature: signature,
});

const algorithm = oneOf(OTP_ALGORITHMS);
const digits = uint(10, 6);
const label = shown(128);
const plainKind = struct({});
export const outputSpec: Codec<OutputSpec> = tagged("kind", {
  totp: struct({ algorithm, digits, period: uint(86_400, 1), issuer: shownOrEmpty(128), label }),
  hotp: struct({ algorithm, digits, issuer: shownOrEmpty(128), label }),
  bytes: struct({ length: uint(1_024, 1) }),
  hedge: plainKind,
  secp256k1: plainKind,
  p256: plainKind,
  ed25519: plainKind,
  rsa: struct({ bits: uint(4_096, 2_048) }),
  bip39: struct({ words: uint(24, 12) }),
  multisig: struct({ threshold: uint(15, 1), network: oneOf(["mainnet", "testnet", "signet", "regtest"]) }),
}) as Codec<OutputSpec>;

export const storePolicy: Codec<StorePolicy> = struct({ collect: oneOf(COLLECTORS), quorum: uint(PARTICIPANTS.max) });

const slot = struct({ index, name: seatName, invite: nullable(hash32), account: nullable(accountName) });
const stage = uint(STAGE_MAX_MS, 1_000);

export const ceremonyDraft: Codec<CeremonyDraft> = struct({
  key: signedCeremonyKey,
  organiser: hash32,
  name: storeName,
  purpose: ceremonyPurpose,
  output: outputSpec,
  policy: storePolicy,
  slots: list(slot, { min: PARTICIPANTS.min, max: PARTICIPANTS.max }),
  minimum: uint(PARTICIPANTS.max, PARTICIPANTS.min),
  commitMs: stage,
  revealMs: stage,
  previous: nullable(struct({ ceremonyId, transcriptHash: hash32 })),
  replaces: nullable(storedKeyId),
  nonce: hash32,
});

export const signedCeremonyManifest: Codec<SignedCeremonyManifest> = struct({
  manifest: struct({ draft: ceremonyDraft, organiserSignature: signature, seedHash: hash32, openedAtMs: u53 }),
  signature,
});

export const signedCeremonyJoin: Codec<SignedCeremonyJoin> = struct({
  join: struct({
    ceremonyId,
    index,
    key: hash32,
    sealing: hash32,
    share: nullable(point),
    function: oneOf(CEREMONY_FUNCTIONS),
    commitment: hash32,
  }),
  invitation: signature,
  signature,
});

export const signedCeremonyReveal: Codec<SignedCeremonyReveal> = struct({
  reveal: struct({
    ceremonyId,
    index,
    t1: hash32,
    keyNumber: uint(0xffff_ffff, 1),
    suite: oneOf(["hpke", "rsa-oaep"]),
    sealedHash: hash32,
  }),
  signature,
});

/** An opening under HPKE (80 bytes) or RSA-3072-OAEP (384). */
export const sealedOpening = bytes({ min: 80, max: 384 });

export const publicOutput: Codec<PublicOutput> = struct({
  publicKey: nullable(bytes({ min: 32, max: 600 })),
  descriptor: nullable(text({ min: 1, max: 2_048 })),
  keys: list(struct({ index, publicKey: point }), { max: PARTICIPANTS.max }),
});

const entryBody: Codec<EntryBody> = tagged("kind", {
  seat: struct({ index, invite: hash32 }),
  join: struct({ join: signedCeremonyJoin }),
  freeze: struct({ t1: hash32, seed: hash32 }),
  reveal: struct({ reveal: signedCeremonyReveal }),
  result: struct({
    t2: hash32,
    keyHash: hash32,
    output: publicOutput,
    stored: nullable(struct({ keyId: storedKeyId, version: uint(0xffff_ffff, 1) })),
    custody: oneOf(["custodial", "self-custodial"]),
  }),
  abort: struct({
    reason: oneOf(ABORT_REASONS),
    culprits: list(index, { max: PARTICIPANTS.max }),
    reveal: nullable(signedCeremonyReveal),
  }),
}) as Codec<EntryBody>;

/** Entries of one ceremony: a seat, a join and a reveal of each, the freeze and the end. */
export const ENTRIES_MAX = 3 * PARTICIPANTS.max + 2;

export const signedEntry: Codec<SignedEntry> = struct({
  entry: struct({ seq: uint(ENTRIES_MAX, 1), previous: hash32, atMs: u53, body: entryBody }),
  signature,
});

export const storedKeyRecord: Codec<StoredKeyRecord> = struct({
  enclave: hash32,
  keyId: storedKeyId,
  version: uint(0xffff_ffff, 1),
  ceremonyId: nullable(ceremonyId),
  name: storeName,
  output: outputSpec,
  policy: storePolicy,
  createdAtMs: u53,
});

const release: Codec<Release> = struct({
  keyId: storedKeyId,
  version: uint(0xffff_ffff, 1),
  ceremonyId,
  index: uint(PARTICIPANTS.max),
  recipient: hash32,
  nonce: hash32,
});
export const signedRelease: Codec<SignedRelease> = struct({ release, signature });
export const releaseApproval: Codec<ReleaseApproval> = struct({ releaseHash: hash32, index, signature });

/** A value of the store, sealed to somebody else's key. */
export const sealedOut = bytes({ min: 48, max: 16_384 });
