import { open, seal } from "../../crypto/aead.ts";
import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { newId, type SessionId } from "../../ids.ts";
import { loginReplyKey, WINDOW_BYTES } from "../../protocol/channel.ts";
import { pad, unpad } from "../../protocol/secret.ts";
import type { LoginStateRow, Tx } from "../../storage/store.ts";
import { bytes, decodeJson, encodeJson, struct, text } from "../../wire/codec.ts";
import { loginReply, requestHash } from "../../wire/operations.ts";
import { type Candidate, candidate, credentialIdOf, sealSessionKey } from "../accounts.ts";
import { appendEvent } from "../audit.ts";
import type { AnonymousHandler, ServerContext } from "../context.ts";
import { addressBucket, refund, spend } from "../limits.ts";

/** Half a login as sealed in the store: OPAQUE's state, which holds the session key, and the name it was for. */
const half = struct({ state: bytes({ min: 1, max: 1_024 }), account: text({ min: 1, max: 128 }) });

function halfContext(row: Pick<LoginStateRow, "sessionId" | "credentialId" | "recordVersion" | "expiresAtMs">) {
  return {
    kind: "login-state",
    sessionId: row.sessionId,
    credentialId: row.credentialId,
    recordVersion: row.recordVersion,
    expiresAtMs: row.expiresAtMs,
  } as const;
}

/**
 * Counts the guess against the account (or the known device's own bucket) and the address, before any answer. The
 * statements are the same for known and unknown names.
 */
async function countGuess(
  ctx: ServerContext,
  tx: Tx,
  credentialId: Uint8Array,
  known: Candidate,
  deviceToken: Uint8Array | null,
  address: string,
): Promise<{ bucket: string; addressBucket: string }> {
  const place = addressBucket(address);
  const tokenHash = sha256(deviceToken ?? new Uint8Array(32));
  const deviceBucket = `device:${tokenHash.toHex()}`;
  const spent = (await tx.limit(deviceBucket))?.count ?? 0;
  const device =
    deviceToken !== null &&
    spent < ctx.limits.deviceTokenFailures &&
    known.account?.settings.devices.some((d) => Buffer.compare(d.tokenHash, tokenHash) === 0) === true;
  const bucket = device ? deviceBucket : `account:${credentialId.toHex()}`;
  await spend(ctx, tx, place, ctx.limits.loginFreeFailuresPerAddress);
  await spend(ctx, tx, bucket, device ? ctx.limits.deviceTokenFailures : ctx.limits.loginFreeFailures);
  return { bucket, addressBucket: place };
}

/**
 * Above the limit, one counted entry a window (docs/protocol.md §6): it stands for itself and for those that the
 * window before left uncounted. The statements are the same for known and unknown names.
 */
async function noteRefused(ctx: ServerContext, tx: Tx, credentialId: Uint8Array): Promise<void> {
  const { userId, account } = await candidate(ctx, tx, credentialId);
  const bucket = `refused:${credentialId.toHex()}`;
  const nowMs = ctx.now();
  const row = await tx.limit(bucket);
  if (row && nowMs - row.updatedAtMs < ctx.limits.loginBackoffMaxMs) {
    await tx.putLimit({ ...row, count: row.count + 1 });
    return;
  }
  await tx.putLimit({ bucket, count: 0, blockedUntilMs: 0, updatedAtMs: nowMs });
  await appendEvent(ctx, tx, {
    userId,
    action: "session.login",
    status: "rate_limited",
    count: 1 + (row?.count ?? 0),
    shadow: account === undefined,
  });
}

/** First half of a login: KE2 for known, unknown and disabled accounts alike (docs/protocol.md §3.3). */
export const startLogin: AnonymousHandler<"session.login.start"> = async (ctx, remote, input) => {
  const credentialId = credentialIdOf(ctx, input.account);
  const counted = ctx.store.transaction(async (tx) => {
    const known = await candidate(ctx, tx, credentialId);
    return { known, buckets: await countGuess(ctx, tx, credentialId, known, input.deviceToken, remote.address) };
  });
  const { known, buckets } = await counted.catch(async (error: unknown) => {
    if (error instanceof Fault && error.code === "rate_limited") {
      await ctx.store.transaction((tx) => noteRefused(ctx, tx, credentialId));
    }
    throw error;
  });
  const { setup } = ctx.keys.opaque;
  const made = await ctx.pool.run({
    kind: "login-start",
    setup,
    credentialId,
    account: input.account,
    record: known.record,
    request: input.request,
  });
  const sessionId = newId<SessionId>(ctx.random);
  const row = {
    sessionId,
    credentialId,
    userId: known.userId,
    recordVersion: known.recordVersion,
    expiresAtMs: ctx.now() + ctx.limits.loginStateMs,
    ...buckets,
  };
  const plain = pad(new TextEncoder().encode(encodeJson(half, { state: made.state, account: input.account })));
  const sealed = seal(ctx.keys.sealing, halfContext(row), plain, ctx.random);
  wipe(plain, made.state);
  await ctx.store.transaction((tx) => tx.putLoginState({ ...row, sealed }));
  return { sessionId, responses: [made.response], ksf: [ctx.ksf] };
};

