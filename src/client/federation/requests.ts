import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId } from "../../ids.ts";
import { approvalSigner, requestSigner } from "../../protocol/federation/credentials.ts";
import { rosterMin } from "../../protocol/federation/manifest.ts";
import type { SignedVote, Vote } from "../../protocol/federation/policy.ts";
import { type SignedRequest, verifyRequest } from "../../protocol/federation/request.ts";
import { verifyVote } from "../../protocol/federation/votes.ts";
import { digestWords } from "../../protocol/federation/words.ts";
import type { RequestView } from "../../wire/federation/operations.ts";
import type { FederatedRequestInfo } from "../federationapi.ts";
import { type Answer, ask, askAll, everyone, reasonAt, urlOf } from "./answers.ts";
import { factsOf, keyIdOfBody } from "./facts.ts";
import type { Ground } from "./ground.ts";
import type { HeldRequest } from "./held.ts";
import { cancel } from "./pending.ts";
import { type Standing, standingOf } from "./standing.ts";

/** Pages of one server's list that are read at most. */
const PAGES_MAX = 64;

/** One request with what each server says of it. */
export interface Seen {
  readonly requestId: FederatedRequestId;
  /** Verified: its signature holds and its hash is the id. */
  readonly signed: SignedRequest;
  readonly answers: readonly Answer<RequestView>[];
  readonly held: HeldRequest | null;
}

/** A server's view, if the request in it is genuine: its own id, its requester's signature, this federation. */
function genuine(ground: Ground, index: number, view: RequestView): boolean {
  try {
    const own = verifyRequest(view.request) === view.requestId;
    return own && view.request.request.federationId === ground.fleet.manifest.federationId;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    ground.notice(`${urlOf(ground.fleet.manifest, index)} shows a request that nobody has signed`);
    return false;
  }
}

/** Everything that servers list for one role, put together by request; newest first. */
export async function gather(ground: Ground, role: "requester" | "approver"): Promise<readonly Seen[]> {
  const { fleet, keeping } = ground;
  const own = requestSigner(ground.secret, fleet.manifest.federationId).publicKey;
  const found = new Map<FederatedRequestId, Map<number, RequestView>>();
  const lists = await Promise.all(everyone(fleet).map((index) => listAt(ground, index, role)));
  for (const { index, views } of lists) {
    for (const view of views) {
      if (!genuine(ground, index, view)) continue;
      if (role === "requester" && !equalBytes(view.request.request.requester, own)) continue;
      const at = found.get(view.requestId) ?? new Map<number, RequestView>();
      found.set(view.requestId, at.set(index, view));
    }
  }
  const seen = [...found].flatMap(([requestId, views]): Seen[] => {
    const [first] = [...views.values()];
    if (first === undefined) return [];
    const answers = lists.map(({ index, fault }): Answer<RequestView> => {
      const value = views.get(index);
      if (value !== undefined) return { index, value, fault: null };
      return { index, value: null, fault: fault ?? new Fault("not_found", "it does not list this request") };
    });
    return [{ requestId, signed: first.request, answers, held: heldRequest(ground, requestId) }];
  });
  const known = new Set(seen.map(({ requestId }) => requestId));
  const unsent = keeping.requests().filter((held) => {
    const mine = held.federationId === fleet.manifest.federationId;
    return role === "requester" && mine && !known.has(held.requestId);
  });
  const alone = unsent.map((held): Seen => {
    const fault = new Fault("not_found", "it does not list this request");
    const answers = lists.map(({ index, fault: why }) => ({ index, value: null, fault: why ?? fault }));
    return { requestId: held.requestId, signed: held.request, answers, held };
  });
  return [...seen, ...alone].sort((a, b) => b.signed.request.createdAtMs - a.signed.request.createdAtMs);
}

async function listAt({ fleet }: Ground, index: number, role: "requester" | "approver") {
  const { federationId } = fleet.manifest;
  const views: RequestView[] = [];
  for (let page = 0; page < PAGES_MAX; page++) {
    const after = views.at(-1)?.requestId ?? null;
    const { value, fault } = await ask(fleet, index, "federation.requests", { federationId, role, after });
    if (fault !== null) return { index, views, fault };
    views.push(...value.items);
    if (!value.more || value.items.length === 0) break;
  }
  return { index, views, fault: null };
}

export const heldRequest = ({ keeping }: Pick<Ground, "keeping">, requestId: string): HeldRequest | null =>
  keeping.requests().find((held) => held.requestId === requestId) ?? null;

/**
 * One request as all servers see it.
 *
 * @throws Fault not_found, or what kept every server from answering
 */
export async function look(ground: Ground, requestId: FederatedRequestId): Promise<Seen> {
  const held = heldRequest(ground, requestId);
  const asked = await askAll(ground.fleet, everyone(ground.fleet), "federation.request", () => ({ requestId }));
  const answers = asked.map((answer): Answer<RequestView> => {
    const fits =
      answer.fault !== null || (answer.value.requestId === requestId && genuine(ground, answer.index, answer.value));
    const wrong = new Fault("integrity", "it shows another request than the one that was asked for");
    return fits ? answer : { index: answer.index, value: null, fault: wrong };
  });
  const signed = held?.request ?? answers.find(({ value }) => value !== null)?.value?.request;
  if (signed !== undefined) return { requestId, signed, answers, held };
  const away = answers.find(({ fault }) => fault !== null && fault.code !== "not_found")?.fault;
  throw away ?? new Fault("not_found", "no server of this federation knows this request");
}

/** How far servers are in an attempt, the furthest first. */
const RUNNING = ["confirming", "sharing", "committing"] as const;
const ENDED = ["cancelled", "expired", "rejected", "failed"] as const;

