import { seal } from "../../crypto/aead.ts";
import { concat, equalBytes, wipe } from "../../crypto/bytes.ts";
import { hpkeSeal } from "../../crypto/hpke.ts";
import { verifySignature } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import { newId, type SessionId } from "../../ids.ts";
import { kitSealing, kitVerifier, recoveryChallenge, recoveryReplyInfo } from "../../protocol/kit.ts";
import { pad, unpad } from "../../protocol/secret.ts";
import type { AccountRow, LoginStateRow, Tx } from "../../storage/store.ts";
import { bool, decodeJson, encodeJson, struct, text } from "../../wire/codec.ts";
import { recoverReply, requestHash } from "../../wire/operations.ts";
import { hash32 } from "../../wire/records.ts";
import { candidate, credentialIdOf, openRow } from "../accounts.ts";
import { appendEvent } from "../audit.ts";
import type { AnonymousHandler, ServerContext } from "../context.ts";
import { FAILED_RECOVERY, noteWindowed } from "../floodnotes.ts";
import { addressBucket, refund, spend } from "../limits.ts";
import { advanceState, demandCurrent } from "../state.ts";
import { keepsDevices, keepsKeys } from "./settings.ts";

/** Marks the row of a recovery among the half logins. */
export const RECOVERY = "recovery";

/** A recovery between its steps, as sealed in the store. */
const half = struct({ account: text({ min: 1, max: 128 }), challenge: hash32, proven: bool });

type Half = { readonly account: string; readonly challenge: Uint8Array; readonly proven: boolean };

/** The same refusal for a wrong kit, an account without one, and a name that nobody has. */
const refusal = () =>
  new Fault("login_failed", "cannot recover: the account name or the recovery kit is wrong", {
    hint: "check the account name and the words of the kit",
  });

function rowContext(row: Pick<LoginStateRow, "sessionId" | "credentialId" | "recordVersion" | "expiresAtMs">) {
  const { sessionId, credentialId, recordVersion, expiresAtMs } = row;
  return { kind: "login-state", sessionId, credentialId, recordVersion, expiresAtMs } as const;
}

async function putHalf(
  ctx: ServerContext,
  tx: Tx,
  row: Omit<LoginStateRow, "sealed" | "bucket" | "expiresAtMs">,
  content: Half,
): Promise<void> {
  const whole = { ...row, bucket: RECOVERY, expiresAtMs: ctx.now() + ctx.limits.recoveryMs };
  const plain = pad(new TextEncoder().encode(encodeJson(half, content)));
  const sealed = seal(ctx.keys.sealing, rowContext(whole), plain, ctx.random);
  await tx.putLoginState({ ...whole, sealed });
}

/** Takes a recovery's row: once. @throws Fault login_failed; what is no recovery's stays */
async function takeHalf(
  ctx: ServerContext,
  tx: Tx,
  sessionId: SessionId,
  proven: boolean,
): Promise<{ row: LoginStateRow; content: Half }> {
  const row = await tx.takeLoginState(sessionId);
  if (row?.bucket !== RECOVERY || row.expiresAtMs < ctx.now()) throw refusal();
  const content = contentOf(ctx, row);
  if (content?.proven !== proven) throw refusal();
  return { row, content };
}

/** What a row seals; null for one that was altered or moved. */
function contentOf(ctx: ServerContext, row: LoginStateRow): Half | null {
  try {
    const plain = unpad(openRow(ctx, rowContext(row), row.sealed));
    const content = decodeJson(half, plain);
    wipe(plain);
    return content;
  } catch (error) {
    if (error instanceof Fault) return null;
    throw error;
  }
}

/** Hands out a challenge for the kit, for any name alike; nothing is evaluated yet (docs/protocol.md §5.8). */
export const startRecovery: AnonymousHandler<"account.recover.start"> = async (ctx, remote, input) => {
  const credentialId = credentialIdOf(ctx, input.account);
  const sessionId = newId<SessionId>(ctx.random);
  const challenge = ctx.random(32);
  const place = addressBucket(remote.address);
  await ctx.store.transaction(async (tx) => {
    const { userId, recordVersion } = await candidate(ctx, tx, credentialId);
    await spend(ctx, tx, place, ctx.limits.loginFreeFailuresPerAddress);
    const row = { sessionId, credentialId, userId, recordVersion, addressBucket: place };
    await putHalf(ctx, tx, row, { account: input.account, challenge, proven: false });
  });
  return { sessionId, challenge };
};

