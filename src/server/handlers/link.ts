import { seal } from "../../crypto/aead.ts";
import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { SessionId } from "../../ids.ts";
import { pad, unpad } from "../../protocol/secret.ts";
import type { LoginStateRow } from "../../storage/store.ts";
import { bytes, decodeJson, encodeJson, struct } from "../../wire/codec.ts";
import { hash32 } from "../../wire/records.ts";
import { openRow } from "../accounts.ts";
import { appendEvent } from "../audit.ts";
import type { AnonymousHandler, ServerContext, SessionHandler } from "../context.ts";
import { addressBucket, refund, spend } from "../limits.ts";

/** Marks the row of a device link among the half logins: it expires and is taken once as they are. */
export const LINK = "device-link";

const parcel = struct({ linkId: hash32, sealed: bytes({ min: 1, max: 8 * 1_024 }) });

/** Where the parcel of a link lies: half of its id, all of which stands under the row's seal. */
const placeOf = (linkId: Uint8Array): SessionId => linkId.subarray(0, 16).toHex() as SessionId;

function rowContext(row: Pick<LoginStateRow, "sessionId" | "credentialId" | "recordVersion" | "expiresAtMs">) {
  const { sessionId, credentialId, recordVersion, expiresAtMs } = row;
  return { kind: "login-state", sessionId, credentialId, recordVersion, expiresAtMs } as const;
}

/** Keeps a sealed parcel for a new device for a few minutes (docs/protocol.md §5.9). */
export const openLink: SessionHandler<"account.device.link"> = async (ctx, tx, { account }, input) => {
  const bucket = `${LINK}:${account.userId}`;
  await spend(ctx, tx, bucket, ctx.limits.deviceLinksPerAccount);
  const { credentialId, userId, recordVersion } = account;
  const expiresAtMs = ctx.now() + ctx.limits.deviceLinkMs;
  const sessionId = placeOf(input.linkId);
  if (await tx.takeLoginState(sessionId)) throw new Fault("conflict", "this link exists");
  const row = { sessionId, credentialId, userId, recordVersion, expiresAtMs, bucket: LINK, addressBucket: bucket };
  const plain = pad(new TextEncoder().encode(encodeJson(parcel, input)));
  await tx.putLoginState({ ...row, sealed: seal(ctx.keys.sealing, rowContext(row), plain, ctx.random) });
  return { output: { expiresAtMs } };
};

/** What a row seals; null for one that was altered or moved. */
function contentOf(ctx: ServerContext, row: LoginStateRow) {
  try {
    return decodeJson(parcel, unpad(openRow(ctx, rowContext(row), row.sealed)));
  } catch (error) {
    if (error instanceof Fault) return null;
    throw error;
  }
}

/** Hands a parcel out, once; a link that never was, is used or is over gets one answer. */
export const takeLink: AnonymousHandler<"account.device.accept"> = async (ctx, remote, input) => {
  const place = addressBucket(remote.address);
  const unknown = () =>
    new Fault("not_found", "there is no such device link", {
      why: "it was used, or is too old, or is another server's",
      hint: "keyhold account device link, on a device that is logged in",
    });
  const found = await ctx.store.transaction(async (tx) => {
    await spend(ctx, tx, place, ctx.limits.loginFreeFailuresPerAddress);
    const row = await tx.takeLoginState(placeOf(input.linkId));
    if (!row) return undefined;
    const content = row.bucket === LINK && row.expiresAtMs >= ctx.now() ? contentOf(ctx, row) : null;
    if (!content || !equalBytes(content.linkId, input.linkId)) {
      // what is not this link stays, and the count of the address with it
      if (row.bucket !== LINK || row.expiresAtMs >= ctx.now()) await tx.putLoginState(row);
      return undefined;
    }
    const account = await tx.account(row.userId);
    if (!account || account.disabled) return undefined;
    await refund(tx, place, ctx.limits.loginFreeFailuresPerAddress);
    await tx.dropLimit(row.addressBucket);
    await appendEvent(ctx, tx, { userId: row.userId, action: "account.device.accept", status: "ok" });
    return content.sealed;
  });
  if (!found) throw unknown();
  return { sealed: found };
};
