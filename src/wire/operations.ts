import type { IncarnationId, KeyId, RequestId, SessionId, UserId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { bodyHash } from "../protocol/state.ts";
import { accountName } from "./accountname.ts";
import { ceremonyOperations } from "./ceremony/operations.ts";
import { bool, bytes, type Codec, id, type Json, list, nullable, oneOf, struct, text, u53, uint } from "./codec.ts";
import { factorOperations } from "./factor.ts";
import { federationOperations } from "./federation/operations.ts";
import { integratorOperations } from "./keyring/integrator.ts";
import { keyringOperations } from "./keyring/operations.ts";
import { type OperationShape, op } from "./operation.ts";
import { otpOperations } from "./otp/operations.ts";
import {
  hash32,
  headSummary,
  inviteCode,
  ksfCost,
  leafRecord,
  saltedEntry,
  sealedValue,
  settings,
  signature,
  signedState,
  wrappedKey,
} from "./records.ts";

const empty = struct({});
const parcel = bytes({ min: 1, max: 4_096 });

/** A wrapped key: of a value (number = version) or of a leaf's metadata (number = serial). */
const wrap = struct({
  keyId: id<KeyId>(),
  kind: oneOf(["value", "meta"]),
  number: uint(0xffff_ffff, 1),
  wrapped: wrappedKey,
});
const wrapPlace = struct({ keyId: id<KeyId>(), kind: oneOf(["value", "meta"]), number: uint(0xffff_ffff, 1) });

const treeHashes = list(hash32, { max: 64 });

/** An account's newest position in the server-wide log, with its place and proof (docs/protocol.md §6.3). */
export const loggedProof = struct({ salt: hash32, seq: u53, link: hash32, index: u53, inclusion: treeHashes });
/** Registration record: masking key, client public key, envelope (RFC 9807 §5.2.3). */
const opaqueRecord = bytes({ length: 192 });
const opaqueMessage = bytes({ min: 32, max: 1_024 });

const change = struct({ leaf: leafRecord, sealed: nullable(sealedValue) });
const commitInput = struct({
  changes: list(change, { min: 1, max: DEFAULTS.changesPerRequest }),
  state: signedState,
});
/** The state that is current after the mutation; the reply's head names the audit entry that records it. */
const commitOutput = struct({ revision: u53, stateHash: hash32 });

/** Secrets that one `secret.get` or `secret.export` asks for at most. */
export const GET_KEYS_MAX = 256;

const getInput = struct({
  keys: list(struct({ keyId: id<KeyId>(), version: uint(0xffff_ffff, 1) }), { min: 1, max: GET_KEYS_MAX }),
});
/** A prefix of what was asked for, as much as fits one reply; at least one. */
const getOutput = struct({
  items: list(struct({ keyId: id<KeyId>(), version: uint(0xffff_ffff, 1), sealed: sealedValue }), {
    max: GET_KEYS_MAX,
  }),
});

/** `states` asks for the signed states alone, all of them from `since` on. */
const syncInput = struct({ since: u53, after: nullable(id<KeyId>()), what: oneOf(["leaves", "states"]) });
/**
 * What changed since a revision: the newest leaf of each changed key, ordered by key id, and (on the last page)
 * the first states after `since` in order (only the newest one when leaves are asked for since 0), and the settings.
 */
const syncOutput = struct({
  leaves: list(leafRecord, { max: 256 }),
  more: bool,
  states: list(signedState, { max: 2_000 }),
  settings: nullable(settings),
});

const auditInput = struct({
  /** Entries with a sequence above this one. */
  after: u53,
  limit: uint(DEFAULTS.auditPage, 1),
  keyId: nullable(id<KeyId>()),
  action: nullable(text({ min: 1, max: 64 })),
  fromMs: nullable(u53),
  untilMs: nullable(u53),
  requestId: nullable(id<RequestId>()),
});
const auditOutput = struct({ entries: list(saltedEntry, { max: DEFAULTS.auditPage }), more: bool });

const sessionInfo = struct({
  sessionId: id<SessionId>(),
  createdAtMs: u53,
  lastUsedMs: u53,
  expiresAtMs: u53,
  current: bool,
});

/** Every operation of a key server: the one table that both sides import. Its names are the audit actions. */
export const operations = {
  /** Signed facts about the server (docs/protocol.md §3.1). */
  "server.statement": op(
    "none",
    false,
    empty,
    struct({
      identity: hash32,
      number: u53,
      expiresAtMs: u53,
      /** OPAQUE static public keys: current, then previous inside a rotation window. */
      opaqueKeys: list(hash32, { min: 1, max: 2 }),
      logKey: hash32,
      nextIdentity: nullable(hash32),
      incarnation: id<IncarnationId>(),
      registration: oneOf(["open", "invite", "closed"]),
      signature,
    }),
  ),
  "account.register.start": op(
    "none",
    false,
    struct({ account: accountName, invite: nullable(inviteCode), request: opaqueMessage }),
    struct({ userId: id<UserId>(), incarnation: id<IncarnationId>(), response: opaqueMessage, ksf: ksfCost }),
  ),
  "account.register": op(
    "none",
    true,
    struct({
      requestId: id<RequestId>(),
      account: accountName,
      invite: nullable(inviteCode),
      record: opaqueRecord,
      settings,
      state: signedState,
    }),
    headSummary,
  ),
  "session.login.start": op(
    "none",
    false,
    struct({ account: accountName, request: opaqueMessage, deviceToken: nullable(hash32) }),
    struct({
      sessionId: id<SessionId>(),
      /** One KE2 per OPAQUE set-up in use. */
      responses: list(opaqueMessage, { min: 1, max: 2 }),
      ksf: list(ksfCost, { min: 1, max: 2 }),
    }),
  ),
  "session.login": op(
    "none",
    false,
    struct({ requestId: id<RequestId>(), sessionId: id<SessionId>(), finish: opaqueMessage, setup: uint(1) }),
    struct({ sealed: bytes({ min: 1, max: 96 * 1_024 }) }),
  ),
  "session.check": op("session", false, empty, sessionInfo),
  "session.list": op("session", false, empty, struct({ items: list(sessionInfo, { max: 1_024 }) })),
  /** Closes one session, this one (null) or all. */
  "session.close": op(
    "session",
    false,
    struct({ sessionId: nullable(id<SessionId>()), all: bool }),
    struct({ closed: u53 }),
  ),
  "account.device.add": op("session", true, struct({ settings, state: signedState }), commitOutput),
  "account.password.start": op(
    "session",
    false,
    struct({ request: opaqueMessage }),
    struct({ response: opaqueMessage, ksf: ksfCost }),
  ),
  "account.password": op("session", true, struct({ record: opaqueRecord, settings, state: signedState }), commitOutput),
  /** A record of the same password under the server's newest OPAQUE set-up (docs/protocol.md §3.5). */
  "account.reregister": op(
    "session",
    true,
    struct({ record: opaqueRecord, settings, state: signedState }),
    commitOutput,
  ),
  /** A new account key and identity, with fewer devices or a new password where wanted (docs/protocol.md §5.7). */
  "account.rotate": op(
    "session",
    true,
    struct({ record: nullable(opaqueRecord), settings, state: signedState }),
    commitOutput,
  ),
  /** Wrapped keys ordered by key id, kind, number, above `after`. */
  "account.wraps": op(
    "session",
    false,
    struct({ after: nullable(wrapPlace) }),
    struct({ items: list(wrap, { max: DEFAULTS.wrapsPerRequest }), more: bool }),
  ),
  /** Replaces wrapped keys; the ciphertexts behind them stay. */
  "account.rewrap": op(
    "session",
    false,
    struct({ items: list(wrap, { min: 1, max: DEFAULTS.wrapsPerRequest }) }),
    struct({ rewrapped: u53 }),
  ),
  /** Sets, replaces or drops the recovery kit's public keys (docs/protocol.md §5.8). */
  "account.kit": op("session", true, struct({ settings, state: signedState }), commitOutput),
  "account.recover.start": op(
    "none",
    false,
    struct({ account: accountName }),
    struct({ sessionId: id<SessionId>(), challenge: hash32 }),
  ),
  /** The account and the OPRF's answer for the new password, sealed to the kit that signed the challenge. */
  "account.recover.prove": op(
    "none",
    false,
    struct({ sessionId: id<SessionId>(), signature, request: opaqueMessage }),
    struct({ sealed: bytes({ min: 1, max: 96 * 1_024 }) }),
  ),
  "account.recover": op(
    "none",
    true,
    struct({
      requestId: id<RequestId>(),
      sessionId: id<SessionId>(),
      record: opaqueRecord,
      settings,
      state: signedState,
    }),
    headSummary,
  ),
  /** Leaves a sealed parcel for a new device; `linkId` is a hash of the code that opens it (docs/protocol.md §5.9). */
  "account.device.link": op(
    "session",
    false,
    struct({ linkId: hash32, sealed: bytes({ min: 1, max: 8 * 1_024 }) }),
    struct({ expiresAtMs: u53 }),
  ),
  /** Takes the parcel: once. */
  "account.device.accept": op(
    "none",
    false,
    struct({ linkId: hash32 }),
    struct({ sealed: bytes({ min: 1, max: 8 * 1_024 }) }),
  ),
  /** Ends the account: the last state, whose settings hash is {@link closedHash}'s. */
  "account.delete": op("session", true, struct({ state: signedState }), commitOutput),
  /** What the owner leaves for the recovery kit's holder: sealed to the kit's key, opaque to the server. */
  "account.parcel": op("session", false, empty, struct({ sealed: nullable(parcel) })),
  "account.parcel.put": op("session", false, struct({ sealed: parcel }), empty),
  /** The last state of an account that its owner deleted, for a device that was listed in it. */
  "account.closed": op(
    "none",
    false,
    struct({ userId: id<UserId>(), deviceToken: hash32 }),
    struct({ state: signedState, closedAtMs: u53 }),
  ),
  /** Takes an account into the server's new incarnation, naming the device's own pin (docs/protocol.md §6.5). */
  "account.adopt": op("session", true, struct({ pin: signedState, state: signedState }), commitOutput),
  /** The newest checkpoint, with proofs for this account and from an earlier size (docs/protocol.md §6.3). */
  "log.proof": op(
    "session",
    false,
    struct({ since: u53 }),
    struct({
      /** C2SP signed note. */
      checkpoint: text({ min: 1, max: 4_096 }),
      /** The account's newest position in the tree; null before its first batch. */
      logged: nullable(loggedProof),
      /** Proof that the tree of `since` leaves is a prefix; empty for 0. */
      consistency: treeHashes,
    }),
  ),
  "log.checkpoint": op("none", false, empty, struct({ checkpoint: text({ min: 1, max: 4_096 }) })),
  "state.sync": op("session", false, syncInput, syncOutput),
  "secret.list": op("session", false, syncInput, syncOutput),
  /** Reserves ids and sends 32 random bytes for each (docs/protocol.md §5.2); repeated under one request id, the same. */
  "secret.reserve": op(
    "session",
    false,
    struct({ count: uint(DEFAULTS.changesPerRequest, 1) }),
    struct({
      items: list(struct({ keyId: id<KeyId>(), random: hash32 }), { min: 1, max: DEFAULTS.changesPerRequest }),
    }),
  ),
  "secret.generate": op("session", true, commitInput, commitOutput),
  "secret.store": op("session", true, commitInput, commitOutput),
  "secret.import": op("session", true, commitInput, commitOutput),
  "secret.update": op("session", true, commitInput, commitOutput),
  "secret.restore": op("session", true, commitInput, commitOutput),
  "secret.remove": op("session", true, commitInput, commitOutput),
  "secret.purge": op("session", true, commitInput, commitOutput),
  "secret.get": op("session", false, getInput, getOutput),
  "secret.export": op("session", false, getInput, getOutput),
  "secret.history": op(
    "session",
    false,
    struct({ keyId: id<KeyId>(), afterSerial: u53 }),
    struct({ leaves: list(leafRecord, { max: 256 }), more: bool }),
  ),
  "audit.list": op("session", false, auditInput, auditOutput),
  "audit.verify": op("session", false, auditInput, auditOutput),
  "audit.export": op("session", false, auditInput, auditOutput),
  ...factorOperations,
  ...federationOperations,
  ...keyringOperations,
  ...integratorOperations,
  ...ceremonyOperations,
  ...otpOperations,
} as const satisfies Record<string, OperationShape>;

export type OperationName = keyof typeof operations;
export type InputOf<N extends OperationName> = (typeof operations)[N]["input"] extends Codec<infer T> ? T : never;
export type OutputOf<N extends OperationName> = (typeof operations)[N]["output"] extends Codec<infer T> ? T : never;
type Where<A, M> = {
  [N in OperationName]: (typeof operations)[N] extends { auth: A; mutation: M } ? N : never;
}[OperationName];

/** Operations that commit changes of secrets: all with the same input and output. */
export const COMMITS = [
  "secret.generate",
  "secret.store",
  "secret.import",
  "secret.update",
  "secret.restore",
  "secret.remove",
  "secret.purge",
] as const satisfies readonly OperationName[];
export type CommitName = (typeof COMMITS)[number];
export type SessionOperation = Where<"session", boolean>;
/** Operations that a program calls with the token of a workspace. */
export type TokenOperation = Where<"token", boolean>;

/** What the reply to `account.recover.prove` holds under its seal. */
export const recoverReply = struct({
  userId: id<UserId>(),
  incarnation: id<IncarnationId>(),
  response: opaqueMessage,
  ksf: ksfCost,
  settings,
  head: signedState,
  auditSeq: u53,
  auditLink: hash32,
});

export { loginReply } from "./factor.ts";

export const errorBody = struct({
  code: text({ max: 64 }),
  message: text({ max: 1_024 }),
  retryAfterMs: nullable(u53),
});

/**
 * First line of a sealed reply's plaintext: the account's position and whether the second line is an output or
 * an {@link errorBody}. Two JSON lines, so that a body is parsed once.
 */
export const replyHead = struct({
  head: headSummary,
  ok: bool,
  /** The server-wide log's promise to hold the head's position, for a mutation; the salt gives the pseudonym. */
  promise: nullable(struct({ salt: hash32, atMs: u53, signature })),
});

/** Hash of a request's body without its state and request id (docs/protocol.md §4.3): 32 bytes. */
export function requestHash<N extends OperationName>(name: N, input: InputOf<N>): Uint8Array {
  const shape: OperationShape = operations[name];
  const body = { ...((shape.input as Codec<unknown>).encode(input) as Record<string, Json>) };
  delete body["state"];
  delete body["requestId"];
  return bodyHash(name, JSON.stringify(body));
}

/** True for a name in the table. */
export function isOperation(name: string): name is OperationName {
  return Object.hasOwn(operations, name);
}
