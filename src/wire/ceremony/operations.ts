import { CEREMONY_STATUSES, PARTICIPANTS } from "../../protocol/ceremony/model.ts";
import { bool, list, nullable, oneOf, struct, u53, uint } from "../codec.ts";
import { op } from "../operation.ts";
import { hash32, signature } from "../records.ts";
import {
  ceremonyDraft,
  ceremonyId,
  releaseApproval,
  sealedOpening,
  sealedOut,
  signedCeremonyJoin,
  signedCeremonyKey,
  signedCeremonyManifest,
  signedCeremonyReveal,
  signedEntry,
  signedRelease,
  storeName,
} from "./records.ts";

const empty = struct({});
const index = uint(PARTICIPANTS.max, 1);

/** Entries in one answer. */
export const ENTRIES_PAGE = 64;

/** A wish to take the value out of the store, and who has agreed so far. */
const releaseView = struct({
  release: signedRelease,
  approvals: list(releaseApproval, { max: PARTICIPANTS.max }),
  atMs: u53,
  /** The value has left the store, sealed to who asked. */
  done: bool,
});

/** A ceremony in lists. */
const ceremonyRow = struct({
  ceremonyId,
  name: storeName,
  status: oneOf(CEREMONY_STATUSES),
  /** The account opened it. */
  own: bool,
  /** Seat that the manifest keeps for the account, taken or not; null for none. */
  seat: nullable(index),
  openedAtMs: u53,
});

/** Operations of ceremonies (docs/protocol.md §10.4). Who has a ceremony's id may read its transcript. */
export const ceremonyOperations = {
  /** The server's key pairs: the newest first, then those in use by open ceremonies. */
  "ceremony.keys": op("none", false, empty, struct({ items: list(signedCeremonyKey, { min: 1, max: 8 }), atMs: u53 })),
  /** Opens a ceremony; its key goes to the caller's entries of the store. */
  "ceremony.open": op(
    "session",
    false,
    struct({ draft: ceremonyDraft, signature }),
    struct({ manifest: signedCeremonyManifest }),
  ),
  /** Ceremonies that the account opened, or in which a seat waits for it; newest first. */
  "ceremony.list": op(
    "session",
    false,
    struct({ after: nullable(ceremonyId) }),
    struct({ items: list(ceremonyRow, { max: 64 }), more: bool }),
  ),
  /** Takes the account's seat for a key, which then joins like an invited one; repeated with the same key, the same. */
  "ceremony.seat": op("session", false, struct({ ceremonyId, index, key: hash32 }), struct({ entry: signedEntry })),
  /** Ends the commitments early where enough have come, or the ceremony; organiser only. */
  "ceremony.close": op("session", false, struct({ ceremonyId, abort: bool }), empty),
  "ceremony.get": op(
    "none",
    false,
    struct({ ceremonyId, after: u53 }),
    struct({
      manifest: signedCeremonyManifest,
      entries: list(signedEntry, { max: ENTRIES_PAGE }),
      more: bool,
      status: oneOf(CEREMONY_STATUSES),
      /** When the stage ends; null where none does. */
      untilMs: nullable(u53),
      releases: list(releaseView, { max: 16 }),
      atMs: u53,
    }),
  ),
  /** Commits: identical again, the same answer. */
  "ceremony.join": op("none", false, struct({ join: signedCeremonyJoin }), struct({ entry: signedEntry })),
  /** The answer is the enclave's word that it opened what was committed to; a lie ends the ceremony. */
  "ceremony.reveal": op(
    "none",
    false,
    struct({ reveal: signedCeremonyReveal, sealed: sealedOpening }),
    struct({ entry: signedEntry }),
  ),
  /** A participant's secret part of a multisig wallet, sealed to its key. */
  "ceremony.part": op("none", false, struct({ ceremonyId, index }), struct({ sealed: sealedOut })),
  /** The value for who may have it, once enough participants agree; again and again the same sealed bytes. */
  "ceremony.collect": op(
    "none",
    false,
    struct({ release: signedRelease }),
    struct({ sealed: nullable(sealedOut), approvals: uint(PARTICIPANTS.max), needed: uint(PARTICIPANTS.max) }),
  ),
  "ceremony.approve": op("none", false, struct({ ceremonyId, approval: releaseApproval }), empty),
} as const;
