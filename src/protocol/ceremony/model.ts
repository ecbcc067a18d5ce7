import type { CeremonyId, StoredKeyId } from "../../ids.ts";
import type { OtpAlgorithm } from "../otpalgorithm.ts";

/** Functions among which each participant chooses its own (docs/protocol.md §10.3). */
export const CEREMONY_FUNCTIONS = ["hkdf-sha256", "hkdf-sha512", "hmac-drbg", "argon2id"] as const;
export type CeremonyFunction = (typeof CEREMONY_FUNCTIONS)[number];

/** Participants of one ceremony. */
export const PARTICIPANTS = { min: 2, max: 256 } as const;

/** Where a ceremony stands (docs/protocol.md §10.4); the last two are final. */
export const CEREMONY_STATUSES = ["open", "commit", "freeze", "reveal", "combine", "stored", "aborted"] as const;
export type CeremonyStatus = (typeof CEREMONY_STATUSES)[number];

/** Why a ceremony ended without a key. */
export const ABORT_REASONS = ["absent", "withheld", "lied", "closed", "failed"] as const;
/**
 * `absent`: fewer than the minimum committed in time; `withheld`: did not reveal in time; `lied`: revealed something
 * else than was committed to; `closed`: its organiser ended it; `failed`: no key could be made of it.
 */
export type AbortReason = (typeof ABORT_REASONS)[number];

/** What becomes of the ceremony's key K (docs/protocol.md §10.6). */
export type OutputSpec =
  | {
      readonly kind: "totp";
      readonly algorithm: OtpAlgorithm;
      /** 6 to 10. */
      readonly digits: number;
      /** Seconds, 1 to 86,400. */
      readonly period: number;
      readonly issuer: string;
      readonly label: string;
    }
  | {
      readonly kind: "hotp";
      readonly algorithm: OtpAlgorithm;
      readonly digits: number;
      readonly issuer: string;
      readonly label: string;
    }
  /** 1 to 1,024 bytes. */
  | { readonly kind: "bytes"; readonly length: number }
  /** 32 bytes that are mixed into signatures (RFC 6979 §3.6), never a nonce themselves. */
  | { readonly kind: "hedge" }
  | { readonly kind: "secp256k1" | "p256" | "ed25519" }
  /** 2,048, 3,072 or 4,096. */
  | { readonly kind: "rsa"; readonly bits: number }
  /** 12 or 24. */
  | { readonly kind: "bip39"; readonly words: number }
  /** A wallet of one key a participant, of which the server never sees a private half. */
  | {
      readonly kind: "multisig";
      readonly threshold: number;
      readonly network: "mainnet" | "testnet" | "signet" | "regtest";
    };

export const OUTPUT_KINDS = [
  "totp",
  "hotp",
  "bytes",
  "hedge",
  "secp256k1",
  "p256",
  "ed25519",
  "rsa",
  "bip39",
  "multisig",
] as const satisfies readonly OutputSpec["kind"][];

/** Who may take the value out of the key store, sealed to them. */
export const COLLECTORS = ["nobody", "organiser", "participants"] as const;

/** Under which conditions a value leaves the key store; fixed by the manifest that everyone committed to. */
export interface StorePolicy {
  readonly collect: (typeof COLLECTORS)[number];
  /** Participants who must sign that a value may leave; 0 to all. */
  readonly quorum: number;
}

/** A stage lasts 90 days at most. */
export const STAGE_MAX_MS = 90 * 86_400_000;

/** A key pair to which openings are sealed, as the server's identity states it (docs/protocol.md §10.1). */
export interface CeremonyKey {
  /** Ed25519 identity of the server, which its pin names, 32 bytes. */
  readonly server: Uint8Array;
  /** Ed25519 key with which its enclave signs what happens in ceremonies, 32 bytes. */
  readonly enclave: Uint8Array;
  /** From 1; each rotation the next. */
  readonly number: number;
  /** X25519 for HPKE, 32 bytes. */
  readonly sealing: Uint8Array;
  /** RSA-3072 for OAEP with SHA-256: SubjectPublicKeyInfo DER. */
  readonly rsa: Uint8Array;
  readonly createdAtMs: number;
}

