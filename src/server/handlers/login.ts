import { seal } from "../../crypto/aead.ts";
import { wipe } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { newId, type SessionId, type UserId } from "../../ids.ts";
import { loginReplyKey, WINDOW_BYTES } from "../../protocol/channel.ts";
import { pad, unpad } from "../../protocol/secret.ts";
import type { LoginStateRow, SessionFactor, Tx } from "../../storage/store.ts";
import { bytes, decodeJson, encodeJson, list, nullable, struct, text } from "../../wire/codec.ts";
import { loginAnswer } from "../../wire/factor.ts";
import { requestHash } from "../../wire/operations.ts";
import { hash32 } from "../../wire/records.ts";
import { type Candidate, candidate, credentialIdOf, openRow, sealSessionKey } from "../accounts.ts";
import { appendEvent } from "../audit.ts";
import type { AnonymousHandler, OpaqueSetup, ServerContext } from "../context.ts";
import { factorOf, isRestrictedSession } from "../factor.ts";
import { FAILED_RECOVERY, inBatches, noteWindowed, REFUSED_LOGIN } from "../floodnotes.ts";
import { addressBucket, refund, refusedBy, spend } from "../limits.ts";
import { makeRoom } from "./factor.ts";
import { LINK } from "./link.ts";
import { RECOVERY } from "./recover.ts";

/**
 * Half a login as sealed in the store: OPAQUE's state under each set-up, which holds the session key, the name it was
 * for, and the hash of the device token that was shown.
 */
const half = struct({
  states: list(struct({ setupId: text({ min: 1, max: 64 }), state: bytes({ min: 1, max: 1_024 }) }), {
    min: 1,
    max: 2,
  }),
  account: text({ min: 1, max: 128 }),
  tokenHash: nullable(hash32),
});

function halfContext(row: Pick<LoginStateRow, "sessionId" | "credentialId" | "recordVersion" | "expiresAtMs">) {
  return {
    kind: "login-state",
    sessionId: row.sessionId,
    credentialId: row.credentialId,
    recordVersion: row.recordVersion,
    expiresAtMs: row.expiresAtMs,
  } as const;
}

/** Bucket name that marks a login counted against a known device's token, and against nothing else. */
const DEVICE = "device";

const accountBucket = (credentialId: Uint8Array): string => `account:${credentialId.toHex()}`;

/** Adds what happened to a login to the log of its name, real or shadow. */
async function noteLogin(ctx: ServerContext, tx: Tx, { userId, known }: Candidate, status: string, count = 1) {
  await appendEvent(ctx, tx, { userId, action: "session.login", status, count, shadow: !known });
}

/** Above an account's limit: one counted entry a window (docs/protocol.md §6). */
function noteRefused(ctx: ServerContext, tx: Tx, credentialId: Uint8Array, name: Candidate): Promise<void> {
  return noteWindowed(ctx, tx, REFUSED_LOGIN, credentialId, name);
}

/** Above an address's limit: one entry a window, for the name that came first. Nothing is written for the others. */
async function noteBlockedAddress(ctx: ServerContext, tx: Tx, place: string, name: Candidate): Promise<void> {
  const bucket = `noted:${place}`;
  const nowMs = ctx.now();
  const row = await tx.limit(bucket);
  if (row && nowMs - row.updatedAtMs < ctx.limits.loginBackoffMaxMs) return;
  await tx.putLimit({ bucket, count: 1, blockedUntilMs: 0, updatedAtMs: nowMs });
  await noteLogin(ctx, tx, name, "rate_limited");
}

/**
 * Counts the guess against the account and the address, or against the known device's token alone, before any answer;
 * or notes that one of them refuses it. The statements are the same for known and unknown names.
 *
 * @returns The buckets, or the refusal: thrown here it would take the note back.
 */
async function countGuess(
  ctx: ServerContext,
  tx: Tx,
  credentialId: Uint8Array,
  name: Candidate,
  deviceToken: Uint8Array | null,
  address: string,
): Promise<Pick<LoginStateRow, "bucket" | "addressBucket"> | Fault> {
  const place = addressBucket(address);
  const tokenHash = sha256(deviceToken ?? new Uint8Array(32));
  const failures = await tx.tokenFailures(name.userId, tokenHash);
  if (deviceToken !== null && failures !== undefined && failures < ctx.limits.deviceTokenFailures) {
    // others behind the same address cannot keep the device out, and it uses up nothing of theirs
    await tx.putTokenFailures(name.userId, tokenHash, failures + 1);
    return { bucket: DEVICE, addressBucket: DEVICE };
  }
  const bucket = accountBucket(credentialId);
  const blocked = await refusedBy(ctx, tx, place);
  if (blocked) {
    await noteBlockedAddress(ctx, tx, place, name);
    return blocked;
  }
  const refused = await refusedBy(ctx, tx, bucket);
  if (refused) {
    await noteRefused(ctx, tx, credentialId, name);
    return refused;
  }
  await spend(ctx, tx, place, ctx.limits.loginFreeFailuresPerAddress);
  await spend(ctx, tx, bucket, ctx.limits.loginFreeFailures);
  return { bucket, addressBucket: place };
}

