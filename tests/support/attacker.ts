import { signersOf } from "../../src/client/model.ts";
import { newDevice, prepareRegistration } from "../../src/client/register.ts";
import { open as openSealed } from "../../src/crypto/aead.ts";
import { ZERO_HASH_BYTES } from "../../src/crypto/bytes.ts";
import type { Signer } from "../../src/crypto/identity.ts";
import { EMPTY_MAP, type MerkleMap } from "../../src/crypto/merkle.ts";
import { clientLoginFinish, clientLoginStart } from "../../src/crypto/opaque.ts";
import { idBytes, type KeyId, newId, type RequestId, type SessionId, type UserId } from "../../src/ids.ts";
import { type ChannelKeys, channelKeys, loginReplyKey, openReply, sealRequest } from "../../src/protocol/channel.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import { type LeafRecord, leafHash } from "../../src/protocol/leaf.ts";
import { sealedHash } from "../../src/protocol/secret.ts";
import {
  type AccountState,
  type Settings,
  type SignedState,
  settingsHash,
  signState,
  stateHash,
} from "../../src/protocol/state.ts";
import type { Reply } from "../../src/server/dispatch.ts";
import { type Codec, decodeJson, encodeJson, type Of } from "../../src/wire/codec.ts";
import { loginAnswer } from "../../src/wire/factor.ts";
import {
  type CommitName,
  errorBody,
  type InputOf,
  type OperationName,
  type OutputOf,
  operations,
  replyHead,
  requestHash,
  type SessionOperation,
} from "../../src/wire/operations.ts";
import { passwordOf, random, type TestServer, testSurroundings } from "./harness.ts";

/** The attacker's tool kit: raw requests, frames and signed states, a database seen and changed from outside. */

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

// ---- Raw requests ----

const ADDRESS = "192.0.2.1";

/** Posts without a session; the reply as it is. */
export function post(server: TestServer, name: string, input: unknown, address = ADDRESS): Promise<Reply> {
  return server.dispatcher.handle(name, "application/json", utf8(JSON.stringify(input)), { address });
}

/** Posts a well-formed input without a session. */
export function postInput<N extends OperationName>(
  server: TestServer,
  name: N,
  input: InputOf<N>,
  address = ADDRESS,
): Promise<Reply> {
  return post(server, name, (operations[name].input as Codec<unknown>).encode(input), address);
}

/** The typed error of an unsealed reply. */
export function errorOf(reply: Reply): { code: string; message: string; retryAfterMs: number | null } {
  return decodeJson(errorBody, utf8(String(reply.body)));
}

/** The output of an unsealed reply. */
export function outputOf<N extends OperationName>(name: N, reply: Reply): OutputOf<N> {
  if (reply.status !== 200) throw new Error(`${name}: ${String(reply.body)}`);
  return decodeJson(operations[name].output as Codec<unknown>, utf8(String(reply.body))) as OutputOf<N>;
}

// ---- Logins ----

export interface RawStart {
  readonly reply: Reply;
  readonly sessionId: SessionId;
  readonly response: Uint8Array;
  /** KE3 and the keys, if the password fits. */
  readonly fitting: { finish: Uint8Array; sessionKey: Uint8Array } | undefined;
}

interface LoginOptions {
  readonly address?: string;
  readonly token?: Uint8Array | null;
}

/** First half of a login. @throws Error for any reply but 200 */
export async function startRaw(
  server: TestServer,
  account: string,
  password: string,
  options: LoginOptions = {},
): Promise<RawStart> {
  const { request, state } = clientLoginStart(password);
  const reply = await postInput(
    server,
    "session.login.start",
    { account, request, deviceToken: options.token ?? null },
    options.address,
  );
  const { sessionId, responses } = outputOf("session.login.start", reply);
  const [response] = responses;
  if (!response) throw new Error("no KE2");
  const fitting = clientLoginFinish(password, account, state, response, KDF.test);
  return { reply, sessionId, response, fitting };
}

export const WRONG_KE3 = new Uint8Array(64);

/** Second half of a login. */
export function finishRaw(
  server: TestServer,
  started: Pick<RawStart, "sessionId" | "fitting">,
  requestId = newId<RequestId>(random),
  address?: string,
): Promise<Reply> {
  const finish = started.fitting?.finish ?? WRONG_KE3;
  return postInput(server, "session.login", { requestId, sessionId: started.sessionId, finish, setup: 0 }, address);
}

/** A session held with bare hands. */
export interface RawSession {
  readonly sessionId: SessionId;
  readonly userId: UserId;
  readonly sessionKey: Uint8Array;
  readonly keys: ChannelKeys;
  sequence: number;
}

