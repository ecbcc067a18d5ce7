import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import { factorStep } from "../../protocol/factorcode.ts";
import type { SessionRow, Tx } from "../../storage/store.ts";
import type { Caller, ServerContext, SessionHandler } from "../context.ts";
import { removeStored, type Stored } from "../documents.ts";
import {
  type Factor,
  factorOf,
  isRestrictedSession,
  proveFactor,
  putFactor,
  refuseCode,
  SECOND_FACTOR,
  sealFactorKey,
} from "../factor.ts";
import { demandFreshLogin } from "./account.ts";

async function ownSession(tx: Tx, caller: Caller): Promise<SessionRow> {
  const session = await tx.session(caller.sessionId);
  if (session) return session;
  throw new Fault("session_invalid", "the session is over");
}

/** What a login shows at once where no factor is asked for. */
const shown = ({ account }: Caller) => ({ settings: account.settings, head: account.state });

/** Makes room among an account's sessions of one kind: restricted ones take no whole one's place. */
export async function makeRoom(ctx: ServerContext, tx: Tx, userId: UserId, restricted: boolean): Promise<void> {
  const open = (await tx.sessionsOf(userId)).filter(({ factor }) => isRestrictedSession(factor) === restricted);
  const surplus = open.length + 1 - ctx.limits.sessionsPerAccount;
  const oldest = [...open].sort((a, b) => a.lastUsedMs - b.lastUsedMs).slice(0, Math.max(0, surplus));
  for (const old of oldest) await tx.closeSession(old.sessionId);
}

/** Makes a session whole. */
async function admit(ctx: ServerContext, tx: Tx, session: SessionRow): Promise<void> {
  if (isRestrictedSession(session.factor)) await makeRoom(ctx, tx, session.userId, false);
  await tx.putSessionFactor(session.sessionId, "proven", session.createdAtMs + ctx.limits.sessionAbsoluteMs);
}

/** The code that a restricted session waits for; a repeated request finds the session whole. */
export const bringFactor: SessionHandler<"session.factor"> = async (ctx, tx, caller, { code }) => {
  const session = await ownSession(tx, caller);
  if (!isRestrictedSession(session.factor)) return { output: shown(caller) };
  const { userId } = session;
  const factor = await factorOf(tx, userId);
  if (!factor) throw new Fault("session_invalid", "the second factor was taken off the account: log in again");
  const proven = await proveFactor(ctx, tx, session, factor, code);
  if (proven instanceof Fault) return { refused: proven };
  await putFactor(tx, userId, factor, proven);
  await admit(ctx, tx, session);
  return { output: shown(caller) };
};

const isProven = (ctx: ServerContext, session: SessionRow): boolean =>
  session.factor === "proven" && ctx.now() - session.createdAtMs <= ctx.limits.freshLoginMs;

/** How the account stands. */
export const showFactor: SessionHandler<"account.factor"> = async (ctx, tx, caller) => {
  const factor = await factorOf(tx, caller.account.userId);
  return {
    output: {
      enabledAtMs: factor?.value.enabledAtMs ?? null,
      codes: factor?.value.recovery.length ?? 0,
      required: ctx.secondFactor === "required",
      proven: factor !== undefined && isProven(ctx, await ownSession(tx, caller)),
    },
  };
};

/** Holds a change of the factor to a code of it, or to a login of the last minutes that brought one. */
async function demandProof(
  ctx: ServerContext,
  tx: Tx,
  session: SessionRow,
  factor: Stored<Factor>,
  proof: string | null,
): Promise<Factor | Fault> {
  if (proof !== null) return proveFactor(ctx, tx, session, factor, proof);
  if (isProven(ctx, session)) return factor.value;
  throw new Fault("factor_required", "changing the second factor needs a code of it");
}

function demandDistinct(recovery: readonly Uint8Array[]): void {
  if (recovery.some((one, i) => recovery.slice(0, i).some((other) => equalBytes(one, other)))) {
    throw new Fault("bad_input", "recovery codes must differ");
  }
}

/** Sets the factor, or replaces it; every other session of the account ends. */
export const enableFactor: SessionHandler<"account.factor.enable"> = async (ctx, tx, caller, input) => {
  const session = await ownSession(tx, caller);
  const { userId } = session;
  const { requestId } = caller;
  // a session that waits for it is young enough by itself
  if (session.factor !== "enrol") await demandFreshLogin(ctx, tx, caller, "setting a second factor");
  demandDistinct(input.recovery);
  const before = await factorOf(tx, userId);
  // a request that came twice
  if (before?.value.madeBy === requestId && !isRestrictedSession(session.factor)) return { output: shown(caller) };
  if (before && session.factor === "enrol") {
    throw new Fault("exists", "the account has a second factor by now: log in again");
  }
  const proven = before && (await demandProof(ctx, tx, session, before, input.proof));
  if (proven instanceof Fault) return { refused: proven };
  const step = factorStep(input.key, input.code, ctx.now(), -1);
  if (step === undefined) {
    // what the proof used up stays used up
    if (before && proven) await putFactor(tx, userId, before, proven);
    const wrong = new Fault("factor_failed", "the code is not one of the new key's: is the clock right?");
    return { refused: await refuseCode(ctx, tx, session, wrong) };
  }
  await putFactor(tx, userId, before, {
    sealed: sealFactorKey(ctx, userId, input.key),
    steps: step + 1,
    recovery: input.recovery,
    enabledAtMs: ctx.now(),
    madeBy: requestId,
  });
  await tx.closeSessionsOf(userId, session.sessionId);
  await admit(ctx, tx, session);
  return { output: shown(caller) };
};

async function demandExisting(tx: Tx, userId: UserId): Promise<Stored<Factor>> {
  const factor = await factorOf(tx, userId);
  if (factor) return factor;
  throw new Fault("not_found", "the account has no second factor", { hint: "keyhold account factor enable" });
}

/** New recovery codes; those before are void. */
export const replaceCodes: SessionHandler<"account.factor.codes"> = async (ctx, tx, caller, { recovery, proof }) => {
  const session = await ownSession(tx, caller);
  const factor = await demandExisting(tx, session.userId);
  const codes = recovery.length;
  if (factor.value.madeBy === caller.requestId) return { output: { codes: factor.value.recovery.length } };
  demandDistinct(recovery);
  const proven = await demandProof(ctx, tx, session, factor, proof);
  if (proven instanceof Fault) return { refused: proven };
  await putFactor(tx, session.userId, factor, { ...proven, recovery, madeBy: caller.requestId });
  return { output: { codes } };
};

/** Takes the factor off the account. */
export const disableFactor: SessionHandler<"account.factor.disable"> = async (ctx, tx, caller, { proof }) => {
  const session = await ownSession(tx, caller);
  const factor = await factorOf(tx, session.userId);
  if (!factor) return { output: { disabled: false } };
  if (ctx.secondFactor === "required") {
    throw new Fault("denied", "this server asks every account for a second factor", {
      hint: "another key: keyhold account factor enable --replace",
    });
  }
  const proven = await demandProof(ctx, tx, session, factor, proof);
  if (proven instanceof Fault) return { refused: proven };
  await removeStored(tx, SECOND_FACTOR, session.userId);
  return { output: { disabled: true } };
};
