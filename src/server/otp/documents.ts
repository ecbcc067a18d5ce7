import type { IncarnationId, OtpAskId, StoredKeyId, UserId } from "../../ids.ts";
import type { OtpPosition } from "../../protocol/otpwindow.ts";
import { RATE_SLOTS_MAX, type RateSlot } from "../../protocol/ratewindow.ts";
import { sealedOut, storedKeyId, storeName } from "../../wire/ceremony/records.ts";
import {
  bool,
  bytes,
  hashIdOf,
  id,
  list,
  nullable,
  type Of,
  oneOf,
  struct,
  tagged,
  text,
  u53,
  uint,
} from "../../wire/codec.ts";
import { parcel, WANTS } from "../../wire/otp/operations.ts";
import { hash32 } from "../../wire/records.ts";
import { type DocumentKind, keptKindOf, kindOf } from "../documents.ts";

/** What the distribution server stores (docs/protocol.md §10.8): no code, and no value that its enclave has not sealed. */

const rateSlots = list(struct({ atMs: u53, count: uint() }), { max: RATE_SLOTS_MAX });

/** Who may ask. An account is known by its credential id, so that grants work for names that do not exist yet. */
export type StoredRequester =
  | {
      readonly kind: "account";
      readonly credentialId: Uint8Array;
      /** Sealed under a key of its own: {@link sealRequesterName}. */
      readonly name: Uint8Array;
    }
  | { readonly kind: "device"; readonly key: Uint8Array };
const storedRequester = tagged("kind", {
  account: struct({ credentialId: hash32, name: bytes({ min: 40, max: 512 }) }),
  device: struct({ key: hash32 }),
});

/** Where a key stands: id = key, owner = its issuer. Made with the first hand-out or check. */
export interface StateBody extends OtpPosition {
  /** Of the stored key: another version has another secret and begins anew. */
  readonly version: number;
  /** Life of the server in which this was written. */
  readonly incarnation: IncarnationId;
  /** {@link requesterName} of who has the key in an authenticator. */
  readonly provisionedTo: string | null;
  /** {@link requesterName} of who was handed the step before `next`; null of a `hotp`. */
  readonly lastTo: string | null;
  /** Hand-outs of the last minute. */
  readonly recent: readonly RateSlot[];
}
export const OTP_STATE: DocumentKind<StateBody> = keptKindOf(
  "otpState",
  struct({
    next: u53,
    floor: u53,
    used: list(u53, { max: 8 }),
    unsure: bool,
    version: uint(0xffff_ffff, 1),
    incarnation: id<IncarnationId>(),
    provisionedTo: nullable(text({ min: 66, max: 66 })),
    lastTo: nullable(text({ min: 66, max: 66 })),
    recent: rateSlots,
  }),
);

/** What a requester may have of a key: id = key:{@link requesterName}, owner = key, place = when it was made. */
export interface GrantBody {
  /** 32 hexadecimal digits; another one after a revocation. */
  readonly grantId: string;
  readonly to: StoredRequester;
  /** The first account of that name that there was: who takes the name later has no grant. */
  readonly userId: UserId | null;
  readonly wants: readonly (typeof WANTS)[number][];
  readonly perHour: number | null;
  readonly untilMs: number | null;
  /** Hand-outs of the last hour. */
  readonly recent: readonly RateSlot[];
}
export const GRANT: DocumentKind<GrantBody> = keptKindOf(
  "otpGrant",
  struct({
    grantId: text({ min: 32, max: 32 }),
    to: storedRequester,
    userId: nullable(id<UserId>()),
    wants: list(oneOf(WANTS), { min: 1, max: 2 }),
    perHour: nullable(uint(1_000_000, 1)),
    untilMs: nullable(u53),
    recent: rateSlots,
  }),
);

/** The same, found by its account: id as the grant's, owner = {@link grantedOwner}. */
export const GRANTED: DocumentKind<{ readonly keyId: StoredKeyId }> = kindOf(
  "otpGranted",
  struct({ keyId: storedKeyId }),
);
export const grantedOwner = (credentialId: Uint8Array): string => `granted:${credentialId.toHex()}`;

