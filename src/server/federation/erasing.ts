import { asHashId, type FederationId, type UserId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { CONNECTOR } from "./connectors.ts";
import {
  APPROVAL,
  approvalId,
  eachStored,
  FEDERATION,
  KEY,
  MEMBER,
  MEMBER_KEY,
  memberId,
  memberKeyId,
  PENDING_SHARE,
  REQUEST,
  readStored,
  removeStored,
  SHARE,
  VOTE,
} from "./documents.ts";

/**
 * Erases what hangs on an account's keys, requests and memberships but is not the account's own in the store: for the
 * end of the account, before the account goes.
 */
export async function eraseFederated(tx: Tx, userId: UserId): Promise<void> {
  for (const key of await eachStored(tx, KEY, userId))
    for (const share of await eachStored(tx, SHARE, key.id)) await removeStored(tx, SHARE, share.id);
  for (const request of await eachStored(tx, REQUEST, userId)) {
    for (const share of await eachStored(tx, PENDING_SHARE, request.id))
      await removeStored(tx, PENDING_SHARE, share.id);
    for (const vote of await eachStored(tx, VOTE, request.id)) await removeStored(tx, VOTE, vote.id);
  }
  for (const connector of await eachStored(tx, CONNECTOR, ""))
    if (connector.value.userId === userId) await removeStored(tx, CONNECTOR, connector.id);
  for (const federation of await eachStored(tx, FEDERATION, "")) {
    const member = await readStored(tx, MEMBER, memberId(asHashId<FederationId>(federation.id), userId));
    if (!member) continue;
    const { requestKey, approvalKey } = member.value;
    await removeStored(tx, MEMBER, member.id);
    for (const key of [requestKey, approvalKey]) await removeStored(tx, MEMBER_KEY, memberKeyId(key));
    for (const waits of await eachStored(tx, APPROVAL, approvalKey.toHex()))
      await removeStored(tx, APPROVAL, approvalId(approvalKey, waits.value.requestId));
  }
}
