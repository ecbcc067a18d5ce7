import { equalBytes } from "../../crypto/bytes.ts";
import type { UserId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { POLICY_MAX } from "../../wire/federation/records.ts";
import type { KeyringItemView, KeyringKeyView, KeyringRequestView } from "../../wire/keyring/views.ts";
import { eachStored, readStored, type Stored } from "../documents.ts";
import { ITEM, type KeyRow, type RequestRow, VOTE } from "./requestdocuments.ts";
import { askedOf, noSuchRequest } from "./scene.ts";
import { headOf } from "./workspaces.ts";

async function itemView(
  tx: Tx,
  { userId, life }: RequestRow,
  itemId: KeyringItemView["itemId"],
  policyHash: Uint8Array,
  reader: UserId | null,
): Promise<KeyringItemView> {
  const item = (await readStored(tx, ITEM, itemId))?.value;
  if (!item) throw noSuchRequest();
  const votes = (await eachStored(tx, VOTE, itemId))
    .map(({ value }) => value.vote)
    .filter(({ vote }) => equalBytes(vote.policyHash, policyHash))
    .slice(0, POLICY_MAX.approvers);
  // what was let out is the requesting owner's alone
  const released = reader === userId && item.partials.length > 0;
  // what the servers have signed is told once it is paid for; what the owner's own client has signed that client has
  const told = life.status === "fulfilled" || item.course.kind === "release";
  return {
    itemId,
    request: await askedOf(tx, itemId),
    votes,
    explanation: item.explanation,
    attempt: item.course.attempt,
    certificate: item.certificate,
    responses: [...(life.items.find((one) => one.itemId === itemId)?.responses ?? [])],
    order: released ? item.order : null,
    partials: released ? [...item.partials] : [],
    result: told ? item.result : null,
  };
}

/**
 * A request as owners see it.
 *
 * @param reader The account that reads: the requesting one sees what was let out to it; null for none.
 * @throws Fault corrupt
 */
export async function requestView(
  tx: Tx,
  { id, value }: Pick<Stored<RequestRow>, "id" | "value">,
  reader: UserId | null,
): Promise<KeyringRequestView> {
  const { workspaceId, life, parties, fee, why, evidence, createdAtMs, updatedAtMs } = value;
  const { hash } = await headOf(tx, workspaceId);
  const items: KeyringItemView[] = [];
  for (const { itemId } of life.items) items.push(await itemView(tx, value, itemId, hash, reader));
  return {
    requestId: id as KeyringRequestView["requestId"],
    workspaceId,
    keyringId: life.keyringId,
    kind: life.kind,
    status: life.status,
    approved: life.approved,
    why,
    fee,
    threshold: life.threshold,
    parties: [...parties],
    policyHash: hash,
    items,
    evidence: [...evidence],
    createdAtMs,
    expiresAtMs: life.expiresAtMs,
    updatedAtMs,
  };
}

/** About how many bytes a request takes in an answer. */
export function sizeOfView({ items, parties }: KeyringRequestView): number {
  const carried = items.map(({ request: { request }, responses, votes, partials }) => {
    const { body } = request;
    const message = "message" in body ? (body.message?.length ?? 0) : 0;
    return 4_096 + 2 * message + 768 * (responses.length + votes.length + partials.length);
  });
  return carried.reduce((sum, one) => sum + one, 256 * parties.length);
}

/** A key as owners see it. */
export function keyView({ id, value }: Pick<Stored<KeyRow>, "id" | "value">): KeyringKeyView {
  return { keyId: id as KeyringKeyView["keyId"], ...value, responses: [...value.responses] };
}
