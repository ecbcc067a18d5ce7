import type { NodeId, TreeNode } from "../crypto/tree.ts";
import type { KeyId, RequestId, SessionId, UserId } from "../ids.ts";
import type { AuditHead, SaltedEntry } from "../protocol/audit.ts";
import type { LeafRecord } from "../protocol/leaf.ts";
import type { Checkpoint, LoggedPosition, TreeHead } from "../protocol/log.ts";
import type { Settings, SignedState } from "../protocol/state.ts";

/** An account as stored. Blobs are the caller's copies: plain Uint8Array, never shared with the driver. */
export interface AccountRow {
  readonly userId: UserId;
  /** HMAC of the account name, 32 bytes, unique. */
  readonly credentialId: Uint8Array;
  readonly sealedName: Uint8Array;
  /** OPAQUE registration record. */
  readonly record: Uint8Array;
  /** Counts up with each new record; login states are bound to it. */
  readonly recordVersion: number;
  /** Which OPAQUE set-up the record belongs to. */
  readonly setupId: string;
  readonly disabled: boolean;
  readonly createdAtMs: number;
  readonly settings: Settings;
  readonly state: SignedState;
  /** Hash of `state.state`, 32 bytes. */
  readonly stateHash: Uint8Array;
  readonly audit: AuditHead;
}

/** What a login needs of an account: its settings and state are neither read nor parsed. */
export type CredentialRow = Pick<AccountRow, "userId" | "record" | "recordVersion" | "setupId" | "disabled">;

/** Half a login: sealed by the server, taken exactly once. */
export interface LoginStateRow {
  readonly sessionId: SessionId;
  readonly credentialId: Uint8Array;
  /** The account, or the pseudo-account of an unknown name: rows are alike. */
  readonly userId: UserId;
  readonly recordVersion: number;
  readonly expiresAtMs: number;
  readonly sealed: Uint8Array;
  /** Rate-limit bucket that a success clears, or a word for what the row is otherwise. */
  readonly bucket: string;
  readonly addressBucket: string;
}

/**
 * How a session stands towards the second factor (docs/protocol.md §10.9): `none` was asked for; a code is `needed`, of
 * one that showed a listed `device` counted apart; the account is to `enrol` one; `proven` by a code. In the three in
 * the middle the session is restricted.
 */
export type SessionFactor = "none" | "needed" | "device" | "enrol" | "proven";

/** An open session. */
export interface SessionRow {
  readonly sessionId: SessionId;
  readonly userId: UserId;
  readonly sealedKey: Uint8Array;
  readonly createdAtMs: number;
  readonly lastUsedMs: number;
  readonly expiresAtMs: number;
  /** Highest sequence seen. */
  readonly high: number;
  /** Bitmap of the last 1,024 sequences below and at `high`, bit 0 of byte 0 is `high` itself: 128 bytes. */
  readonly window: Uint8Array;
  readonly factor: SessionFactor;
}

/** A rate-limit bucket. */
export interface LimitRow {
  readonly bucket: string;
  readonly count: number;
  readonly blockedUntilMs: number;
  readonly updatedAtMs: number;
}

export interface InviteRow {
  /** SHA-256 of the code, hex: the code itself is not stored. */
  readonly codeHash: string;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  readonly usedAtMs: number | null;
  readonly conflicts: number;
  /** First characters of the code, to tell invites apart in a list. */
  readonly hint: string;
}

/** The final, recorded answer to a mutation (docs/protocol.md §4.3). */
export interface RequestRow {
  readonly userId: UserId;
  readonly requestId: RequestId;
  readonly bodyHash: Uint8Array;
  readonly operation: string;
  /** Error code, or `ok`. */
  readonly status: string;
  /** JSON text of the output or of the error. */
  readonly reply: string;
}

export interface ReservationRow {
  readonly userId: UserId;
  readonly keyId: KeyId;
  readonly requestId: RequestId;
  readonly random: Uint8Array;
  readonly createdAtMs: number;
}

/** Where a wrapped key lies: before a value (number = version) or before a leaf's metadata (number = serial). */
export interface WrapPlace {
  readonly keyId: KeyId;
  readonly kind: "meta" | "value";
  readonly number: number;
}

/** A wrapped key, 73 bytes, with its place. */
export interface WrapRow extends WrapPlace {
  readonly wrapped: Uint8Array;
}

/** What stays of an account that its owner deleted. */
export interface ClosedRow {
  readonly state: SignedState;
  readonly closedAtMs: number;
}

/** Rows of a whole server, for its figures. */
export interface StoreCounts {
  readonly accounts: number;
  readonly disabled: number;
  readonly sessions: number;
}

