import { equalBytes } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { newId, type SessionId, type UserId } from "../../ids.ts";
import { auditLink } from "../../protocol/audit.ts";
import { settingsHash, stateHash, stateSignaturesHold } from "../../protocol/state.ts";
import type { Tx } from "../../storage/store.ts";
import { requestHash } from "../../wire/operations.ts";
import { candidate, credentialIdOf, sealAccountName } from "../accounts.ts";
import { appendEvent } from "../audit.ts";
import type { AnonymousHandler, ServerContext } from "../context.ts";
import { noteWindowed, TAKEN_NAME } from "../floodnotes.ts";
import { addressBucket, refund, spend } from "../limits.ts";
import { REGISTRATION } from "./login.ts";

/** One answer for a missing, unknown, used, expired or voided code. */
const inviteRefused = () =>
  new Fault("denied", "cannot register: this server needs a valid invite", { hint: "ask its operator for a code" });

const nameTaken = () => new Fault("exists", "cannot register: the account name is taken", { hint: "choose another" });

/** SHA-256 of a normalised invite code, hex. */
export function inviteHash(code: string): string {
  return sha256(new TextEncoder().encode(code.replaceAll("-", ""))).toHex();
}

async function usableInvite(ctx: ServerContext, tx: Tx, code: string | null) {
  if (ctx.registration === "open" && code === null) return undefined;
  if (ctx.registration === "closed") throw new Fault("denied", "cannot register: this server takes no new accounts");
  const row = code === null ? undefined : await tx.invite(inviteHash(code));
  if (!row || row.usedAtMs !== null || row.expiresAtMs <= ctx.now()) throw inviteRefused();
  if (row.conflicts >= ctx.limits.inviteConflicts) throw inviteRefused();
  return row;
}

/** Reserves the account id and evaluates the OPRF: a guess, counted in the account's own bucket. */
export const startRegistration: AnonymousHandler<"account.register.start"> = async (ctx, remote, input) => {
  const credentialId = credentialIdOf(ctx, input.account);
  const userId = newId<UserId>(ctx.random);
  const place = addressBucket(remote.address);
  // committed by itself: a refusal below must not take the count back
  await ctx.store.transaction((tx) => spend(ctx, tx, place, ctx.limits.loginFreeFailuresPerAddress));
  const taken = await ctx.store.transaction(async (tx) => {
    const invite = await usableInvite(ctx, tx, input.invite);
    const name = await candidate(ctx, tx, credentialId);
    if (name.known) {
      await noteWindowed(ctx, tx, TAKEN_NAME, credentialId, name);
      if (invite) await tx.updateInvite({ ...invite, conflicts: invite.conflicts + 1 });
      return true;
    }
    await spend(ctx, tx, `account:${credentialId.toHex()}`, ctx.limits.loginFreeFailures);
    await tx.putLoginState({
      sessionId: userId as string as SessionId,
      credentialId,
      userId,
      recordVersion: 0,
      expiresAtMs: ctx.now() + ctx.limits.loginStateMs,
      sealed: new Uint8Array(1),
      bucket: REGISTRATION,
      addressBucket: place,
    });
    return false;
  });
  if (taken) throw nameTaken();
  const { setup } = ctx.keys.opaque;
  const made = await ctx.pool.run({ kind: "register", setup, credentialId, request: input.request });
  return { userId, incarnation: ctx.incarnation, response: made.response, ksf: ctx.ksf };
};

/** Commits record, keys, identity and the signed state of revision 1 in one transaction. */
export const finishRegistration: AnonymousHandler<"account.register"> = async (ctx, _remote, input) => {
  const { state } = input.state;
  const hash = requestHash("account.register", input);
  const credentialId = credentialIdOf(ctx, input.account);
  const fitting =
    state.revision === 1 &&
    state.incarnation === ctx.incarnation &&
    state.requestId === input.requestId &&
    state.previous.every((byte) => byte === 0) &&
    state.root.every((byte) => byte === 0) &&
    state.auditSeq === 0 &&
    equalBytes(state.requestHash, hash) &&
    equalBytes(state.settingsHash, settingsHash(input.settings)) &&
    input.settings.devices.length === 1;
  const misfit = () => new Fault("bad_input", "the registration's signed state does not fit the request");
  if (!fitting) throw misfit();
  return ctx.store.transaction(async (tx) => {
    const known = await tx.credential(credentialId);
    const before = known ? await tx.request(known.userId, input.requestId) : undefined;
    if (known && before && equalBytes(before.bodyHash, hash)) {
      const [first] = await tx.statesSince(known.userId, 0, 1);
      if (!first) throw new Fault("internal", "an account has no first state");
      return {
        revision: 1,
        stateHash: stateHash(first.state),
        auditSeq: 1,
        auditLink: await firstLink(tx, known.userId),
      };
    }
    const invite = await usableInvite(ctx, tx, input.invite);
    // before the name is looked at: without a reservation of one's own nothing is learnt about it
    const reserved = await tx.takeLoginState(state.userId as string as SessionId);
    const fits = reserved?.bucket === REGISTRATION && equalBytes(reserved.credentialId, credentialId);
    if (!reserved || !fits || reserved.expiresAtMs < ctx.now()) {
      throw new Fault("timed_out", "cannot register: the registration took too long", { hint: "start again" });
    }
    if (known) throw nameTaken();
    // only now: who has no reservation, which was counted, makes the server verify nothing
    if (!stateSignaturesHold(input.state, input.settings)) throw misfit();
    const inserted = await tx.insertAccount({
      userId: state.userId,
      credentialId,
      sealedName: sealAccountName(ctx, credentialId, input.account),
      record: input.record,
      recordVersion: 1,
      setupId: ctx.keys.opaque.id,
      disabled: false,
      createdAtMs: ctx.now(),
      settings: input.settings,
      state: input.state,
      stateHash: stateHash(state),
      audit: { seq: 0, link: new Uint8Array(32) },
    });
    if (!inserted) throw nameTaken();
    if (invite) await tx.updateInvite({ ...invite, usedAtMs: ctx.now() });
    await tx.appendState(state.userId, input.state);
    await tx.dropLimit(`account:${credentialId.toHex()}`);
    await refund(tx, reserved.addressBucket, ctx.limits.loginFreeFailuresPerAddress);
    const head = { revision: 1, stateHash: stateHash(state) };
    await tx.putRequest({
      userId: state.userId,
      requestId: input.requestId,
      bodyHash: hash,
      operation: "account.register",
      status: "ok",
      reply: "{}",
    });
    const audit = await appendEvent(ctx, tx, {
      userId: state.userId,
      action: "account.register",
      status: "ok",
      requestId: input.requestId,
      bodyHash: hash,
      stateHash: head.stateHash,
    });
    return { ...head, auditSeq: audit.seq, auditLink: audit.link };
  });
};

/** Link of an account's first entry, which records its registration. */
async function firstLink(tx: Tx, userId: UserId): Promise<Uint8Array> {
  const [first] = await tx.audit(userId, {
    after: 0,
    limit: 1,
    keyId: null,
    action: null,
    fromMs: null,
    untilMs: null,
    requestId: null,
  });
  if (!first) throw new Fault("internal", "an account has no log");
  return auditLink(first);
}