/** Logs in. */
export async function logInRaw(
  server: TestServer,
  account: string,
  password: string,
  options: LoginOptions = {},
): Promise<RawSession> {
  const started = await startRaw(server, account, password, options);
  const { sealed } = outputOf("session.login", await finishRaw(server, started, undefined, options.address));
  if (!started.fitting) throw new Error("wrong password");
  const { sessionKey } = started.fitting;
  const key = loginReplyKey(sessionKey, server.ctx.keys.identity, started.sessionId);
  const reply = decodeJson(loginAnswer, openSealed(key, { kind: "login-reply", sessionId: started.sessionId }, sealed));
  const { userId } = reply;
  const keys = channelKeys(sessionKey, server.ctx.keys.identity, userId, started.sessionId);
  return { sessionId: started.sessionId, userId, sessionKey, keys, sequence: 0 };
}

// ---- Frames ----

export interface RawFrame {
  readonly head: { readonly sessionId: SessionId; readonly sequence: number; readonly requestId: RequestId };
  readonly operation: string;
  readonly bytes: Uint8Array;
}

/** Seals any bytes as a request. */
export function frameOf(
  session: RawSession,
  operation: string,
  body: Uint8Array,
  head: { readonly sequence?: number; readonly requestId?: RequestId } = {},
): RawFrame {
  const sequence = head.sequence ?? ++session.sequence;
  const made = { sessionId: session.sessionId, sequence, requestId: head.requestId ?? newId<RequestId>(random) };
  return { head: made, operation, bytes: sealRequest(session.keys, made, operation, body, random) };
}

/** Sends bytes as a frame. */
export function postFrame(
  server: Pick<TestServer, "dispatcher">,
  operation: string,
  bytes: Uint8Array,
): Promise<Reply> {
  return server.dispatcher.handle(operation, "application/octet-stream", bytes, { address: ADDRESS });
}

/** One answer of a session, sealed or not. */
export interface RawAnswer {
  readonly status: number;
  /** False for an error in clear. */
  readonly sealed: boolean;
  /** `ok` or an error code. */
  readonly code: string;
  /** Second line of a sealed answer, or the error in clear. */
  readonly text: string;
  readonly head: { revision: number; auditSeq: number; auditLink: Uint8Array } | null;
  readonly promise: Of<typeof replyHead>["promise"];
  readonly requestId: RequestId;
}

/** Sends a frame and opens what comes back. */
export async function exchange(
  server: Pick<TestServer, "dispatcher">,
  session: RawSession,
  frame: RawFrame,
): Promise<RawAnswer> {
  const reply = await postFrame(server, frame.operation, frame.bytes);
  const { requestId } = frame.head;
  if (typeof reply.body === "string") {
    const { code } = errorOf(reply);
    return { status: reply.status, sealed: false, code, text: reply.body, head: null, promise: null, requestId };
  }
  const plain = openReply(session.keys, frame.head, frame.operation, frame.bytes, reply.body);
  const cut = plain.indexOf(10);
  const { head, ok, promise } = decodeJson(replyHead, plain.subarray(0, cut));
  const text = new TextDecoder().decode(plain.subarray(cut + 1));
  const code = ok ? "ok" : decodeJson(errorBody, utf8(text)).code;
  return { status: reply.status, sealed: true, code, text, head, promise, requestId };
}

/** Calls an operation of a session. */
export function call<N extends SessionOperation>(
  server: Pick<TestServer, "dispatcher">,
  session: RawSession,
  operation: N,
  input: InputOf<N>,
  head: { readonly sequence?: number; readonly requestId?: RequestId } = {},
): Promise<RawAnswer> {
  const body = utf8(encodeJson(operations[operation].input as Codec<unknown>, input));
  return exchange(server, session, frameOf(session, operation, body, head));
}

/** The output in an answer. */
export function output<N extends SessionOperation>(operation: N, answer: RawAnswer): OutputOf<N> {
  if (answer.code !== "ok") throw new Error(`${operation}: ${answer.text}`);
  return decodeJson(operations[operation].output as Codec<unknown>, utf8(answer.text)) as OutputOf<N>;
}

// ---- Accounts ----

/** An account's owner without a vault: its keys, and the state that the server should hold. */
export interface RawOwner {
  readonly account: string;
  readonly password: string;
  readonly token: Uint8Array;
  readonly userId: UserId;
  readonly identity: Signer;
  readonly device: Signer;
  settings: Settings;
  state: SignedState;
  map: MerkleMap;
}