/** Learns of each commit that shared transactions: how many, and milliseconds until it was durable. */
export type CommitObserver = (transactions: number, ms: number) => void;

/** Which entries of a log to read; null means any. */
export interface AuditFilter {
  readonly after: number;
  readonly limit: number;
  readonly keyId: KeyId | null;
  readonly action: string | null;
  readonly fromMs: number | null;
  readonly untilMs: number | null;
  readonly requestId: RequestId | null;
}

/** Where a log stands, with the salt of its pseudonym: that of its first entry; null before it and after erasure. */
export interface AuditPosition extends AuditHead {
  readonly logSalt: Uint8Array | null;
}

/** A log's head that the server-wide log does not hold yet. */
export interface UnloggedHead extends LoggedPosition {
  readonly userId: UserId;
}

/** A head of an account's or shadow's log as stored, for checks. */
export interface AuditHeadRow extends AuditPosition {
  readonly userId: UserId;
  /** Newest sequence that the server-wide log holds; 0 for none. */
  readonly loggedSeq: number;
  /** What stays of the salt once the account is gone; null before. */
  readonly pseudonym: Uint8Array | null;
  readonly expiresAtMs: number | null;
}

/** A leaf of the server-wide log. After a restore the first one is no position: zeros beside its hash. */
export interface LogLeaf extends LoggedPosition {
  readonly hash: Uint8Array;
}

/** The server-wide log as a whole. */
export interface LogHead extends TreeHead {
  readonly origin: string;
  /** The checkpoint that the first leaf names, after a restore. */
  readonly restart: Checkpoint | null;
}

/** The newest signed checkpoint: a C2SP signed note and the size that it covers. */
export interface CheckpointRow {
  readonly size: number;
  readonly note: string;
}

/**
 * A record of a role beyond accounts: of federations, keyrings, ceremonies. Its body is the role's own JSON. What an
 * account owns is erased with it.
 */
export interface DocumentRow {
  /** A word for what it is. */
  readonly kind: string;
  readonly id: string;
  /** Whom a list of it is asked for, or "". */
  readonly owner: string;
  /** Place in lists, ascending: a time as a rule. */
  readonly place: number;
  readonly body: Uint8Array;
  /** Counts up with each change, from 1. */
  readonly version: number;
}

/**
 * One serializable transaction. Everything read through it is consistent and everything written becomes durable
 * together or not at all. Work inside awaits nothing but this object.
 */
export interface Tx {
  accountByCredential(credentialId: Uint8Array): Promise<AccountRow | undefined>;
  account(userId: UserId): Promise<AccountRow | undefined>;
  stateHashOf(userId: UserId): Promise<Uint8Array | undefined>;
  credential(credentialId: Uint8Array): Promise<CredentialRow | undefined>;
  /** Failed logins with a token since it last opened a session; undefined if the settings list no such device. */
  tokenFailures(userId: UserId, tokenHash: Uint8Array): Promise<number | undefined>;
  /** Sets that number, which stays as long as the settings list the device; without one nothing happens. */
  putTokenFailures(userId: UserId, tokenHash: Uint8Array, failures: number): Promise<void>;
  /** Hashes of the tokens that are counted for an account (32 bytes each), in their own order, for checks. */
  tokens(userId: UserId): Promise<readonly Uint8Array[]>;
  /** False, and nothing written, if the credential id or user id exists. */
  insertAccount(row: AccountRow): Promise<boolean>;
  /** Compare-and-swap on the state hash; false when it differs from `expected`. */
  swapState(
    userId: UserId,
    expected: Uint8Array,
    next: { state: SignedState; stateHash: Uint8Array; settings?: Settings },
  ): Promise<boolean>;
  /** Replaces the OPAQUE record and raises its version by one. */
  replaceRecord(userId: UserId, record: Uint8Array, setupId: string): Promise<void>;
  /** Replaces the sealed account name: for a new sealing key. */
  putSealedName(userId: UserId, sealedName: Uint8Array): Promise<void>;
  setDisabled(userId: UserId, disabled: boolean): Promise<boolean>;
  /** Erases an account with everything of it but the links and the pseudonym of its log. False if there is none. */
  removeAccount(userId: UserId): Promise<boolean>;
  /** Keeps the last state of an account for whoever shows one of these tokens' hashes (32 bytes each). */
  putClosed(userId: UserId, tokenHashes: readonly Uint8Array[], row: ClosedRow): Promise<void>;
  closed(userId: UserId, tokenHash: Uint8Array): Promise<ClosedRow | undefined>;
  /** Accounts ordered by user id, above `after`. */
  accounts(after: UserId | null, limit: number): Promise<readonly AccountRow[]>;

