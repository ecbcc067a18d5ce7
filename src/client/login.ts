import { open as openSealed } from "../crypto/aead.ts";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import type { Argon2Cost } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { newId, type RequestId, type UserId } from "../ids.ts";
import { accountKeys, unwrapAccountKey } from "../protocol/account.ts";
import { channelKeys, loginReplyKey } from "../protocol/channel.ts";
import { DEFAULTS, KDF } from "../protocol/defaults.ts";
import { settingsHash, stateSignaturesHold } from "../protocol/state.ts";
import { encodeJson, type Of } from "../wire/codec.ts";
import { isRestricted, loginAnswer, type loginReply } from "../wire/factor.ts";
import { isLoopback, parseServerUrl } from "../wire/http.ts";
import { type InputOf, type OperationName, type OutputOf, operations } from "../wire/operations.ts";
import { connectServer, decodeReply, postOperation, reachServer } from "../wire/transport.ts";
import { identityOf, type Surroundings } from "./model.ts";
import { type Finished, type OpaqueExchange, startOpaque } from "./opaque.ts";
import type { ProfileServer } from "./profile.ts";
import { createSession, faultOf, type Link, type Session } from "./session.ts";

const REPLY_MAX = 8 * 1_024 * 1_024;

/** Finds the pinned server and gives a way to post to it (docs/protocol.md §3.1). */
export async function connect(
  server: ProfileServer,
  around: Surroundings,
): Promise<{ link: Link; server: ProfileServer }> {
  const { url, pin, tlsCaPem } = server;
  const found = await connectServer({
    url,
    pin,
    caPem: server.caPem,
    tlsCaPem,
    minStatement: server.statementNumber,
    now: around.now,
    timeouts: { connectMs: DEFAULTS.connectTimeoutMs, requestMs: DEFAULTS.requestTimeoutMs },
  });
  const address = { url, caPem: found.caPem, tlsCaPem };
  const link: Link = {
    identity: found.statement.identity,
    statementNumber: found.statement.number,
    statement: found.statement,
    opaqueKeys: found.statement.opaqueKeys,
    reach: () => reachServer(address),
    post: (operation, contentType, body, token) =>
      postOperation(address, operation as OperationName, body, contentType, {
        timeoutMs: DEFAULTS.requestTimeoutMs,
        maxReplyBytes: REPLY_MAX,
        ...(token !== undefined && { token }),
      }),
  };
  return { link, server: { ...server, caPem: found.caPem, statementNumber: found.statement.number } };
}

/** Calls an operation without a session. @param token Of an operation for tokens. @throws Fault of the answer */
export async function callClear<N extends OperationName>(
  link: Link,
  operation: N,
  input: InputOf<N>,
  token?: string,
): Promise<OutputOf<N>> {
  const shape = operations[operation];
  const body = encodeJson(shape.input as never, input as never);
  const reply = await link.post(operation, "application/json", body, token);
  if (reply.status !== 200) throw faultOf(reply.body);
  return decodeReply(shape.output as never, reply.body) as OutputOf<N>;
}

/** How a password is stretched; `federation` is for secrets of 256 random bits, never for a person's password. */
export type Stretching = "default" | "test" | "federation";

/**
 * Key-stretching settings that this client will try: those of the server that reach the compiled-in floor; the
 * cheap one of tests only where it was asked for, against a loopback server.
 */
export function acceptedCosts(offered: readonly Argon2Cost[], url: string, kdf: Stretching): readonly Argon2Cost[] {
  if (kdf === "federation") return [KDF.federation];
  if (kdf === "test") {
    if (!isLoopback(parseServerUrl(url).host)) {
      throw new Fault("bad_input", "--kdf test is for a server on this machine only");
    }
    return [KDF.test];
  }
  const { memoryKib, passes } = KDF.opaque;
  const sound = offered.filter((cost) => cost.memoryKib >= memoryKib && cost.passes >= passes);
  const bounded = sound.filter(
    (cost) =>
      cost.memoryKib <= KDF.opaqueCeiling.memoryKib &&
      cost.passes <= KDF.opaqueCeiling.passes &&
      cost.lanes <= KDF.opaqueCeiling.lanes,
  );
  if (bounded.length === 0) {
    throw new Fault("integrity", "the server asks for password hashing below this client's floor", {
      why: "it would make guessing the password cheap",
    });
  }
  return bounded;
}

