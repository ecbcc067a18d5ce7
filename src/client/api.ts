import type { PlainItem } from "../formats/item.ts";
import type { KeyId, RequestId, SessionId, UserId } from "../ids.ts";
import type { Field } from "../protocol/content.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import type { CeremonyClient, OtpRequester } from "./ceremonyapi.ts";
import type { FactorClient } from "./factorapi.ts";
import type { FederationClient } from "./federationapi.ts";
import type { UnwrapInput, Unwrapped } from "./filekey.ts";
import type { KeyringClient } from "./keyringapi.ts";
import type { Signed, SignInput } from "./signing.ts";

/**
 * The local client API (docs/client.md): what calling applications and the CLI use, in this process or through the
 * agent. Each method takes and returns plain data (text, numbers, booleans, Uint8Array, null, lists, objects), so
 * that it can cross a socket. Failures are `Fault`s.
 */
export interface KeyholdClient extends FactorClient, FederationClient, KeyringClient, CeremonyClient {
  /** Generates a secret, its randomness from server and client; the value is not returned. */
  generate(input: GenerateInput): Promise<Written>;
  /** Stores a value; a name that exists gets a new version. */
  store(input: StoreInput): Promise<Written>;
  /** Metadata, and with `reveal` the value. */
  get(input: GetInput): Promise<Got>;
  /** Many values at once, for `run` and `export`; any failure fails all. */
  getMany(input: {
    refs: readonly { name: string; version: number | null }[];
    fresh: boolean;
    purpose: "get" | "export";
  }): Promise<readonly Got[]>;
  /** Signs with a stored key, which stays where it is. */
  sign(input: SignInput): Promise<Signed>;
  /** Unwraps the key of a file in the age format with a stored key, which stays where it is. */
  unwrapFileKey(input: UnwrapInput): Promise<Unwrapped>;
  /** A one-time password's code of now; that of a counter is used up by asking. */
  otp(input: { name: string; fresh: boolean }): Promise<OtpCode>;
  list(input: ListInput): Promise<Listed>;
  history(input: { name: string }): Promise<{ items: readonly VersionInfo[]; requestId: RequestId | null }>;
  restore(input: { name: string; version: number }): Promise<Written>;
  rename(input: { from: string; to: string }): Promise<Written>;
  tag(input: { name: string; add: readonly string[]; remove: readonly string[] }): Promise<Written>;
  remove(input: { name: string; purge: boolean }): Promise<Written>;
  /** Stores many items; names that exist with the same value are skipped, with another value get a new version. */
  importItems(input: {
    items: readonly PlainItem[];
    prefix: string;
    dryRun: boolean;
    origin: string;
    where: Where | null;
  }): Promise<Imported>;
  /**
   * Begins a file of any size up to 16 MiB, which comes in pieces and is there once it is finished; forgotten when
   * nothing comes for ten minutes (src/client/files.ts does all of it).
   */
  fileBegin(input: FileBegin): Promise<{ handle: string }>;
  /** The next piece, at most 1 MiB; not retained. */
  fileAppend(input: { handle: string; value: Uint8Array }): Promise<{ size: number }>;
  fileFinish(input: { handle: string }): Promise<Written>;
  /** Gives up a file that is not finished, or one that is read: nothing of it stays. */
  fileAbort(input: { handle: string }): Promise<void>;
  /** Opens a value of any size, to be read piece by piece. */
  fileOpen(input: FileOpen): Promise<FileOpened>;
  /** The next piece, the caller's to wipe; with the last one the whole is verified. */
  fileRead(input: { handle: string }): Promise<{ value: Uint8Array; done: boolean; requestId: RequestId | null }>;
  /** What is expired, weak, used twice or old; values are compared here and are not handed out. */
  report(input: ReportInput): Promise<Report>;
  auditList(
    input: AuditQuery,
  ): Promise<{ items: readonly AuditItem[]; next: string | null; requestId: RequestId | null }>;
  auditVerify(): Promise<Verified>;
  /** A page of the log's file (docs/protocol.md §6.4); the last line is the reader's to add. */
  auditExport(input: { cursor: string | null }): Promise<AuditFilePage>;
  sessions(): Promise<{ items: readonly SessionItem[]; requestId: RequestId | null }>;
  closeSession(input: {
    sessionId: SessionId | null;
    all: boolean;
  }): Promise<{ closed: number; requestId: RequestId | null }>;
  devices(): Promise<{ items: readonly DeviceItem[] }>;
  /** A one-time code with which a new device learns what this one knows (docs/protocol.md §5.9). */
  linkDevice(): Promise<DeviceLink>;
  /** Takes in what changed, and sends what waited: `sent` changes, after which so many `conflicts` are unsolved. */
  sync(): Promise<{
    revision: number;
    changed: number;
    sent: number;
    conflicts: number;
    requestId: RequestId | null;
  }>;
  /** Keeps a copy of every value in the vault, parts of files aside: `left` are those for which there is no room. */
  keepCopies(): Promise<{ kept: number; left: number; requestId: RequestId | null }>;
  status(): Promise<Status>;
  /** Ends the use of this object; does not close a session that the agent holds. Safe to call twice. */
  close(): Promise<void>;
}

