import { equalBytes } from "../../crypto/bytes.ts";
import { serverRegister } from "../../crypto/opaque.ts";
import { Fault } from "../../errors.ts";
import type { Settings } from "../../protocol/state.ts";
import type { Tx } from "../../storage/store.ts";
import type { Caller, ServerContext, SessionHandler } from "../context.ts";
import { spend } from "../limits.ts";
import { advanceState, demandCurrent } from "../state.ts";

const same = (a: Uint8Array | null, b: Uint8Array | null): boolean =>
  a === null || b === null ? a === b : equalBytes(a, b);

/** True when what opens with the password is the same. */
function keepsPassword(a: Settings, b: Settings): boolean {
  return (
    same(a.wrappedAccountKey, b.wrappedAccountKey) &&
    same(a.masterCommitment, b.masterCommitment) &&
    same(a.credentialTag, b.credentialTag) &&
    a.credentialRevision === b.credentialRevision
  );
}

/** True when identity and recovery kit are the same. */
function keepsIdentity(a: Settings, b: Settings): boolean {
  return (
    same(a.identity, b.identity) &&
    same(a.wrappedIdentity, b.wrappedIdentity) &&
    same(a.kit, b.kit) &&
    same(a.kitWrapped, b.kitWrapped)
  );
}

/** True when `b` lists the devices of `a` unchanged in the same order, and `added` more after them. */
function keepsDevices(a: Settings, b: Settings, added: number): boolean {
  return (
    b.devices.length === a.devices.length + added &&
    a.devices.every((device, i) => {
      const other = b.devices[i];
      return (
        other !== undefined &&
        device.id === other.id &&
        same(device.publicKey, other.publicKey) &&
        same(device.name, other.name) &&
        same(device.tokenHash, other.tokenHash) &&
        device.addedAtMs === other.addedAtMs
      );
    })
  );
}

/** Adds the one device that signs the state; all others stay as they are. */
export const addDevice: SessionHandler<"account.device.add"> = async (ctx, tx, caller, input) => {
  demandCurrent(caller, input.state);
  const before = caller.account.settings;
  const { settings } = input;
  const added = settings.devices.at(-1)?.id;
  const sound =
    keepsPassword(before, settings) &&
    keepsIdentity(before, settings) &&
    keepsDevices(before, settings, 1) &&
    added === input.state.state.deviceId &&
    before.devices.every(({ id }) => id !== added);
  if (!sound) throw new Fault("bad_input", "adding a device changes nothing else");
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

const passwordBucket = (caller: Caller): string => `password:${caller.sessionId}`;

/**
 * Evaluates the OPRF for a new password: a guess like any other. It is counted in the session's own bucket, since a
 * stranger can fill the account's.
 */
export const startPassword: SessionHandler<"account.password.start"> = async (ctx, tx, caller, input) => {
  const { credentialId } = caller.account;
  await demandFreshLogin(ctx, tx, caller);
  await spend(ctx, tx, passwordBucket(caller), ctx.limits.loginFreeFailures);
  return { output: { response: serverRegister(ctx.keys.opaque.setup, credentialId, input.request), ksf: ctx.ksf } };
};

/** Replaces record and wrapped account key together and closes the other sessions. */
export const changePassword: SessionHandler<"account.password"> = async (ctx, tx, caller, input) => {
  await demandFreshLogin(ctx, tx, caller);
  demandCurrent(caller, input.state);
  const { account } = caller;
  const sound =
    keepsDevices(account.settings, input.settings, 0) &&
    keepsIdentity(account.settings, input.settings) &&
    input.settings.credentialRevision === input.state.state.revision;
  if (!sound) throw new Fault("bad_input", "a password change changes nothing else");
  const output = await advanceState(ctx, tx, caller, input.state, input.settings);
  await tx.replaceRecord(account.userId, input.record, ctx.keys.opaque.id);
  await tx.closeSessionsOf(account.userId, caller.sessionId);
  await tx.dropLimit(`account:${account.credentialId.toHex()}`);
  await tx.dropLimit(passwordBucket(caller));
  return { output, stateHash: output.stateHash };
};