/** Finishes an OPAQUE exchange. @throws Fault integrity when the server's message is none */
export async function finishOpaque(
  exchange: OpaqueExchange,
  account: string,
  responses: readonly Uint8Array[],
  costs: readonly Argon2Cost[],
): Promise<Finished | undefined> {
  try {
    return await exchange.finish(account, responses, costs);
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "bad_input") throw error;
    throw new Fault("integrity", "the server's OPAQUE message is malformed", { why: error.message });
  }
}

/** A finished login: the session, and the account as the server showed it, opened with the password. */
export interface LoggedIn {
  readonly session: Session;
  readonly userId: UserId;
  readonly accountKey: Uint8Array;
  readonly reply: Of<typeof loginReply>;
  readonly requestId: RequestId;
  /** Which of the server's OPAQUE set-ups it was made under: 0 is the current one. */
  readonly setup: number;
  /** OPAQUE export key, 64 bytes; the caller wipes it. */
  readonly exportKey: Uint8Array;
}

/** The one error of a login that did not succeed; wrong password and unknown account cannot be told apart. */
function loginFailed(): Fault {
  return new Fault("login_failed", "cannot log in: the account name or the password is wrong");
}

/**
 * Logs in with OPAQUE and opens the account key (docs/protocol.md §3.3).
 *
 * @param password NFC-normalised UTF-8, not retained.
 * @throws Fault login_failed, rate_limited, integrity, unreachable; factor_required, factor_failed
 */
export async function logIn(
  link: Link,
  server: { url: string; kdf: Stretching; deviceToken: Uint8Array | null },
  account: string,
  password: Uint8Array,
  around: Surroundings,
): Promise<LoggedIn> {
  const exchange = await startOpaque("login", password);
  try {
    const started = await callClear(link, "session.login.start", {
      account,
      request: exchange.request,
      deviceToken: server.deviceToken,
    });
    const requestId = newId<RequestId>(around.random);
    const { sessionId } = started;
    const done = await finishOpaque(
      exchange,
      account,
      started.responses,
      acceptedCosts(started.ksf, server.url, server.kdf),
    );
    if (!done?.finish || !done.sessionKey) {
      await reportFailure(link, requestId, sessionId);
      throw loginFailed();
    }
    if (!link.opaqueKeys.some((key) => equalBytes(key, done.serverKey))) {
      throw new Fault("integrity", "the server logged in with another OPAQUE key than its identity signed");
    }
    const { sealed } = await callClear(link, "session.login", {
      requestId,
      sessionId,
      finish: done.finish,
      setup: done.setup,
    });
    const key = loginReplyKey(done.sessionKey, link.identity, sessionId);
    const answer = decodeReply(loginAnswer, openSealed(key, { kind: "login-reply", sessionId }, sealed));
    const keys = channelKeys(done.sessionKey, link.identity, answer.userId, sessionId);
    wipe(done.sessionKey, key);
    const session = createSession(link, keys, { sessionId, expiresAtMs: answer.expiresAtMs }, around);
    const reply = isRestricted(answer)
      ? await (await import("./factor.ts")).completeLogin(session, answer, around)
      : answer;
    const { settings, head, userId } = reply;
    if (head.state.userId !== userId || !equalBytes(head.state.settingsHash, settingsHash(settings))) {
      throw new Fault("integrity", "the server showed settings that the owner did not sign");
    }
    const accountKey = unwrapAccountKey(done.exportKey, userId, settings);
    // only who has the password can have wrapped this identity: the server cannot put its own in its place
    identityOf(accountKeys(accountKey, userId), userId, settings);
    if (!stateSignaturesHold(head, settings)) {
      throw new Fault("integrity", "the server showed an account state that the owner did not sign");
    }
    return { session, userId, accountKey, reply, requestId, setup: done.setup, exportKey: done.exportKey };
  } finally {
    exchange.end();
  }
}

/** Tells the server at once that the guess failed, so that the owner's log has it; its refusal is expected. */
async function reportFailure(
  link: Link,
  requestId: RequestId,
  sessionId: LoggedIn["session"]["sessionId"],
): Promise<void> {
  try {
    await callClear(link, "session.login", { requestId, sessionId, finish: new Uint8Array(64), setup: 0 });
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  }
}
