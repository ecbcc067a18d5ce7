import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { keptRotations, rotationsSince } from "../../protocol/rotation.ts";
import type { Device, Settings } from "../../protocol/state.ts";
import type { AccountRow } from "../../storage/store.ts";
import type { InputOf } from "../../wire/operations.ts";
import type { SessionHandler } from "../context.ts";
import { advanceState, demandCurrent } from "../state.ts";
import { demandFreshLogin } from "./account.ts";

function sameDevice(a: Device, b: Device): boolean {
  return (
    a.id === b.id &&
    equalBytes(a.publicKey, b.publicKey) &&
    equalBytes(a.tokenHash, b.tokenHash) &&
    a.addedAtMs === b.addedAtMs
  );
}

/** True when `after` lists devices of `before` in their order, with nothing but their names sealed anew. */
function fewerDevices(before: Settings, after: Settings): boolean {
  let at = -1;
  return after.devices.every((device) => {
    at = before.devices.findIndex((known, i) => i > at && sameDevice(known, device));
    return at !== -1;
  });
}

/** True when the kit is the same one and what is sealed to it was sealed anew. */
function resealsKit(before: Settings, after: Settings): boolean {
  if (before.kit === null || before.kitWrapped === null) return after.kit === null && after.kitWrapped === null;
  if (after.kit === null || after.kitWrapped === null) return false;
  return equalBytes(before.kit, after.kit) && !equalBytes(before.kitWrapped, after.kitWrapped);
}

/** True when the settings bring one new identity that the one before handed over to, under a new account key. */
function rotates({ userId, settings: before }: AccountRow, input: InputOf<"account.rotate">): boolean {
  const { settings: after } = input;
  const { revision } = input.state.state;
  const added = rotationsSince(userId, before, after);
  return (
    added?.length === 1 &&
    added[0]?.revision === revision &&
    after.rotations.length === keptRotations(before).length + 1 &&
    after.credentialRevision === revision &&
    fewerDevices(before, after) &&
    resealsKit(before, after)
  );
}

/**
 * Replaces account key and identity together, with fewer devices or another password where wanted; every other session
 * ends, and with it whatever a device that is listed no more could do (docs/protocol.md §5.7).
 */
export const rotateAccount: SessionHandler<"account.rotate"> = async (ctx, tx, caller, input) => {
  await demandFreshLogin(ctx, tx, caller, "renewing the account's keys");
  demandCurrent(caller, input.state);
  const { account } = caller;
  if (!rotates(account, input)) throw new Fault("bad_input", "the settings do not renew the account's keys");
  const output = await advanceState(ctx, tx, caller, input.state, input.settings, "replaced");
  if (input.record !== null) await tx.replaceRecord(account.userId, input.record, ctx.keys.opaque.id);
  await tx.closeSessionsOf(account.userId, caller.sessionId);
  await tx.dropLimit(`account:${account.credentialId.toHex()}`);
  await tx.dropLimit(`password:${caller.sessionId}`);
  return { output, stateHash: output.stateHash };
};

/** Wrapped keys, page by page. */
export const listWraps: SessionHandler<"account.wraps"> = async (ctx, tx, caller, input) => {
  const page = ctx.limits.wrapsPerRequest;
  const rows = await tx.wraps(caller.account.userId, input.after, page + 1);
  return { output: { items: rows.slice(0, page), more: rows.length > page } };
};

/** Replaces wrapped keys, all or none; which key opens them is the owner's affair. */
export const replaceWraps: SessionHandler<"account.rewrap"> = async (_ctx, tx, caller, input) => {
  const { userId, settings } = caller.account;
  if (settings.rotations.length === 0) throw new Fault("bad_input", "the account's keys were never renewed");
  for (const item of input.items) {
    if (!(await tx.rewrap(userId, item))) throw new Fault("not_found", "no such secret");
  }
  return { output: { rewrapped: input.items.length } };
};