export type Where = "server" | "local" | "both";

export interface GenerateInput {
  name: string;
  type: SecretType;
  /** Length in bytes (`bytes`, `token`), characters (`password`, `pin`), words (`passphrase`), bits (`rsa`); null: default. */
  length: number | null;
  tags: readonly string[];
  /** As in {@link StoreInput}. */
  fields?: readonly Field[];
  /** As in {@link StoreInput}. */
  expiresAt?: string | null;
  replace: boolean;
  /** null: `both` with a server, else `local`. */
  where: Where | null;
}

export interface StoreInput {
  name: string;
  /** null: `note` for UTF-8, else `bytes`. */
  type: SecretType | null;
  /** 1 to 65,536 bytes, fewer with fields, none where there are fields; not retained. null: the value stays. */
  value: Uint8Array | null;
  tags: readonly string[];
  /** Left out: those of the version before stay. */
  fields?: readonly Field[];
  /** RFC 3339; null: never; left out: as before. */
  expiresAt?: string | null;
  /** The version that the caller has seen, 0 for none: with another one there now nothing is stored (conflict). */
  ifVersion?: number;
  /** Of a value that a server's enclave has seen, `ceremony:ID` or `provisioned:ID`; left out: end to end. */
  origin?: string;
  where: Where | null;
}

/** As {@link StoreInput}, of a secret of type `file`. */
export interface FileBegin extends Pick<StoreInput, "name" | "tags" | "fields" | "expiresAt" | "ifVersion" | "where"> {
  /** Bytes of the whole, where they are known. */
  size: number | null;
  /** Format that it was imported from, or as in {@link StoreInput}. */
  origin?: string;
  /** When it was made, where an import knows it; of a secret that is there its own day is kept. */
  createdAt?: string | null;
}

export interface FileOpen {
  name: string;
  version: number | null;
  fresh: boolean;
  purpose: "get" | "export";
}

export interface FileOpened {
  handle: string;
  info: SecretInfo;
  version: number;
  /** Bytes of the whole. */
  size: number;
  fields: readonly Field[];
  requestId: RequestId | null;
  from: "server" | "vault";
  syncedAt: string | null;
}

export interface ReportInput {
  /** Days after which a password, pin or token counts as old; null: none does. */
  oldDays: number | null;
  fresh: boolean;
}

export type ReportIssue = "expired" | "expires-soon" | "reused" | "weak" | "old";

export interface Report {
  items: readonly { name: string; keyId: KeyId; issue: ReportIssue; detail: string }[];
  /** Secrets that were looked at. */
  checked: number;
  requestId: RequestId | null;
}

export interface GetInput {
  /** Exact name, else a unique prefix of a key id. */
  name: string;
  /** null: the newest. */
  version: number | null;
  reveal: boolean;
  /** Insist on the server's answer. */
  fresh: boolean;
  /** Keep a copy in the local vault. */
  save: boolean;
}

export interface ListInput {
  prefix: string | null;
  /** Looked for in names and tags, without regard to case. */
  search: string | null;
  tag: string | null;
  fresh: boolean;
  /** At most so many items; null or left out: all. */
  limit?: number | null;
  /** Goes on after the page whose `next` this is, of the same list; without asking the server again. */
  cursor?: string | null;
  /** Asked by a program on its own account: it does not put the agent's idle time off. */
  passive?: boolean;
}

export interface SecretInfo {
  name: string;
  keyId: KeyId;
  type: SecretType;
  version: number;
  tags: readonly string[];
  createdAt: string;
  updatedAt: string;
  where: Where;
  /** True where a change of it waits in the vault for a server that is away. */
  queued?: boolean;
  /** How it came to be: `generated`, `stored`, `imported:FORMAT`; `ceremony:ID`, `provisioned:ID`. */
  origin: string;
  /** Of a value that a server's enclave has seen; left out: end to end. */
  custody?: "custodial";
  publicKey: Uint8Array | null;
  /** RFC 3339, or null. */
  expiresAt: string | null;
  /** The field of that name, where there is one. */
  user: string | null;
  /** The first fields of kind `url`. */
  urls: readonly string[];
}

/** A write: acknowledged by every place it was asked to reach. */
export interface Written {
  info: SecretInfo;
  requestId: RequestId | null;
  /** True where it waits in the vault for a server that is away. */
  queued: boolean;
}