  putLoginState(row: LoginStateRow): Promise<void>;
  /** Reads and deletes in one step. */
  takeLoginState(sessionId: SessionId): Promise<LoginStateRow | undefined>;
  /** Takes at most `limit` states that expired before `nowMs`. */
  takeExpiredLoginStates(nowMs: number, limit: number): Promise<readonly LoginStateRow[]>;
  /** Drops all (start of the server: they are not counted as failures). */
  dropLoginStates(): Promise<number>;

  putSession(row: SessionRow): Promise<void>;
  session(sessionId: SessionId): Promise<SessionRow | undefined>;
  /** Records use: last used, window and high. */
  touchSession(sessionId: SessionId, use: { lastUsedMs: number; high: number; window: Uint8Array }): Promise<void>;
  /** Says how it stands towards the second factor from now on, and when it is over. */
  putSessionFactor(sessionId: SessionId, factor: SessionFactor, expiresAtMs: number): Promise<void>;
  sessionsOf(userId: UserId): Promise<readonly SessionRow[]>;
  /** True if it was there. */
  closeSession(sessionId: SessionId): Promise<boolean>;
  /** Closes all of an account but `except`; says how many. */
  closeSessionsOf(userId: UserId, except: SessionId | null): Promise<number>;
  /** Deletes sessions that are over: absolutely, or unused since `idleBeforeMs`. */
  sweepSessions(nowMs: number, idleBeforeMs: number): Promise<number>;

  limit(bucket: string): Promise<LimitRow | undefined>;
  putLimit(row: LimitRow): Promise<void>;
  dropLimit(bucket: string): Promise<void>;
  /** Takes at most `limit` buckets whose names begin with `prefix` and that are untouched since `beforeMs`. */
  takeLimits(prefix: string, beforeMs: number, limit: number): Promise<readonly LimitRow[]>;
  /** Forgets buckets untouched since `beforeMs`. */
  sweepLimits(beforeMs: number): Promise<number>;

  putInvite(row: InviteRow): Promise<void>;
  invite(codeHash: string): Promise<InviteRow | undefined>;
  updateInvite(row: InviteRow): Promise<void>;
  invites(): Promise<readonly InviteRow[]>;
  removeInvite(codeHash: string): Promise<boolean>;

  request(userId: UserId, requestId: RequestId): Promise<RequestRow | undefined>;
  /** False, and nothing written, if the id is taken. */
  putRequest(row: RequestRow): Promise<boolean>;

  putReservation(row: ReservationRow): Promise<void>;
  reservation(userId: UserId, keyId: KeyId): Promise<ReservationRow | undefined>;
  reservationsOf(userId: UserId, requestId: RequestId): Promise<readonly ReservationRow[]>;
  sweepReservations(beforeMs: number): Promise<number>;

  /** The newest leaf of a key. */
  leaf(userId: UserId, keyId: KeyId): Promise<LeafRecord | undefined>;
  /** Appends a leaf made at `revision`; `sealed` is stored under its version when given. */
  appendLeaf(userId: UserId, revision: number, leaf: LeafRecord, sealed: Uint8Array | null): Promise<void>;
  /** Erases all sealed values and all metadata of a key (purge). */
  eraseSecret(userId: UserId, keyId: KeyId): Promise<void>;
  /** Newest leaves of keys changed after a revision, ordered by key id, above `after`. */
  leavesSince(userId: UserId, revision: number, after: KeyId | null, limit: number): Promise<readonly LeafRecord[]>;
  /** All leaves of a key with a serial above `afterSerial`, in order. */
  history(userId: UserId, keyId: KeyId, afterSerial: number, limit: number): Promise<readonly LeafRecord[]>;
  sealedValue(userId: UserId, keyId: KeyId, version: number): Promise<Uint8Array | undefined>;
  /** Wrapped keys of all values and metadata that are not erased, by key id, kind, number, above `after`. */
  wraps(userId: UserId, after: WrapPlace | null, limit: number): Promise<readonly WrapRow[]>;
  /** Replaces a wrapped key and leaves what follows it; false if there is nothing at that place. */
  rewrap(userId: UserId, row: WrapRow): Promise<boolean>;
  /** States after a revision, in order. */
  statesSince(userId: UserId, revision: number, limit: number): Promise<readonly SignedState[]>;
  appendState(userId: UserId, state: SignedState): Promise<void>;

  /**
   * Appends an entry (its `previous` and `seq` must continue the head). `expiresAtMs` marks the shadow log of an
   * unknown name; null an account's own. The same statements run for both.
   */
  appendAudit(entry: SaltedEntry, head: AuditHead, expiresAtMs: number | null): Promise<void>;
  /** Head of a log, of an account or of a shadow; zeros where there is none. */
  auditHead(userId: UserId): Promise<AuditHead>;
  /** The same, with the salt of its pseudonym. */
  auditPosition(userId: UserId): Promise<AuditPosition>;
  audit(userId: UserId, filter: AuditFilter): Promise<readonly SaltedEntry[]>;
  sweepShadowAudit(nowMs: number): Promise<number>;

