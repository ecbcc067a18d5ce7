import { sealedCeremonyKey, sealedSeed } from "../../enclave/api.ts";
import type { CeremonyId, UserId } from "../../ids.ts";
import {
  type AbortReason,
  CEREMONY_STATUSES,
  type CeremonyStatus,
  PARTICIPANTS,
  type ReleaseApproval,
  type SignedCeremonyKey,
  type SignedCeremonyManifest,
  type SignedCeremonyReveal,
  type SignedEntry,
  type SignedRelease,
} from "../../protocol/ceremony/model.ts";
import {
  ceremonyId,
  ENTRIES_MAX,
  releaseApproval,
  sealedOpening,
  sealedOut,
  signedCeremonyKey,
  signedCeremonyManifest,
  signedCeremonyReveal,
  signedEntry,
  signedRelease,
} from "../../wire/ceremony/records.ts";
import { id, list, nullable, oneOf, struct, u53, uint } from "../../wire/codec.ts";
import { type DocumentKind, kindOf } from "../documents.ts";

/** What a server stores of its ceremonies (docs/protocol.md §10.4): nothing secret that its enclave has not sealed. */

/** A key pair for ceremonies: id = its number, owner "", place: the newest first. */
export interface CeremonyKeyBody {
  readonly statement: SignedCeremonyKey;
  /** Private halves; open in this server's enclave alone. */
  readonly sealed: Uint8Array;
  /** When the next one came; null of the newest. */
  readonly replacedAtMs: number | null;
}
export const CEREMONY_KEY: DocumentKind<CeremonyKeyBody> = kindOf(
  "ceremonyKey",
  struct({ statement: signedCeremonyKey, sealed: sealedCeremonyKey, replacedAtMs: nullable(u53) }),
);

/** What never changes of a ceremony: id = ceremony, owner = organiser's account, place: the newest first. */
export interface CeremonyBody {
  readonly manifest: SignedCeremonyManifest;
  /** The server's seed s0; opens in its enclave alone. */
  readonly seed: Uint8Array;
  readonly organiser: UserId;
}
export const CEREMONY: DocumentKind<CeremonyBody> = kindOf(
  "ceremony",
  struct({ manifest: signedCeremonyManifest, seed: sealedSeed, organiser: id<UserId>() }),
);

/**
 * Where a ceremony stands; its version is what changes are compared with: id = ceremony. Owner "" and place = when
 * something is due, while it is open; then owner {@link OVER}, place = when it ended.
 */
export interface HeadBody {
  /** Entries so far. */
  readonly seq: number;
  /** As of the newest entry; time alone may have ended the stage since. */
  readonly status: CeremonyStatus;
  readonly untilMs: number | null;
  /** What the organiser has asked for and is not in the transcript yet: nothing else happens before it. */
  readonly closing: "freeze" | "abort" | null;
  /** How often no key could be made of it. */
  readonly failures: number;
}
export const HEAD: DocumentKind<HeadBody> = kindOf(
  "ceremonyHead",
  struct({
    seq: uint(ENTRIES_MAX),
    status: oneOf(CEREMONY_STATUSES),
    untilMs: nullable(u53),
    closing: nullable(oneOf(["freeze", "abort"])),
    failures: uint(1_000),
  }),
);
/** Owner of the heads of ceremonies that are over. */
export const OVER = "over";

/** What happened: id = ceremony:number, owner = ceremony, place = number. */
export interface EntryRow {
  readonly entry: SignedEntry;
}
export const ENTRY: DocumentKind<EntryRow> = kindOf("ceremonyEntry", struct({ entry: signedEntry }));

/** An opening as it came, sealed to a key for ceremonies; goes at the end: id = ceremony:participant, owner = ceremony. */
export interface OpeningBody {
  readonly index: number;
  readonly keyNumber: number;
  readonly sealed: Uint8Array;
}
const index = uint(PARTICIPANTS.max, 1);
export const OPENING: DocumentKind<OpeningBody> = kindOf(
  "ceremonyOpening",
  struct({ index, keyNumber: uint(0xffff_ffff, 1), sealed: sealedOpening }),
);