export interface SignedCeremonyKey {
  readonly key: CeremonyKey;
  /** By the server's identity. */
  readonly signature: Uint8Array;
  /** By the enclave: both say that they belong together. */
  readonly enclaveSignature: Uint8Array;
}

/** A seat at a ceremony. */
export interface Slot {
  /** 1, 2, 3 …, in order. */
  readonly index: number;
  /** As its organiser calls the participant: 1 to 64 characters. */
  readonly name: string;
  /** Ed25519 key of its one-time invite, 32 bytes; null for a seat that an account takes. */
  readonly invite: Uint8Array | null;
  /** Name of the account at the server that may take it; otherwise null. */
  readonly account: string | null;
}

/** What an organiser asks for. */
export interface CeremonyDraft {
  /** Newest key of the server. */
  readonly key: SignedCeremonyKey;
  /** Ed25519 key of the organiser for this ceremony, 32 bytes. */
  readonly organiser: Uint8Array;
  /** 1 to 64 lower-case letters, digits, `.` `_` `-`: what the key is called in the store. */
  readonly name: string;
  /** For participants: what the key is for, 1 to 256 characters. */
  readonly purpose: string;
  readonly output: OutputSpec;
  readonly policy: StorePolicy;
  readonly slots: readonly Slot[];
  /** Participants without whom there is no key; 2 to all. */
  readonly minimum: number;
  /** How long each stage lasts at most. */
  readonly commitMs: number;
  readonly revealMs: number;
  /** Run that was aborted and that this one repeats. */
  readonly previous: { readonly ceremonyId: CeremonyId; readonly transcriptHash: Uint8Array } | null;
  /** Key of the store that gets another version; the same organiser's. */
  readonly replaces: StoredKeyId | null;
  /** 32 random bytes. */
  readonly nonce: Uint8Array;
}

/** What all participants commit to: the draft, and the server's commitment to its own seed s0. */
export interface CeremonyManifest {
  readonly draft: CeremonyDraft;
  readonly organiserSignature: Uint8Array;
  readonly seedHash: Uint8Array;
  readonly openedAtMs: number;
}

export interface SignedCeremonyManifest {
  readonly manifest: CeremonyManifest;
  /** By the enclave. */
  readonly signature: Uint8Array;
}

/** A participant's commitment, which takes its seat. */
export interface CeremonyJoin {
  readonly ceremonyId: CeremonyId;
  readonly index: number;
  /** Ed25519 one-time key of the participant, 32 bytes. */
  readonly key: Uint8Array;
  /** X25519 to which values for it are sealed, 32 bytes. */
  readonly sealing: Uint8Array;
  /** Of a multisig wallet: its own secp256k1 point, 33 bytes; otherwise null. */
  readonly share: Uint8Array | null;
  readonly function: CeremonyFunction;
  readonly commitment: Uint8Array;
}

export interface SignedCeremonyJoin {
  readonly join: CeremonyJoin;
  /** By the seat's invite key. */
  readonly invitation: Uint8Array;
  /** By the participant's key. */
  readonly signature: Uint8Array;
}

/** An opening that was sealed to the server: what the participant signs of it. */
export interface CeremonyReveal {
  readonly ceremonyId: CeremonyId;
  readonly index: number;
  readonly t1: Uint8Array;
  /** The manifest's key, by its number, and how. */
  readonly keyNumber: number;
  readonly suite: "hpke" | "rsa-oaep";
  /** SHA-256 of the sealed opening. */
  readonly sealedHash: Uint8Array;
}

export interface SignedCeremonyReveal {
  readonly reveal: CeremonyReveal;
  readonly signature: Uint8Array;
}