/** The one answer to whatever is wrong with a login. */
const refusal = () => new Fault("login_failed", "cannot log in: the account name or the password is wrong");

/** The session key, or why there is none: whatever it is, the guess was made and belongs in the log. */
async function proveLogin(
  ctx: ServerContext,
  taken: LoginStateRow,
  finish: Uint8Array,
): Promise<{ sessionKey: Uint8Array | null; fault: Fault }> {
  if (taken.expiresAtMs < ctx.now()) return { sessionKey: null, fault: refusal() };
  try {
    const plain = open(ctx.keys.sealing, halfContext(taken), taken.sealed);
    const { state, account: name } = decodeJson(half, unpad(plain));
    wipe(plain);
    const { sessionKey } = await ctx.pool.run({ kind: "login-finish", state, account: name, finish });
    wipe(state);
    return { sessionKey, fault: refusal() };
  } catch (error) {
    if (error instanceof Fault) return { sessionKey: null, fault: error };
    throw error;
  }
}

/** Second half: proves the password, opens a session and hands out the sealed account (docs/protocol.md §3.3). */
export const finishLogin: AnonymousHandler<"session.login"> = async (ctx, _remote, input) => {
  const bodyHash = requestHash("session.login", input);
  const taken = await ctx.store.transaction(async (tx) => {
    const row = await tx.takeLoginState(input.sessionId);
    // thrown inside, so that a reservation stays
    if (!row || row.bucket === REGISTRATION) throw refusal();
    return row;
  });
  const { sessionKey, fault } = await proveLogin(ctx, taken, input.finish);
  const done = await ctx.store.transaction(async (tx) => {
    const account = await tx.account(taken.userId);
    const event = { userId: taken.userId, action: "session.login", requestId: input.requestId, bodyHash };
    // the row's account id is not under its seal, the credential id is
    const same = account !== undefined && equalBytes(account.credentialId, taken.credentialId);
    if (sessionKey === null || !same || account.disabled || account.recordVersion !== taken.recordVersion) {
      await appendEvent(ctx, tx, { ...event, status: fault.code, shadow: account === undefined });
      return undefined;
    }
    await tx.dropLimit(taken.bucket);
    await refund(tx, taken.addressBucket, ctx.limits.loginFreeFailuresPerAddress);
    const open = await tx.sessionsOf(taken.userId);
    const surplus = open.length + 1 - ctx.limits.sessionsPerAccount;
    const oldest = [...open].sort((a, b) => a.lastUsedMs - b.lastUsedMs).slice(0, Math.max(0, surplus));
    for (const old of oldest) await tx.closeSession(old.sessionId);
    const nowMs = ctx.now();
    const session = {
      sessionId: taken.sessionId,
      userId: taken.userId,
      sealedKey: sealSessionKey(ctx, taken.sessionId, taken.userId, sessionKey),
      createdAtMs: nowMs,
      lastUsedMs: nowMs,
      expiresAtMs: nowMs + ctx.limits.sessionAbsoluteMs,
      high: 0,
      window: new Uint8Array(WINDOW_BYTES),
    };
    await tx.putSession(session);
    const audit = await appendEvent(ctx, tx, { ...event, status: "ok", session: taken.sessionId });
    return { account, session, audit };
  });
  if (!done || sessionKey === null) throw fault;
  const reply = encodeJson(loginReply, {
    userId: done.account.userId,
    expiresAtMs: done.session.expiresAtMs,
    settings: done.account.settings,
    head: done.account.state,
    auditSeq: done.audit.seq,
    auditLink: done.audit.link,
  });
  const key = loginReplyKey(sessionKey, ctx.keys.identity, taken.sessionId);
  const sealed = seal(
    key,
    { kind: "login-reply", sessionId: taken.sessionId },
    new TextEncoder().encode(reply),
    ctx.random,
  );
  wipe(sessionKey, key);
  return { sealed };
};

/** Bucket name that marks a row as a registration's reservation of its account id. */
export const REGISTRATION = "registration";

/** Turns exchanges that nobody finished into failed events; the guess itself was counted at the start. */
export async function sweepLogins(ctx: ServerContext): Promise<number> {
  return ctx.store.transaction(async (tx) => {
    const rows = await tx.takeExpiredLoginStates(ctx.now(), 256);
    for (const row of rows) {
      const account = await tx.account(row.userId);
      const action = row.bucket === REGISTRATION ? "account.register" : "session.login";
      await appendEvent(ctx, tx, { userId: row.userId, action, status: "timed_out", shadow: account === undefined });
    }
    return rows.length;
  });
}
