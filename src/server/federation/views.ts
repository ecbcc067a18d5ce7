import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId } from "../../ids.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";

import { policyHash } from "../../protocol/federation/policy.ts";
import type { Tx } from "../../storage/store.ts";
import type { Erasure, KeyView, RequestView } from "../../wire/federation/operations.ts";
import { eachStored, KEY, type KeyBody, POLICY, readStored, SHARE, type Stored, shareId, VOTE } from "./documents.ts";
import { keyOf, type StoredRequest } from "./life.ts";

const VOTES_SHOWN = 64;

/** Text of a reason or refusal, cut to what a reply takes. */
export function clause(text: string): string {
  return text.length <= 300 ? text : `${text.slice(0, 297)}...`;
}

/** What went wrong, in words; of what is no Fault nothing is said. */
export function clauseOf(error: unknown): string {
  if (!(error instanceof Fault)) return "the server failed";
  return clause(error.why === undefined ? error.message : `${error.message}: ${error.why}`);
}

/**
 * A request as this server tells of it.
 *
 * @param forOwner The label is the owner's alone.
 */
export async function requestViewOf(tx: Tx, row: StoredRequest, forOwner: boolean): Promise<RequestView> {
  const { value, id } = row;
  const keyId = keyOf(value.request.request.body);
  const used = keyId === null ? undefined : (await readStored(tx, KEY, keyId))?.value.certificate;
  const votes = (await eachStored(tx, VOTE, id)).map(({ value: { vote } }) => vote).slice(-VOTES_SHOWN);
  // the policy that still waits comes first: it is what a vote has to name
  const { explanations } = value;
  const asked = explanations.find((e) => e.decision === "wait" && e.policy !== null)?.policy ?? value.policy;
  const newest = asked === null ? undefined : (await readStored(tx, POLICY, asked))?.value.chain.at(-1);
  return {
    requestId: id,
    request: value.request,
    status: value.status,
    why: value.why,
    explanations: [...explanations],
    votes,
    policyHash: newest ? policyHash(newest.document) : null,
    attempt: value.attempt,
    certificate: value.certificate ?? used ?? null,
    culprits: [...value.culprits],
    label: forOwner ? value.label : null,
    updatedAtMs: value.updatedAtMs,
  };
}

/** Of each server its newest statement, the newest servers first where there are too many. */
export function newestErasures(erasures: readonly Erasure[]): Erasure[] {
  const of = new Map<number, Erasure>();
  for (const one of erasures) {
    const known = of.get(one.index);
    if (!known || one.generation > known.generation) of.set(one.index, one);
  }
  return [...of.values()].sort((a, b) => b.generation - a.generation || a.index - b.index).slice(0, SERVERS_MAX);
}

/** A key as this server tells its owner of it. */
export async function keyViewOf(tx: Tx, row: Pick<Stored<KeyBody>, "id" | "value">): Promise<KeyView> {
  const { certificate, label, released, frozen, erasures, refreshedAtMs } = row.value;
  const { generation } = certificate.certificate;
  const held = (await readStored(tx, SHARE, shareId(row.id as FederatedKeyId, generation))) !== undefined;
  return { certificate, label, held, released, frozen, erasures: newestErasures(erasures), refreshedAtMs };
}

/** True when a key stands in a list of keys. */
export const includesKey = (keys: readonly Uint8Array[], key: Uint8Array): boolean =>
  keys.some((one) => equalBytes(one, key));