/** What everyone may know of the key that was made. */
export interface PublicOutput {
  /** Of a key pair: compressed point, Ed25519 key, or SubjectPublicKeyInfo DER of RSA; otherwise null. */
  readonly publicKey: Uint8Array | null;
  /** Of a multisig wallet: the output descriptor with its checksum; otherwise null. */
  readonly descriptor: string | null;
  /** Of a multisig wallet: compressed points by participant; otherwise none. */
  readonly keys: readonly { readonly index: number; readonly publicKey: Uint8Array }[];
}

/** What happened, in the order in which the enclave signed it (docs/protocol.md §10.5). */
export type EntryBody =
  /** An account took a seat: from now on this key is the seat's invite key. */
  | { readonly kind: "seat"; readonly index: number; readonly invite: Uint8Array }
  | { readonly kind: "join"; readonly join: SignedCeremonyJoin }
  /** No more joins: T1 over all of them, and then the server's seed. */
  | { readonly kind: "freeze"; readonly t1: Uint8Array; readonly seed: Uint8Array }
  /** The enclave has opened it, and it is what was committed to. */
  | { readonly kind: "reveal"; readonly reveal: SignedCeremonyReveal }
  | {
      readonly kind: "result";
      readonly t2: Uint8Array;
      /** Of the ceremony's key K. */
      readonly keyHash: Uint8Array;
      readonly output: PublicOutput;
      /** Where it lies; null of a multisig wallet, of which nothing is stored. */
      readonly stored: { readonly keyId: StoredKeyId; readonly version: number } | null;
      readonly custody: "custodial" | "self-custodial";
    }
  | {
      readonly kind: "abort";
      readonly reason: AbortReason;
      /** Indexes of those who withheld, lied or stayed away. */
      readonly culprits: readonly number[];
      /** Of a lie: what the culprit signed. */
      readonly reveal: SignedCeremonyReveal | null;
    };

export interface TranscriptEntry {
  /** From 1. */
  readonly seq: number;
  /** Hash of the entry before, of the first one the ceremony's id as bytes: 32 bytes. */
  readonly previous: Uint8Array;
  /** By the server's clock. */
  readonly atMs: number;
  readonly body: EntryBody;
}

export interface SignedEntry {
  readonly entry: TranscriptEntry;
  /** By the enclave. */
  readonly signature: Uint8Array;
}

/** A ceremony as anyone may see it: its state is what these say (docs/protocol.md §10.4). */
export interface Transcript {
  readonly manifest: SignedCeremonyManifest;
  readonly entries: readonly SignedEntry[];
}

/** What the key store knows of a value beside it; its hash is in the value's associated data. */
export interface StoredKeyRecord {
  /** Ed25519 key of the enclave that sealed it, 32 bytes. */
  readonly enclave: Uint8Array;
  readonly keyId: StoredKeyId;
  readonly version: number;
  /** Ceremony that made it; null where the enclave drew it, or its owner brought it. */
  readonly ceremonyId: CeremonyId | null;
  readonly name: string;
  readonly output: OutputSpec;
  readonly policy: StorePolicy;
  readonly createdAtMs: number;
}

/** A wish to take a value out of the key store. */
export interface Release {
  readonly keyId: StoredKeyId;
  readonly version: number;
  readonly ceremonyId: CeremonyId;
  /** Participant that asks; 0 for the organiser. */
  readonly index: number;
  /** X25519 to which the value is to be sealed, 32 bytes. */
  readonly recipient: Uint8Array;
  readonly nonce: Uint8Array;
}

export interface SignedRelease {
  readonly release: Release;
  /** By the key of the participant or organiser. */
  readonly signature: Uint8Array;
}

/** A participant's word that a value may leave. */
export interface ReleaseApproval {
  readonly releaseHash: Uint8Array;
  readonly index: number;
  readonly signature: Uint8Array;
}
