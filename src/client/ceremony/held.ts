import { ABORT_REASONS, CEREMONY_FUNCTIONS, CEREMONY_STATUSES, PARTICIPANTS } from "../../protocol/ceremony/model.ts";
import {
  ceremonyDraft,
  ceremonyId,
  ENTRIES_MAX,
  sealedOpening,
  signedCeremonyJoin,
  signedCeremonyManifest,
  signedCeremonyReveal,
  signedRelease,
  storedKeyId,
} from "../../wire/ceremony/records.ts";
import { bool, bytes, type Codec, list, nullable, type Of, oneOf, struct, text, u53, uint } from "../../wire/codec.ts";
import { serverPin, serverUrl } from "../../wire/federation/records.ts";
import { otpAsk } from "../../wire/otp/operations.ts";
import { hash32, signature } from "../../wire/records.ts";

/** Ceremonies, unanswered drafts and asks, and pinned keys of servers of one vault at most; the oldest finished go. */
export const CEREMONY_MAX = { ceremonies: 256, drafts: 16, keys: 1_024, asks: 256 } as const;

const index = uint(PARTICIPANTS.max, 1);
const seed = bytes({ length: 32 });

/** A key pair for ceremonies as it was first seen: no other one has this number. */
const keyPin = struct({
  /** Ed25519 identity of the server. */
  server: hash32,
  number: uint(0xffff_ffff, 1),
  /** `ceremonyKeyHash`. */
  hash: hash32,
});

/** How a ceremony stood when its transcript was verified last. */
const seen = struct({
  /** Newest entry, 0 for none: what the server shows later goes on from there. */
  seq: uint(ENTRIES_MAX),
  hash: hash32,
  status: oneOf(CEREMONY_STATUSES),
  untilMs: nullable(u53),
  seats: list(
    struct({
      index,
      state: oneOf(["waiting", "committed", "revealed", "withheld", "lied", "absent"]),
      function: nullable(oneOf(CEREMONY_FUNCTIONS)),
    }),
    { max: PARTICIPANTS.max },
  ),
  aborted: nullable(struct({ reason: oneOf(ABORT_REASONS), culprits: list(index, { max: PARTICIPANTS.max }) })),
  result: nullable(
    struct({
      stored: nullable(struct({ keyId: storedKeyId, version: uint(0xffff_ffff, 1) })),
      custody: oneOf(["custodial", "self-custodial"]),
      keyHash: hash32,
      publicKey: nullable(bytes({ min: 32, max: 600 })),
      descriptor: nullable(text({ min: 1, max: 2_048 })),
    }),
  ),
});

/** What this vault has in a ceremony as a participant; written before anything of it is sent. */
const own = struct({
  index,
  /** Seed of its Ed25519 key, of the X25519 key, and of the invite's key. */
  keySeed: seed,
  sealingSeed: seed,
  inviteSeed: seed,
  /** What it committed to; kept after the end, so that anyone can verify. */
  opening: seed,
  /** Of a multisig wallet: its own secp256k1 scalar; otherwise null. */
  scalar: nullable(seed),
  /** Of a multisig wallet, after its end: what the ceremony adds to the scalar. */
  part: nullable(seed),
  suite: oneOf(["hpke", "rsa-oaep"]),
  /** As it was sent: again the same. */
  join: signedCeremonyJoin,
  /** Sequence of the entry that acknowledges it; null before. */
  joinedSeq: nullable(uint(ENTRIES_MAX, 1)),
  reveal: nullable(struct({ reveal: signedCeremonyReveal, sealed: sealedOpening })),
  revealedSeq: nullable(uint(ENTRIES_MAX, 1)),
});

/** A ceremony in which this vault has a part. */
const noted = struct({
  url: serverUrl,
  pin: serverPin,
  /** PEM of the server's identity as certificate authority; null before first contact. */
  caPem: nullable(text({ min: 1, max: 65_536 })),
  statementNumber: u53,
  ceremonyId,
  manifest: signedCeremonyManifest,
  addedAtMs: u53,
  seen,
  own: nullable(own),
  /** Where this vault opened it: seeds of the organiser's key and of the invites. */
  organiser: nullable(struct({ seed, invites: list(struct({ index, seed }), { max: PARTICIPANTS.max }) })),
  /** A wish for the value, sent again as it was. */
  asked: nullable(struct({ release: signedRelease, recipientSeed: seed })),
  /** When this vault took the value, or its own key of a wallet, for the first time; null before. */
  collectedAtMs: nullable(u53),
});

/** Vaults from before it was noted do not say whether the value was taken. */
const ceremony: Codec<Of<typeof noted>> = {
  ...noted,
  decode: (value, path) =>
    noted.decode(typeof value === "object" && value !== null ? { collectedAtMs: null, ...value } : value, path),
};

/** A draft that was signed, and of which no answer has come. */
const openingDraft = struct({
  url: serverUrl,
  pin: serverPin,
  draft: ceremonyDraft,
  signature,
  seed,
  invites: list(struct({ index, seed }), { max: PARTICIPANTS.max }),
});

/** An ask for a code whose answer has not come; of a provisioning for good. */
const heldAsk = struct({
  ask: otpAsk,
  /** Asked as a device, not as an account. */
  device: bool,
  recipientSeed: seed,
});

/** Fields of the vault's body that are there once it has to do with ceremonies (docs/protocol.md §7.3). */
export const ceremonyFields = {
  ceremonyKeyPins: list(keyPin, { max: CEREMONY_MAX.keys }),
  ceremonies: list(ceremony, { max: CEREMONY_MAX.ceremonies }),
  ceremonyDrafts: list(openingDraft, { max: CEREMONY_MAX.drafts }),
  /** Seed of the key with which this vault asks distribution servers where it has no account. */
  otpDeviceSeed: nullable(seed),
  otpAsks: list(heldAsk, { max: CEREMONY_MAX.asks }),
};

export type Seen = Of<typeof seen>;
export type HeldOwn = Of<typeof own>;
export type HeldCeremony = Of<typeof ceremony>;
export type OpeningDraft = Of<typeof openingDraft>;
export type HeldAsk = Of<typeof heldAsk>;

/** All that a vault holds of ceremonies and one-time codes. */
export type HeldCeremonies = { readonly [K in keyof typeof ceremonyFields]: Of<(typeof ceremonyFields)[K]> };

/** A vault that has nothing to do with ceremonies. */
export const NO_CEREMONIES: HeldCeremonies = {
  ceremonyKeyPins: [],
  ceremonies: [],
  ceremonyDrafts: [],
  otpDeviceSeed: null,
  otpAsks: [],
};

/** The fields of a body that are {@link HeldCeremonies}'s. */
export function ceremoniesOf(body: HeldCeremonies): HeldCeremonies {
  return {
    ceremonyKeyPins: body.ceremonyKeyPins,
    ceremonies: body.ceremonies,
    ceremonyDrafts: body.ceremonyDrafts,
    otpDeviceSeed: body.otpDeviceSeed,
    otpAsks: body.otpAsks,
  };
}
