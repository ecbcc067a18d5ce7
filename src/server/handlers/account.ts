import { equalBytes } from "../../crypto/bytes.ts";
import { serverRegister } from "../../crypto/opaque.ts";
import { Fault } from "../../errors.ts";
import type { Settings } from "../../protocol/state.ts";
import type { Tx } from "../../storage/store.ts";
import type { Caller, ServerContext, SessionHandler } from "../context.ts";
import { spend } from "../limits.ts";
import { advanceState } from "../state.ts";

/** True when two settings differ in nothing but their devices. */
function sameButDevices(a: Settings, b: Settings): boolean {
  const nullable = (x: Uint8Array | null, y: Uint8Array | null) =>
    x === null || y === null ? x === y : equalBytes(x, y);
  return (
    equalBytes(a.wrappedAccountKey, b.wrappedAccountKey) &&
    equalBytes(a.masterCommitment, b.masterCommitment) &&
    equalBytes(a.wrappedIdentity, b.wrappedIdentity) &&
    equalBytes(a.credentialTag, b.credentialTag) &&
    a.credentialRevision === b.credentialRevision &&
    nullable(a.kit, b.kit) &&
    nullable(a.kitWrapped, b.kitWrapped)
  );
}

/** True when the devices are the same ones in the same order. */
function settingsKeepDevices(a: Settings, b: Settings): boolean {
  return (
    a.devices.length === b.devices.length &&
    a.devices.every((device, i) => {
      const other = b.devices[i];
      return other !== undefined && device.id === other.id && equalBytes(device.publicKey, other.publicKey);
    })
  );
}

/** Adds the one device that signs the state; all others stay as they are. */
export const addDevice: SessionHandler<"account.device.add"> = async (ctx, tx, caller, input) => {
  const before = caller.account.settings;
  const known = new Set(before.devices.map((device) => device.id));
  const added = input.settings.devices.filter((device) => !known.has(device.id));
  const kept = before.devices.every((device) => input.settings.devices.some((other) => other.id === device.id));
  if (
    added.length !== 1 ||
    !kept ||
    added[0]?.id !== input.state.state.deviceId ||
    !sameButDevices(before, input.settings)
  ) {
    throw new Fault("bad_input", "adding a device changes nothing else");
  }
  const output = await advanceState(ctx, tx, caller, input.state, input.settings);
  return { output, stateHash: output.stateHash };
};

const FRESH_MS = 5 * 60_000;

async function demandFreshLogin(ctx: ServerContext, tx: Tx, caller: Caller): Promise<void> {
  const session = await tx.session(caller.sessionId);
  if (!session || ctx.now() - session.createdAtMs > FRESH_MS) {
    throw new Fault("denied", "changing the password needs a fresh login", { hint: "keyhold login" });
  }
}

/** Evaluates the OPRF for a new password: a guess like any other, counted in the account's bucket. */
export const startPassword: SessionHandler<"account.password.start"> = async (ctx, tx, caller, input) => {
  const { credentialId } = caller.account;
  await demandFreshLogin(ctx, tx, caller);
  await spend(ctx, tx, `account:${credentialId.toHex()}`, ctx.limits.loginFreeFailures);
  return { output: { response: serverRegister(ctx.keys.opaque.setup, credentialId, input.request), ksf: ctx.ksf } };
};

/** Replaces record and wrapped account key together and closes the other sessions. */
export const changePassword: SessionHandler<"account.password"> = async (ctx, tx, caller, input) => {
  await demandFreshLogin(ctx, tx, caller);
  const { account } = caller;
  const sound =
    settingsKeepDevices(account.settings, input.settings) &&
    input.settings.credentialRevision === input.state.state.revision &&
    equalBytes(account.settings.wrappedIdentity, input.settings.wrappedIdentity);
  if (!sound) throw new Fault("bad_input", "a password change changes nothing else");
  const output = await advanceState(ctx, tx, caller, input.state, input.settings);
  await tx.replaceRecord(account.userId, input.record, ctx.keys.opaque.id);
  await tx.closeSessionsOf(account.userId, caller.sessionId);
  await tx.dropLimit(`account:${account.credentialId.toHex()}`);
  return { output, stateHash: output.stateHash };
};