/** One word for all servers together; the owner's own decision stands above theirs. */
export function overall(
  { signed, held, answers }: Pick<Seen, "signed" | "held" | "answers">,
  servers: number,
  threshold: number,
): string {
  if (held?.decision) return held.decision.decision.verdict === "accept" ? "fulfilled" : "cancelled";
  const { kind } = signed.request.body;
  const need = kind === "sign" || kind === "release" ? threshold : rosterMin(servers, threshold);
  const statuses = answers.flatMap(({ value }) => (value === null ? [] : [value.status]));
  const count = (status: string) => statuses.filter((s) => s === status).length;
  if (count("fulfilled") >= Math.min(need, threshold)) return "fulfilled";
  const { willing, awaiting, absent }: Standing = standingOf(answers);
  if (willing.length >= need) return RUNNING.find((status) => count(status) > 0) ?? "pending";
  if (willing.length + awaiting.length >= need) return "awaiting_approval";
  const ended = [...ENDED].sort((a, b) => count(b) - count(a))[0];
  if (ended !== undefined && count(ended) > 0 && willing.length + awaiting.length + absent.length < need) return ended;
  return awaiting.length > 0 ? "awaiting_approval" : "pending";
}

/** The newest genuine vote of each key, over all servers. */
function votesOf({ requestId, answers }: Seen): readonly Vote[] {
  const newest = new Map<string, Vote>();
  const all = answers.flatMap(({ value }): readonly SignedVote[] => value?.votes ?? []);
  for (const signed of all) {
    const { vote } = signed;
    if (vote.requestId !== requestId || !verifyVote(signed)) continue;
    const id = vote.key.toHex();
    if ((newest.get(id)?.castAtMs ?? 0) <= vote.castAtMs) newest.set(id, vote);
  }
  return [...newest.values()].sort((a, b) => a.castAtMs - b.castAtMs);
}

/** A request as the client API shows it; `names` are those that policies give to approval keys, by hex. */
export function requestInfo(ground: Ground, seen: Seen, names: ReadonlyMap<string, string>): FederatedRequestInfo {
  const { fleet, keeping } = ground;
  const { manifest } = fleet;
  const { request } = seen.signed;
  const keyId = keyIdOfBody(request.body);
  const key = keeping
    .keys()
    .find((one) => one.keyId === keyId || one.certificate.certificate.requestId === seen.requestId);
  const threshold = key?.certificate.certificate.threshold ?? manifest.threshold;
  const own = approvalSigner(ground.secret, manifest.federationId).publicKey.toHex();
  return {
    requestId: seen.requestId,
    federation: ground.name,
    kind: request.body.kind,
    purpose: request.body.kind === "release" ? request.body.purpose : null,
    // what the vault holds the accepted certificate of is done, whoever is away
    status:
      key?.certificate.certificate.requestId === seen.requestId
        ? "fulfilled"
        : overall(seen, manifest.servers.length, threshold),
    keyId: keyId ?? seen.held?.certificate?.certificate.keyId ?? key?.keyId ?? null,
    name: seen.held?.name ?? key?.name ?? null,
    createdAt: new Date(request.createdAtMs).toISOString(),
    expiresAt: new Date(request.expiresAtMs).toISOString(),
    requesterHex: request.requester.toHex(),
    words: digestWords(Uint8Array.fromHex(seen.requestId)),
    facts: factsOf(request, key?.certificate.certificate ?? null),
    servers: seen.answers.map(({ index, value, fault }) => ({
      index,
      url: urlOf(manifest, index),
      status: value?.status ?? (fault?.code === "not_found" ? "unknown" : "absent"),
      why: value?.why ?? (fault === null ? "" : reasonAt(manifest, index, fault)),
      explanations: (value?.explanations ?? []).map(({ decision, rule, why }) => ({ decision, rule, why })),
    })),
    votes: votesOf(seen).map(({ key: voter, verdict, reason, expiresAtMs }) => ({
      approver: names.get(voter.toHex()) ?? (voter.toHex() === own ? "you" : voter.toHex()),
      verdict,
      reason,
      expiresAt: new Date(expiresAtMs).toISOString(),
    })),
    culprits: (seen.held?.culprits ?? []).map(({ index, reason }) => ({
      index,
      url: urlOf(manifest, index),
      reason,
    })),
  };
}

/** All requests of this account, newest first. */
export async function listRequests(ground: Ground): Promise<readonly FederatedRequestInfo[]> {
  return (await gather(ground, "requester")).map((seen) => requestInfo(ground, seen, new Map()));
}

/**
 * Cancels a request of this device: the one final word on it.
 *
 * @throws Fault not_found, conflict
 */
export async function cancelRequest(ground: Ground, requestId: FederatedRequestId): Promise<FederatedRequestInfo> {
  const held = heldRequest(ground, requestId);
  if (held === null) {
    const seen = await look(ground, requestId);
    const { status } = requestInfo(ground, seen, new Map());
    if (status === "fulfilled" || ENDED.some((one) => one === status)) {
      throw new Fault("conflict", `this request is over: ${status}`, {
        hint: `keyhold request show ${requestId.slice(0, 16)}`,
        requestId,
      });
    }
    throw new Fault("conflict", "this request is not open on this device", {
      hint: "only the device that made a request ends it, so that there is one decision",
      requestId,
    });
  }
  await cancel(ground, held);
  const after = await look(ground, requestId).catch((error: unknown): Seen => {
    if (!(error instanceof Fault)) throw error;
    return { requestId, signed: held.request, answers: [], held };
  });
  const seen = { ...after, held: heldRequest(ground, requestId) ?? held };
  return { ...requestInfo(ground, seen, new Map()), status: "cancelled" };
}