export interface Got {
  /** Of the newest version; origin and custody of the one that was asked for. */
  info: SecretInfo;
  /** The version that was asked for. */
  version: number;
  /** null without `reveal`. Owned by the caller. */
  value: Uint8Array | null;
  /** null without `reveal`. */
  fields: readonly Field[] | null;
  /** Of one secret alone: its fields, hidden ones and one-time passwords without their value. */
  shown?: readonly { name: string; kind: Field["kind"]; value: string | null }[];
  /** Of one secret alone: bytes of a file that is kept in parts, which {@link KeyholdClient.fileOpen} reads. */
  size?: number;
  requestId: RequestId | null;
  /** `server`, or `vault` with the time of the last sync when the server was away. */
  from: "server" | "vault";
  syncedAt: string | null;
}

export interface OtpCode {
  name: string;
  code: string;
  /** RFC 3339; null for a code of a counter. */
  expiresAt: string | null;
  /** Seconds that each code is good for; null for a code of a counter. */
  periodS: number | null;
  requestId: RequestId | null;
  /** As in {@link Written}, for the counter. */
  queued: boolean;
}

export interface Listed {
  items: readonly SecretInfo[];
  /** With `limit` or `cursor` alone: leads to the page after this one; null after the last. */
  next?: string | null;
  requestId: RequestId | null;
  from: "server" | "vault";
  syncedAt: string | null;
}

export interface VersionInfo {
  version: number;
  status: "live" | "removed" | "purged";
  updatedAt: string | null;
  name: string | null;
  current: boolean;
  /** As in {@link SecretInfo}, of this version. */
  custody?: "custodial";
}

export interface Imported {
  imported: number;
  skipped: number;
  /** True where some of it waits in the vault for a server that is away. */
  queued: boolean;
  /** Names in order with what happened to each. */
  items: readonly { name: string; outcome: "new" | "version" | "same" }[];
  requestId: RequestId | null;
}

export interface AuditQuery {
  name: string | null;
  action: string | null;
  /** Milliseconds since 1970. */
  fromMs: number | null;
  untilMs: number | null;
  requestId: RequestId | null;
  limit: number | null;
  cursor: string | null;
  purpose: "list" | "export";
}

export interface AuditItem {
  seq: number;
  at: string;
  action: string;
  status: string;
  keyId: KeyId | null;
  name: string | null;
  requestId: RequestId | null;
  session: SessionId | null;
  count: number;
  /** As in {@link SecretInfo}, of the secret's newest version. */
  custody?: "custodial";
  /** Of a hand-out of a key that the account issues: who got it, as far as a grant or a listed hand-out still says. */
  handedTo?: OtpRequester;
  /** True for a mutation that carries the account's signature; otherwise the server's testimony. */
  signed: boolean;
  linkHex: string;
}

export interface Verified {
  size: number;
  headHex: string;
  /** Sequence after which this run verified; 0 for the whole log. */
  verifiedFrom: number;
  ok: boolean;
  /** The server-wide log that holds the account: size, root and the account's place in it; null before its first batch. */
  log: { size: number; rootHex: string; index: number } | null;
  requestId: RequestId | null;
}

export interface AuditFilePage {
  /** Whole lines. */
  text: string;
  next: string | null;
  requestId: RequestId | null;
}

export interface SessionItem {
  sessionId: SessionId;
  createdAt: string;
  lastUsedAt: string;
  expiresAt: string;
  current: boolean;
}

export interface DeviceItem {
  deviceId: string;
  name: string;
  addedAt: string;
  current: boolean;
}

/** A code to be typed or pasted on the new machine, once. */
export interface DeviceLink {
  code: string;
  expiresAt: string;
  requestId: RequestId;
}

/** A secret that two devices changed: nothing of either is lost, and the owner chooses. */
export interface ConflictInfo {
  keyId: KeyId;
  name: string;
  /** `changed` on both sides; its new `name` was taken; `removed-there` and changed here; `removed-here` and changed there. */
  kind: "changed" | "name" | "removed-there" | "removed-here";
  /** Version of the other device, or null. */
  theirs: number | null;
  /** Version of this device, or null. */
  ours: number | null;
  at: string;
}

export interface Status {
  profile: string;
  server: { url: string; pin: string; reachable: boolean } | null;
  account: { name: string; userId: UserId } | null;
  session: { id: SessionId; expiresAt: string; valid: boolean } | null;
  vault: { path: string; secrets: number; locked: boolean };
  sync: {
    revision: number;
    syncedAt: string | null;
    pending: boolean;
    /** True while keys on the server are still to be wrapped anew after a rotation. */
    rewrapping: boolean;
    /** Changes that wait in the vault for the server. */
    queued: number;
    /** What two devices changed, until it is solved. */
    conflicts: readonly ConflictInfo[];
  } | null;
  auditHead: { seq: number; linkHex: string } | null;
}