/**
 * An opening on its way to the enclave, which may find a lie and say so once: id = ceremony, owner = ceremony. What a
 * crash leaves of it is done first of all.
 */
export interface ArrivingBody {
  readonly reveal: SignedCeremonyReveal;
  readonly sealed: Uint8Array;
}
export const ARRIVING: DocumentKind<ArrivingBody> = kindOf(
  "ceremonyArriving",
  struct({ reveal: signedCeremonyReveal, sealed: sealedOpening }),
);

/**
 * An entry that the server has asked its enclave for, of those that are signed once: id = ceremony, owner = ceremony.
 * What a crash leaves of it is asked for again before anything else.
 */
export interface AskedBody {
  /** The freeze, or the reason of an abort. */
  readonly entry: "freeze" | Exclude<AbortReason, "lied">;
}
export const ASKED: DocumentKind<AskedBody> = kindOf(
  "ceremonyAsked",
  struct({ entry: oneOf(["freeze", "absent", "withheld", "closed", "failed"]) }),
);

/** A participant's secret part of a multisig wallet, sealed to it: id = ceremony:participant, owner = ceremony. */
export interface PartBody {
  readonly sealed: Uint8Array;
}
export const PART: DocumentKind<PartBody> = kindOf("ceremonyPart", struct({ sealed: sealedOut }));

/** A wish for the value: id = ceremony:its hash in hexadecimal, owner = ceremony, place = when it came. */
export interface ReleaseBody {
  readonly release: SignedRelease;
  readonly approvals: readonly ReleaseApproval[];
  /** The value, sealed to who asked; null while participants must agree. */
  readonly sealed: Uint8Array | null;
}
export const RELEASE: DocumentKind<ReleaseBody> = kindOf(
  "ceremonyRelease",
  struct({
    release: signedRelease,
    approvals: list(releaseApproval, { max: PARTICIPANTS.max }),
    sealed: nullable(sealedOut),
  }),
);

/** The ceremony that a draft became: id = its nonce in hexadecimal, owner = account. */
export interface DraftBody {
  readonly ceremonyId: CeremonyId;
}
export const DRAFT: DocumentKind<DraftBody> = kindOf("ceremonyDraft", struct({ ceremonyId }));

/** An open ceremony of an account: id = ceremony, owner = account. */
export const OPEN: DocumentKind<object> = kindOf("ceremonyOpen", struct({}));

/** An open ceremony that needs a key for ceremonies: id = ceremony, owner = {@link keyOwner}. */
export const KEY_USE: DocumentKind<object> = kindOf("ceremonyKeyUse", struct({}));
export const keyOwner = (number: number): string => `ceremonyKey:${number}`;

/** A key of the store that gets its next version of an open ceremony: id = key, owner = ceremony. */
export const REPLACING: DocumentKind<object> = kindOf("ceremonyReplacing", struct({}));

/** A seat that waits for an account: id = ceremony:credential id, owner = {@link seatOwner}, place as the ceremony's. */
export interface SeatBody {
  readonly index: number;
}
export const SEAT: DocumentKind<SeatBody> = kindOf("ceremonySeat", struct({ index }));
export const seatOwner = (credentialId: Uint8Array): string => `seat:${credentialId.toHex()}`;
export const seatId = (ceremony: CeremonyId, credentialId: Uint8Array): string => `${ceremony}:${credentialId.toHex()}`;

/** Place of what is listed newest first. */
export const newestFirst = (number: number): number => Number.MAX_SAFE_INTEGER - number;

/** Id of what a ceremony has by number. */
export const numbered = (ceremony: CeremonyId, number: number): string => `${ceremony}:${number}`;
