import { Fault } from "../../errors.ts";
import { bytes, decodeJson, encodeJson, struct } from "../../wire/codec.ts";
import type { SessionHandler } from "../context.ts";

const KIND = "parcel";
const parcelBody = struct({ sealed: bytes({ min: 1, max: 4_096 }) });

/** What the account's owner has left for the holder of the recovery kit (docs/protocol.md §8.2). */
export const getParcel: SessionHandler<"account.parcel"> = async (_ctx, tx, { account }) => {
  const row = await tx.document(KIND, account.userId);
  return { output: { sealed: row ? decodeJson(parcelBody, row.body).sealed : null } };
};

/** Replaces it. */
export const putParcel: SessionHandler<"account.parcel.put"> = async (ctx, tx, { account }, input) => {
  const { userId } = account;
  const before = await tx.document(KIND, userId);
  const body = new TextEncoder().encode(encodeJson(parcelBody, input));
  const row = { kind: KIND, id: userId, owner: userId, place: ctx.now(), body };
  if (!(await tx.putDocument(row, before?.version ?? 0))) throw new Fault("conflict", "the parcel has just changed");
  return { output: {} };
};