/** What a proof is checked against where there is no kit: a real key, so that it takes as long. */
const noKit = ({ keys }: ServerContext): Uint8Array => concat(new Uint8Array(32), keys.identity);

/** Checks the kit's signature; who has the kit gets the account and the OPRF's answer, sealed to the kit. */
export const proveRecovery: AnonymousHandler<"account.recover.prove"> = async (ctx, _remote, input) => {
  const found = await ctx.store.transaction(async (tx) => {
    const { row, content } = await takeHalf(ctx, tx, input.sessionId, false);
    const name = await candidate(ctx, tx, row.credentialId);
    const account = await tx.account(name.userId);
    const kit = account && !account.disabled ? account.settings.kit : null;
    const message = recoveryChallenge(ctx.keys.identity, row.sessionId, content.account, content.challenge);
    const holds = verifySignature(kitVerifier(kit ?? noKit(ctx)), message, input.signature);
    if (!account || kit === null || !holds) {
      await noteWindowed(ctx, tx, FAILED_RECOVERY, row.credentialId, name);
      return undefined;
    }
    await refund(tx, row.addressBucket, ctx.limits.loginFreeFailuresPerAddress);
    await putHalf(ctx, tx, row, { ...content, proven: true });
    return { account, name: content.account, kit };
  });
  if (!found) throw refusal();
  const { account, kit } = found;
  const { setup } = ctx.keys.opaque;
  const job = { kind: "register", setup, credentialId: account.credentialId, request: input.request } as const;
  const { response } = await ctx.pool.run(job);
  const reply = encodeJson(recoverReply, {
    userId: account.userId,
    incarnation: ctx.incarnation,
    response,
    ksf: ctx.ksf,
    settings: account.settings,
    head: account.state,
    auditSeq: account.audit.seq,
    auditLink: account.audit.link,
  });
  const info = recoveryReplyInfo(ctx.keys.identity, input.sessionId, found.name);
  return { sealed: await hpkeSeal(kitSealing(kit), info, new TextEncoder().encode(reply), ctx.random) };
};

type Input = Parameters<AnonymousHandler<"account.recover">>[2];

/** True when the settings change the password and add one device, and nothing else. */
function recovers(account: AccountRow, { settings, state }: Input): boolean {
  const added = settings.devices.at(-1)?.id;
  return (
    keepsKeys(account.settings, settings) &&
    keepsDevices(account.settings, settings, 1) &&
    added === state.state.deviceId &&
    account.settings.devices.every(({ id }) => id !== added) &&
    settings.credentialRevision === state.state.revision
  );
}

/** New password and new device in one transaction; all sessions end. */
export const finishRecovery: AnonymousHandler<"account.recover"> = async (ctx, remote, input) => {
  const bodyHash = requestHash("account.recover", input);
  const { state } = input.state;
  return ctx.store.transaction(async (tx) => {
    const before = await tx.request(state.userId, input.requestId);
    if (before && equalBytes(before.bodyHash, bodyHash)) {
      const known = await tx.account(state.userId);
      if (!known) throw refusal();
      const position = { revision: known.state.state.revision, stateHash: known.stateHash };
      return { ...position, auditSeq: known.audit.seq, auditLink: known.audit.link };
    }
    const { row } = await takeHalf(ctx, tx, input.sessionId, true);
    const account = await tx.account(row.userId);
    const fits = account && !account.disabled && equalBytes(account.credentialId, row.credentialId);
    if (!fits || account.recordVersion !== row.recordVersion) throw refusal();
    const { requestId, sessionId } = input;
    const caller = { account, sessionId, requestId, address: remote.address, bodyHash };
    demandCurrent(caller, input.state);
    if (!recovers(account, input)) throw new Fault("bad_input", "a recovery changes password and devices alone");
    const advanced = await advanceState(ctx, tx, caller, input.state, input.settings);
    await tx.replaceRecord(account.userId, input.record, ctx.keys.opaque.id);
    await tx.closeSessionsOf(account.userId, null);
    await tx.dropLimit(`account:${account.credentialId.toHex()}`);
    const { userId } = account;
    const operation = "account.recover";
    if (!(await tx.putRequest({ userId, requestId, bodyHash, operation, status: "ok", reply: "{}" }))) {
      throw new Fault("conflict", "this request id was used for another request");
    }
    const event = { userId, action: operation, status: "ok", requestId, bodyHash, stateHash: advanced.stateHash };
    const audit = await appendEvent(ctx, tx, event);
    return { ...advanced, auditSeq: audit.seq, auditLink: audit.link };
  });
};