/** `allocated`: its counter is taken, and nothing has left the server yet. */
const STATES = ["allocated", "open", "used", "revoked", "provisioned"] as const;

/** One hand-out: id = ask, owner = key, place: the newest first. */
export interface HandoutBody {
  readonly want: (typeof WANTS)[number];
  readonly to: StoredRequester;
  readonly grantId: string;
  readonly state: (typeof STATES)[number];
  /** Counter or step of the code; of a provisioning the first one of the authenticator. */
  readonly counter: number;
  readonly version: number;
  readonly incarnation: IncarnationId;
  /** To the ask's own key; null while only allocated. */
  readonly sealed: Uint8Array | null;
  /** Of the code, 16 bytes. */
  readonly tag: Uint8Array | null;
  readonly atMs: number;
  readonly expiresAtMs: number;
  readonly usedAtMs: number | null;
}
const tag = bytes({ length: 16 });
export const HANDOUT: DocumentKind<HandoutBody> = keptKindOf(
  "otpHandout",
  struct({
    want: oneOf(WANTS),
    to: storedRequester,
    grantId: text({ min: 32, max: 32 }),
    state: oneOf(STATES),
    counter: u53,
    version: uint(0xffff_ffff, 1),
    incarnation: id<IncarnationId>(),
    sealed: nullable(sealedOut),
    tag: nullable(tag),
    atMs: u53,
    expiresAtMs: u53,
    usedAtMs: nullable(u53),
  }),
);

const askId = hashIdOf<OtpAskId>();

/** The newest hand-out of a code: id = {@link tagId}, owner "", place = its time, so that new ones lie together. */
export const TAG: DocumentKind<{ readonly askId: OtpAskId }> = kindOf("otpTag", struct({ askId }));
export const tagId = (keyId: StoredKeyId, tagOfCode: Uint8Array): string => `${keyId}:${tagOfCode.toHex()}`;

export const MINUTE = 60_000;
/** The minute of a time, counted from 1970. */
export const minuteOf = (ms: number): number => Math.floor(ms / MINUTE);

/** When the first hand-out of a key's minute is forgotten: id = {@link dueId}, owner "", place = that time. */
export interface DueBody {
  readonly keyId: StoredKeyId;
  readonly minute: number;
}
export const DUE: DocumentKind<DueBody> = kindOf("otpMinute", struct({ keyId: storedKeyId, minute: u53 }));
export const dueId = (keyId: StoredKeyId, minute: number): string => `${keyId}:${minute}`;

/** A token for relying services: id = its hash in hexadecimal, owner = key, place = when it was made. */
export interface TokenBody {
  readonly keyId: StoredKeyId;
  /** The issuer who made it: it speaks for nobody else. */
  readonly userId: UserId;
  readonly name: string;
  readonly hash: Uint8Array;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
}
export const TOKEN: DocumentKind<TokenBody> = kindOf(
  "otpToken",
  struct({
    keyId: storedKeyId,
    userId: id<UserId>(),
    name: storeName,
    hash: hash32,
    createdAtMs: u53,
    expiresAtMs: u53,
  }),
);

/** A parcel with which a key has left: id = key, owner = its issuer. */
export interface ParcelBody {
  readonly parcel: Of<typeof parcel>;
}
export const PARCEL: DocumentKind<ParcelBody> = kindOf("otpParcel", struct({ parcel }));

/** A key that came in a parcel: id = key, owner = its issuer. */
export const ARRIVAL: DocumentKind<{ readonly parcelHash: Uint8Array }> = kindOf(
  "otpArrival",
  struct({ parcelHash: hash32 }),
);

/** A key about which something is stored here: id = key, owner "", so that nothing outlives its issuer's account. */
export const KNOWN_KEY: DocumentKind<object> = kindOf("otpKey", struct({}));

/** Place of what is listed newest first. */
export const newestFirst = (ms: number): number => Number.MAX_SAFE_INTEGER - ms;