/** The OPAQUE set-ups in use: the current one, and while a rotation's window is open the one before. */
const setupsOf = ({ keys }: ServerContext): readonly OpaqueSetup[] =>
  keys.previousOpaque === null ? [keys.opaque] : [keys.opaque, keys.previousOpaque];

/** First half of a login: KE2 for known, unknown and disabled accounts alike (docs/protocol.md §3.3). */
export const startLogin: AnonymousHandler<"session.login.start"> = async (ctx, remote, input) => {
  const credentialId = credentialIdOf(ctx, input.account);
  const { name, counted } = await ctx.store.transaction(async (tx) => {
    const name = await candidate(ctx, tx, credentialId);
    return { name, counted: await countGuess(ctx, tx, credentialId, name, input.deviceToken, remote.address) };
  }, addressBucket(remote.address));
  if (counted instanceof Fault) throw counted;
  const job = { kind: "login-start", credentialId, account: input.account, request: input.request } as const;
  const setups = setupsOf(ctx);
  // under both, whatever is noted of the record: one whose making a rotation overtook opens under the one before
  const answers = setups.map(({ setup }) => ctx.pool.run({ ...job, setup, record: name.record }));
  const made = await Promise.all(answers).catch(async (error: unknown) => {
    // counted like any other guess, and no half login is left of it to become an entry
    const status = error instanceof Fault ? error.code : "internal";
    await ctx.store.transaction(async (tx) => noteLogin(ctx, tx, await candidate(ctx, tx, credentialId), status));
    throw error;
  });
  const sessionId = newId<SessionId>(ctx.random);
  const row = {
    sessionId,
    credentialId,
    userId: name.userId,
    recordVersion: name.recordVersion,
    expiresAtMs: ctx.now() + ctx.limits.loginStateMs,
    ...counted,
  };
  const tokenHash = input.deviceToken && sha256(input.deviceToken);
  const states = made.map(({ state }, i) => ({ setupId: setups[i]?.id ?? "", state }));
  const plain = pad(new TextEncoder().encode(encodeJson(half, { states, account: input.account, tokenHash })));
  const sealed = seal(ctx.keys.sealing, halfContext(row), plain, ctx.random);
  wipe(plain, ...made.map(({ state }) => state));
  await ctx.store.transaction((tx) => tx.putLoginState({ ...row, sealed }));
  return { sessionId, responses: made.map(({ response }) => response), ksf: [ctx.ksf] };
};

/** The one answer to whatever is wrong with a login. */
const refusal = () => new Fault("login_failed", "cannot log in: the account name or the password is wrong");

/** What the second half of a login came to. */
interface Proof {
  readonly sessionKey: Uint8Array | null;
  /** OPAQUE set-up under which the password was proved. */
  readonly setupId: string;
  readonly tokenHash: Uint8Array | null;
  /** Why there is no session key: whatever it is, the guess was made and belongs in the log. */
  readonly fault: Fault;
}

async function proveLogin(ctx: ServerContext, taken: LoginStateRow, finish: Uint8Array, setup: number): Promise<Proof> {
  const failed = (fault: Fault): Proof => ({ sessionKey: null, setupId: "", tokenHash: null, fault });
  if (taken.expiresAtMs < ctx.now()) return failed(refusal());
  try {
    const plain = openRow(ctx, halfContext(taken), taken.sealed);
    const { states, account: name, tokenHash } = decodeJson(half, unpad(plain));
    wipe(plain);
    const used = states[setup];
    if (!used) return failed(refusal());
    const { setupId, state } = used;
    const { sessionKey } = await ctx.pool.run({ kind: "login-finish", state, account: name, finish });
    wipe(...states.map((one) => one.state));
    return { sessionKey, setupId, tokenHash, fault: refusal() };
  } catch (error) {
    if (error instanceof Fault) return failed(error);
    throw error;
  }
}

