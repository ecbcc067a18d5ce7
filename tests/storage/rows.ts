import type { KeyId, RequestId, SessionId, UserId } from "../../src/ids.ts";
import { type AuditEntry, type AuditHead, auditLink, type SaltedEntry } from "../../src/protocol/audit.ts";
import type { LeafRecord } from "../../src/protocol/leaf.ts";
import { type AccountState, type Settings, type SignedState, stateHash } from "../../src/protocol/state.ts";
import type {
  AccountRow,
  AuditFilter,
  InviteRow,
  LoginStateRow,
  RequestRow,
  ReservationRow,
  SessionRow,
  Tx,
} from "../../src/storage/store.ts";

/** Rows for tests: the same number gives the same row. */

const ID_DIGITS = 32;
const id = (n: number): string => n.toString(16).padStart(ID_DIGITS, "0");

export const userId = (n: number): UserId => id(n) as UserId;
export const keyId = (n: number): KeyId => id(n) as KeyId;
export const sessionId = (n: number): SessionId => id(n) as SessionId;
export const requestId = (n: number): RequestId => id(n) as RequestId;

/** `length` bytes that `n` determines. */
export function filled(n: number, length = 32): Uint8Array {
  const out = new Uint8Array(length).fill((n * 7 + 1) % 251);
  new DataView(out.buffer).setUint32(0, n);
  return out;
}

export const ZEROS: AuditHead = { seq: 0, link: new Uint8Array(32) };

export function settings(n: number): Settings {
  return {
    identity: filled(n),
    devices: [
      {
        id: id(n + 500) as Settings["devices"][number]["id"],
        publicKey: filled(n + 1),
        name: filled(n, 20),
        tokenHash: filled(n + 2),
        addedAtMs: n,
      },
    ],
    wrappedAccountKey: filled(n, 100),
    masterCommitment: filled(n + 3),
    wrappedIdentity: filled(n, 90),
    credentialTag: filled(n + 4),
    credentialRevision: 1,
    kit: null,
    kitWrapped: null,
    rotations: [],
  };
}

export function state(user: number, revision: number): SignedState {
  const inner: AccountState = {
    incarnation: id(9) as AccountState["incarnation"],
    userId: userId(user),
    deviceId: id(user + 500) as AccountState["deviceId"],
    revision,
    previous: filled(revision - 1),
    requestId: requestId(revision),
    requestHash: filled(revision),
    root: filled(revision + 1),
    settingsHash: filled(revision + 2),
    auditSeq: Number.MAX_SAFE_INTEGER,
    auditLink: filled(revision + 3),
  };
  return { state: inner, identitySignature: filled(user, 64), deviceSignature: filled(revision, 64) };
}

export function account(n: number): AccountRow {
  const signed = state(n, 1);
  return {
    userId: userId(n),
    credentialId: filled(n),
    sealedName: filled(n, 60),
    record: filled(n, 192),
    recordVersion: 1,
    setupId: "setup-1",
    disabled: false,
    createdAtMs: 1_800_000_000_000 + n,
    settings: settings(n),
    state: signed,
    stateHash: stateHash(signed.state),
    audit: ZEROS,
  };
}

export function login(n: number, changes: Partial<LoginStateRow> = {}): LoginStateRow {
  return {
    sessionId: sessionId(n),
    credentialId: filled(n),
    userId: userId(n),
    recordVersion: 3,
    expiresAtMs: n,
    sealed: filled(n, 300),
    bucket: `account ${n}`,
    addressBucket: `address ${n}`,
    ...changes,
  };
}

export function session(n: number, changes: Partial<SessionRow> = {}): SessionRow {
  return {
    sessionId: sessionId(n),
    userId: userId(1),
    sealedKey: filled(n, 72),
    createdAtMs: n,
    lastUsedMs: n,
    expiresAtMs: 1_000,
    high: 0,
    window: new Uint8Array(128),
    factor: "none",
    ...changes,
  };
}

export function invite(n: number, changes: Partial<InviteRow> = {}): InviteRow {
  return {
    codeHash: filled(n).toHex(),
    createdAtMs: n,
    expiresAtMs: n + 10,
    usedAtMs: null,
    conflicts: 0,
    hint: "ABCD",
    ...changes,
  };
}

export function request(n: number, changes: Partial<RequestRow> = {}): RequestRow {
  return {
    userId: userId(1),
    requestId: requestId(n),
    bodyHash: filled(n),
    operation: "secret.store",
    status: "ok",
    reply: `{"n":${n}}`,
    ...changes,
  };
}

export function reservation(n: number, changes: Partial<ReservationRow> = {}): ReservationRow {
  return {
    userId: userId(1),
    keyId: keyId(n),
    requestId: requestId(1),
    random: filled(n),
    createdAtMs: n,
    ...changes,
  };
}

export function leaf(key: number, serial = 1, changes: Partial<LeafRecord> = {}): LeafRecord {
  return {
    keyId: keyId(key),
    serial,
    version: serial,
    sealedHash: filled(key),
    metaHash: filled(serial),
    meta: filled(key + serial, 80),
    publicKey: null,
    status: "live",
    previous: filled(serial - 1),
    ...changes,
  };
}

export function entry(user: number, head: AuditHead, changes: Partial<AuditEntry> = {}): SaltedEntry {
  return {
    entry: {
      seq: head.seq + 1,
      userId: userId(user),
      atMs: 100 + head.seq,
      action: "secret.get",
      status: "ok",
      keyId: null,
      requestId: null,
      session: null,
      bodyHash: filled(head.seq),
      stateHash: null,
      count: 1,
      previous: head.link,
      ...changes,
    },
    salt: filled(head.seq + 1),
  };
}

export const headAfter = (item: SaltedEntry): AuditHead => ({ seq: item.entry.seq, link: auditLink(item) });

/** Appends an entry that continues the log; gives it. */
export async function record(
  tx: Tx,
  user: number,
  changes: Partial<AuditEntry> = {},
  expiresAtMs: number | null = null,
): Promise<SaltedEntry> {
  const item = entry(user, await tx.auditHead(userId(user)), changes);
  await tx.appendAudit(item, headAfter(item), expiresAtMs);
  return item;
}

export const EVERY: AuditFilter = {
  after: 0,
  limit: 1_000,
  keyId: null,
  action: null,
  fromMs: null,
  untilMs: null,
  requestId: null,
};