/** A registration up to, but without, its last request. */
export async function prepareRaw(
  server: TestServer,
  account: string,
  password = "correct horse",
  invite: string | null = null,
): Promise<{ input: InputOf<"account.register">; owner: RawOwner }> {
  const around = testSurroundings();
  const entry = newDevice("device", around);
  let caught: Uint8Array | undefined;
  const link = server.link(ADDRESS, async (operation, body, forward) => {
    if (operation !== "account.register") return forward(operation, body);
    caught = body;
    return { status: 503, contentType: "application/json", body: "{}", outcome: "dropped" };
  });
  const cheap = { url: "https://127.0.0.1:1", kdf: "test" } as const;
  const prepared = await prepareRegistration(
    link,
    cheap,
    { account, invite, device: entry },
    passwordOf(password),
    around,
  );
  await prepared.finish().catch(() => undefined);
  if (!caught) throw new Error("no registration was sent");
  const input = decodeJson(operations["account.register"].input, caught);
  const { identity, device } = signersOf(prepared.model);
  const { userId } = input.state.state;
  const owner = {
    account,
    password,
    token: entry.token,
    userId,
    identity,
    device,
    settings: input.settings,
    state: input.state,
    map: EMPTY_MAP,
  };
  return { input, owner };
}

/** Registers an account. */
export async function registerRaw(
  server: TestServer,
  account: string,
  password = "correct horse",
  invite: string | null = null,
): Promise<RawOwner> {
  const { input, owner } = await prepareRaw(server, account, password, invite);
  outputOf("account.register", await postInput(server, "account.register", input));
  return owner;
}

// ---- Mutations ----

/** The next leaf of a key, or its first. */
export function leafOf(
  keyId: KeyId,
  sealed: Uint8Array | null,
  before: LeafRecord | null,
  changes: Partial<LeafRecord> = {},
): LeafRecord {
  const meta = random(120);
  return {
    keyId,
    serial: (before?.serial ?? 0) + 1,
    version: (before?.version ?? 0) + (sealed ? 1 : 0),
    sealedHash: sealed ? sealedHash(sealed) : (before?.sealedHash ?? ZERO_HASH_BYTES),
    metaHash: sealedHash(meta),
    meta,
    publicKey: null,
    status: "live",
    previous: before ? leafHash(before) : ZERO_HASH_BYTES,
    ...changes,
  };
}

/** Signs the state after `base`; `twist` makes it wrong before it is signed. */
export function signNext(
  owner: RawOwner,
  requestId: RequestId,
  hash: Uint8Array,
  root: Uint8Array,
  settings: Settings = owner.settings,
  twist: Partial<AccountState> = {},
  signers: { identity: Signer; device: Signer } = owner,
): SignedState {
  const { state } = owner.state;
  const next = {
    ...state,
    revision: state.revision + 1,
    previous: stateHash(state),
    requestId,
    requestHash: hash,
    root,
    settingsHash: settingsHash(settings),
    auditSeq: 0,
    auditLink: ZERO_HASH_BYTES,
    ...twist,
  };
  return signState(next, signers.identity, signers.device);
}

/** A commit of changes, soundly signed unless twisted. `done` makes it the owner's state. */
export function commitOf(
  owner: RawOwner,
  operation: CommitName,
  changes: readonly { leaf: LeafRecord; sealed: Uint8Array | null }[],
  requestId: RequestId,
  twist: Partial<AccountState> = {},
  signers: { identity: Signer; device: Signer } = owner,
): { input: InputOf<CommitName>; done(): void } {
  let map = owner.map;
  for (const { leaf } of changes) map = map.with(idBytes(leaf.keyId), leafHash(leaf));
  const hash = requestHash(operation, { changes, state: owner.state });
  const state = signNext(owner, requestId, hash, map.root(), owner.settings, twist, signers);
  return {
    input: { changes, state },
    done: () => {
      owner.map = map;
      owner.state = state;
    },
  };
}

/** Reserves an id and stores a value under it. */
export async function storeRaw(
  server: TestServer,
  session: RawSession,
  owner: RawOwner,
  sealed = random(120),
): Promise<LeafRecord> {
  const keyId = await reserveRaw(server, session);
  const leaf = leafOf(keyId, sealed, null);
  const requestId = newId<RequestId>(random);
  const made = commitOf(owner, "secret.store", [{ leaf, sealed }], requestId);
  output("secret.store", await call(server, session, "secret.store", made.input, { requestId }));
  made.done();
  return leaf;
}

/** Reserves one id. */
export async function reserveRaw(server: TestServer, session: RawSession): Promise<KeyId> {
  const { items } = output("secret.reserve", await call(server, session, "secret.reserve", { count: 1 }));
  const [item] = items;
  if (!item) throw new Error("nothing was reserved");
  return item.keyId;
}

/** All entries of an account's log, straight from the store. */
export function logOf(server: TestServer, userId: UserId, requestId: RequestId | null = null) {
  return server.store.transaction(async (tx) => {
    const filter = { after: 0, limit: 100_000, keyId: null, action: null, fromMs: null, untilMs: null, requestId };
    return (await tx.audit(userId, filter)).map(({ entry }) => entry);
  });
}