/** How a session begins towards the second factor (docs/protocol.md §10.9). */
async function factorNow(
  ctx: ServerContext,
  tx: Tx,
  userId: UserId,
  tokenHash: Uint8Array | null,
): Promise<SessionFactor> {
  if (!(await factorOf(tx, userId))) return ctx.secondFactor === "required" ? "enrol" : "none";
  const listed = tokenHash !== null && (await tx.tokenFailures(userId, tokenHash)) !== undefined;
  return listed ? "device" : "needed";
}

/** Second half: proves the password, opens a session and hands out the sealed account (docs/protocol.md §3.3). */
export const finishLogin: AnonymousHandler<"session.login"> = async (ctx, _remote, input) => {
  const bodyHash = requestHash("session.login", input);
  const taken = await ctx.store.transaction(async (tx) => {
    const row = await tx.takeLoginState(input.sessionId);
    // thrown inside, so that a reservation stays
    if (!row || OTHERS.has(row.bucket)) throw refusal();
    return row;
  });
  const { sessionKey, setupId, tokenHash, fault } = await proveLogin(ctx, taken, input.finish, input.setup);
  const done = await ctx.store.transaction(async (tx) => {
    // by the credential id, which is under the row's seal; its account id is not
    const name = await candidate(ctx, tx, taken.credentialId);
    const event = { userId: name.userId, action: "session.login", requestId: input.requestId, bodyHash };
    const same = name.record !== null && name.userId === taken.userId && name.recordVersion === taken.recordVersion;
    if (sessionKey === null || !same) {
      await appendEvent(ctx, tx, { ...event, status: fault.code, shadow: !name.known });
      return undefined;
    }
    const account = await tx.account(name.userId);
    if (!account) throw new Fault("internal", "an account has vanished");
    if (setupId !== account.setupId) await tx.replaceRecord(account.userId, account.record, setupId);
    if (taken.bucket !== DEVICE) {
      await tx.dropLimit(taken.bucket);
      await refund(tx, taken.addressBucket, ctx.limits.loginFreeFailuresPerAddress);
    }
    // a token that failures had made void is good again, too
    if (tokenHash) await tx.putTokenFailures(account.userId, tokenHash, 0);
    const factor = await factorNow(ctx, tx, account.userId, tokenHash);
    const restricted = isRestrictedSession(factor);
    await makeRoom(ctx, tx, taken.userId, restricted);
    const nowMs = ctx.now();
    const session = {
      sessionId: taken.sessionId,
      userId: taken.userId,
      sealedKey: sealSessionKey(ctx, taken.sessionId, taken.userId, sessionKey),
      createdAtMs: nowMs,
      lastUsedMs: nowMs,
      expiresAtMs: nowMs + (restricted ? ctx.limits.factorMs : ctx.limits.sessionAbsoluteMs),
      high: 0,
      window: new Uint8Array(WINDOW_BYTES),
      factor,
    };
    await tx.putSession(session);
    const audit = await appendEvent(ctx, tx, {
      ...event,
      status: restricted ? "factor_required" : "ok",
      session: taken.sessionId,
    });
    return { account, session, audit };
  }, taken.addressBucket);
  if (!done || sessionKey === null) throw fault;
  const { account, session, audit } = done;
  const { userId } = account;
  const expiresAtMs = session.createdAtMs + ctx.limits.sessionAbsoluteMs;
  const reply = encodeJson(
    loginAnswer,
    isRestrictedSession(session.factor)
      ? { userId, expiresAtMs, needs: session.factor === "enrol" ? "enrol" : "factor" }
      : {
          userId,
          expiresAtMs,
          settings: account.settings,
          head: account.state,
          auditSeq: audit.seq,
          auditLink: audit.link,
        },
  );
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

/** Rows that are no half logins. */
const OTHERS: ReadonlySet<string> = new Set([REGISTRATION, RECOVERY, LINK]);

/** Turns exchanges that nobody finished into failed events; the guess itself was counted at the start. */
export function sweepLogins(ctx: ServerContext): Promise<number> {
  return inBatches(async (limit) =>
    ctx.store.transaction(async (tx) => {
      const rows = await tx.takeExpiredLoginStates(ctx.now(), limit);
      for (const row of rows) {
        if (row.bucket === REGISTRATION) {
          const event = { userId: row.userId, action: "account.register", status: "timed_out" };
          await appendEvent(ctx, tx, { ...event, shadow: true });
        } else if (row.bucket === RECOVERY) {
          await noteWindowed(ctx, tx, FAILED_RECOVERY, row.credentialId, await candidate(ctx, tx, row.credentialId));
        } else if (row.bucket !== LINK) {
          await noteLogin(ctx, tx, await candidate(ctx, tx, row.credentialId), "timed_out");
        }
      }
      return rows.length;
    }),
  );
}
