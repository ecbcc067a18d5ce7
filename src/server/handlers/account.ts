import { serverRegister } from "../../crypto/opaque.ts";
import { Fault } from "../../errors.ts";
import type { Tx } from "../../storage/store.ts";
import type { InputOf } from "../../wire/operations.ts";
import type { Caller, ServerContext, SessionHandler } from "../context.ts";
import { spend } from "../limits.ts";
import { advanceState, demandCurrent } from "../state.ts";
import { keepsDevices, keepsKeys, keepsPassword } from "./settings.ts";

/** Adds the one device that signs the state; all others stay as they are. */
export const addDevice: SessionHandler<"account.device.add"> = async (ctx, tx, caller, input) => {
  demandCurrent(caller, input.state);
  const before = caller.account.settings;
  const { settings } = input;
  const added = settings.devices.at(-1)?.id;
  const sound =
    keepsPassword(before, settings) &&
    keepsKeys(before, settings) &&
    keepsDevices(before, settings, 1) &&
    added === input.state.state.deviceId &&
    before.devices.every(({ id }) => id !== added);
  if (!sound) throw new Fault("bad_input", "adding a device changes nothing else");
  const output = await advanceState(ctx, tx, caller, input.state, input.settings);
  return { output, stateHash: output.stateHash };
};

/** What changes how the account opens needs a login of the last minutes. @throws Fault denied */
export async function demandFreshLogin(ctx: ServerContext, tx: Tx, caller: Caller, what: string): Promise<void> {
  const session = await tx.session(caller.sessionId);
  if (!session || ctx.now() - session.createdAtMs > ctx.limits.freshLoginMs) {
    throw new Fault("denied", `${what} needs a fresh login`, { hint: "keyhold login" });
  }
}

const passwordBucket = (caller: Caller): string => `password:${caller.sessionId}`;

/**
 * Evaluates the OPRF for a new password: a guess like any other. It is counted in the session's own bucket, since a
 * stranger can fill the account's.
 */
export const startPassword: SessionHandler<"account.password.start"> = async (ctx, tx, caller, input) => {
  const { credentialId } = caller.account;
  await demandFreshLogin(ctx, tx, caller, "changing the password");
  await spend(ctx, tx, passwordBucket(caller), ctx.limits.loginFreeFailures);
  return { output: { response: serverRegister(ctx.keys.opaque.setup, credentialId, input.request), ksf: ctx.ksf } };
};

type NewRecord = InputOf<"account.password">;

/** Replaces record and wrapped account key together. */
async function replacePassword(ctx: ServerContext, tx: Tx, caller: Caller, input: NewRecord) {
  const { account } = caller;
  const sound =
    keepsDevices(account.settings, input.settings, 0) &&
    keepsKeys(account.settings, input.settings) &&
    input.settings.credentialRevision === input.state.state.revision;
  if (!sound) throw new Fault("bad_input", "a password change changes nothing else");
  const output = await advanceState(ctx, tx, caller, input.state, input.settings);
  await tx.replaceRecord(account.userId, input.record, ctx.keys.opaque.id);
  await tx.dropLimit(passwordBucket(caller));
  return { output, stateHash: output.stateHash };
}

/** A new password: the other sessions are closed. */
export const changePassword: SessionHandler<"account.password"> = async (ctx, tx, caller, input) => {
  await demandFreshLogin(ctx, tx, caller, "changing the password");
  demandCurrent(caller, input.state);
  const { userId, credentialId } = caller.account;
  const done = await replacePassword(ctx, tx, caller, input);
  await tx.closeSessionsOf(userId, caller.sessionId);
  await tx.dropLimit(`account:${credentialId.toHex()}`);
  return done;
};

/**
 * The same password under the newest OPAQUE set-up, while a rotation's window is open (docs/protocol.md §3.5): once,
 * and no session ends.
 */
export const reregister: SessionHandler<"account.reregister"> = async (ctx, tx, caller, input) => {
  await demandFreshLogin(ctx, tx, caller, "registering anew");
  demandCurrent(caller, input.state);
  if (caller.account.setupId === ctx.keys.opaque.id) {
    throw new Fault("conflict", "the account uses the newest OPAQUE set-up already");
  }
  return replacePassword(ctx, tx, caller, input);
};