  // ---- server-wide log ----
  /** Heads that it does not hold yet, ordered by user id, above `after`. */
  unloggedHeads(after: UserId | null, limit: number): Promise<readonly UnloggedHead[]>;
  logHead(): Promise<LogHead | undefined>;
  /** Begins a log, with at most one leaf; what was there before goes, and no head counts as logged any more. */
  startLog(head: LogHead, leaves: readonly LogLeaf[]): Promise<void>;
  /**
   * Compare-and-swap on size and root; false, and nothing written, when they differ from `expected`. The leaves go to
   * the end; the heads count as logged up to their sequence.
   */
  appendLog(
    expected: TreeHead,
    next: TreeHead,
    added: {
      readonly leaves: readonly LogLeaf[];
      /** Complete subtrees above level 0. */
      readonly nodes: readonly TreeNode[];
      readonly heads: readonly UnloggedHead[];
    },
  ): Promise<boolean>;
  /** Hashes of complete subtrees, in order. @throws Fault corrupt when one is missing */
  logNodes(ids: readonly NodeId[]): Promise<readonly Uint8Array[]>;
  /** Leaves from an index on, in order. */
  logLeaves(from: number, limit: number): Promise<readonly (LogLeaf & { readonly index: number })[]>;
  /** How many leaves and subtrees above them are stored, for checks. */
  logCounts(): Promise<{ readonly leaves: number; readonly nodes: number }>;
  /** Newest leaf of a pseudonym in the tree of `size` leaves. */
  loggedPosition(
    pseudonym: Uint8Array,
    size: number,
  ): Promise<(LoggedPosition & { readonly index: number }) | undefined>;
  checkpoint(): Promise<CheckpointRow | undefined>;
  /** Keeps the newest checkpoint: false, and nothing written, when a larger one is there. */
  putCheckpoint(row: CheckpointRow): Promise<boolean>;
  /** Heads of all logs, ordered by user id, above `after`. */
  auditHeads(after: UserId | null, limit: number): Promise<readonly AuditHeadRow[]>;
  /** Sequence, link and expiry of each entry of a log, erased ones too, in order. */
  auditLinks(
    userId: UserId,
    after: number,
    limit: number,
  ): Promise<readonly (AuditHead & { readonly expiresAtMs: number | null })[]>;

  /** How many accounts there are, and sessions that are not over: neither ended nor unused since `idleBeforeMs`. */
  counts(nowMs: number, idleBeforeMs: number): Promise<StoreCounts>;

  document(kind: string, id: string): Promise<DocumentRow | undefined>;
  /** Compare-and-swap: `expected` is the version to replace, 0 for a new one; false, and nothing written, otherwise. */
  putDocument(row: Omit<DocumentRow, "version">, expected: number): Promise<boolean>;
  /** True if it was there. */
  removeDocument(kind: string, id: string): Promise<boolean>;
  /** Of one owner, ordered by place then id, above `after`. */
  documents(
    kind: string,
    owner: string,
    after: Pick<DocumentRow, "place" | "id"> | null,
    limit: number,
  ): Promise<readonly DocumentRow[]>;
  /** How many one owner has of a kind: counted no further than `limit`. */
  documentCount(kind: string, owner: string, limit: number): Promise<number>;

  setting(name: string): Promise<string | undefined>;
  putSetting(name: string, value: string): Promise<void>;
}

/** A key server's storage. One contract suite holds every engine to it (tests/storage/contract.ts). */
export interface Store {
  /** "sqlite" or "postgres". */
  readonly engine: string;
  /**
   * Serializable; durable on return or without trace. May run `work` twice. A throw from `work` rolls back and is
   * passed on. `work` awaits nothing but the transaction it is given.
   *
   * @param near What the transaction is mostly about, an account as a rule: an engine that runs several at a time lets
   *   those of one name take turns instead of refusing each other's rows.
   */
  transaction<T>(work: (tx: Tx) => Promise<T>, near?: string): Promise<T>;
  /** Verifies the file's own structure; lists what is wrong, in words. */
  check(): Promise<readonly string[]>;
  /**
   * Writes a consistent copy as an embedded database, while transactions go on: durable on return.
   *
   * @param path A file that does not exist.
   */
  backup(path: string): Promise<void>;
  /** Finishes what is queued, then closes; a second call does nothing. */
  close(): Promise<void>;
}
