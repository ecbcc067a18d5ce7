import type { PlainItem } from "../formats/item.ts";
import type { KeyId, RequestId, SessionId, UserId } from "../ids.ts";
import type { SecretType } from "../protocol/secrettype.ts";

/**
 * The local client API (docs/client.md): what calling applications and the CLI use, in this process or through the
 * agent. Each method takes and returns plain data (text, numbers, booleans, Uint8Array, null, lists, objects), so
 * that it can cross a socket. Failures are `Fault`s.
 */
export interface KeyholdClient {
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
  sync(): Promise<{ revision: number; changed: number; requestId: RequestId | null }>;
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
  replace: boolean;
  /** null: `both` with a server, else `local`. */
  where: Where | null;
}

export interface StoreInput {
  name: string;
  /** null: `note` for UTF-8, else `bytes`. */
  type: SecretType | null;
  /** 1 to 65,536 bytes; not retained. */
  value: Uint8Array;
  tags: readonly string[];
  where: Where | null;
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
  /** How it came to be: `generated`, `stored`, `imported:FORMAT`. */
  origin: string;
  publicKey: Uint8Array | null;
}

/** A write: acknowledged by every place it was asked to reach. */
export interface Written {
  info: SecretInfo;
  requestId: RequestId | null;
}

export interface Got {
  info: SecretInfo;
  /** The version that was asked for. */
  version: number;
  /** null without `reveal`. Owned by the caller. */
  value: Uint8Array | null;
  requestId: RequestId | null;
  /** `server`, or `vault` with the time of the last sync when the server was away. */
  from: "server" | "vault";
  syncedAt: string | null;
}

export interface Listed {
  items: readonly SecretInfo[];
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
}

export interface Imported {
  imported: number;
  skipped: number;
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
  } | null;
  auditHead: { seq: number; linkHex: string } | null;
}
